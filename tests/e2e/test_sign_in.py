"""Sign-in without keys, through real sockets: providers take only what the simulated issuers have issued."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit import SimulatedIssuers, SimulatorServer, SimulatorThread, load_simulators
from tests.e2e.worker_processes import WORKERS
from tests.kit.configs import Config
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway
from tests.kit.sign_ins import POOL, ROLE, subject
from tests.kit.waiting import eventually

ENVIRON = {
    "AZURE_TENANT_ID": "t-1",
    "AZURE_CLIENT_ID": "c-1",
    "AWS_ROLE_ARN": ROLE,
    "IDP_SECRET": "s3cret-of-the-client",
    "KEY": "sk-of-the-server",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "AZURE_AUTHORITY_HOST": "https://login.invalid",
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "azure_workload": ("azure", {"global_host": "accepted"}),
    "azure_managed": ("azure", {}),
    "aws_web_identity": ("bedrock", {"region": "eu-central-1"}),
    "aws_container": ("bedrock", {}),
    "aws_instance": ("bedrock", {"region": "eu-central-1", "assume": {"role": ROLE, "external_id": "x"}}),
    "google_metadata": ("vertex", {}),
    "google_federation": ("vertex", {"region": "europe-west3", "audience": POOL, "from": "aws_web_identity"}),
    "oauth": (
        "openai-compatible",
        {"url": "https://id.example.de/token", "territory": "DE", "client": "a", "client_secret": "${IDP_SECRET}"},
    ),
}
FAMILIES = {"azure": "azure", "aws": "aws", "google": "google", "oauth": "oauth"}
MODELS = {
    "azure": "gpt-6-luna",
    "bedrock": "amazon.nova-lite-v1:0",
    "vertex": "gemini-3.8-flash",
    "openai-compatible": "m",
}
PATHS = {
    "azure": "/openai/v1",
    "bedrock": "",
    "vertex": "/v1/projects/p/locations/europe-west3",
    "openai-compatible": "/v1",
}


class World:
    """The issuers, a provider for each kind of API, and the configuration of a gateway between them."""

    def __init__(self, issuers: SimulatedIssuers, providers: dict[str, SimulatorServer], folder: Path) -> None:
        self.issuers, self.providers, self.folder = issuers, providers, folder
        self.environ = ENVIRON | {"AZURE_FEDERATED_TOKEN_FILE": str(folder / "token")}
        self.environ |= {"AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token")}
        self.environ |= {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{issuers.url}/aws/v1/credentials"}
        self.environ |= {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "token")}
        (folder / "token").write_text(subject())

    def config(self, *patches: Any, kinds: tuple[str, ...] = tuple(KINDS)) -> Config:
        """Return a configuration with a deployment and a sign-in for each kind, all of the kind's name."""
        origins = {name: server.origin for name, server in self.providers.items()}
        names = {provider: {"provider": provider, "model": MODELS[provider]} for provider in PATHS}
        deployments = {
            kind: {
                **names[KINDS[kind][0]],
                "endpoint": origins[KINDS[kind][0]] + PATHS[KINDS[kind][0]],
                "sign_in": kind,
            }
            for kind in kinds
        }
        sources = {KINDS[kind][1].get("from") for kind in kinds} - {None}
        sign_ins = {
            kind: {"kind": kind, "endpoint": f"{self.issuers.url}/{kind.partition('_')[0]}", **KINDS[kind][1]}
            for kind in {*kinds, *sources}
        }
        config = config_of_one_region(deployments, {"sign_ins": sign_ins}, "resilience: {breaker: off}", *patches)
        for kind in kinds:
            config.data["deployments"][kind].pop("api_key", None)
        return config

    def calls(self, kind: str) -> int:
        """Return how many calls an issuer got."""
        return sum(call["kind"] == kind for call in self.issuers.calls)

    @contextmanager
    def serving(self, config: Config, workers: int = 1) -> Iterator[GatewayProcess]:
        """Serve a configuration."""
        path = config.write(self.folder)
        environ = self.environ | {"GATEWAY_STATE_DIR": str(self.folder / "state"), "GATEWAY_WORKERS": str(workers)}
        with running_gateway(path, environ) as gateway:
            yield gateway


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    issuers = SimulatedIssuers(3600.0)
    simulators = load_simulators().simulators
    providers = {name: SimulatorServer(simulators[name], name, accepts=issuers.knows) for name in PATHS}
    with SimulatorThread({"issuers": issuers, **providers}):  # type: ignore[dict-item]
        yield World(issuers, providers, tmp_path)


def ask(gateway: GatewayProcess, kind: str, **more: Any) -> httpx.Response:
    """Ask the assistant of a kind."""
    asked = {"model": kind, "messages": [{"role": "user", "content": "hello"}], **more}
    return httpx.post(
        f"{gateway.url}/v1/chat/completions", json=asked, headers={"authorization": f"Bearer {APP_KEY}"}, timeout=30
    )


def sign_ins(gateway: GatewayProcess) -> dict[str, Any]:
    """Return the state of the sign-ins."""
    states: dict[str, Any] = httpx.get(f"{gateway.admin_url}/readyz").json()["sign_ins"]
    return states


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_every_kind_signs_in_and_no_secret_is_shown(world: World, workers: int) -> None:
    with world.serving(world.config(), workers) as gateway:
        for kind in KINDS:
            answer = ask(gateway, kind)
            assert answer.status_code == 200, (kind, answer.text, gateway.lines)
        states = sign_ins(gateway)
        assert {name: it["state"] for name, it in states.items()} == dict.fromkeys(KINDS, "ok")
        assert all(3500 < it["seconds_left"] <= 3600 for it in states.values())
        assert states["aws_web_identity"]["deployments"] == ["aws_web_identity", "google_federation"]
        # One exchange for each sign-in, whatever deployments name it and however many workers there are.
        made = {kind: world.calls(kind) for kind in (*KINDS, "assume")}
        assert made == dict.fromkeys((*KINDS, "assume"), 1) | {"aws_instance": 3}
        world_config = world.folder / "gateway.yaml"
        world_config.write_text(world_config.read_text() + "\nlog: {sample: 0.5}\n")
        httpx.post(f"{gateway.admin_url}/reload").raise_for_status()
        assert ask(gateway, "oauth").status_code == 200
        assert world.calls("oauth") == 1
        metrics = httpx.get(f"{gateway.admin_url}/metrics").text
        counted = [line for line in metrics.splitlines() if "sign_in=" in line and "oauth" in line]
        assert sorted(line.partition("{")[0] for line in counted) == [
            "gateway_sign_in_exchanges_total",
            "gateway_sign_in_seconds_left",
        ]
        shown = f"{gateway.lines}{metrics}{states}"
    issued = [text for text in (*world.issuers._issued, *(it.secret for it in world.issuers._issued.values())) if text]
    kept = "".join(path.read_bytes().decode("latin-1") for path in world.folder.rglob("state/**/*") if path.is_file())
    for secret in (*issued, ENVIRON["IDP_SECRET"], (world.folder / "token").read_text()):
        assert secret not in shown
        assert secret not in kept


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_a_refused_token_is_replaced_once(world: World, workers: int) -> None:
    kinds = ("azure_managed", "aws_web_identity")
    config = world.config("resilience: {attempts: {total: 1}}", kinds=kinds)
    with world.serving(config, workers) as gateway:
        assert [ask(gateway, kind).status_code for kind in kinds] == [200, 200]
        world.issuers.revoke()
        for kind in kinds:
            assert ask(gateway, kind).status_code == 200, gateway.lines
            assert world.calls(kind) == 2
        # A provider that refuses every token: one forced exchange in 60 s.
        world.issuers.revoke()
        before = world.calls("azure_managed")
        statuses = [ask(gateway, "azure_managed").status_code for _ in range(3)]
        assert statuses[0] == 502
        assert set(statuses) == {502, 503}  # each worker finds out for itself
        assert world.calls("azure_managed") == before


@pytest.mark.slow
def test_an_outage_over_the_end_of_a_token_and_back(world: World) -> None:
    world.issuers.lifetime_s = 4.0
    world.issuers.faults["oauth"] = 500
    with world.serving(world.config(kinds=("oauth",)), workers=2) as gateway:
        refused = ask(gateway, "oauth")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "no_healthy_deployment"
        assert "no credential" in refused.json()["error"]["message"]
        assert sign_ins(gateway)["oauth"]["state"] == "none"
        assert "unreachable: status 500" in sign_ins(gateway)["oauth"]["error"]
        remedy = "check the state of the issuer, and the way to it: gateway network-policy lists its host"
        [failed] = [line for line in gateway.lines if isinstance(line, dict) and line["event"] == "sign_in_failed"]
        assert (failed["sign_in"], failed["deployments"], failed["error"]) == (
            "oauth",
            ["oauth"],
            "unreachable: status 500 (temporarily_unavailable)",
        )
        assert failed["detail"].startswith(f"its deployments are skipped: {remedy}")
        problems = httpx.get(f"{gateway.admin_url}/status").json()["problems"]
        assert any(
            it.startswith(f"the sign-in oauth has no token, for oauth: {failed['error']}: {remedy}") for it in problems
        )
        metrics = httpx.get(f"{gateway.admin_url}/metrics").text
        assert 'gateway_sign_in_seconds_left{sign_in="oauth"} 0' in metrics
        assert 'gateway_sign_in_exchanges_total{result="unreachable",sign_in="oauth"}' in metrics
        del world.issuers.faults["oauth"]
        eventually(lambda: ask(gateway, "oauth").status_code == 200)
        world.issuers.faults["oauth"] = "slow"
        eventually(lambda: ask(gateway, "oauth").status_code == 503)
        world.issuers.faults.clear()
        eventually(lambda: ask(gateway, "oauth").status_code == 200)
        assert sign_ins(gateway)["oauth"]["state"] == "ok"


@pytest.mark.slow
def test_a_step_without_a_token_is_skipped_and_the_next_one_answers(world: World) -> None:
    world.issuers.faults["oauth"] = 400
    config = world.config(kinds=("oauth", "azure_managed"))
    config.data["assistants"]["oauth"]["routes"]["world"] = ["oauth", "azure_managed"]
    with world.serving(config) as gateway:
        answer = ask(gateway, "oauth")
        assert answer.status_code == 200
        assert answer.headers["x-gateway-deployment"] == "azure_managed"
        assert sign_ins(gateway)["oauth"]["error"] == "refused: status 400 (invalid_request)"


@pytest.mark.slow
def test_a_refused_exchange_is_tried_again_when_the_subject_changes(world: World) -> None:
    (world.folder / "token").write_text(subject(-1))
    with world.serving(world.config(kinds=("azure_workload",))) as gateway:
        assert ask(gateway, "azure_workload").status_code == 503
        assert "AADSTS700024" in sign_ins(gateway)["azure_workload"]["error"]
        started = time.monotonic()
        (world.folder / "token").write_text(subject())
        eventually(lambda: ask(gateway, "azure_workload").status_code == 200)
        assert time.monotonic() - started < 20
        assert world.calls("azure_workload") == 2


@pytest.mark.slow
@pytest.mark.parametrize("ahead_s", [40.0, -40.0])
def test_a_clock_that_is_40_s_off_stops_no_kind_and_commands_name_it(world: World, ahead_s: float) -> None:
    world.issuers.ahead_s = ahead_s
    (world.folder / "token").write_text(subject(600))
    with world.serving(world.config()) as gateway:
        assert [ask(gateway, kind).status_code for kind in KINDS] == [200] * len(KINDS), gateway.lines
    path = str(world.folder / "gateway.yaml")
    doctor = as_a_process("doctor", "--network", "--config", path, environ=world.environ)
    assert "the issuer of sign_ins.azure_managed" in doctor.stdout
    assert "run NTP: the ends of tokens depend on the clock" in doctor.stdout
    # A token with an absolute end that is over by this machine's clock is not used, and the error names the clock.
    world.issuers.ahead_s, world.issuers.lifetime_s = -40.0, 30.0
    doctor = as_a_process("doctor", "--network", "--config", path, environ=world.environ)
    assert "the token has already ended: compare the clock of this machine with that of the issuer" in doctor.stdout
    assert "check that the host is the issuer, and the clock of this machine; until then requests skip" in doctor.stdout


@pytest.mark.slow
def test_one_of_two_deployments_refuses_the_token_that_both_use(world: World) -> None:
    azure = load_simulators().simulators["azure"]
    refusing = SimulatorServer(azure, "azure", accepts=lambda incoming: False)
    config = world.config(kinds=("azure_managed",))
    with SimulatorThread({"refusing": refusing}):
        other = {**config.data["deployments"]["azure_managed"], "endpoint": f"{refusing.origin}/openai/v1"}
        assistants = {
            "refusing": {"routes": {"world": ["refusing"]}},
            "both": {"routes": {"world": ["refusing", "azure_managed"]}},
        }
        config = config.merge({"deployments": {"refusing": other}, "assistants": assistants})
        with world.serving(config) as gateway:
            assert ask(gateway, "azure_managed").status_code == 200
            answer = ask(gateway, "both")
            assert (answer.status_code, answer.headers["x-gateway-deployment"]) == (200, "azure_managed")
            for _ in range(3):
                assert ask(gateway, "refusing").status_code in (502, 503)
                assert ask(gateway, "azure_managed").status_code == 200
            assert world.calls("azure_managed") == 2  # one forced exchange, for all deployments
            state = sign_ins(gateway)["azure_managed"]
            assert (state["state"], state["deployments"]) == ("ok", ["azure_managed", "refusing"])
            log = [line for line in gateway.lines if isinstance(line, dict)]
            assert "sign_in_failed" not in {line["event"] for line in log}


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_a_reload_during_an_exchange(world: World, workers: int) -> None:
    config = world.config(kinds=("oauth", "azure_managed"))
    path = world.folder / "gateway.yaml"
    with world.serving(config, workers) as gateway:
        assert [ask(gateway, kind).status_code for kind in ("oauth", "azure_managed")] == [200, 200]
        # The exchange of a changed sign-in is running: its previous token, which is still valid, is not sent.
        world.issuers.faults["oauth"] = "slow"
        changed = config.merge({"sign_ins": {"oauth": {"audience": "another"}}})
        path.write_text(changed.text)
        httpx.post(f"{gateway.admin_url}/reload").raise_for_status()
        answer = ask(gateway, "oauth")
        assert (answer.status_code, "no credential" in answer.text) == (503, True)
        # Another reload leaves that exchange alone, and the token of the other sign-in.
        path.write_text(changed.merge({"log": {"sample": 0.5}}).text)
        httpx.post(f"{gateway.admin_url}/reload").raise_for_status()
        assert ask(gateway, "azure_managed").status_code == 200
        world.issuers.faults.clear()
        eventually(lambda: ask(gateway, "oauth").status_code == 200)
        assert world.calls("azure_managed") == 1
        assert world.issuers.calls[-1]["fields"]["audience"] == "another"  # type: ignore[index]


@pytest.mark.slow
def test_a_request_that_waits_for_a_token_takes_the_sign_in_of_a_reload(world: World) -> None:
    config = world.config(kinds=("azure_workload", "azure_managed"))
    with world.serving(config) as gateway, ThreadPoolExecutor() as pool:
        assert [ask(gateway, kind).status_code for kind in ("azure_workload", "azure_managed")] == [200, 200]
        world.issuers.faults["azure_workload"] = "slow"  # it is waited for during 5 s
        world.issuers.revoke()
        asked = world.providers["azure"].received
        waiting = pool.submit(ask, gateway, "azure_workload")
        eventually(lambda: world.providers["azure"].received > asked)
        changed = config.merge({"deployments": {"azure_workload": {"sign_in": "azure_managed"}}})
        (world.folder / "gateway.yaml").write_text(changed.text)
        httpx.post(f"{gateway.admin_url}/reload").raise_for_status()
        answer = waiting.result(60)
        assert (answer.status_code, answer.headers.get("x-gateway-deployment")) == (200, "azure_workload"), answer.text


@pytest.mark.slow
def test_commands_sign_in_by_themselves(world: World) -> None:
    kinds = ("azure_managed", "google_federation")
    path, suite = world.folder / "gateway.yaml", world.folder / "suite.yaml"
    path.write_text(world.config(kinds=kinds).text)
    for kind in kinds:
        asked = as_a_process("doctor", "--ask", kind, "--config", str(path), "--yes", environ=world.environ)
        assert f"{kind}, text" in asked.stdout, asked
        assert "no credential" not in asked.stdout + asked.stderr
    sums = {"version": 1, "language": "en", "items": {"sums": [{"ask": "1 + 1?", "number": 2}]}}
    (world.folder / "sums.yaml").write_text(json.dumps(sums))
    suite.write_text("{version: 1, name: keyless, performance: {sets: [{name: sums, file: sums.yaml}]}}")
    command = ("evaluate", "--config", str(path), "--suite", str(suite), "--candidates", ",".join(kinds))
    more = ("--assistant", kinds[0], "--region", "world", "--out", str(world.folder / "out"))
    evaluated = as_a_process(*command, *more, environ=world.environ)
    assert evaluated.returncode == 0, evaluated
    assert "no credential" not in (world.folder / "out" / "report.json").read_text()
    # Each command makes one exchange, and only at the issuers that it needs.
    assert world.calls("azure_managed") == 2
