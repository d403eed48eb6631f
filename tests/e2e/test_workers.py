"""`gateway serve --workers N`: several real processes on one socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.scenario import Scenario, Stall
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_for
from tests.e2e.worker_processes import HEADERS, paused, state_of
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts many processes")

LIMITED = {**HEADERS, "authorization": "Bearer gk-limited"}
LONG = Scenario(text="one two three four five six seven eight nine ten eleven twelve", between_events_s=0.1)
LIMIT_S = 30


@pytest.fixture
def config(providers: SimulatorThread, tmp_path: Path) -> Path:
    for name in SITES:
        providers[name].scenario = Scenario()
    return config_for(providers).write(tmp_path)


@contextmanager
def two_workers(config: Path, **environ: str) -> Iterator[GatewayProcess]:
    with running_gateway(config, {**KEYS, "GATEWAY_WORKERS": "2", **environ}) as gateway:
        yield gateway


def lines_of(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in gateway.lines if isinstance(line, dict) and line["event"] == event]


def pids_of(gateway: GatewayProcess) -> dict[int, int]:
    """Return the process ID of each worker slot, the last one if there were several."""
    return {line["worker"]: line["pid"] for line in lines_of(gateway, "worker_ready")}


def state_for_probe(gateway: GatewayProcess) -> tuple[int, str, list[int]]:
    """Return the status, its word and the missing workers of the admin listener's readiness probe."""
    answer = httpx.get(f"{gateway.admin_url}/readyz", trust_env=False, timeout=LIMIT_S)
    state = answer.json()
    return answer.status_code, state["status"], state["workers"]["missing"]


def ask(gateway: GatewayProcess, headers: dict[str, str] = HEADERS) -> httpx.Response:
    """Return an answer over a new connection."""
    return httpx.post(f"{gateway.url}{CHAT}", json=body(), headers=headers, trust_env=False, timeout=LIMIT_S)


@contextmanager
def running_stream(gateway: GatewayProcess, providers: SimulatorThread) -> Iterator[Iterator[bytes]]:
    """Yield the pieces of a slow stream whose first piece has arrived. At the end the stream must be complete."""
    providers["eu"].scenario = LONG
    with (
        httpx.Client(base_url=gateway.url, headers=HEADERS, trust_env=False, timeout=LIMIT_S) as client,
        client.stream("POST", CHAT, json=body(stream=True)) as response,
    ):
        pieces = response.iter_bytes()
        first = next(pieces)
        yield pieces
        events = events_of(httpx.Response(200, content=first + b"".join(pieces)))
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events[:-1]) == LONG.text


def test_one_process_has_no_supervisor(gateway: GatewayProcess) -> None:
    parents = subprocess.run(["ps", "-A", "-o", "ppid="], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert str(os.getpid()) in parents
    assert str(gateway.process.pid) not in parents
    assert "workers" not in lines_of(gateway, "listening")[0]


def test_each_worker_answers(config: Path) -> None:
    with two_workers(config) as gateway:
        assert lines_of(gateway, "listening")[0]["workers"] == 2
        pids = pids_of(gateway)
        assert set(pids) == {1, 2}
        for pid in pids.values():
            with paused(pid):
                assert ask(gateway).status_code == 200
        assert gateway.stop() == 0
        assert {line["status"] for line in lines_of(gateway, "worker_exited")} == {0}


def test_death_of_a_worker_ends_no_other_request(config: Path, providers: SimulatorThread) -> None:
    with two_workers(config) as gateway, ExitStack() as open_stream:
        table = lines_of(gateway, "listening")[0]["config_version"]
        staying, dying = pids_of(gateway).values()
        with paused(dying):
            open_stream.enter_context(running_stream(gateway, providers))
        # No worker uses the current file. The new worker must serve the same config as the others.
        config.write_text("broken: true\n", "utf-8")
        os.kill(dying, signal.SIGKILL)
        assert gateway.wait_for("worker_exited", pid=dying)["status"] == -signal.SIGKILL
        assert ask(gateway).status_code == 200
        assert gateway.wait_for("worker_ready")["pid"] not in (staying, dying)
        open_stream.close()
        with paused(staying):
            answer = ask(gateway)
        assert (answer.status_code, answer.headers["x-gateway-config"]) == (200, table)
        assert len(lines_of(gateway, "listening")) == 1


def test_hung_worker_is_logged_and_replaced(config: Path) -> None:
    with two_workers(config) as gateway:
        answering, hung = (pids_of(gateway)[seat] for seat in (1, 2))
        assert state_for_probe(gateway) == (200, "ready", [])
        os.kill(hung, signal.SIGSTOP)
        assert state_for_probe(gateway) == (200, "degraded", [2])
        with paused(answering):
            assert state_for_probe(gateway) == (503, "not ready", [1, 2])
        line = gateway.wait_for("worker_hung", pid=hung)
        assert (line["worker"], line["level"]) == (2, "error")
        assert gateway.wait_for("worker_exited", pid=hung)["status"] == -signal.SIGKILL
        eventually(lambda: pids_of(gateway)[2] != hung)
        eventually(lambda: state_for_probe(gateway) == (200, "ready", []))
        with paused(pids_of(gateway)[1]):
            assert ask(gateway).status_code == 200
        assert gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_running_stream_finishes_before_all_workers_stop(
    config: Path, providers: SimulatorThread, number: signal.Signals
) -> None:
    with two_workers(config) as gateway:
        with running_stream(gateway, providers):
            gateway.process.send_signal(number)
        assert gateway.process.wait(LIMIT_S) == 0
        with pytest.raises(httpx.ConnectError):
            ask(gateway)


def test_workers_end_within_a_second_when_their_supervisor_is_killed_and_the_next_start_waits(
    config: Path, providers: SimulatorThread, tmp_path: Path
) -> None:
    providers["eu"].scenario = Scenario(faults=((Stall(after_events=2), 1.0),))
    state = {"GATEWAY_STATE_DIR": str(tmp_path / "state")}
    with two_workers(config, **state) as gateway:
        pids = set(pids_of(gateway).values())
        with (
            httpx.Client(base_url=gateway.url, headers=HEADERS, trust_env=False, timeout=LIMIT_S) as client,
            client.stream("POST", CHAT, json=body(stream=True)) as response,
        ):
            pieces = response.iter_bytes()
            first = next(pieces)
            gateway.process.kill()
            assert {gateway.wait_for("supervisor_gone")["pid"] for _ in pids} == pids
            events = events_of(httpx.Response(200, content=first + b"".join(pieces)))
        assert "error" in events[-1], "the stream ends with an error"
        # The workers hold the lock until they end.
        with two_workers(config, **state) as successor:
            assert {state_of(pid) for pid in pids} == {"Z"}
            providers["eu"].scenario = Scenario()
            assert ask(successor).status_code == 200


def test_hung_request_does_not_keep_a_worker_without_its_supervisor(config: Path, providers: SimulatorThread) -> None:
    providers["eu"].scenario = Scenario(faults=((Stall(after_events=0), 1.0),))
    with two_workers(config) as gateway:
        pids = set(pids_of(gateway).values())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ask, gateway)
            eventually(lambda: providers["eu"].received > 0)
            gateway.process.kill()
            killed_at = time.monotonic()
            eventually(lambda: {state_of(pid) for pid in pids} == {"Z"})
            assert time.monotonic() - killed_at < LIMIT_S / 3, "a second on a quiet machine; the request would hang on"
            assert running.exception(LIMIT_S) is not None or running.result().status_code >= 500


def add_limited_client(config: Path, limits: str) -> Path:
    """Add a client with these limits to a config file."""
    client = {"keys": [key_hash("gk-limited")], "limits": Config.parse(limits).data}
    return Config.parse(config.read_text("utf-8")).merge({"clients": {"limited": client}}).write(config.parent)


def test_workers_share_a_client_limit(config: Path) -> None:
    with two_workers(add_limited_client(config, "{rpm: 5}")) as gateway:
        first, second = pids_of(gateway).values()
        statuses = []
        for other in (first, second):
            with paused(other):
                statuses += [ask(gateway, LIMITED) for _ in range(4)]
    assert [answer.status_code for answer in statuses] == [200] * 5 + [429] * 3
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in statuses] == list("43210000")


def test_running_requests_of_a_dead_worker_are_released_and_answered_ones_count(
    config: Path, providers: SimulatorThread
) -> None:
    with two_workers(add_limited_client(config, "{rpm: 5, concurrent: 2}")) as gateway:
        staying, dying = pids_of(gateway).values()
        providers["eu"].scenario = Scenario(faults=((Stall(after_events=2), 1.0),))
        began = time.monotonic()
        with ExitStack() as streams, httpx.Client(base_url=gateway.url, headers=LIMITED, trust_env=False) as client:
            with paused(staying):
                pieces = []
                for _ in range(2):
                    stream = streams.enter_context(client.stream("POST", CHAT, json=body(stream=True)))
                    pieces.append(stream.iter_raw())
                    assert next(pieces[-1])
            with paused(dying):
                assert ask(gateway, LIMITED).headers["retry-after"] == "1"
            providers["eu"].scenario = Scenario()
            os.kill(dying, signal.SIGKILL)
            gateway.wait_for("worker_ready")
            answers = []
            while not answers or answers[-1].status_code == 200:
                answers.append(ask(gateway, LIMITED))
            # One permit is refilled every twelve seconds. A slow machine may take that long to start a worker.
            come_back = int((time.monotonic() - began) / 12) + 1
    assert answers[-1].status_code == 429
    assert 3 <= len(answers) - 1 <= 2 + come_back
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 12


def test_admin_listener_has_the_requests_and_events_of_all_workers(config: Path) -> None:
    with two_workers(config) as gateway:
        ids = {ask(gateway).headers["x-request-id"] for _ in range(6)}
        found = httpx.get(f"{gateway.admin_url}/requests", trust_env=False, timeout=LIMIT_S).json()["requests"]
        assert {one["request_id"] for one in found} == ids
        assert all(len(one["attempts"]) == 1 for one in found)
        assert [one["at"] for one in found] == sorted((one["at"] for one in found), reverse=True)
        with (
            httpx.Client(trust_env=False, timeout=LIMIT_S) as client,
            client.stream("GET", f"{gateway.admin_url}/events?kinds=config") as events,
        ):
            lines = events.iter_lines()
            assert next(lines) == ":"
            httpx.post(f"{gateway.admin_url}/reload", trust_env=False, timeout=LIMIT_S)
            assert next(line for line in lines if line.startswith("event:")) == "event: config"
            assert json.loads(next(lines).removeprefix("data: "))["loaded"]["cause"] == "admin"
        assert httpx.get(f"{gateway.admin_url}/faults", trust_env=False, timeout=LIMIT_S).status_code == 404
