"""A real config at simulated providers: `gateway serve --simulated` and `gateway simulate --config`, over sockets."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.adapter import answers_chats
from providers.auth import NoAuth
from providers.conformance.subject import subjects_of
from providers.registry import load_registry
from providers.sites import PROJECT
from providers.testkit.simulator import load_simulators
from tests.kit.configs import BASE, key_hash
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway

SIMULATED = ("serve", "--simulated")
CONFIG = BASE.replace(clients={"app": {"keys": [key_hash(APP_KEY)], "budgets": [{"tokens": 500, "per": "day"}]}}).merge("""
assistants: {assistant: {routes: {eu: [chatgpt-eu, own-eu]}}}
deployments:
  own-eu:
    {provider: vllm, model: house, endpoint: "https://gpu.example/v1", stores: DE, processes: DE, api_key: "${GPU_KEY}",
     tls: {ca: /nowhere/ca.pem}, proxy: {url: "http://${PROXY_USER}:${PROXY_PASSWORD}@proxy.example:3128", territory: DE, insecure: true}}
location:
  edges: [{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge-Auth, value: "${EDGE_SECRET}"}}]
""")
"""Four regions, an edge with a secret, a budget, and deployments whose keys are not set."""
CALLS_OUT = """
exporters: {traces: {endpoint: "https://192.0.2.1/v1/traces", stores: DE, processes: DE, regions: [eu, default],
    headers: {authorization: "${OTLP}"}}}
usage: {currency: EUR, alerts: {at: [1], webhook: {url: "https://192.0.2.2/alert", territory: DE}}}
stores:
  database: {url: "postgresql://gateway@192.0.2.3/gateway", password: "${DATABASE_PASSWORD}", territory: DE}
  valkey: {url: "rediss://192.0.2.4:6379", password: "${VALKEY_PASSWORD}", territory: DE}
location:
  signals: [claim, api_key, edge_header]
  claim: {issuer: "https://login.example", audience: gateway, algorithms: [ES256], jwks: "https://192.0.2.5/keys"}
secrets: {pepper: "${PEPPER}", consent: "${CONSENT}", identity: "${IDENTITY}"}
cell: {territory: DE, homes: {}}
regions: {cn: {transit: [DE]}, us: {transit: [DE]}}
"""
"""Everything else that a gateway may call. The addresses are reserved for documentation."""
SECRETS = {"EDGE_SECRET": "edge-secret-of-tests"}


def ask(url: str, country: str = "DE", secret: str = SECRETS["EDGE_SECRET"], **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": country, "x-edge-auth": secret}
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **more}
    return httpx.post(f"{url}/v1/chat/completions", headers=headers, json=body, timeout=30)


@pytest.mark.parametrize(
    "workers", ["1", pytest.param("2", marks=pytest.mark.slow("starts a process for each worker"))]
)
def test_real_config_serves_its_regions_edges_and_budgets_without_provider_keys(workers: str, tmp_path: Path) -> None:
    config = CONFIG.write(tmp_path)
    environ = {**SECRETS, "GATEWAY_WORKERS": workers, "GATEWAY_STATE_DIR": str(tmp_path / "state")}
    with running_gateway(config, environ, SIMULATED) as gateway:
        answers = {country: ask(gateway.url, country) for country in ("CN", "DE", "US", "JP")}
        assert {country: answer.headers.get("x-gateway-deployment") for country, answer in answers.items()} == {
            "CN": "qwen-cn",
            "DE": "chatgpt-eu",
            "US": "chatgpt-us",
            "JP": "gemini",
        }
        assert ask(gateway.url, "CU").status_code == 451, "blocked"
        assert ask(gateway.url, secret="another-secret-of-tests").status_code == 451, "not the edge"
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json={}).status_code == 401
        assert next(answer for _ in range(40) if (answer := ask(gateway.url)).status_code != 200).status_code == 429
        ready, status = (httpx.get(f"{gateway.admin_url}/{name}").json() for name in ("readyz", "status"))
        assert ready["simulated"] is True
        assert status["simulated"] is True
        shown = as_a_process("status", environ={"GATEWAY_STATE_DIR": str(tmp_path / "state")})
        assert "simulated: no answer is of a model" in shown.stdout, shown.stderr
        assert [line["detail"] for line in gateway.lines if isinstance(line, dict) and line["event"] == "simulated"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["simulated"], "apart from real usage"


def test_faults_are_injected_by_the_command_and_while_it_runs(tmp_path: Path) -> None:
    command = ("simulate", "--fault-at", "chatgpt-eu", "503", "--first-token", "0.05")
    with running_gateway(CONFIG.write(tmp_path), SECRETS, command) as gateway:
        first = ask(gateway.url)
        assert first.headers["x-gateway-deployment"] == "own-eu"
        assert first.elapsed.total_seconds() > 0.05
        httpx.delete(f"{gateway.admin_url}/faults")
        fault = {"deployment": "own-eu", "fault": "429"}
        assert httpx.put(f"{gateway.admin_url}/faults", json=fault).status_code == 200
        httpx.post(f"{gateway.admin_url}/deployments/chatgpt-eu/resume")
        assert ask(gateway.url).headers["x-gateway-deployment"] == "chatgpt-eu"


_WATCH = """
import os, sys

def note(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        address = given[1] if event != "socket.getaddrinfo" else given[:2]
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {address!r}\\n")

sys.addaudithook(note)
"""


@pytest.mark.slow("starts an interpreter for each compile")
def test_no_connection_leaves_this_machine(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(_WATCH))
    config, watched = CONFIG.merge(CALLS_OUT).write(tmp_path), tmp_path / "watched"
    secrets = {name: f"{name}-secret-of-at-least-32-characters" for name in ("PEPPER", "CONSENT", "IDENTITY")}
    environ = {"PYTHONPATH": str(tmp_path), "WATCHED": str(watched)}
    with running_gateway(config, {**SECRETS, **secrets, **environ}, SIMULATED) as gateway:
        assert [ask(gateway.url, country).status_code for country in ("CN", "DE", "US", "JP")] == [200] * 4
        # An edit is compiled in a process of its own, and served by the same simulators.
        config.write_text(config.read_text() + "blocked_by: https://law.example\n")
        gateway.wait_for("config_activated")
        assert ask(gateway.url).status_code == 200
        assert any(isinstance(line, dict) and "cannot be fetched" in line.get("detail", "") for line in gateway.lines)
    calls = watched.read_text().splitlines()
    outside = [call for call in calls if "'127.0.0.1'" not in call and "socket.connect '" not in call]
    assert calls, "the audit hook is installed"
    assert not outside


def test_config_that_could_not_be_served_is_not_rehearsed_either(tmp_path: Path) -> None:
    outside = {
        "deployments": {"own-eu": {"proxy": {"url": "http://proxy.example:3128", "territory": "US", "insecure": True}}}
    }
    with pytest.raises(AssertionError, match=r"the gateway ended.*proxy"):
        running_gateway(CONFIG.merge(outside).write(tmp_path), SECRETS, SIMULATED).__enter__()


def test_deployment_without_a_key_in_the_config_is_skipped_as_in_production(tmp_path: Path) -> None:
    config = CONFIG.merge({"deployments": {"chatgpt-eu": {"api_key": None}}}).write(tmp_path)
    with running_gateway(config, SECRETS, SIMULATED) as gateway:
        assert ask(gateway.url).headers["x-gateway-deployment"] == "own-eu"


def _every_site() -> dict[str, dict[str, Any]]:
    """Return a deployment at every site of every provider that answers chats, and for each provider without sites one at an own server.

    Another one has no key, where the server needs none.
    """
    deployments: dict[str, dict[str, Any]] = {}
    simulators = load_simulators().simulators
    for name, adapter in sorted(load_registry().adapters.items()):
        if not answers_chats(adapter):
            continue
        own = {"provider": name, "model": subjects_of(adapter, simulators[name])[0].model}
        for site in adapter.sites.values():
            needs: dict[str, Any] = (
                {"project": "a-project"} if site.wants_project_in_host or PROJECT in site.base_path else {}
            )
            needs["attests"] = [min(alternatives) for alternatives in site.requires]
            deployments[f"{name}-{site.name}"] = {**own, **needs, "endpoint": site.name, "api_key": "${KEY}"}
        if not adapter.sites:
            server = {**own, "endpoint": "https://model.example", "stores": "any", "processes": "any"}
            deployments[name] = {**server, "api_key": "${KEY}"}
            if isinstance(adapter.auth, NoAuth):
                deployments[f"{name}-open"] = server
    return deployments


@pytest.mark.slow("serves a deployment at every site")
def test_every_site_of_the_catalogue_can_be_rehearsed(tmp_path: Path) -> None:
    deployments = _every_site()
    assert len(deployments) > 50
    config = config_of_one_region({}).merge(
        {"assistants": {name: {"routes": {"world": [name]}} for name in deployments}, "deployments": deployments}
    )
    with running_gateway(config.write(tmp_path), {}, SIMULATED) as gateway:
        answers = {name: ask(gateway.url, model=name) for name in deployments}
    assert {name: answer.text for name, answer in answers.items() if answer.status_code != 200} == {}
