"""SIGTERM: running requests finish, idle connections are closed, and new ones are refused."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from gateway.assembly.application import Gateway
from gateway.cli import main
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.paused_provider import WORDS, PausedProvider
from tests.e2e.worker_processes import WORKERS, paused
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import BASE, table_of
from tests.kit.reloading_gateway import LIMIT_S, Operator, config, operated
from tests.kit.waiting import eventually

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
# Less than the grace time, so the process did not wait for it.
ENDS_S = 25


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread) -> Path:
    pair["a"].scenario = Scenario(text=WORDS, between_events_s=0.1)
    return config(pair).write(tmp_path)


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def idle_connection(operator: Operator) -> socket.socket:
    """Return a connection that has had its answer and is kept alive."""
    connection = socket.create_connection(address(operator.gateway.url), LIMIT_S)
    connection.sendall(HEALTH)
    answer = b""
    while not answer.endswith(b'"ok"}'):
        answer += connection.recv(65536)
    assert b"connection: close" not in answer.lower()
    return connection


def _is_refused(operator: Operator) -> bool:
    try:
        httpx.get(f"{operator.gateway.url}/healthz", trust_env=False)
    except httpx.ConnectError:
        return True
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        # It was connected between the moment when the queue of the listener was empty and the listener's close, after
        # which the operating system resets it.
        return False
    return False


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow("starts a process for each worker"))])
def test_running_request_finishes_and_idle_connections_close(path: Path, pair: SimulatorThread, workers: int) -> None:
    provider = PausedProvider()
    endpoint = {"endpoint": f"{provider.origin}/v1"}
    patch = {"deployments": {"a": endpoint}, "resilience": {"idle": "60s"}}
    path.write_text(config(pair, "a", 0, patch).text, "utf-8")
    served = operated(path, workers)
    with closing(provider), served as operator, idle_connection(operator) as idle:
        with operator.client.stream("POST", CHAT, json=body(stream=True)) as response:
            pieces = response.iter_bytes()
            first = next(pieces)
            operator.gateway.process.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            # Each worker stops accepting connections when the signal reaches it.
            eventually(lambda: _is_refused(operator), LIMIT_S)
            state = operator.admin.get("/readyz")
            assert (state.status_code, state.json()["status"]) == (503, "draining")
            assert [worker["draining"] for worker in state.json()["workers"]["running"]].count(True) >= 1
            provider.goes_on.set()
            content = first + b"".join(pieces)
        events = events_of(httpx.Response(200, content=content))
        assert events[-1] == "[DONE]"
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events[:-1]) == WORDS
        assert operator.gateway.process.wait(ENDS_S) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_new_connections_are_answered_during_a_stop(path: Path, workers: int) -> None:
    with operated(path, workers) as operator, ExitStack() as crowd_open:
        gateway, to = operator.gateway, address(operator.gateway.url)
        ready = [line for line in gateway.lines if isinstance(line, dict) and line["event"] == "worker_ready"]
        # The operating system accepts these connections. The processes find them together with the signal.
        with ExitStack() as all_paused:
            for pid in (*(line["pid"] for line in ready), gateway.process.pid):
                all_paused.enter_context(paused(pid))
            crowd = [crowd_open.enter_context(socket.create_connection(to, LIMIT_S)) for _ in range(40)]
            for one in crowd[::2]:
                one.sendall(HEALTH)
            gateway.process.send_signal(signal.SIGTERM)
        for one in crowd[1::2]:
            one.sendall(HEALTH)
        assert {one.recv(65536)[:13] for one in crowd} == {b"HTTP/1.1 200 "}
        assert gateway.process.wait(ENDS_S) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_connections_are_accepted_and_closed_after_their_answers_during_the_delay(path: Path, workers: int) -> None:
    with operated(path, workers, GATEWAY_DRAIN_DELAY_S="60") as operator, idle_connection(operator) as idle:
        process = operator.gateway.process
        process.send_signal(signal.SIGTERM)
        eventually(lambda: operator.admin.get("/readyz").json()["status"] == "draining", LIMIT_S)
        eventually(lambda: httpx.get(f"{operator.gateway.url}/readyz", trust_env=False).status_code == 503, LIMIT_S)
        for connection in (idle, socket.create_connection(address(operator.gateway.url), LIMIT_S)):
            with connection:
                connection.sendall(HEALTH)
                answer = b"".join(iter(lambda: connection.recv(65536), b""))  # noqa: B023  # read at once
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        assert operator.client.post(CHAT, json=body()).headers["connection"] == "close"
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_S) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_drain_command_waits_for_requests_and_shortens_the_stop(
    path: Path, pair: SimulatorThread, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = PausedProvider()
    patch = {"deployments": {"a": {"endpoint": f"{provider.origin}/v1"}}, "resilience": {"idle": "60s"}}
    path.write_text(config(pair, "a", 0, patch).text, "utf-8")
    with closing(provider), operated(path, workers, GATEWAY_DRAIN_DELAY_S="0.5") as operator:
        command = ["drain", "--admin", operator.gateway.admin_url, "--timeout"]
        with operator.client.stream("POST", CHAT, json=body(stream=True)) as response:
            pieces = response.iter_bytes()
            next(pieces)
            assert main([*command, "0"]) == 3
            assert capsys.readouterr().err.splitlines() == ["1 request runs", "gateway: 1 still run after 0 s"]
            provider.goes_on.set()
            assert b"[DONE]" in b"".join(pieces)
        assert main([*command, "1m"]) == 0
        assert capsys.readouterr().out.endswith("no request runs\n")
        assert operator.gateway.stop() == 0


def test_drain_without_a_gateway_names_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "--state", str(tmp_path)]) == 2
    assert "name its admin listener with --admin URL" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_shutdown_leaves_nothing_open(path: Path, workers: int) -> None:
    """Python warns about files and sockets that are not closed, and from 3.13 on about databases."""
    environment = {"GATEWAY_STATE_DIR": str(path.parent / "state"), "PYTHONWARNINGS": "error::ResourceWarning"}
    with operated(path, workers, **environment) as operator:
        operator.client.post(CHAT, json=body()).raise_for_status()
        assert operator.gateway.stop() == 0
        with pytest.raises(AssertionError, match="the gateway ended"):
            operator.gateway.wait_for("another line")
        assert not [line for line in operator.gateway.lines if isinstance(line, str)]


@pytest.mark.parametrize("workers", WORKERS)
def test_stream_that_outlives_the_grace_time_ends_with_an_error(
    path: Path, pair: SimulatorThread, workers: int
) -> None:
    pair["a"].scenario = Scenario(text=" ".join([WORDS] * 50), between_events_s=0.1)
    with operated(path, workers, GATEWAY_GRACE_S="1") as operator:
        with operator.client.stream("POST", CHAT, json=body(stream=True)) as response:
            pieces = response.iter_bytes()
            first = next(pieces)
            operator.gateway.process.send_signal(signal.SIGTERM)
            content = first + b"".join(pieces)
        events = events_of(httpx.Response(200, content=content))
        assert events[-1]["error"]["code"] == "stream_interrupted"
        assert operator.gateway.process.wait(ENDS_S) == 0
        line = operator.gateway.wait_for("request")
        assert (line["outcome"], line["status"], line["code"]) == ("interrupted", 200, "stream_interrupted")
        assert not any("exception" in line for line in operator.gateway.lines if isinstance(line, dict))


async def test_draining_process_is_not_ready() -> None:
    gateway = Gateway(table_of(BASE))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://x") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
        gateway.drain()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
        assert (await client.get("/healthz")).status_code == 200


async def test_public_listener_does_not_serve_admin_paths() -> None:
    gateway = Gateway(table_of(BASE))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://x") as client:
        for method, where in (("GET", "/metrics"), ("POST", "/reload"), ("GET", "/reload"), ("GET", "/explain")):
            assert (await client.request(method, where)).status_code == 404
