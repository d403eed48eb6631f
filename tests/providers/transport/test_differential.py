"""The lean pool against httpx's own transport: the same bytes from a raw server, and the same result or a reason."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import httpx
import pytest

from tests.kit.scripted_server import GOOD, Peer, Script, Scripted, say, scripted, turns
from tests.providers.transport.http_responses import LEGAL, NO_SECOND, REFUSED, STRICTER, Wire
from tests.providers.transport.httpx_over_pool import PoolTransport

LIMIT_S = 30.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class RequestResult:
    """The result of a request: a response or an error."""

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


ERROR = RequestResult()
SECOND = RequestResult(200, ((b"content-length", b"4"),), b"good")


def httpx_own() -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=NO_TLS, trust_env=False)


async def fetch(client: httpx.AsyncClient, url: str, method: str = "POST", content: bytes = b"{}") -> RequestResult:
    try:
        async with client.stream(method, url, content=content) as response:
            body = b"".join([piece async for piece in response.aiter_raw()])
    except httpx.TimeoutException:
        # It should have been refused, and was waited for.
        raise
    except httpx.TransportError:
        return ERROR
    headers = tuple(
        # h11 writes the one transfer-encoding that it takes in small letters.
        (name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value)
        for name, value in response.headers.raw
    )
    return RequestResult(response.status_code, headers, body)


async def both(
    transport: httpx.AsyncBaseTransport, script: Script, method: str = "POST"
) -> tuple[RequestResult, RequestResult, Scripted]:
    """Return the result of this script, and that of the next request over the same transport."""
    async with scripted(script, say(GOOD), say(GOOD)) as server, client_over(transport) as client:
        first = await fetch(client, server.origin, method)
        await turns()
        return first, await fetch(client, server.origin), server


def client_over(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, timeout=LIMIT_S)


def script_of(wire: Wire) -> Script:
    return say(wire.data, then=wire.then)


@pytest.mark.parametrize("wire", LEGAL.values(), ids=LEGAL)
async def test_legal_response_gives_the_same_result_as_httpx(wire: Wire) -> None:
    theirs, _, _ = await both(httpx_own(), script_of(wire))
    ours, second, server = await both(PoolTransport(), script_of(wire))
    assert theirs != ERROR
    assert ours == theirs
    assert second == SECOND
    may_stay = wire.then == "keep" and b"lose" not in wire.data
    assert server.connections == (1 if may_stay else 2)


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED)
async def test_illegal_response_is_an_error_in_both_clients(wire: Wire) -> None:
    theirs, _, _ = await both(httpx_own(), script_of(wire))
    ours, second, server = await both(PoolTransport(), script_of(wire))
    assert theirs == ERROR
    assert ours == ERROR
    assert (second, server.connections) == (SECOND, 2)


@pytest.mark.parametrize(("wire", "reason"), STRICTER.values(), ids=STRICTER)
async def test_stricter_refusal_than_httpx_has_a_reason(wire: Wire, reason: str) -> None:
    theirs, _, _ = await both(httpx_own(), script_of(wire))
    ours, second, server = await both(PoolTransport(), script_of(wire))
    assert theirs != ERROR, f"no longer stricter: {reason}"
    assert ours == ERROR
    assert (second, server.connections) == (SECOND, 2)


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize("wire", NO_SECOND.values(), ids=NO_SECOND)
async def test_a_poisoned_connection_serves_no_second_request(wire: Wire, apart: bool) -> None:
    end = wire.data.index(b"hi") + 2 if b"hi" in wire.data else wire.data.index(b"\r\n\r\n") + 4
    parts = (wire.data[:end], wire.data[end:]) if apart else (wire.data,)
    ours, second, server = await both(PoolTransport(), say(*parts))
    assert ours.status in (200, 204)
    assert ours.body in (b"hi", b"")
    assert (second, server.connections) == (SECOND, 2)


@pytest.mark.parametrize("framing", [b"content-length: 5\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n", b"\r\n"])
async def test_a_response_to_head_has_no_body(framing: bytes) -> None:
    script = say(b"HTTP/1.1 200 OK\r\n" + framing)
    theirs, _, _ = await both(httpx_own(), script, "HEAD")
    ours, second, _ = await both(PoolTransport(), script, "HEAD")
    assert theirs.status == 200
    assert ours == theirs
    assert second == SECOND


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_every_method_is_sent_unchanged(method: str) -> None:
    async with scripted(say(GOOD)) as server, client_over(PoolTransport()) as client:
        assert await fetch(client, f"{server.origin}/a%20b?c=d", method) == SECOND
        assert server.heads[0].startswith(f"{method} /a%20b?c=d HTTP/1.1\r\nhost: 127.0.0.1:".encode())


@pytest.mark.parametrize("then", ["keep", "close"])
async def test_answer_before_the_request_body_is_read_is_accepted(then: str) -> None:
    content = b"x" * 8_000_000

    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        if then == "close":
            peer.close()
        else:
            await peer.gone()

    async with scripted(script, say(GOOD)) as server, client_over(PoolTransport()) as client:
        first = await fetch(client, server.origin, content=content)
        assert (first.status, first.body) == (413, b"big")
        assert await fetch(client, server.origin) == SECOND
        assert server.connections == 2


@pytest.mark.parametrize("transport", [PoolTransport, httpx_own])
async def test_large_bodies_both_ways_in_many_pieces(transport: type[PoolTransport]) -> None:
    content = bytes(range(256)) * 12_000
    sent: list[bytes] = []

    async def echo(peer: Peer) -> None:
        sent.append(await peer.body())
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(content), 30_011):
            piece = content[start : start + 30_011]
            peer.writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await peer.writer.drain()
        await peer.send(b"0\r\n\r\n")

    async with scripted(echo, say(GOOD)) as server, client_over(transport()) as client:
        seen = await fetch(client, server.origin, content=content)
        assert seen.body == content
        assert sent == [content]
        assert await fetch(client, server.origin) == SECOND
        assert server.connections == 1
