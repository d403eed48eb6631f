"""The WebSocket of real processes: the official SDK, the cases of the Open Responses suite, a stop and a restart."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from gateway.cli import main
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.paused_provider import WORDS, PausedProvider
from tests.e2e.restartable_gateway import pid_of, restartable
from tests.e2e.worker_processes import WORKERS
from tests.kit.reloading_gateway import LIMIT_S, Operator, config, operated, two_providers
from tests.kit.waiting import eventually

CLIENTS = int(os.environ.get("WEBSOCKET_CLIENTS", "20"))
ENDS_S = 25
LAST = ("error", "response.completed", "response.incomplete", "response.failed")


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    with two_providers() as thread:
        thread["a"].scenario = Scenario(text="Hello there.", between_events_s=0.02)
        yield thread


@pytest.fixture
def path(tmp_path: Path, providers: SimulatorThread) -> Path:
    return config(providers).write(tmp_path)


def connected(operator: Operator) -> ClientConnection:
    return connect(operator.gateway.url.replace("http", "ws", 1) + "/v1/responses", proxy=None, open_timeout=LIMIT_S)


def ask(socket: ClientConnection, given: object = "hi", **more: Any) -> dict[str, Any]:
    """Ask, and return the last event."""
    socket.send(json.dumps({"type": "response.create", "model": "assistant", "input": given, **more}))
    return last_of(socket)


def last_of(socket: ClientConnection) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(socket.recv(LIMIT_S))
        if event["type"] in LAST:
            return event


def close_code(socket: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(LIMIT_S)
    return int(closed.value.rcvd.code)


# --- clients --------------------------------------------------------------------------------------


@pytest.mark.slow("starts a gateway")
@pytest.mark.filterwarnings(
    "ignore:connect.. must be used as a context manager:DeprecationWarning"
)  # by the SDK itself
def test_official_sdk_holds_a_conversation(path: Path) -> None:
    with operated(path) as operator:
        client = openai.OpenAI(base_url=f"{operator.gateway.url}/v1", api_key="x")
        with client.responses.connect() as connection:
            previous: str | None = None
            for text in ("one", "two"):
                more = {"previous_response_id": previous} if previous else {}
                connection.response.create(model="assistant", input=text, **more)
                *_, last = _events(connection)
                assert last.type == "response.completed"
                assert last.response.output_text == "Hello there."
                assert last.response.previous_response_id == previous
                previous = last.response.id
            connection.response.create(model="assistant", input="x", previous_response_id="resp_unknown")
            (error,) = _events(connection)
            assert (error.type, error.error.code) == ("error", "previous_response_not_found")


def _events(connection: Any) -> list[Any]:
    events = []
    for event in connection:
        events.append(event)
        if event.type in LAST:
            break
    return events


@pytest.mark.slow("starts a gateway")
def test_cases_of_the_official_suite(path: Path) -> None:
    """By their ids in `src/lib/compliance-tests.ts` of Open Responses. `websocket-compact-new-chain` is not offered."""
    with operated(path) as operator:
        ids = []
        with connected(operator) as socket:  # websocket-response, websocket-sequential-responses
            for _ in range(2):
                event = ask(socket)
                assert event["type"] == "response.completed"
                ids.append(event["response"]["id"])
            # websocket-continuation
            event = ask(socket, "and?", previous_response_id=ids[-1], store=False)
            assert (event["type"], event["response"]["previous_response_id"]) == ("response.completed", ids[-1])
            kept = event["response"]["id"]
            # websocket-failed-continuation-evicts-cache
            assert ask(socket, [{"role": "nobody"}], previous_response_id=kept)["type"] == "error"
            gone = ask(socket, "again", previous_response_id=kept)
            assert gone["error"]["code"] == "previous_response_not_found"
            # websocket-previous-response-not-found
            missing = ask(socket, previous_response_id="resp_nonexistent")
            assert (missing["status"], missing["error"]["param"]) == (400, "previous_response_id")
            kept = ask(socket)["response"]["id"]
        with connected(operator) as socket:  # websocket-reconnect-store-false-recovery
            lost = ask(socket, "and?", previous_response_id=kept)
            assert lost["error"]["code"] == "previous_response_not_found"
            whole = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
            assert ask(socket, [*whole, {"role": "user", "content": "and?"}])["type"] == "response.completed"


# --- a stop and a restart -------------------------------------------------------------------------


@pytest.mark.slow("starts a process for each worker")
@pytest.mark.parametrize("workers", WORKERS)
def test_stop_finishes_a_turn_and_closes_with_1012(
    path: Path, providers: SimulatorThread, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = PausedProvider()
    patch = {"deployments": {"a": {"endpoint": f"{provider.origin}/v1"}}, "resilience": {"idle": "60s"}}
    path.write_text(config(providers, "a", 0, patch).text, "utf-8")
    with operated(path, workers) as operator, connected(operator) as busy, connected(operator) as idle:
        busy.send(json.dumps({"type": "response.create", "model": "assistant", "input": "hi"}))
        assert json.loads(busy.recv(LIMIT_S))["type"] == "response.created"
        assert sum(worker["running"] for worker in operator.ready()["workers"]["running"]) == 1
        assert operator.ready()["websocket"]["connections"] == 2
        assert operator.admin.get("/status").json()["websocket"] == {"connections": 2, "state_bytes": 0}
        assert main(["status", "--admin", operator.gateway.admin_url]) == 0
        assert "websocket: 2 connections, 0 bytes of answers kept" in capsys.readouterr().out
        operator.gateway.process.send_signal(signal.SIGTERM)
        assert close_code(idle) == 1012
        provider.goes_on.set()
        last = last_of(busy)
        assert (last["type"], last["response"]["output"][0]["content"][0]["text"]) == ("response.completed", WORDS)
        assert close_code(busy) == 1012
        assert operator.gateway.process.wait(ENDS_S) == 0
    provider.close()


class Talkers:
    """Clients that hold conversations, and come back on a new connection after each close."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._ends = threading.Event()
        self.turns, self.closes = 0, 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._talk, daemon=True) for _ in range(CLIENTS)]

    def _talk(self) -> None:
        while not self._ends.is_set():
            try:
                with connected(self._operator) as socket:
                    self._hold(socket)
            except Exception as error:  # whatever happens is a failure
                self.failures.append(repr(error))
                return

    def _hold(self, socket: ClientConnection) -> None:
        previous: str | None = None
        while not self._ends.is_set():
            begun = False
            try:
                more = {"previous_response_id": previous} if previous else {}
                socket.send(json.dumps({"type": "response.create", "model": "assistant", "input": "hi", **more}))
                event = {"type": ""}
                while event["type"] not in LAST:
                    event = json.loads(socket.recv(LIMIT_S))
                    begun = True
            except ConnectionClosed as closed:
                self.closes += 1
                if begun or closed.rcvd is None or closed.rcvd.code != 1012:
                    self.failures.append(f"begun: {begun}, {closed!r}")
                return
            if event["type"] != "response.completed":
                self.failures.append(str(event))
            previous = event["response"]["id"]  # type: ignore[index]
            self.turns += 1

    def __enter__(self) -> Talkers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(LIMIT_S)


@pytest.mark.slow("a load of seconds")
@pytest.mark.parametrize("workers", WORKERS)
def test_no_turn_that_has_begun_is_lost_in_a_restart(path: Path, workers: int) -> None:
    with restartable(path, workers) as (operator, state):
        with Talkers(operator) as talkers:
            for _ in range(2):
                before, pid = talkers.turns, pid_of(state)
                eventually(lambda: talkers.turns > before + CLIENTS, LIMIT_S)  # noqa: B023  # asked at once
                assert main(["restart", "--state", str(state)]) == 0
                assert pid_of(state) != pid
                after = talkers.turns
                eventually(lambda: talkers.turns > after + CLIENTS, LIMIT_S)  # noqa: B023  # asked at once
                assert not talkers.failures, talkers.failures[:3]
        assert not talkers.failures, talkers.failures[:3]
        assert talkers.closes >= CLIENTS


@pytest.mark.slow("starts a gateway")
def test_refused_handshake_is_an_answer_of_http(path: Path, providers: SimulatorThread) -> None:
    path.write_text(config(providers, "a", 0, {"websocket": False}).text, "utf-8")
    with operated(path) as operator:
        lines = {"connection": "upgrade", "upgrade": "websocket"}
        answer = httpx.get(f"{operator.gateway.url}/v1/responses", headers=lines, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (426, "websocket_not_offered")
