"""One request on its connection: the fast paths of its answer write the same bytes as the general path."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.response_headers import pairs_of
from gateway.server.request_cycle import RequestCycle
from tests.gateway.server.memory_transport import Wire

HEAD_TEXT = st.from_regex(r"[!-~][ -~]{0,20}", fullmatch=True)
NAMES = st.from_regex(r"x-[a-z-]{1,12}", fullmatch=True)
LINES = st.lists(st.builds(lambda name, value: f"{name}: {value}".encode(), NAMES, HEAD_TEXT), max_size=6)
DATES = st.sampled_from([[], [(b"date", b"Sat, 21 Nov 2026 00:00:00 GMT")], [(b"date", b"x"), (b"server", b"y")]])


@dataclass
class Connection:
    """A connection that records the answers of a cycle."""

    default: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_head: bool = False
    is_old: bool = False
    keep_alive: bool = True
    answered: int = 0

    def __post_init__(self) -> None:
        self.transport = Wire()
        self.flow = FlowControl(self.transport)
        self.tasks: set[Any] = set()
        self.server_state = SimpleNamespace(default_headers=self.default)
        self.cycle = RequestCycle(cast(HttpToolsProtocol, self), self.flow, self.is_head, self.is_old, self.keep_alive)

    def on_response_complete(self) -> None:
        self.answered += 1

    @property
    def outcome(self) -> tuple[bytes, bool, int]:
        return bytes(self.transport.written), self.transport.closed, self.answered


CONNECTIONS = st.fixed_dictionaries(
    {"default": DATES, "is_head": st.booleans(), "is_old": st.booleans(), "keep_alive": st.booleans()}
)


async def start(connection: Connection, lines: list[bytes]) -> None:
    await connection.cycle.send({"type": "http.response.start", "status": 200, "headers": pairs_of(lines)})


async def generally(connection: Connection, lines: list[bytes], *pieces: bytes) -> None:
    send = connection.cycle.send
    await start(connection, lines)
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1], "more_body": False})


@given(kind=CONNECTIONS, lines=LINES, body=st.binary(max_size=20))
async def test_answer_sent_at_once_equals_the_general_path(
    kind: dict[str, Any], lines: list[bytes], body: bytes
) -> None:
    short, general = Connection(**kind), Connection(**kind)
    is_done = short.cycle.respond(lines, body)
    await generally(general, [*lines, b"content-length: %d" % len(body)], body)
    assert is_done == (not kind["is_head"])
    assert short.outcome == (general.outcome if is_done else (b"", False, 0))


@given(kind=CONNECTIONS, lines=LINES, pieces=st.lists(st.binary(max_size=20), max_size=5))
async def test_stream_sent_at_once_equals_the_general_path(
    kind: dict[str, Any], lines: list[bytes], pieces: list[bytes]
) -> None:
    short, general = Connection(**kind), Connection(**kind)
    cycle = short.cycle
    await start(short, lines)
    assert [*map(cycle.write, pieces)] == [True] * len(pieces)
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
    await generally(general, lines, *pieces, b"")
    assert short.outcome == general.outcome
    assert not cycle.write(b"more")


@given(kind=CONNECTIONS, lines=LINES, texts=st.lists(st.binary(max_size=20), max_size=5))
async def test_texts_written_by_a_writer_equal_the_general_path(
    kind: dict[str, Any], lines: list[bytes], texts: list[bytes]
) -> None:
    short, general, silence = Connection(**kind), Connection(**kind), SimpleNamespace(is_silent=True)
    assert short.cycle.text_writer(b"<", b">", silence) is None, "the response has not begun"
    await start(short, lines)
    assert short.cycle.write(b"a")
    write = short.cycle.text_writer(b"<", b">", silence)
    assert (write is None) == (kind["is_head"] or kind["is_old"])
    for text in texts:
        assert write(text) if write is not None else short.cycle.write(b"<%b>" % text)
    assert silence.is_silent == (write is None or not texts)
    await short.cycle.send({"type": "http.response.body", "body": b"", "more_body": False})
    await generally(general, lines, b"a", *(b"<%b>" % text for text in texts), b"")
    assert short.outcome == general.outcome
    assert write is None or not write(b"more")


async def test_a_writer_of_texts_writes_nothing_to_a_slow_client() -> None:
    connection, silence = Connection(), SimpleNamespace(is_silent=True)
    await start(connection, [])
    assert connection.cycle.write(b"a")
    write = connection.cycle.text_writer(b"<", b">", silence)
    assert write is not None
    before = bytes(connection.transport.written)
    connection.flow.pause_writing()
    assert not write(b"b")
    assert (bytes(connection.transport.written), silence.is_silent) == (before, True)
    connection.flow.resume_writing()
    assert write(b"b")
    connection.cycle.lose()
    assert not write(b"c")


@given(kind=CONNECTIONS, lines=LINES, data=st.binary(min_size=1, max_size=20))
async def test_complete_stream_sent_at_once_equals_the_general_path(
    kind: dict[str, Any], lines: list[bytes], data: bytes
) -> None:
    short, general = Connection(**kind), Connection(**kind)
    is_done = short.cycle.respond_stream(lines, data)
    await generally(general, lines, data, b"")
    assert is_done == (not kind["is_head"] and not kind["is_old"])
    assert short.outcome == (general.outcome if is_done else (b"", False, 0))


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("respond", ["respond", "respond_stream"])
def test_answer_over_the_high_water_limit_is_not_sent_at_once(beyond: int, respond: str) -> None:
    connection = Connection()
    assert getattr(connection.cycle, respond)([], bytes(HIGH_WATER_LIMIT + beyond)) == (not beyond)
    assert bool(connection.transport.written) == (not beyond)


@pytest.mark.parametrize("line", [b"x: a\r\nx-evil: b", b"x: a\rb", b"x: a\nb", b"x: a\0b", b"x: a\r\n"])
async def test_header_value_cannot_inject_another_header(line: bytes) -> None:
    connection = Connection()
    for respond in (connection.cycle.respond, connection.cycle.respond_stream):
        with pytest.raises(RuntimeError, match="line break"):
            respond([b"x-a: b", line], b"x")
    with pytest.raises(RuntimeError, match="line break"):
        await generally(connection, [b"x-a: b", line], b"x")
    assert connection.outcome == (b"", False, 0)
    # Nothing has been sent yet, so the client gets an error response.
    assert connection.cycle.respond([b"x-a: b"], b"x")


async def test_write_to_a_paused_client_waits() -> None:
    connection = Connection()
    cycle = connection.cycle
    await start(connection, [])
    connection.flow.pause_writing()
    assert not cycle.write(b"x")
    waiting = asyncio.ensure_future(cycle.send({"type": "http.response.body", "body": b"x", "more_body": True}))
    await asyncio.sleep(0)
    assert not waiting.done()
    connection.flow.resume_writing()
    await waiting
    assert cycle.write(b"y")
    assert connection.transport.written.endswith(b"\r\n\r\n1\r\nx\r\n1\r\ny\r\n")


async def test_disconnected_client_is_sent_nothing() -> None:
    connection = Connection()
    connection.cycle.lose()
    assert not connection.cycle.write(b"x")
    assert not connection.cycle.respond([], b"x")
    assert not connection.cycle.respond_stream([], b"x")
    await generally(connection, [], b"x")
    assert await connection.cycle.receive() == {"type": "http.disconnect"}
    assert connection.outcome == (b"", False, 0)


@given(pieces=st.lists(st.binary(max_size=20), max_size=5))
async def test_available_body_equals_the_received_body(pieces: list[bytes]) -> None:
    short, general = Connection().cycle, Connection().cycle
    for cycle in (short, general):
        for piece in pieces:
            cycle.add_body(piece)
        cycle.end_body()
    received = await general.receive()
    assert short.whole_body() == received["body"] == b"".join(pieces)
    assert not received["more_body"]
    assert short.body_state is general.body_state


async def test_body_is_received_in_pieces_and_its_end_once() -> None:
    connection = Connection()
    cycle = connection.cycle
    assert cycle.whole_body() is None
    received: list[Any] = []

    async def read() -> None:
        while not received or received[-1]["type"] != "http.disconnect":
            received.append(await cycle.receive())

    reading = asyncio.ensure_future(read())
    for step in (
        lambda: cycle.add_body(b"a"),
        lambda: (cycle.add_body(b"b"), cycle.add_body(b"c")),
        lambda: cycle.respond([], b""),
    ):
        await asyncio.sleep(0)
        step()
        await asyncio.sleep(0)
        if len(received) == 2:
            cycle.end_body()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not reading.done()
    await reading
    assert [(event.get("body"), event.get("more_body")) for event in received] == [
        (b"a", True),
        (b"bc", True),
        (b"", False),
        (None, None),
    ]


async def test_unread_body_pauses_reading() -> None:
    paused: list[bool] = []
    connection = Connection()
    connection.transport.pause_reading = lambda: paused.append(True)  # type: ignore[method-assign]
    connection.transport.resume_reading = lambda: paused.append(False)  # type: ignore[method-assign]
    for _ in range(3):
        connection.cycle.add_body(b"x" * 40_000)
    connection.cycle.end_body()
    assert paused == [True]
    assert connection.cycle.whole_body() == b"x" * 120_000
    assert paused == [True, False]
