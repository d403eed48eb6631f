"""One connection without a socket: every cut of every response, backpressure and the end of the connection."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.transport.connection import MAX_HEAD_BYTES, Connection, Tap
from providers.transport.errors import BadResponse, ConnectionBroken, TransportError
from providers.transport.pacing import Pacer
from providers.wire import Base64
from tests.kit.example_counts import examples
from tests.providers.transport.http_responses import LEGAL, NO_SECOND, REFUSED, STRICTER, Wire

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
MAX_PIECE = 256 * 1024


class FakeTransport:
    """A transport that records the calls of its connection."""

    def __init__(self) -> None:
        self.sent = b""
        self.reading = True
        self.aborted = False
        self.unsent = 0
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.sent += data
        self.writes += 1

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


def connected() -> tuple[Connection, FakeTransport]:
    connection, transport = Connection(asyncio.get_running_loop()), FakeTransport()
    connection.connection_made(cast(asyncio.Transport, transport))
    return connection, transport


def answering(data: bytes) -> tuple[Connection, FakeTransport, asyncio.Future[None]]:
    """Return a connection that has received these bytes after its request, and the future of the head."""
    connection, transport = connected()
    head = connection.begin(b"request")
    connection.data_received(data)
    return connection, transport, head


async def read(connection: Connection, tap: Tap | None = None) -> bytes:
    """Return the next bytes of the body, or empty bytes at its end."""
    while (data := connection.take()) is None:
        await connection.more(tap)
    return data


def headers_of(connection: Connection) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in connection.headers.pairs()]


Result = tuple[int, list[tuple[bytes, bytes]], bytes, str]


async def result_of(wire: Wire, pieces: Iterable[bytes]) -> tuple[Result, bool]:
    """Return status, headers, body and the name of the error, and whether the connection can be reused."""
    connection, transport = connected()
    head = connection.begin(b"request")
    for piece in pieces:
        if not transport.aborted:
            connection.data_received(piece)
    if wire.then == "close":
        connection.connection_lost(None)
    elif wire.then == "reset":
        connection.connection_lost(ConnectionResetError())
    body, error = b"", ""
    try:
        async with asyncio.timeout(30):
            await head
            while data := await read(connection):
                body += data
    except TransportError as raised:
        error = type(raised).__name__
    return (connection.status, headers_of(connection), body, error), connection.reusable


def small(wires: dict[str, Wire]) -> dict[str, Wire]:
    return {name: wire for name, wire in wires.items() if len(wire.data) < 1000}


ALL = {**LEGAL, **NO_SECOND, **{name: wire for name, (wire, _) in STRICTER.items()}, **REFUSED}
SMALL = small(ALL)


@pytest.mark.parametrize("wire", SMALL.values(), ids=SMALL)
async def test_the_result_does_not_depend_on_the_cut(wire: Wire) -> None:
    (status, headers, body, error), fit = await result_of(wire, [wire.data])
    for cut in range(1, len(wire.data)):
        got, got_fit = await result_of(wire, [wire.data[:cut], wire.data[cut:]])
        # How much of a broken body has been seen depends on the moment; that it is broken doesn't.
        if error:
            assert got[3]
            assert got[2] == body or body.startswith(got[2]) or got[2].startswith(body)
        else:
            assert got == (status, headers, body, "")
        assert got_fit == fit
    bytewise, bytewise_fit = await result_of(wire, [wire.data[at : at + 1] for at in range(len(wire.data))])
    assert (bytewise[3] != "", bytewise_fit) == (error != "", fit)
    if not error:
        assert bytewise == (status, headers, body, "")


@pytest.mark.parametrize("wire", small(LEGAL).values(), ids=small(LEGAL))
async def test_early_end_of_a_response_is_an_error(wire: Wire) -> None:
    """Each prefix of a response is an error, unless the response ends with the connection."""
    for end in range(len(wire.data)):
        (_, _, _, error), fit = await result_of(Wire(b"", "close"), [wire.data[:end]] if end else [])
        ends_with_the_close = b"\r\n\r\n" in wire.data[:end] and wire.then == "close" and b"length" not in wire.data
        assert (error == "") == ends_with_the_close
        assert not fit


@given(data=st.binary(max_size=400), then=st.sampled_from(["close", "reset"]))
@settings(max_examples=examples(200), deadline=None)
def test_garbage_raises_a_transport_error(data: bytes, then: str) -> None:
    async def go() -> None:
        wire = b"HTTP/1.1 200 OK\r\n" + data
        (_, _, _, error), fit = await result_of(Wire(b"", then), [wire])
        assert error or b"\r\n\r\n" in wire
        assert not fit

    asyncio.run(go())


@given(
    body=st.binary(max_size=300),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
@settings(max_examples=examples(200), deadline=None)
def test_chunks_of_any_size_cut_anywhere_are_the_body(body: bytes, sizes: list[int], cuts: list[int]) -> None:
    wire, rest = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", body
    for size in sizes:
        chunk, rest = rest[:size], rest[size:]
        if chunk:
            wire += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    if rest:
        wire += b"%X;last\r\n%b\r\n" % (len(rest), rest)
    wire += b"0\r\n\r\n"
    ends = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    pieces = [wire[start:end] for start, end in pairwise(ends)]

    async def go() -> None:
        (status, _, got, error), fit = await result_of(Wire(wire), pieces)
        assert (status, got, error, fit) == (200, body, "", True)

    asyncio.run(go())


async def test_interim_response_leaves_no_state() -> None:
    connection, _, head = answering(b"HTTP/1.1 103 Early\r\nlink: x\r\ncontent-length: 9\r\n\r\n")
    waiting = asyncio.ensure_future(head)
    await asyncio.sleep(0)
    assert not waiting.done()
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    await waiting
    assert (connection.status, headers_of(connection)) == (200, [(b"transfer-encoding", b"chunked")])
    assert connection.reusable


async def test_connection_is_reusable_only_between_complete_exchanges() -> None:
    connection, transport = connected()
    assert connection.reusable
    connection.begin(b"request")
    assert transport.sent == b"request"
    assert not connection.reusable
    connection.data_received(HEAD % 2 + b"h")
    assert not connection.reusable
    connection.data_received(b"i")
    assert connection.reusable
    transport.unsent = 1
    assert not connection.reusable
    transport.unsent = 0
    connection.connection_lost(None)
    assert not connection.reusable


async def test_body_delimited_by_close_is_not_ended_by_a_reset() -> None:
    for error, is_complete in ((None, True), (ConnectionResetError(), False)):
        connection, _, _ = answering(b"HTTP/1.1 200 OK\r\n\r\nbody")
        connection.connection_lost(error)
        assert await read(connection) == b"body"
        if is_complete:
            assert await read(connection) == b""
        else:
            with pytest.raises(ConnectionBroken):
                await read(connection)


@pytest.mark.parametrize("status", [b"000", b"099", b"101"])
async def test_invalid_status_is_refused_at_once(status: bytes) -> None:
    _, transport, head = answering(b"HTTP/1.1 " + status + b" X\r\n\r\n")
    with pytest.raises(BadResponse):
        await head
    assert transport.aborted


async def test_bytes_before_a_lost_connection_are_read_before_the_error() -> None:
    connection, _, head = answering(HEAD % 10 + b"half")
    connection.connection_lost(None)
    await head
    assert await read(connection) == b"half"
    for _ in range(2):
        with pytest.raises(ConnectionBroken) as raised:
            await read(connection)
        assert raised.value.answered


@pytest.mark.parametrize(("piece", "answered"), [(b"", False), (b"H", True), (b"HTTP/1.1 100 C\r\n\r\n", True)])
async def test_whether_anything_was_answered_is_known(piece: bytes, answered: bool) -> None:
    connection, _ = connected()
    head = connection.begin(b"request")
    if piece:
        connection.data_received(piece)
    connection.connection_lost(ConnectionResetError())
    with pytest.raises(ConnectionBroken) as raised:
        await head
    assert raised.value.answered is answered


async def test_the_first_bytes_do_not_wait_for_the_rest() -> None:
    connection, _, head = answering(HEAD % 10)
    await head
    reading = asyncio.ensure_future(read(connection))
    await asyncio.sleep(0)
    assert not reading.done()
    connection.data_received(b"a")
    assert await reading == b"a"
    connection.data_received(b"b")
    connection.data_received(b"c")
    assert await read(connection) == b"bc"


# --- chunks offered to a tap ----------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Tapped:
    """A read with a tap that takes every chunk except those with a `!`."""

    def __init__(self, head: bytes = CHUNKED) -> None:
        self.taken: list[bytes] = []
        self.connection, self.transport, self.head = answering(head)

    def _tap(self, data: bytes) -> bool:
        if b"!" in data:
            return False
        self.taken.append(data)
        return True

    async def waits(self) -> asyncio.Future[bytes]:
        await self.head
        reading = asyncio.ensure_future(read(self.connection, self._tap))
        await asyncio.sleep(0)
        return reading


async def test_tap_takes_data_that_arrives_while_a_read_waits() -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    for piece in (b"1\r\na\r\n", b"1\r\n", b"b\r\n"):
        tapped.connection.data_received(piece)
        await asyncio.sleep(0)
    assert (tapped.taken, reading.done()) == ([b"a", b"b"], False)
    tapped.connection.data_received(b"0\r\n\r\n")
    assert await reading == b""
    assert tapped.connection.reusable


async def test_data_that_a_tap_leaves_is_read_with_the_data_after_it() -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    for piece in (b"2\r\na!\r\n", b"1\r\nb\r\n"):
        tapped.connection.data_received(piece)
    assert await reading == b"a!b"
    # No read waits, so the tap is not called.
    tapped.connection.data_received(b"1\r\nc\r\n")
    assert await read(tapped.connection, tapped._tap) == b"c"
    assert tapped.taken == []


@pytest.mark.parametrize(
    ("data", "body"),
    [(b"1\r\na\r\n1\r\nb\r\n", b"ab"), (b"1\r\na\r\n0\r\n\r\n", b"a"), (b"1\r\na\r\nzz\r\n", b"a")],
    ids=["two chunks", "the last one", "one before garbage"],
)
async def test_only_a_single_chunk_is_offered_to_the_tap(data: bytes, body: bytes) -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    tapped.connection.data_received(data)
    async with asyncio.timeout(30):
        assert (await reading, tapped.taken) == (body, [])


async def test_cancelled_read_has_no_tap() -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    reading.cancel()
    tapped.connection.data_received(b"1\r\na\r\n")
    with pytest.raises(asyncio.CancelledError):
        await reading
    tapped.connection.data_received(b"1\r\nb\r\n")
    assert (await read(tapped.connection), tapped.taken) == (b"ab", [])


async def test_a_connection_that_breaks_ends_a_read_that_has_a_tap() -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    tapped.connection.data_received(b"1\r\na\r\n")
    tapped.connection.connection_lost(None)
    with pytest.raises(ConnectionBroken):
        await reading
    assert tapped.taken == [b"a"]


async def test_reading_continues_for_any_amount_accepted_by_the_tap() -> None:
    tapped = Tapped()
    reading = await tapped.waits()
    for _ in range(20):
        tapped.connection.data_received(b"%x\r\n%b\r\n" % (50_000, b"x" * 50_000))
    assert tapped.transport.reading
    assert len(tapped.taken) == 20
    tapped.connection.data_received(b"1\r\n!\r\n")
    assert await reading == b"!"
    assert tapped.transport.reading


# --- backpressure ---------------------------------------------------------------------------------


async def test_paused_reader_pauses_the_transport() -> None:
    connection, transport, _ = answering(HEAD % 64_000_000)
    received = 0
    while transport.reading and received < 2 * MAX_PIECE:
        connection.data_received(b"x" * 50_000)
        received += 50_000
    assert received < MAX_PIECE, "who has one read's worth needs no second one"
    assert len(await read(connection)) == received
    assert not transport.reading, "what was taken may not be dealt with for long"
    reading = asyncio.ensure_future(read(connection))
    await asyncio.sleep(0)
    assert transport.reading
    connection.data_received(b"y")
    assert await reading == b"y"


async def test_at_most_one_read_of_a_burst_is_held() -> None:
    connection, transport, _ = answering(HEAD % 64_000_000 + b"x" * MAX_PIECE)
    assert not transport.reading
    assert len(await read(connection)) == MAX_PIECE
    assert not transport.reading


async def test_unread_whole_answer_that_paused_reading_makes_the_connection_unfit() -> None:
    connection, transport, _ = answering(HEAD % 300_000 + b"x" * 299_999)
    assert not transport.reading
    connection.data_received(b"x")
    assert not connection.reusable
    await read(connection)
    assert connection.reusable


FLOODS = {
    "a header": (b"HTTP/1.1 200 OK\r\nx: ", b"a" * 4096),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 500),
    "interim responses": (b"HTTP/1.1 103 E\r\n\r\n", b"HTTP/1.1 103 E\r\n\r\n" * 200),
    "a chunk's extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;", b"a" * 4096),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 500),
    "a trailer": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: ", b"a" * 4096),
}


async def rest_of(connection: Connection, head: asyncio.Future[None]) -> None:
    await head
    while await read(connection):
        pass


@pytest.mark.parametrize(("start", "more"), FLOODS.values(), ids=FLOODS)
async def test_overhead_of_a_response_body_is_limited(start: bytes, more: bytes) -> None:
    connection, transport, head = answering(start)
    taken = len(start)
    while not transport.aborted:
        connection.data_received(more)
        taken += len(more)
        assert taken < MAX_HEAD_BYTES + 2 * len(more)
    with pytest.raises(BadResponse, match="65536 bytes"):
        await rest_of(connection, head)
    assert not connection.reusable


@pytest.mark.parametrize("cut", [0, 40_000])
@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n\r\nHTTP/1.1 103 E\r\nlink: x\r\n\r\n"])
async def test_interim_responses_in_one_read_with_the_answer_are_limited(interim: bytes, cut: int) -> None:
    connection, transport = connected()
    head = connection.begin(b"request")
    answer = interim.lstrip() + interim * (MAX_HEAD_BYTES // len(interim) + 1) + HEAD % 2 + b"hi"
    for piece in filter(None, (answer[:cut], answer[cut:])):
        connection.data_received(piece)
    with pytest.raises(BadResponse, match="65536 bytes"):
        await head
    assert transport.aborted


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0"])
async def test_response_in_another_version_is_refused(version: bytes) -> None:
    for before in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
        _, transport, head = answering(before + version + b" 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        with pytest.raises(BadResponse, match=r"not HTTP/1\.1"):
            await head
        assert transport.aborted


async def test_long_stream_does_not_count_as_a_long_head() -> None:
    connection, transport, _ = answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(20_000):
        connection.data_received(b"2;some-extension\r\nhi\r\n")
        await read(connection)
    assert not transport.aborted


async def test_large_bodies_leave_in_turns_and_as_fast_as_the_provider_takes_them() -> None:
    pacer, body = Pacer(), bytes(range(256)) * 3_000
    pairs = [connected() for _ in range(3)]
    for connection, _ in pairs:
        connection.begin(b"head")
        connection.send_rest((memoryview(body), b"end"), pacer)
        assert not connection.reusable
    most = 0
    for turn in range(20):
        before = sum(transport.writes for _, transport in pairs)
        pairs[0][0].pause_writing() if turn == 0 else None
        await asyncio.sleep(0)
        most = max(most, sum(transport.writes for _, transport in pairs) - before)
    assert (most, pairs[0][1].writes) == (1, 2)  # the head and the first piece; then it is paused
    assert [transport.sent for _, transport in pairs[1:]] == [b"head" + body + b"end"] * 2
    pairs[0][0].resume_writing()
    pairs[0][0].resume_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    assert pairs[0][1].sent == b"head" + body + b"end"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 196_607, 196_608, 196_609, 500_000])
async def test_base64_is_made_while_it_is_sent(size: int) -> None:
    connection, transport = connected()
    data, pacer = random.Random(size).randbytes(size), Pacer()
    connection.begin(b"head")
    connection.send_rest((piece := Base64(memoryview(data)), b"end"), pacer)
    for _ in range(8):
        await asyncio.sleep(0)
    assert transport.sent == b"head" + base64.b64encode(data) + b"end"
    assert len(piece) == len(bytes(piece)) == len(transport.sent) - len(b"headend")
    assert all(len(one) <= 262_144 for one in piece.split(262_144))


async def test_end_of_the_connection_drops_what_is_unsent() -> None:
    connection, transport = connected()
    connection.begin(b"head")
    connection.send_rest((bytes(MAX_PIECE), bytes(MAX_PIECE)), Pacer())
    connection.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.sent == b"head" + bytes(MAX_PIECE)
