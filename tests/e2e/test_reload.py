"""Config changes in a running gateway: what takes effect, how soon, and that no request fails."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.changes.live_config import POLL_S
from providers.testkit.server import SimulatorThread
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.config_cases import position_of
from tests.kit.configs import Config, key_hash
from tests.kit.reloading_gateway import LIMIT_S, NAMES, Load, Operator, config, operated, with_key
from tests.kit.waiting import eventually

EFFECT_S = 2.0
CLIENT_KEY = "gk-moved"


@pytest.fixture
def operator(path: Path) -> Iterator[Operator]:
    with operated(path) as operator:
        yield operator


# --- no request fails -------------------------------------------------------------------------------


@dataclass
class Period:
    """The time in which a config may have been active: from when it was readable until all workers had the next one."""

    deployment: str
    began: float
    ended: float


def switch_often(operator: Operator, pair: SimulatorThread, times: int, load: Load) -> dict[str, Period]:
    """Activate many configs, in each way that exists. Return the period of each table."""
    version = operator.version()
    periods = {version: Period("a", 0.0, float("inf"))}
    load.wait_for_answers_by(version)
    for number in range(1, times + 1):
        name = NAMES[number % 2]
        before, began = version, time.monotonic()
        operator.replace(config(pair, name, number))
        if number % 3 == 1:
            assert operator.admin.post("/reload").json()["result"] == "activated"
        elif number % 3 == 2:
            operator.gateway.process.send_signal(signal.SIGHUP)
        operator.wait_for_another(before)
        version = operator.version()
        periods[before].ended = time.monotonic()
        periods[version] = Period(name, began, float("inf"))
        load.wait_for_answers_by(version)
    return periods


@pytest.mark.slow("a load of seconds")
@pytest.mark.parametrize(
    ("workers", "times"), [(2, 12), *(pytest.param(workers, 50, marks=pytest.mark.full) for workers in (1, 2))]
)
def test_config_changes_under_load_fail_no_request(path: Path, pair: SimulatorThread, workers: int, times: int) -> None:
    with operated(path, workers) as operator:
        load, periods = Load(operator.gateway.url), {}

        def operate() -> None:
            periods.update(switch_often(operator, pair, times, load))

        asyncio.run(load.run(operate))
        state = operator.ready()
        assert operator.gateway.stop() == 0
    assert load.failures == []
    for began, ended, table, name in load.answers:
        period = periods[table]
        assert period.deployment == name
        assert period.began <= ended
        assert began <= period.ended
    assert len(periods) == times + 1
    assert state["last_failed_reload"] is None


# --- every way to change a file -------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_edit_takes_effect_within_two_seconds(path: Path, pair: SimulatorThread, workers: int) -> None:
    with operated(path, workers) as operator:
        for number in (1, 2, 3):
            version, name = operator.version(), NAMES[number % 2]
            operator.replace(config(pair, name, number))
            took = operator.wait_for_another(version)
            assert operator.answered_by() == name
            if took < EFFECT_S:
                return
            # A busy machine takes longer to compile. The limit grows by that time only.
            assert took < EFFECT_S / 2 + 2 * compile_s(path)


def compile_s(path: Path) -> float:
    """Return how long a compile in its own process takes at present."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "gateway.cli", "check", str(path)], capture_output=True, check=True)
    return time.monotonic() - began


@pytest.mark.slow("writes a file piece by piece")
def test_slowly_written_file_is_read_when_it_is_complete(operator: Operator, pair: SimulatorThread) -> None:
    for number in range(0, 20, 2):
        version = operator.version()
        # Each half is a config that compiles. Only the continuing changes show that it is not complete.
        half = config(pair, "a", number + 2).text.splitlines(keepends=True) + ["# more to come\n"] * 12
        complete_text = config(pair, "b", number + 1).text + "".join(f"# {line}\n" for line in range(40))
        paused_s, wrote_at = 0.0, time.monotonic()
        with operator.path.open("w", encoding="utf-8") as file:
            for line in half:
                file.write(line)
                file.flush()
                time.sleep(0.02)  # the writer is faster than the interval of the file watch
                now = time.monotonic()
                paused_s, wrote_at = max(paused_s, now - wrote_at), now
            file.seek(0)
            file.truncate()
            file.write(complete_text)
        paused_s = max(paused_s, time.monotonic() - wrote_at)
        eventually(lambda: operator.version() not in ("", version) and operator.answered_by() == "b", LIMIT_S)  # noqa: B023  # called at once
        operator.gateway.wait_for("config_activated", config_version=operator.version())
        lines = [line for line in operator.gateway.lines if isinstance(line, dict)]
        # If the machine delayed the writer for longer than the interval of the file watch, the file looked complete.
        if paused_s < POLL_S / 2:
            break
        operator.gateway.lines.clear()
        version = operator.version()
        operator.replace(config(pair, "a", number))
        operator.wait_for_another(version)
        operator.gateway.lines.clear()
    assert [line["event"] for line in lines if line["event"].startswith("config_")] == ["config_activated"]


def test_invalid_file_changes_nothing_and_is_reported(operator: Operator, pair: SimulatorThread) -> None:
    version = operator.version()
    text = config(pair, "a, nobody", 1, "region: {}").text
    operator.replace(text)
    logged = operator.gateway.wait_for("config_rejected")
    assert logged["level"] == "error"
    assert (logged["cause"], logged["config_version"], logged["errors"]) == ("file", version, 2)
    assert any("unknown deployment 'nobody'" in line for line in logged["findings"])
    assert operator.answered_by() == "a"
    state = operator.ready()
    assert state["status"] == "ready"
    failed = state["last_failed_reload"]
    errors = [finding for finding in failed["findings"] if finding["severity"] == "error"]
    assert [(finding["line"], finding["column"]) for finding in errors] == [
        position_of(text, '"nobody"'),
        position_of(text, "region: {}"),
    ]
    assert errors[1]["hint"] == "did you mean 'regions'?"
    operator.replace(config(pair, "b", 1))
    operator.wait_for_another(version)
    assert operator.answered_by() == "b"
    assert operator.ready()["last_failed_reload"] is None


@pytest.mark.slow("waits for polls of the file")
def test_retargeted_symlink_is_a_change(tmp_path: Path, pair: SimulatorThread) -> None:
    """As a ConfigMap is mounted: the file is a link through `..data`, and that link is replaced."""
    for number, name in enumerate(NAMES):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "gateway.yaml").write_text(config(pair, name).text, "utf-8")
    (tmp_path / "..data").symlink_to("..0")
    path = tmp_path / "gateway.yaml"
    path.symlink_to("..data/gateway.yaml")
    with operated(path) as operator:
        version = operator.version()
        assert operator.answered_by() == "a"
        (tmp_path / "..tmp").symlink_to("..1")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        operator.wait_for_another(version)
        assert operator.answered_by() == "b"


@pytest.mark.slow("waits for polls of the file")
def test_changed_secret_file_is_used(path: Path, pair: SimulatorThread, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-old", "utf-8")
    path.write_text(config(pair, "a", 0, with_key(f"${{file:{secret}}}")).text, "utf-8")
    with operated(path) as operator:
        assert operator.answered_by() == "a"
        version = operator.version()
        secret.write_text("sk-new\n", "utf-8")
        logged = operator.gateway.wait_for("config_activated")
        assert (logged["config_version"], logged["changed"]) == (version, ["a", "b"])
        assert operator.answered_by() == "a"
        secret.unlink()
        assert operator.gateway.wait_for("config_activated")["warnings"] > logged["warnings"]
        assert str(secret) in operator.ready()["deployments"]["off"]["a"]
        shown = f"{operator.gateway.lines} {operator.ready()}"
    keys = [request.headers["authorization"] for request in pair["a"].requests[-2:]]
    assert keys == ["Bearer sk-old", "Bearer sk-new"]
    assert "sk-old" not in shown
    assert "sk-new" not in shown


# --- reload on request ----------------------------------------------------------------------------


@pytest.mark.slow
def test_reload_is_logged_with_a_summary_of_changes(operator: Operator, pair: SimulatorThread) -> None:
    version = operator.version()
    operator.replace(config(pair, "b, a", 7, "deployments: {a: {enabled: false}}"))
    operator.gateway.process.send_signal(signal.SIGHUP)
    logged = operator.gateway.wait_for("config_activated")
    assert (logged["cause"], logged["previous"], logged["changed"]) == ("sighup", version, ["a"])
    assert (logged["routes"], logged["sections"]) == (["assistant/default"], ["resilience"])
    assert logged["duration_ms"] > 0
    assert logged["config_version"] == operator.version() != version


@pytest.mark.slow
def test_admin_listener_returns_the_result_of_a_reload(operator: Operator, pair: SimulatorThread) -> None:
    version = operator.version()
    same = operator.admin.post("/reload")
    assert (same.status_code, same.json()["result"], same.json()["config_version"]) == (200, "activated", version)
    assert same.json()["changes"] == {}
    operator.replace("version: 1\nassistants: [\n")
    refused = operator.admin.post("/reload")
    assert (refused.status_code, refused.json()["result"], refused.json()["config_version"]) == (
        422,
        "rejected",
        version,
    )
    (finding,) = refused.json()["findings"]
    assert finding["file"] == str(operator.path)
    assert (finding["line"], finding["severity"]) == (3, "error")
    operator.replace(config(pair, "b"))
    done = operator.admin.post("/reload").json()
    assert (done["result"], done["cause"]) == ("activated", "admin")
    answers = done["changes"].pop("answers")
    assert {(one["kind"], one["before"], one["after"]) for one in answers} == {("changed", "a", "b")}
    assert done["changes"] == {"routes": ["assistant/default"]}
    assert operator.answered_by() == "b"


@pytest.mark.slow("compiles several changes")
def test_change_that_needs_a_restart_is_refused(operator: Operator, pair: SimulatorThread) -> None:
    simulated = "{provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us}"
    demo = {"version": 1, "demo": True, "regions": config(pair).data["regions"]}
    assistants = "assistants: {assistant: {routes: {default: [a]}}}"
    operator.replace(Config(demo).merge(assistants, f"deployments: {{a: {simulated}}}"))
    refused = operator.admin.post("/reload")
    assert refused.status_code == 422
    assert "`demo: true` takes any key" in refused.json()["findings"][-1]["message"]
    assert operator.answered_by() == "a"


# --- a running request ----------------------------------------------------------------------------


class HangingProvider:
    """A provider that accepts requests and fails them when the test requires it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT_S)
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def hanging_request(self, ask: Callable[[], Future[httpx.Response]]) -> Iterator[Future[httpx.Response]]:
        """While the block runs, this request hangs. At its end the connection breaks."""
        pending = ask()
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(LIMIT_S)
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            yield pending

    def close(self) -> None:
        self._listener.close()


MOVING = Config.parse("""
version: 1
assistants: {assistant: {routes: {de: [a, b], fr: [c]}}}
regions:
  de: {territories: [DE], boundary: [DE]}
  fr: {territories: [FR], boundary: [DE, FR]}
blocked: [KP]
deployments:
  a: {provider: openai-compatible, model: m, stores: DE, processes: DE, api_key: k}
  b: {provider: openai-compatible, model: m, stores: DE, processes: DE, api_key: k}
  c: {provider: openai-compatible, model: m, stores: DE, processes: DE, api_key: k}
location: {signals: [edge_header], edges: [{from: [127.0.0.0/8], country: CF-IPCountry}]}
resilience: {attempts: {per_deployment: 1}, first_token: 50s, breaker: off}
""").merge({"clients": {"app": {"keys": [key_hash(CLIENT_KEY)]}}})


def moving(pair: SimulatorThread, hanging: HangingProvider) -> Config:
    """Return a config whose first step hangs, and whose next one is `b`."""
    origins = {"a": hanging.origin, "b": pair["b"].origin, "c": pair["a"].origin}
    return MOVING.merge({"deployments": {name: {"endpoint": f"{origin}/v1"} for name, origin in origins.items()}})


# The change, the status of the request that runs meanwhile, and why `b` is not asked.
CHANGES: dict[str, tuple[str, int, str]] = {
    "nothing that matters": ("cors: {origins: ['https://app.example']}", 200, ""),
    "another place is blocked": ("blocked: [KP, SY]", 200, ""),
    "disabled": ("deployments: {b: {enabled: false}}", 502, "disabled"),
    "not in the route": ("assistants: {assistant: {routes: {de: [a]}}}", 502, "no longer routes there"),
    "outside the boundary": (
        "{regions: {de: {boundary: [FR]}}, assistants: {assistant: {routes: {de: null}}}}",
        451,
        "",
    ),
    "another model": ("deployments: {b: {model: n}}", 502, "does not permit this destination"),
    "the vendor does not serve the place": ("deployments: {b: {available: [FR]}}", 502, "does not serve"),
    "the caller is in another region": (
        "regions: {de: {territories: [AT]}, fr: {territories: [FR, DE]}}",
        502,
        "locates the caller in another region",
    ),
    "the caller's place is blocked": ("{regions: {de: {territories: [AT]}}, blocked: [KP, DE]}", 451, ""),
    "the client is gone": (f"clients: {{app: null, renamed: {{keys: ['{key_hash(CLIENT_KEY)}']}}}}", 401, ""),
    "the key is revoked": (f"clients: {{app: {{keys: ['{key_hash('gk-other')}']}}}}", 401, ""),
}


@pytest.fixture(scope="module")
def moved(
    pair: SimulatorThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Operator, HangingProvider]]:
    hanging = HangingProvider()
    path = moving(pair, hanging).write(tmp_path_factory.mktemp("moved"))
    with operated(path) as operator:
        yield operator, hanging
    hanging.close()


@pytest.mark.parametrize(
    ("change", "stream"), [*((change, False) for change in CHANGES), ("nothing that matters", True), ("disabled", True)]
)
def test_new_attempt_of_a_running_request_must_be_allowed_by_the_current_config(
    moved: tuple[Operator, HangingProvider], pair: SimulatorThread, change: str, stream: bool
) -> None:
    operator, hanging = moved
    patch, status, reason = CHANGES[change]
    before = moving(pair, hanging)
    operator.replace(before)
    assert operator.admin.post("/reload").json()["result"] == "activated"
    asked = pair["b"].received
    headers = {"cf-ipcountry": "DE", "authorization": f"Bearer {CLIENT_KEY}"}
    with ThreadPoolExecutor(1) as thread:
        with hanging.hanging_request(
            lambda: thread.submit(operator.client.post, CHAT, json=body(stream=stream), headers=headers)
        ) as pending:
            operator.replace(before.merge(patch))
            done = operator.admin.post("/reload").json()
            assert done["result"] == "activated", done
        answer = pending.result(LIMIT_S)
    line = operator.gateway.wait_for("request", request_id=answer.headers["x-request-id"])
    assert answer.status_code == status
    assert (line["client"], line["region"]) == ("app", "de")
    if status == 200:
        assert answer.headers["x-gateway-deployment"] == "b"
        return
    assert [attempt["deployment"] for attempt in line["attempts"]] == ["a"]
    assert reason in line.get("skipped", {}).get("b", "")
    assert pair["b"].received == asked


EDGE = {"from": ["127.0.0.0/8"], "country": "CF-IPCountry"}
ELSEWHERE = EDGE | {"from": ["10.0.0.0/8"]}
BY_EDGE = {"signals": ["edge_header"], "edges": [EDGE]}
CLAIM = {"issuer": "i", "audience": "a", "algorithms": ["HS256"], "secret": "a secret of thirty-two characters"}
# Headers that the first config locates in Germany, and the status for the same headers under another config.
BROUGHT: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str], int]] = {
    "an edge": ({"unknown": "de"}, BY_EDGE, {"cf-ipcountry": "FR"}, 502),
    "a claim": (
        BY_EDGE,
        BY_EDGE | {"signals": ["claim", "edge_header"], "claim": CLAIM},
        {"cf-ipcountry": "DE", "x-gateway-claim": "a.b.c"},
        403,
    ),
}


@pytest.mark.parametrize("brought", BROUGHT)
def test_signal_that_only_the_current_config_reads_counts_for_a_new_attempt(
    moved: tuple[Operator, HangingProvider], pair: SimulatorThread, brought: str
) -> None:
    """The first config did not read the signal. A new request would be located elsewhere or refused."""
    operator, hanging = moved
    location, new_location, sent, status = BROUGHT[brought]
    before = moving(pair, hanging).replace(location=location)
    operator.replace(before)
    assert operator.admin.post("/reload").json()["result"] in ("activated", "unchanged")
    asked = pair["b"].received
    headers = {"authorization": f"Bearer {CLIENT_KEY}", **sent}
    with ThreadPoolExecutor(1) as thread:
        with hanging.hanging_request(
            lambda: thread.submit(operator.client.post, CHAT, json=body(), headers=headers)
        ) as answer:
            operator.replace(before.replace(location=new_location))
            done = operator.admin.post("/reload").json()
            assert done["result"] == "activated", done
        assert answer.result(LIMIT_S).status_code == status
    line = operator.gateway.wait_for("request", request_id=answer.result().headers["x-request-id"])
    assert line["region"] == "de"
    assert pair["b"].received == asked


@pytest.mark.parametrize(
    ("remaining_edge", "status"), [(ELSEWHERE, 451), pytest.param(EDGE, 200, marks=pytest.mark.slow)]
)
def test_request_gets_no_further_attempt_after_its_edge_was_removed(
    moved: tuple[Operator, HangingProvider], pair: SimulatorThread, remaining_edge: dict[str, Any], status: int
) -> None:
    operator, hanging = moved
    before = moving(pair, hanging)
    operator.replace(before.merge({"location": {"edges": [EDGE, ELSEWHERE]}}))
    assert operator.admin.post("/reload").json()["result"] == "activated"
    headers = {"cf-ipcountry": "DE", "authorization": f"Bearer {CLIENT_KEY}"}
    with ThreadPoolExecutor(1) as thread:
        with hanging.hanging_request(
            lambda: thread.submit(operator.client.post, CHAT, json=body(), headers=headers)
        ) as pending:
            operator.replace(before.merge({"location": {"edges": [remaining_edge]}}))
            assert operator.admin.post("/reload").json()["result"] == "activated"
        assert pending.result(LIMIT_S).status_code == status
