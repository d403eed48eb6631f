"""Both transports over real sockets: responses for a provider's bytes, and the same failure kind for each error."""

import asyncio
import contextlib
import gzip
import os
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import httpx
import pytest
import trustme

from gateway.execution import transport as module
from gateway.execution.retry import rule_of
from gateway.execution.transport import PoolTransport, SimulatorsOnly, Transport, allow
from gateway.execution.upstream_client import Withdrawn
from gateway.execution.upstream_request import FenceBreach, upstream_request
from providers.failures import FailureKind, ProviderFailed
from providers.transport.decoding import Decoder
from providers.transport.errors import ConnectFailed
from providers.transport.pool import Pool
from providers.transport.tls import tls_context
from providers.wire import WireRequest
from tests.gateway.execution.transport_calls import PERMIT, fetch, opened, sent
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.network_peers import server_context
from tests.kit.scripted_server import GOOD, Peer, Script, Scripted, hold, say, scripted, turns, until

OK = b"HTTP/1.1 200 OK\r\n"


def lean() -> Transport:
    return PoolTransport(clock=lambda: 7.0)


def httpx_own() -> Transport:
    return HttpxTransport(httpx.AsyncHTTPTransport(trust_env=False), lambda: 7.0)


WAYS = pytest.mark.parametrize("way", [lean, httpx_own])


@pytest.fixture
async def transport(way: Callable[[], Transport]) -> AsyncIterator[Transport]:
    transport = way()
    yield transport
    await transport.aclose()


@pytest.fixture
async def pooled() -> AsyncIterator[Transport]:
    transport = lean()
    yield transport
    await transport.aclose()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that new transports trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "ca.pem"))
    return authority


async def failure_of(way: Transport, origin: str) -> FailureKind:
    with pytest.raises(ProviderFailed) as raised:
        await fetch(way, origin)
    assert "127.0.0.1" not in raised.value.failure.message
    return raised.value.failure.kind


def gzipped(body: bytes, extra: bytes = b"") -> bytes:
    return OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n%b\r\n" % (len(body), extra) + body


# --- both ways ------------------------------------------------------------------------------------


@WAYS
async def test_a_request_arrives_as_it_was_written(transport: Transport) -> None:
    script = say(OK + b"X-A: 1\r\nx-b: \xe9\r\nx-a: 2\r\ncontent-length: 2\r\n\r\nhi")
    async with scripted(script) as server:
        incoming = await opened(transport, server.origin)
        assert incoming.status == 200
        assert dict(incoming.headers) == {"x-a": "1, 2", "x-b": "é", "content-length": "2"}
        assert [await incoming.read(), await incoming.read(), await incoming.read()] == [b"hi", b"", b""]
        await incoming.close()
        await incoming.close()
        head = server.heads[0].lower()
        assert head.startswith(b"post /v1/chat?a=b http/1.1\r\n")
        assert b"\r\nhost: " + server.origin.removeprefix("http://").encode() + b"\r\n" in head
        assert head.count(b"content-length: 2\r\n") == head.count(b"x-a: b\r\n") == 1
        assert server.bodies == [b"{}"]
        await transport.aclose()
        await until(lambda: server.open == 0)


@WAYS
async def test_a_connection_is_used_again_after_a_whole_answer_and_not_after_half_of_one(transport: Transport) -> None:
    async with scripted(say(GOOD), say(GOOD), hold(OK + b"content-length: 9\r\n\r\nhalf"), say(GOOD)) as server:
        for _ in range(2):
            assert await fetch(transport, server.origin) == (200, b"good")
        incoming = await opened(transport, server.origin)
        assert await incoming.read() == b"half"
        await incoming.close()
        await until(lambda: server.open == 0)
        assert await fetch(transport, server.origin) == (200, b"good")
        assert server.served_by == [1, 1, 1, 2]


@WAYS
async def test_a_redirect_is_an_answer(transport: Transport) -> None:
    async with scripted(say(b"HTTP/1.1 307 T\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n")) as server:
        assert await fetch(transport, server.origin) == (307, b"")
        assert len(server.heads) == 1


@WAYS
async def test_a_cancelled_wait_ends_the_connection(transport: Transport) -> None:
    async with scripted(hold()) as server:
        task = asyncio.ensure_future(opened(transport, server.origin))
        await until(lambda: len(server.heads) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.open == 0)


NO_END = OK + b"content-length: 5\r\n\r\nhi"
BREAKS: list[tuple[str, Script, FailureKind, FailureKind]] = [
    # name, what the provider does, by our pool, by httpx's
    ("closed unanswered", say(then="close"), FailureKind.CONNECT, FailureKind.CONNECT),
    ("reset unanswered", say(then="reset"), FailureKind.CONNECT, FailureKind.CONNECT),
    ("half a head", say(OK, then="close"), FailureKind.INTERRUPTED, FailureKind.CONNECT),
    ("half a body", say(NO_END, then="close"), FailureKind.INTERRUPTED, FailureKind.INTERRUPTED),
    ("half a body, reset", say(NO_END, then="reset"), FailureKind.INTERRUPTED, FailureKind.INTERRUPTED),
    ("no HTTP", say(b"hello\r\n\r\n", then="close"), FailureKind.MALFORMED, FailureKind.CONNECT),
    ("no gzip", say(gzipped(b"no gzip at all")), FailureKind.MALFORMED, FailureKind.MALFORMED),
    (
        "a wrong chunk",
        say(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", then="close"),
        FailureKind.MALFORMED,
        FailureKind.INTERRUPTED,
    ),
]


@pytest.mark.parametrize(("script", "ours", "theirs"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
async def test_both_transports_report_the_expected_failure_kind(
    script: Script, ours: FailureKind, theirs: FailureKind
) -> None:
    for way, kind in ((lean(), ours), (httpx_own(), theirs)):
        async with scripted(script, say(GOOD)) as server:
            assert await failure_of(way, server.origin) is kind
            assert await fetch(way, server.origin) == (200, b"good")
            await way.aclose()


async def test_a_tls_record_of_garbage_in_an_answer_interrupts_it() -> None:
    authority = trustme.CA()
    trusting, serving = tls_context(), server_context(authority.issue_cert("127.0.0.1"))
    authority.configure_trust(trusting)

    async def script(peer: Peer) -> None:
        await peer.body()
        await peer.send(NO_END)
        os.write(peer.writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        await peer.gone()

    for way in (
        PoolTransport(Pool(allow, trusting)),
        HttpxTransport(httpx.AsyncHTTPTransport(trust_env=False, verify=trusting)),
    ):
        async with scripted(script, say(GOOD), tls=serving) as server:
            assert await failure_of(way, server.origin) is FailureKind.INTERRUPTED
            assert await fetch(way, server.origin) == (200, b"good")
            await way.aclose()


async def test_session_keys_are_not_written_to_the_file_of_the_environment(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))
    async with scripted(say(GOOD), tls=server_context(authority.issue_cert("127.0.0.1"))) as server:
        transport = PoolTransport()
        assert await fetch(transport, server.origin) == (200, b"good")
        await transport.aclose()
    assert not key_log.exists()


class DelayingRelay:
    """A relay that accepts at once and forwards only on demand, like a slow handshake."""

    def __init__(self, to: Scripted) -> None:
        self.to = to
        self.entered, self.opens = 0, asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered += 1
        await self.opens.wait()
        port = int(self.to.origin.rpartition(":")[2])
        from_there, to_there = await asyncio.open_connection("127.0.0.1", port)
        ways = self.pass_on(reader, to_there), self.pass_on(from_there, writer)
        self.tasks += map(asyncio.create_task, ways)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def through_a_relay(server: Scripted) -> AsyncIterator[tuple[DelayingRelay, str]]:
    relay = DelayingRelay(server)
    listener = await asyncio.start_server(relay.take, "127.0.0.1", 0)
    try:
        yield relay, f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in relay.tasks:
            task.cancel()
        await asyncio.gather(*relay.tasks, return_exceptions=True)
        await turns()


async def test_deployment_forbidden_during_the_handshake_receives_nothing(authority: trustme.CA) -> None:
    transport, reasons, asked = PoolTransport(), list[str](), list[int]()

    async with (
        scripted(*[say(GOOD)] * 4, tls=server_context(authority.issue_cert("127.0.0.1"))) as server,
        through_a_relay(server) as (relay, origin),
    ):

        def recheck() -> None:
            asked.append(server.connections)
            if reasons:
                raise Withdrawn(reasons[0])

        async def send() -> int:
            permit, wire = replace(PERMIT, origin=origin), WireRequest("POST", "/v1", (), b"{}")
            reply = await transport.send(upstream_request(permit, wire, 5, (), recheck))
            status = (await reply.read_whole()).status
            await reply.close()
            return status

        forbidden = asyncio.ensure_future(send())
        await until(lambda: relay.entered == 1)
        assert asked == []
        reasons.append("disabled")
        relay.opens.set()
        with pytest.raises(Withdrawn, match="disabled"):
            await forbidden
        assert (server.heads, len(asked)) == ([], 1)
        # It is asked about the connection that is made for it, which then is the one that it goes out on.
        reasons.clear()
        assert await send() == 200
        assert (relay.entered, len(server.heads), len(asked)) == (1, 1, 1)
        relay.opens.clear()
        assert transport._pool._make_room()
        allowed = asyncio.ensure_future(send())
        await until(lambda: relay.entered == 2)
        relay.opens.set()
        assert await allowed == 200
        assert (relay.entered, len(server.heads)) == (2, 2)
        await transport.aclose()


YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.mark.parametrize(
    ("issue", "words"),
    [
        (
            lambda authority: authority.issue_cert(
                "127.0.0.1", not_before=YESTERDAY - timedelta(days=30), not_after=YESTERDAY
            ),
            "certificate has expired",
        ),
        (lambda authority: authority.issue_cert("provider.test"), "certificate is not valid for '127.0.0.1'"),
        (lambda _: trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer certificate"),
    ],
    ids=["expired", "another name", "an unknown authority"],
)
async def test_a_certificate_is_refused_for_what_is_wrong_with_it(
    issue: Callable[[trustme.CA], trustme.LeafCert], words: str, authority: trustme.CA
) -> None:
    transport = PoolTransport()
    good, bad = server_context(authority.issue_cert("127.0.0.1")), server_context(issue(authority))
    async with scripted(say(GOOD), tls=good) as server:
        assert await fetch(transport, server.origin) == (200, b"good")
    async with scripted(tls=bad) as server:
        with pytest.raises(ProviderFailed) as raised:
            await opened(transport, server.origin)
        assert (raised.value.failure.kind, server.heads) == (FailureKind.CONNECT, [])
        assert words in raised.value.failure.detail
    await transport.aclose()


@WAYS
async def test_closed_port_is_a_failure_to_connect(way: Callable[[], Transport]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert await failure_of(way(), f"http://127.0.0.1:{bound.getsockname()[1]}") is FailureKind.CONNECT


@WAYS
async def test_a_connection_that_takes_too_long_is_a_failure_to_connect(transport: Transport) -> None:
    """A server of TLS that never shakes hands."""
    async with scripted() as server:
        permit = replace(PERMIT, origin=server.origin.replace("http:", "https:"))
        with pytest.raises(ProviderFailed) as raised:
            await sent(transport, permit, WireRequest("POST", "/", (), b""), 0.05)
        assert raised.value.failure.kind is FailureKind.CONNECT
        await until(lambda: server.open == 0)


@WAYS
async def test_transport_refuses_a_forged_permit(transport: Transport) -> None:
    class Forged:
        origin = ""

    async with scripted() as server:
        forged = Forged()
        forged.origin = server.origin
        with pytest.raises(FenceBreach):
            await sent(transport, forged, WireRequest("POST", "/", (), b""))  # type: ignore[arg-type]
        assert server.connections == 0


# --- compressed bodies ----------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_the_first_events_come_before_the_rest_is_there(transport: Transport, encoding: str) -> None:
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    go_on = asyncio.Event()
    head = OK + b"content-encoding: %b\r\ntransfer-encoding: chunked\r\n\r\n" % encoding.encode()
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    second = packer.compress(b"data: 2\n\n") + packer.flush()
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (first, second)]
    async with scripted(say(head, chunks[0], go_on, chunks[1] + b"0\r\n\r\n")) as server:
        incoming = await opened(transport, server.origin)
        assert await incoming.read() == b"data: 1\n\n"
        go_on.set()
        assert [await incoming.read(), await incoming.read()] == [b"data: 2\n\n", b""]
        await incoming.close()


async def test_consecutive_gzip_members_are_one_body(pooled: Transport) -> None:
    async with scripted(say(gzipped(gzip.compress(b"one ") + gzip.compress(b"two")))) as server:
        assert await fetch(pooled, server.origin) == (200, b"one two")


@pytest.mark.parametrize("end", [1, 12, -1])
async def test_truncated_compressed_body_is_a_failure(pooled: Transport, end: int) -> None:
    """The framing is whole, the body isn't."""
    async with scripted(say(gzipped(gzip.compress(b"hello " * 20)[:end])), say(GOOD)) as server:
        assert await failure_of(pooled, server.origin) is FailureKind.MALFORMED
        assert await fetch(pooled, server.origin) == (200, b"good")


async def test_a_compressed_body_that_breaks_off_was_interrupted() -> None:
    body = gzip.compress(b"hello " * 20)
    head = OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with scripted(say(head + body[:-4], then="close")) as server:
        assert await failure_of(lean(), server.origin) is FailureKind.INTERRUPTED


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, br", b"gzip\r\ncontent-encoding: gzip"])
async def test_unrequested_encoding_is_refused_and_its_connection_dropped(pooled: Transport, encoding: bytes) -> None:
    head = OK + b"content-encoding: %b\r\ncontent-length: 9\r\n\r\n" % encoding
    async with scripted(hold(head + b"x"), say(GOOD)) as server:
        assert await failure_of(pooled, server.origin) is FailureKind.MALFORMED
        await until(lambda: server.open == 0)
        assert await fetch(pooled, server.origin) == (200, b"good")


async def test_empty_body_with_a_content_encoding_is_accepted(pooled: Transport) -> None:
    async with scripted(say(gzipped(b"")), say(b"HTTP/1.1 204 N\r\ncontent-encoding: gzip\r\n\r\n")) as server:
        assert await fetch(pooled, server.origin) == (200, b"")
        assert await fetch(pooled, server.origin) == (204, b"")


async def test_a_bomb_is_bounded(pooled: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 100_000)
    bomb = gzip.compress(b"\0" * 5_000_000)
    async with scripted(say(gzipped(bomb))) as server:
        incoming = await opened(pooled, server.origin)
        with pytest.raises(ProviderFailed) as raised:
            await incoming.read_whole()
        assert raised.value.failure.kind is FailureKind.TOO_LARGE
        await incoming.close()


async def test_one_turn_unpacks_only_what_it_hands_out(pooled: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    feed = Decoder.feed

    def counted(decoder: Decoder, data: bytes, at_most: int) -> bytes:
        piece = feed(decoder, data, at_most)
        unpacked.append(len(piece))
        return piece

    monkeypatch.setattr(Decoder, "feed", counted)
    async with scripted(say(gzipped(gzip.compress(b"x" * 5_000_000)))) as server:
        incoming = await opened(pooled, server.origin)
        assert len(await incoming.read()) == 16 * 1024
        assert unpacked == [16 * 1024]
        await incoming.close()


SIZE = 30_000_000
LARGE = {
    "a bomb": (gzipped(gzip.compress(b"\n" * SIZE)), SIZE),
    "packed, and no smaller": (gzipped(gzip.compress(b"\n" * (SIZE // 10), compresslevel=0)), SIZE // 10),
    "much at once": (OK + b"content-length: %d\r\n\r\n" % SIZE + b"x" * SIZE, SIZE),
    "many lines": (OK + b"content-length: %d\r\n\r\n" % (SIZE // 10) + b"\n" * (SIZE // 10), SIZE // 10),
}


@pytest.mark.parametrize(("answer", "size"), LARGE.values(), ids=LARGE)
async def test_reading_a_large_body_does_not_block_other_tasks(pooled: Transport, answer: bytes, size: int) -> None:
    """A piece is parsed at once, and each of its bytes may be a line."""
    read, pieces, rounds = 0, 0, 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async with scripted(say(answer)) as server:
        incoming = await opened(pooled, server.origin)
        others = asyncio.create_task(count())
        while piece := await incoming.read():
            read, pieces = read + len(piece), pieces + 1
            assert len(piece) <= 64 * 1024
            if read < size:
                assert not incoming.is_read
        others.cancel()
        assert read == size
        assert incoming.is_read
        assert rounds > pieces // 2
        await incoming.close()


async def test_abandoned_large_piece_is_freed(pooled: Transport) -> None:
    async with scripted(hold(OK + b"content-length: 900000\r\n\r\n" + b"x" * 300_000), say(GOOD)) as server:
        incoming = await opened(pooled, server.origin)
        assert await incoming.read()
        await incoming.close()
        assert await incoming.read() == b""
        assert incoming.is_read
        assert await fetch(pooled, server.origin) == (200, b"good")


@WAYS
async def test_rehearsal_sends_to_its_simulators_only_also_with_a_permit(way: Callable[[], Transport]) -> None:
    async with scripted(say(GOOD)) as simulator, scripted() as other:
        deployments = {"a": SimpleNamespace(simulates="eu", origin=simulator.origin)}
        deployments["b"] = SimpleNamespace(simulates=None, origin=other.origin)
        config: Any = SimpleNamespace(deployments=deployments)
        transport = SimulatorsOnly(way(), lambda: config)
        assert await fetch(transport, simulator.origin) == (200, b"good")
        for origin in (other.origin, "https://api.openai.com"):
            with pytest.raises(ProviderFailed, match="calls its simulators only"):
                await fetch(transport, origin)
        assert other.connections == 0
        await transport.aclose()


# --- the whole of a reply -------------------------------------------------------------------------


async def asked(server: Scripted, pooled: Transport) -> bytes:
    reply = await pooled.send(
        upstream_request(replace(PERMIT, origin=server.origin), WireRequest("POST", "/v1", (), b"{}"), 5)
    )
    try:
        response = await reply.read_whole()
        assert response.received_at == 7.0
        return response.body
    finally:
        await reply.close()


@WAYS
@pytest.mark.parametrize("parts", [(GOOD,), (GOOD[:-4], GOOD[-4:]), (GOOD[:-2], GOOD[-2:])])
async def test_a_reply_that_was_read_whole_has_let_go_of_its_connection(
    way: Callable[[], Transport], parts: tuple[bytes, ...]
) -> None:
    async with scripted(say(*parts), say(*parts)) as server:
        transport, permit = way(), replace(PERMIT, origin=server.origin)
        for _ in range(2):
            reply = await transport.send(upstream_request(permit, WireRequest("POST", "/v1", (), b"{}"), 5))
            assert (await reply.read_whole()).body == b"good"
        assert server.connections == 1
        assert await reply.read() == b""
        await transport.aclose()


@WAYS
@pytest.mark.parametrize("parts", [(GOOD,), (GOOD[:-2], GOOD[-2:])])
async def test_connection_is_returned_once_if_its_reply_is_closed_repeatedly(
    transport: Transport, parts: tuple[bytes, ...]
) -> None:
    """If it were returned twice, two concurrent requests would use it and read each other's answers."""
    async with scripted(say(*parts), say(GOOD), say(GOOD)) as server:
        reply = await opened(transport, server.origin)
        assert (await reply.read_whole()).body == b"good"
        await reply.close()
        await reply.close()
        both = [await opened(transport, server.origin) for _ in range(2)]
        assert (server.connections, sorted(server.served_by)) == (2, [1, 1, 2])
        assert [(await reply.read_whole()).body for reply in both] == [b"good"] * 2


@WAYS
async def test_too_large_body_is_not_read(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 1000)
    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    async with scripted(say(head, chunk, chunk, b"0\r\n\r\n"), hold(head, chunk, chunk, chunk)) as server:
        assert await asked(server, transport) == b"x" * 1000
        with pytest.raises(ProviderFailed) as raised:
            await asked(server, transport)
        assert raised.value.failure.kind is FailureKind.TOO_LARGE
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("way", [PoolTransport])
async def test_unrequested_response_is_dropped(transport: Transport) -> None:
    """Two at once, and each request from then on would get the answer to the previous one."""

    def twice(number: int) -> Script:
        answer = OK + b"content-length: 1\r\n\r\n%d" % number
        return say(answer + answer)

    async with scripted(*map(twice, range(3))) as server:
        for number in range(3):
            assert await fetch(transport, server.origin) == (200, b"%d" % number)


def test_lack_of_file_descriptors_is_not_a_provider_failure() -> None:
    failure = module.failure_of(ConnectFailed("OSError: Too many open files", is_ours=True))
    assert (failure.kind, failure.unsent) == (FailureKind.OVERLOADED, True)
    assert not rule_of(failure).counts
