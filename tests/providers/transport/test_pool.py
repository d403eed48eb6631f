"""The pool: which connections it opens, keeps and closes, and that it never leaks one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import aiohappyeyeballs
import pytest

from providers.transport import pool as module
from providers.transport.connection import Connection
from providers.transport.errors import BadResponse, ConnectFailed, ConnectionBroken, NotAllowed, TransportError
from providers.transport.pool import Pool, PoolRequest, Recheck, request_start
from tests.kit.scripted_server import GOOD, Peer, Script, hold, say, scripted, turns, until
from tests.providers.transport.name_resolution import Names
from tests.providers.transport.pool_calls import Response, ask, request, send

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast"


async def rest_of(response: Response) -> None:
    while await response.read():
        pass


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, but no server listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# --- requests -------------------------------------------------------------------------------------


async def test_request_is_written_once_and_unchanged(pool: Pool) -> None:
    async with scripted(say(GOOD)) as server:
        response = await request(pool, server.origin, "/a?b=c", "X-Ä: \xe9\r\n", b"body")
        host = server.origin.removeprefix("http://").encode()
        assert server.heads == [
            b"POST /a?b=c HTTP/1.1\r\nhost: " + host + b"\r\nX-\xc4: \xe9\r\ncontent-length: 4\r\n\r\n"
        ]
        assert server.bodies == [b"body"]
        assert (response.status, list(response.headers)) == (200, [(b"content-length", b"4")])
        assert [await response.read(), await response.read()] == [b"good", b""]
        response.close()


async def test_header_that_cannot_be_encoded_leaves_no_connection_open(pool: Pool) -> None:
    async with scripted() as server:
        with pytest.raises(UnicodeEncodeError):
            await request(pool, server.origin, "/", "x: 值\r\n", b"")
        assert pool._open == 0
        await until(lambda: server.open == 0)


# --- reuse ----------------------------------------------------------------------------------------


async def test_requests_at_once_have_a_connection_each_and_all_are_kept(pool: Pool) -> None:
    async with scripted(*[say(asyncio.Barrier(8), GOOD)] * 16) as server:
        for _ in range(2):
            assert await asyncio.gather(*[ask(pool, server.origin) for _ in range(8)]) == [b"good"] * 8
        assert (server.connections, pool._open) == (8, 8)


async def test_origins_share_no_connections(pool: Pool) -> None:
    async with scripted(*[say(GOOD)] * 2) as one, scripted(*[say(GOOD)] * 2) as other:
        for origin in (one.origin, other.origin, one.origin, other.origin):
            await ask(pool, origin)
        assert (one.connections, other.connections) == (1, 1)


@pytest.mark.parametrize("end", [say(then="close"), say(then="reset")], ids=["close", "reset"])
async def test_end_of_a_kept_connection_differs_from_that_of_a_new_one(pool: Pool, end: Script) -> None:
    """The pool sends nothing twice: each sending is paid for."""
    async with scripted(say(GOOD), end, end, say(GOOD)) as server:
        await ask(pool, server.origin)
        for was_kept in (True, False):
            with pytest.raises(ConnectionBroken) as raised:
                await ask(pool, server.origin)
            error = raised.value
            assert (error.was_kept, error.answered, error.is_sent) == (was_kept, False, True)
        assert (server.served_by, pool._open) == ([1, 1, 2], 0)
        assert await ask(pool, server.origin) == b"good"


@pytest.mark.parametrize(
    ("second", "closing_s"),
    [(say(b"HTTP/1.1 2", then="close"), 2.0), (say(GOOD[:-1], then="close"), 2.0), (say(then="close"), -1.0)],
    ids=["a byte came", "a head came", "late"],
)
async def test_kept_connection_that_ends_otherwise_is_no_closed_one(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, second: Script, closing_s: float
) -> None:
    monkeypatch.setattr("providers.transport.pool._CLOSING_S", closing_s)
    async with scripted(say(GOOD), second, say(GOOD)) as server:
        await ask(pool, server.origin)
        with pytest.raises(ConnectionBroken) as raised:
            await ask(pool, server.origin)
        assert not raised.value.was_kept
        assert len(server.heads) == 2


async def test_request_that_is_sent_anew_gets_a_new_connection(pool: Pool) -> None:
    async with scripted(say(GOOD), say(GOOD)) as server:
        await ask(pool, server.origin)
        start = request_start(server.origin, "POST", "/v1", "a: b\r\n")
        connection = await pool.open(PoolRequest(server.origin, start, b"{}", 5, None, anew=True))
        pool._drop(connection)
        assert server.served_by == [1, 2]


async def test_connection_that_is_being_closed_is_not_used_again(pool: Pool) -> None:
    """As after the closing message of TLS: what is written then is dropped without a word."""
    async with scripted(say(GOOD), say(GOOD)) as server:
        await ask(pool, server.origin)
        (kept,) = pool._idle[server.origin]
        kept.transport.close()
        assert await ask(pool, server.origin) == b"good"
        assert server.served_by == [1, 2]


async def test_nothing_was_sent_on_a_connection_that_had_ended_before(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(say(GOOD)) as server:
        await ask(pool, server.origin)
        (kept,) = pool._idle[server.origin]
        kept.connection_lost(None)
        monkeypatch.setattr(pool, "_take", lambda _: kept)
        with pytest.raises(ConnectionBroken) as raised:
            await ask(pool, server.origin)
        assert (raised.value.was_kept, raised.value.is_sent) == (True, False)
        assert len(server.heads) == 1


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(pool: Pool) -> None:
    async with scripted(say(GOOD, then="close"), say(GOOD)) as server:
        await ask(pool, server.origin)
        await until(lambda: server.open == 0)
        await turns()
        assert await ask(pool, server.origin) == b"good"
        assert (server.connections, pool._open) == (2, 1)


@pytest.mark.parametrize("end", [False, True], ids=["an answer that nobody asked for", "an end"])
async def test_unread_bytes_are_not_used_as_the_next_answer(pool: Pool, end: bool) -> None:
    """A busy loop reads late what the system has received: the next request must not use that connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        listening.settimeout(10)
        peers = list[socket.socket]()

        def serve() -> None:
            peer, _ = listening.accept()
            peers.append(peer)
            peer.recv(65536)
            peer.sendall(GOOD)

        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.submit(serve)
        assert await ask(pool, origin) == b"good"
        # From here to the next request the loop doesn't turn.
        if end:
            peers[0].shutdown(socket.SHUT_RDWR)
        else:
            peers[0].sendall(GOOD.replace(b"good", b"evil"))
        thread.submit(serve)
        assert await ask(pool, origin) == b"good"
        assert (len(peers), pool._open) == (2, 1)
        for peer in peers:
            peer.close()


async def test_a_connection_that_is_to_close_is_dropped(pool: Pool) -> None:
    async with scripted(say(CLOSING)) as server:
        assert await ask(pool, server.origin) == b"last"
        assert pool._open == 0
        await until(lambda: server.open == 0)


async def test_latest_idle_connection_is_used_first(pool: Pool) -> None:
    release = asyncio.Event()

    async with scripted(say(release, GOOD), say(GOOD), say(GOOD)) as server:
        first = asyncio.ensure_future(ask(pool, server.origin))
        await until(lambda: len(server.heads) == 1)
        await ask(pool, server.origin)
        release.set()
        await first
        await ask(pool, server.origin)
        assert server.served_by == [1, 2, 1]


# --- idle connections end -------------------------------------------------------------------------


async def test_long_idle_connection_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_S", 0.02)
    async with scripted(say(GOOD), say(GOOD)) as server:
        await ask(pool, server.origin)
        await until(lambda: server.open == 0)
        assert (pool._open, pool._idle, pool._sweeper) == (0, {}, None)
        assert await ask(pool, server.origin) == b"good"
        await until(lambda: pool._open == 0)


async def test_busy_connection_is_replaced_after_its_maximum_age(pool: Pool, names: Names) -> None:
    """The addresses of a provider's name may have changed."""
    async with scripted(*[say(GOOD)] * 4) as server:
        origin = server.origin.replace("127.0.0.1", "provider.test")
        for _ in range(2):
            await ask(pool, origin)
        (kept,) = pool._idle[origin]
        kept.made_at -= module._LONGEST_S
        # A request in the meantime uses this connection, which ends after an answer.
        await ask(pool, origin)
        await until(lambda: server.open == 0)
        assert (pool._open, names.asked) == (0, ["provider.test"])
        await ask(pool, origin)
        assert (server.served_by, names.asked) == ([1, 1, 1, 2], ["provider.test"] * 2)


async def test_only_long_idle_connections_are_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(*[say(asyncio.Barrier(3), GOOD)] * 3) as server:
        await asyncio.gather(*[ask(pool, server.origin) for _ in range(3)])
        (idle,) = pool._idle.values()
        now = asyncio.get_running_loop().time()
        for connection, age_s in zip(idle, (40, 31, 5), strict=True):
            connection.idle_since = now - age_s
        pool._sweep()
        await until(lambda: server.open == 1)
        assert (len(idle), pool._open) == (1, 1)
        assert pool._sweeper is not None
        # One that has been lost need not grow old.
        idle[0].abort()
        pool._sweep()
        assert (pool._idle, pool._open, pool._sweeper) == ({}, 0, None)


async def test_idle_connections_over_the_limit_are_dropped(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_IDLE_PER_ORIGIN", 1)
    async with scripted(*[hold(HEAD[:-2] + b"\r\n" + b"x" * 10)] * 2) as server:
        responses = [await send(pool, server.origin) for _ in range(2)]
        for response in responses:
            await response.read()
            response.close()
        await until(lambda: server.open == 1)
        assert pool._open == 1


# --- cancellation ---------------------------------------------------------------------------------


async def test_abandoned_response_closes_its_connection(pool: Pool) -> None:
    async with scripted(hold(HEAD + b"half"), say(GOOD)) as server:
        response = await send(pool, server.origin)
        assert await response.read() == b"half"
        response.close()
        response.close()
        assert pool._open == 0
        await until(lambda: server.open == 0)
        assert await response.read() == b""
        assert await ask(pool, server.origin) == b"good"


async def test_complete_unread_response_returns_its_connection(pool: Pool) -> None:
    async with scripted(say(GOOD), say(GOOD)) as server:
        response = await send(pool, server.origin)
        await until(lambda: response._connection is not None and response._connection.reusable)
        response.close()
        assert await ask(pool, server.origin) == b"good"
        assert server.connections == 1


async def test_closing_the_pool_leaves_a_running_response_its_connection(pool: Pool) -> None:
    go_on = asyncio.Event()

    async with scripted(hold(HEAD + b"half ", go_on, b"whole"), say(GOOD)) as server:
        response = await send(pool, server.origin)
        await ask(pool, server.origin)
        await pool.aclose()
        await until(lambda: server.open == 1)
        assert await response.read() == b"half "
        go_on.set()
        assert await response.read() == b"whole"
        response.close()
        await until(lambda: server.open == 0)
        assert pool._open == 0


async def test_a_closed_pool_has_no_timer_left(pool: Pool) -> None:
    async with scripted(say(GOOD)) as server:
        await ask(pool, server.origin)
        assert pool._sweeper is not None
        await pool.aclose()
        assert pool._sweeper.cancelled()


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_paused_reader_applies_backpressure_to_the_provider(pool: Pool, chunked: bool) -> None:
    total, piece, sent = 64 * 1024 * 1024, b"x" * 65_536, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.body()
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % total
        await peer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        while sent < total:
            peer.writer.write(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
            await peer.writer.drain()
            sent += len(piece)
        await peer.send(b"0\r\n\r\n" if chunked else b"")

    async with scripted(script) as server:
        response = await send(pool, server.origin)
        connection = response._connection
        await until(lambda: connection._paused)
        before = -1
        while before != sent:
            before = sent
            await turns(20)
        assert connection._buffered <= 1024 * 1024
        # The rest stands in the sockets' own buffers; the server waits.
        assert sent < total // 2
        received = 0
        while data := await response.read():
            received += len(data)
            assert len(data) <= 1024 * 1024
        assert received == total
        response.close()


@pytest.mark.parametrize("end", ["close", "reset", "hold"])
async def test_provider_under_backpressure_may_end_its_answer(pool: Pool, end: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n"
    async with scripted(say(head + b"x" * 600_000, then=end)) as server:
        response = await send(pool, server.origin)
        connection = response._connection
        await until(lambda: connection._paused)
        await turns(20)
        if end != "hold":
            assert len(await response.read()) > 100_000
            with pytest.raises(ConnectionBroken):
                await rest_of(response)
        response.close()
        assert pool._open == 0
        await until(lambda: server.open == 0)


async def test_connections_are_bounded_and_idle_ones_give_way(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONNECTIONS", 2)
    async with scripted(say(GOOD)) as idle, scripted(hold(HEAD), hold(HEAD)) as busy:
        await ask(pool, idle.origin)
        first = await send(pool, busy.origin)
        second = await send(pool, busy.origin)
        await until(lambda: idle.open == 0)
        with pytest.raises(ConnectFailed, match="2 connections are open") as raised:
            await send(pool, busy.origin)
        assert raised.value.is_ours
        assert pool._open == 2
        for response in (first, second):
            response.close()
        assert pool._open == 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_idle_connection_is_closed_if_no_file_descriptor_is_free(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with scripted(say(GOOD), say(GOOD)) as idle, scripted(say(GOOD)) as wanted:
        kept = [await send(pool, idle.origin) for _ in range(2)]
        for response in kept:
            await rest_of(response)
            response.close()
        sockets = [each.transport.get_extra_info("socket") for each in pool._idle[idle.origin]]
        really = pool._open_connection

        async def while_there_is_room(origin: str) -> Connection:
            if all(each.fileno() >= 0 for each in sockets):
                raise OSError(number, os.strerror(number))
            return await really(origin)

        monkeypatch.setattr(pool, "_open_connection", while_there_is_room)
        assert await ask(pool, wanted.origin) == b"good"
        assert (len(pool._idle[idle.origin]), pool._open) == (1, 2), "and one is enough"


async def test_room_that_others_take_first_does_not_cost_every_idle_connection(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_GIVING_WAY", 2)

    async def full(_: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with scripted(*[say(GOOD)] * 4) as idle:
        for response in [await send(pool, idle.origin) for _ in range(4)]:
            await rest_of(response)
            response.close()
        monkeypatch.setattr(pool, "_open_connection", full)
        with pytest.raises(ConnectFailed) as raised:
            await send(pool, "http://127.0.0.1:9")
        assert (raised.value.is_ours, len(pool._idle[idle.origin]), pool._open) == (True, 2, 2)


@pytest.mark.parametrize("bad", [b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
async def test_invalid_response_leaves_no_connection_open(pool: Pool, bad: bytes) -> None:
    async with scripted(hold(bad)) as server:
        with pytest.raises(BadResponse):
            await send(pool, server.origin)
        assert pool._open == 0
        await until(lambda: server.open == 0)


# --- permission to connect ------------------------------------------------------------------------


async def test_leave_is_asked_before_the_name_is_looked_up_and_for_every_request(names: Names) -> None:
    asked: list[tuple[str, object]] = []
    refused: list[object] = ["no"]

    def allow(origin: str, permit: object, _: str) -> None:
        asked.append((origin, permit))
        if permit in refused:
            raise NotAllowed("no")

    async with scripted(say(GOOD)) as server:
        pool = Pool(allow)
        origin = server.origin.replace("127.0.0.1", "provider.test")
        with pytest.raises(NotAllowed):
            await send(pool, origin, permit="no")
        assert names.asked == []
        response = await send(pool, origin, permit="yes")
        await response.read()
        response.close()
        refused.append("yes")
        with pytest.raises(NotAllowed):
            await send(pool, origin, permit="yes")
        assert asked == [(origin, "no"), (origin, "yes"), (origin, "yes")]
        assert (len(server.heads), names.asked) == (1, ["provider.test"])


# --- no connection --------------------------------------------------------------------------------


async def test_refused_connection_is_a_connect_failure(pool: Pool, silent_port: int) -> None:
    with pytest.raises(ConnectFailed) as raised:
        await send(pool, f"http://127.0.0.1:{silent_port}")
    assert "refused" in str(raised.value).lower()
    assert str(silent_port) not in str(raised.value)
    assert (raised.value.timed_out, pool._open) == (False, 0)


@pytest.mark.parametrize("origin", ["http://a..b", "http://" + "a" * 70 + ".test", "http://host:99999", "http://["])
async def test_invalid_origin_is_refused(pool: Pool, origin: str) -> None:
    with pytest.raises(ConnectFailed):
        await send(pool, origin)
    assert pool._open == 0


async def test_unresolvable_name_is_a_connect_failure(pool: Pool, names: Names) -> None:
    names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(ConnectFailed, match="gaierror: Name or service not known"):
        await send(pool, "http://nowhere.test")
    assert (names.asked, pool._open) == (["nowhere.test"], 0)


async def test_names_are_looked_up_for_each_connection(pool: Pool, names: Names) -> None:
    async with scripted(say(CLOSING), say(GOOD), say(GOOD)) as server:
        origin = server.origin.replace("127.0.0.1", "provider.test")
        for _ in range(3):
            await ask(pool, origin)
        assert (names.asked, server.connections) == (["provider.test"] * 2, 2)
        assert b"\r\nhost: provider.test:" in server.heads[0]


async def test_next_address_is_used_if_the_first_refuses(pool: Pool, names: Names, silent_port: int) -> None:
    async with scripted(say(GOOD)) as server:
        names.ports = (silent_port, int(server.origin.rpartition(":")[2]))
        assert await ask(pool, "http://provider.test") == b"good"


async def test_next_address_is_raced_if_the_first_is_silent(
    pool: Pool, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect
    tried: list[int] = []

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[1])
        if address[1] == 1:
            await asyncio.Event().wait()
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    async with scripted(say(GOOD)) as server:
        port = int(server.origin.rpartition(":")[2])
        names.ports = (1, port)
        started_at = loop.time()
        assert await ask(pool, "http://provider.test") == b"good"
        assert tried == [1, port]
        assert loop.time() - started_at < 2


# --- time and cancellation ------------------------------------------------------------------------


def hang(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Make name lookups or connections wait without end."""
    Names(monkeypatch).hangs = phase == "name"

    async def start_connection(*_: object, **__: object) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    if phase == "connect":
        monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)


@pytest.mark.parametrize("phase", ["name", "connect"])
async def test_connecting_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    hang(monkeypatch, phase)
    with pytest.raises(ConnectFailed, match=r"no connection within 0\.02 seconds") as raised:
        await send(pool, "http://provider.test", connect_s=0.02)
    assert (raised.value.timed_out, pool._open) == (True, 0)


@pytest.mark.parametrize("phase", ["name", "connect"])
async def test_cancelled_connect_leaves_no_connection(pool: Pool, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    hang(monkeypatch, phase)
    task = asyncio.ensure_future(send(pool, "http://provider.test"))
    await turns()
    assert pool._open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool._open == 0


async def test_a_cancelled_wait_for_the_body_leaves_the_response_to_close(pool: Pool) -> None:
    async with scripted(hold(HEAD + b"half")) as server:
        response = await send(pool, server.origin)
        await response.read()
        task = asyncio.ensure_future(response.read())
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        response.close()
        assert pool._open == 0
        await until(lambda: server.open == 0)


async def test_exchange_cancelled_at_any_moment_leaves_no_connection(pool: Pool) -> None:
    """The exchange is cancelled after each possible number of loop iterations."""
    async with scripted(*[hold(HEAD + b"half")] * 60) as server:
        for moment in range(40):
            task = asyncio.ensure_future(send(pool, server.origin))
            await turns(2 * moment)
            if moment == 39:
                await until(task.done)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TransportError):
                (await task).close()
            assert pool._open == 0
        assert task.done()
        assert not task.cancelled()
        await until(lambda: server.open == 0)


# --- asked once more ------------------------------------------------------------------------------


async def test_unused_new_connection_is_kept_and_idle_connections_are_not_rechecked(pool: Pool) -> None:
    asked = list[int]()
    async with scripted(say(GOOD), say(GOOD)) as server:

        def no() -> None:
            asked.append(server.connections)
            raise PermissionError

        async def open_one(recheck: Recheck | None) -> None:
            connection = await pool.open(PoolRequest(server.origin, b"GET / HTTP/1.1\r\n", b"", 5, None, recheck))
            pool.take_back(connection)

        with pytest.raises(PermissionError):
            await open_one(no)
        await turns()
        assert (server.heads, len(asked)) == ([], 1)
        for _ in range(2):
            await open_one(no)
        assert (server.connections, len(server.heads), len(asked), pool._open) == (1, 2, 1, 1)
        await pool.aclose()
    with pytest.raises(ConnectFailed):
        await pool.open(PoolRequest(server.origin, b"", b"", 5, None, no))
    assert (len(asked), pool._open) == (1, 0), "where none was made, nobody is asked"
