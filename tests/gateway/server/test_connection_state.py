"""Random events on one connection: its states follow the tables, and every request gets its own response, in order."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.server.connection_state import (
    BODY_TRANSITIONS,
    CLOSED,
    COMPLETE,
    DISCARDING,
    INPUT_TRANSITIONS,
    LOST,
    QUEUED,
    REQUEST_TRANSITIONS,
    RESPONDING,
    RUNNING,
    BodyState,
    InputState,
    RequestState,
    next_state,
)
from gateway.server.http_protocol import ConnectionProtocol
from gateway.server.request_cycle import RequestCycle
from gateway.server.uvicorn_server import server_config
from tests.gateway.server.memory_transport import Wire

TABLES: list[tuple[type[IntEnum], dict[Any, tuple[Any, ...]]]] = [
    (InputState, INPUT_TRANSITIONS),
    (RequestState, REQUEST_TRANSITIONS),
    (BodyState, BODY_TRANSITIONS),
]


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_table_has_a_row_for_each_state_and_reaches_each_one_from_the_first(
    states: type[IntEnum], table: dict[Any, tuple[Any, ...]]
) -> None:
    assert list(table) == list(states)
    first, *others = states
    reached, found = set(), [first]
    while found:
        reached.add(state := found.pop())
        found += [following for following in table[state] if following not in reached]
    assert reached == {first, *others}


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_transition_that_is_not_in_the_table_is_an_error(
    states: type[IntEnum], table: dict[Any, tuple[Any, ...]]
) -> None:
    for current in states:
        for following in states:
            if following in table[current]:
                assert next_state(table, current, following) is following
            else:
                with pytest.raises(RuntimeError, match="cannot be followed"):
                    next_state(table, current, following)


# --- a connection, its client and its application -------------------------------------------------


class Client(Wire):
    """The client's end: reads the responses, and has sent a message for each."""

    def __init__(self) -> None:
        super().__init__()
        self.responses: list[tuple[int, bytes]] = []
        self.is_reading_response = False
        self.wrote_after_close = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def on_message_begin(self) -> None:
        assert not self.is_reading_response
        self.is_reading_response, self._body = True, b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.is_reading_response = False
        if (status := self._parser.get_status_code()) >= 200:
            self.responses.append((status, self._body))

    def write(self, data: Any) -> None:
        if self.closed:
            self.wrote_after_close = True
        elif data:
            self._parser.feed_data(bytes(data))


@dataclass
class Handler:
    """The application's side of one request."""

    number: int
    commands: asyncio.Queue[tuple[str, bytes]] = field(default_factory=asyncio.Queue)
    started: bool = False
    has_read: bool = False
    ended: bool = False
    received: bytes = b""
    disconnected: bool = False


class Scenario:
    """One connection. Messages are numbered; the response to each contains its number."""

    def __init__(self) -> None:
        config = server_config(self.app, 1)
        config.load()
        self.state = ServerState()
        self.handlers: list[Handler] = []
        self.client = Client()
        self.connection = ConnectionProtocol(config, self.state, {})
        self.cycles: list[RequestCycle] = []
        self.requests = 0
        self.bodies: dict[int, bytes] = {}
        self.complete_requests: set[int] = set()
        # The message that the client has begun and not completed.
        self.rest = b""
        self.has_erred = False
        self.is_lost = False
        self.last_kept = True
        self.is_accepted = False
        self.connection.connection_made(self.client)

    async def app(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        handler = Handler(int(scope["path"][1:]))
        self.handlers.append(handler)
        self.cycles.append(send.__self__)  # type: ignore[attr-defined]  # a method of its cycle
        while not handler.ended and not handler.disconnected:
            kind, argument = await handler.commands.get()
            if kind == "receive":
                message = await receive()
                handler.received += message.get("body", b"")
                handler.disconnected = message["type"] == "http.disconnect"
            elif kind == "start":
                await send({"type": "http.response.start", "status": 200, "headers": []})
            else:
                handler.ended = kind == "end"
                await send({"type": "http.response.body", "body": argument, "more_body": kind == "piece"})

    # Events from the client.

    def feed(self, data: bytes) -> None:
        if data and not self.client.closed and not self.is_lost:
            self.connection.data_received(data)

    def send_head(self, body_bytes: int, keep: bool) -> None:
        """The head of the next request; the rest of the previous one comes first."""
        self.send_rest()
        number = self.requests
        self.requests += 1
        body = b"%d " % number * body_bytes
        line = b"" if keep else b"connection: close\r\n"
        head = b"POST /%d HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (number, line, len(body))
        self.bodies[number] = body
        self.is_accepted = not (self.client.closed or self.is_lost or self.has_erred) and self.last_kept
        self.last_kept = keep and self.last_kept
        self.feed(head)
        self.rest = body
        if self.is_accepted and not body:
            self.complete_requests.add(number)

    def send_rest(self) -> None:
        rest, self.rest = self.rest, b""
        if rest:
            self.feed(rest)
            if self.is_accepted and not (self.client.closed or self.is_lost or self.has_erred):
                self.complete_requests.add(self.requests - 1)

    def send_piece(self) -> None:
        if len(self.rest) > 1:
            piece, self.rest = self.rest[:1], self.rest[1:]
            self.feed(piece)

    def send_garbage(self) -> None:
        # The rest of a body would swallow it.
        self.send_rest()
        # After the last request of a connection the parser drops what comes.
        self.has_erred = self.has_erred or (self.last_kept and not self.client.closed)
        self.feed(b"\x00 no HTTP\r\n\r\n")

    def end(self, how: str) -> None:
        if self.is_lost:
            return
        if how == "eof":
            self.connection.eof_received()
            self.client.close()
        self.is_lost = True
        self.connection.connection_lost(ConnectionResetError() if how == "reset" else None)
        self.client.closed = True

    def time_out(self, how: str) -> None:
        if how == "head" and self.connection._head_timer is not None:
            self.has_erred = True
            self.connection._on_head_timeout()
        elif how == "idle" and self.connection.idle_since is not None and not self.is_lost:
            self.connection.idle_since -= self.connection.timeout_keep_alive
            self.connection.timeout_keep_alive_handler()

    # Events from the application.

    def command(self, kind: str) -> None:
        handler = self.handlers[-1] if self.handlers else None
        if handler is None or handler.ended:
            return
        content = b"[%d]" % handler.number if kind == "piece" else b""
        if kind in ("piece", "end") and not handler.started:
            handler.commands.put_nowait(("start", b""))
            handler.started = True
        if kind == "receive":
            if handler.has_read:
                # A second time it would wait for the client to leave.
                return
            handler.has_read = True
        if kind == "start":
            if handler.started:
                return
            handler.started = True
        handler.commands.put_nowait((kind, content))

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    # The invariants.

    def check(self) -> None:
        numbers = [handler.number for handler in self.handlers]
        assert numbers == sorted(set(numbers)), "a request began twice, or out of order"
        active = [cycle for cycle in self.cycles if cycle.state in (RUNNING, RESPONDING)]
        assert len(active) <= 1, "two requests are answered at once"
        assert all(cycle.state in (COMPLETE, LOST) for cycle in self.cycles[:-1])
        assert all(cycle.state is QUEUED for cycle, _ in self.connection._queue)
        bodies = [body for status, body in self.client.responses if status == 200]
        for number, body in enumerate(bodies):
            word = b"[%d]" % number
            assert body == word * (len(body) // len(word)), "a response has bytes of another"
        assert [status for status, _ in self.client.responses[:-1]] == [200] * (len(self.client.responses) - 1)
        if self.client.responses and self.client.responses[-1][0] != 200:
            assert self.client.closed, "a connection stays open after an error"
        assert not self.client.wrote_after_close
        for handler in self.handlers:
            assert self.bodies[handler.number].startswith(handler.received)
        if self.has_erred and not self.client.closed:
            assert self.connection._input is DISCARDING


EVENTS = st.one_of(
    st.tuples(st.just("head"), st.integers(0, 3), st.sampled_from([True, True, True, True, False])),
    st.tuples(st.just("body"), st.sampled_from(["rest", "rest", "piece"])),
    st.tuples(st.just("app"), st.sampled_from(["start", "piece", "end", "end", "receive"])),
    st.tuples(st.just("settle")),
    st.tuples(st.just("settle")),
    st.sampled_from(
        [("garbage",), ("end", "eof"), ("end", "reset"), ("time", "head"), ("time", "idle"), ("shutdown",)]
    ),
)


async def play(scenario: Scenario, event: tuple[Any, ...]) -> None:
    match event:
        case ("head", body_bytes, keep):
            scenario.send_head(body_bytes, keep)
        case ("body", "rest"):
            scenario.send_rest()
        case ("body", "piece"):
            scenario.send_piece()
        case ("app", kind):
            scenario.command(kind)
            await scenario.settle()
        case ("settle",):
            await scenario.settle()
        case ("garbage",):
            scenario.send_garbage()
        case ("end", how):
            scenario.end(how)
        case ("time", how):
            scenario.time_out(how)
        case ("shutdown",):
            scenario.last_kept = False
            if not scenario.is_lost:
                scenario.connection.shutdown()


@pytest.mark.parametrize("is_known", [True, False])
@given(events=st.lists(EVENTS, max_size=30))
async def test_random_events_keep_the_invariants_of_a_connection(is_known: bool, events: list[tuple[Any, ...]]) -> None:
    scenario = Scenario()
    if is_known:
        # Enough requests to have the next head recognised.
        for event in (("head", 1, True), ("body", "rest"), ("app", "end"), ("settle",)) * 2:
            await play(scenario, event)
    for event in events:
        await play(scenario, event)
        scenario.check()
    # Every request that came whole before an error is answered, as long as the client is there.
    for _ in range(len(scenario.complete_requests) + 1):
        await scenario.settle()
        scenario.command("end")
        await scenario.settle()
        scenario.check()
    if not scenario.is_lost:
        answered = sum(status == 200 for status, _ in scenario.client.responses)
        assert scenario.complete_requests <= set(range(answered)), "a request was lost"
        assert scenario.client.closed or not scenario.has_erred
    scenario.end("reset")
    assert scenario.connection._input is CLOSED
    await scenario.settle()
    for handler in scenario.handlers:
        if not handler.ended:
            handler.commands.put_nowait(("receive", b""))
    await scenario.settle()
    assert all(cycle.state in (COMPLETE, LOST) for cycle in scenario.cycles)
    assert all(handler.ended or handler.disconnected for handler in scenario.handlers)
    assert not scenario.state.tasks
    assert not scenario.state.connections
