"""Connections through an HTTP proxy: what it sees, and the failure kind of each thing it does."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trustme

from gateway.execution.transport import PoolTransport, Transport
from gateway.execution.upstream_request import FenceBreach, upstream_request
from gateway.model.permit import ServicePermit
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport.tls import Link
from providers.wire import WireRequest
from tests.gateway.execution.transport_calls import PERMIT
from tests.kit.network_peers import connect_proxy, server_context
from tests.kit.scripted_server import GOOD, say, scripted


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = PoolTransport()
    yield transport
    await transport.aclose()


PROMPT = b"the words of a prompt"
CREDENTIALS = f"Basic {b64encode(b'user:pass-word').decode()}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert("127.0.0.1"))


def link_to(proxy: str, authority: trustme.CA | None = None, authorization: str = CREDENTIALS) -> Link:
    ca = authority.cert_pem.bytes().decode() if authority is not None else ""
    return Link(ca, proxy=proxy, authorization=authorization)


async def send(
    transport: Transport, origin: str, link: Link | None, proxy: str | None = None, limit_s: float = 5
) -> bytes:
    """Send a prompt and return the answer. `proxy`: that of the permit, if it is not that of the link."""
    permit = replace(PERMIT, origin=origin, proxy=proxy if proxy is not None else link.proxy if link else "")
    request = upstream_request(permit, WireRequest("POST", "/v1", (), PROMPT), limit_s, link=link)
    response = await transport.send(request)
    try:
        return (await response.read_whole()).body
    finally:
        await response.close()


async def failure_of(transport: Transport, origin: str, link: Link, limit_s: float = 5) -> Failure:
    with pytest.raises(ProviderFailed) as raised:
        await send(transport, origin, link, limit_s=limit_s)
    failure = raised.value.failure
    assert "pass-word" not in repr(failure)
    assert CREDENTIALS not in repr(failure)
    assert "127.0.0.1" not in failure.message
    return failure


@pytest.mark.parametrize("is_https", [False, True], ids=["http", "https"])
async def test_prompt_reaches_the_server_through_a_tunnel_and_the_proxy_reads_none_of_it(
    is_https: bool, authority: trustme.CA, serving: ssl.SSLContext
) -> None:
    async with (
        scripted(say(GOOD), say(GOOD), tls=serving) as server,
        connect_proxy(CREDENTIALS, serving if is_https else None) as proxy,
    ):
        transport, link = PoolTransport(), link_to(proxy.origin, authority)
        for _ in range(2):
            assert await send(transport, server.origin, link) == b"good"
        await transport.aclose()
        host = server.origin.removeprefix("https://").encode()
        assert proxy.heads[0] == b"CONNECT %b HTTP/1.1\r\nhost: %b\r\nproxy-authorization: %b\r\n\r\n" % (
            host, host, CREDENTIALS.encode(),
        )  # fmt: skip
        # The second request uses the tunnel again.
        assert proxy.connections == server.connections == 1
        assert proxy.passed
        assert PROMPT not in proxy.passed
        assert b"proxy-authorization" not in b"".join(server.heads).lower()


async def test_server_without_tls_is_reached_through_a_tunnel_too(transport: Transport) -> None:
    async with scripted(say(GOOD)) as server, connect_proxy() as proxy:
        assert await send(transport, server.origin, link_to(proxy.origin, authorization="")) == b"good"
        await transport.aclose()
        assert PROMPT in proxy.passed
        assert b"proxy-authorization" not in proxy.heads[0]


UNAUTHENTICATED = b"HTTP/1.1 407 Auth\r\nproxy-authenticate: Basic realm=pass-word\r\n\r\n"
REPLIES: list[tuple[str, bytes, str, bool | None]] = [
    # name, what the proxy sends, words of the detail, whether to try again
    ("407", UNAUTHENTICATED, "refuses the credentials", False),
    ("403", b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answered 403", False),
    ("502", b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad", "it answered 502", None),
    ("a redirect", b"HTTP/1.1 302 Found\r\nlocation: https://elsewhere.test/\r\n\r\n", "it answered 302", None),
    ("another protocol", b"SSH-2.0-OpenSSH\r\n\r\n", "is not HTTP/1.1", None),
    ("an endless head", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "has no end", None),
    ("bytes of its own", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "bytes before the tunnel", None),
    ("half a head", b"HTTP/1.1 200 OK\r\n", "closed the connection", None),
]


@pytest.mark.parametrize(("reply", "words", "again"), [case[1:] for case in REPLIES], ids=[case[0] for case in REPLIES])
async def test_proxy_that_opens_no_tunnel_is_a_failed_connection_and_gets_no_prompt(
    transport: Transport, reply: bytes, words: str, again: bool | None, authority: trustme.CA
) -> None:
    async with connect_proxy() as proxy:
        proxy.reply = reply
        failure = await failure_of(transport, "https://llm.test", link_to(proxy.origin, authority))
        assert (failure.kind, failure.unsent, failure.should_retry) == (FailureKind.CONNECT, True, again)
        assert words in failure.detail
        assert not proxy.passed


async def test_proxy_that_hangs_fails_in_the_time_for_a_connection(transport: Transport) -> None:
    async with connect_proxy() as proxy:
        proxy.reply = b""
        failure = await failure_of(transport, "https://llm.test", link_to(proxy.origin), limit_s=0.05)
        assert (failure.kind, failure.unsent) == (FailureKind.CONNECT, True)
        assert "no connection through the proxy" in failure.detail


async def test_proxy_that_is_not_there_is_a_failed_connection(transport: Transport) -> None:
    async with connect_proxy() as proxy:
        gone = proxy.origin
    failure = await failure_of(transport, "https://llm.test", link_to(gone))
    assert (failure.kind, failure.unsent) == (FailureKind.CONNECT, True)


@pytest.mark.parametrize("fault", ["an inspecting proxy", "a wrong name", "an untrusted proxy"])
async def test_proxy_that_ends_tls_with_another_certificate_gets_no_prompt(
    transport: Transport, fault: str, authority: trustme.CA, serving: ssl.SSLContext
) -> None:
    wrong_name, other = server_context(authority.issue_cert("other.test")), trustme.CA()
    foreign = server_context(other.issue_cert("127.0.0.1"))
    async with (
        scripted(tls=wrong_name if fault == "a wrong name" else serving) as server,
        connect_proxy(tls=foreign if fault == "an untrusted proxy" else None) as proxy,
    ):
        proxy.inspecting = foreign if fault == "an inspecting proxy" else None
        failure = await failure_of(transport, server.origin, link_to(proxy.origin, authority))
        assert failure.kind is FailureKind.CONNECT
        assert PROMPT not in proxy.passed
        assert server.heads == []


async def test_proxy_that_inspects_is_trusted_by_its_authority(
    transport: Transport, authority: trustme.CA, serving: ssl.SSLContext
) -> None:
    async with scripted(say(GOOD)) as server, connect_proxy() as proxy:
        proxy.inspecting = serving
        origin = server.origin.replace("http:", "https:")
        assert await send(transport, origin, link_to(proxy.origin, authority)) == b"good"
        assert PROMPT in proxy.passed


async def test_permit_without_this_proxy_opens_no_connection(authority: trustme.CA, serving: ssl.SSLContext) -> None:
    async with scripted(tls=serving) as server, connect_proxy() as proxy:
        transport, link = PoolTransport(), link_to(proxy.origin, authority)
        without = (None, proxy.origin), (Link(link.ca), proxy.origin)
        for one, permitted in ((link, ""), (link, "http://127.0.0.1:9"), *without):
            with pytest.raises(FenceBreach):
                await send(transport, server.origin, one, permitted)
        request = upstream_request(ServicePermit(server.origin), WireRequest("GET", "/", (), b""), 5, link=link)
        with pytest.raises(FenceBreach):
            await transport.send(request)
        assert (server.connections, proxy.connections) == (0, 0)
        await transport.aclose()
