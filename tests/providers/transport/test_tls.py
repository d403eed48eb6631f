"""TLS is always verified: issuer, name and validity of the certificate. HTTP/1.1 is negotiated, with or without ALPN."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import certifi
import pytest
import trustme

from providers.transport.errors import ConnectFailed, TransportError
from providers.transport.pool import Pool
from providers.transport.tls import Link, tls_context
from tests.kit.network_peers import server_context
from tests.kit.scripted_server import GOOD, Peer, Scripted, hold, say, scripted, turns, until
from tests.providers.transport.name_resolution import Names
from tests.providers.transport.pool_calls import anyone, ask, send

YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return the pool's TLS context, which also trusts this authority's root."""
    context = tls_context()
    authority.configure_trust(context)
    return context


def named(server: Scripted, name: str = "provider.test") -> str:
    return server.origin.replace("127.0.0.1", name)


@pytest.fixture
def pool(trusting: ssl.SSLContext) -> Pool:
    return Pool(anyone, trusting)


async def test_server_with_a_valid_certificate_is_called(pool: Pool, authority: trustme.CA, names: Names) -> None:
    context = server_context(authority.issue_cert("provider.test"))
    asked_for: list[str | None] = []
    spoken: list[str | None] = []
    versions: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def script(peer: Peer) -> None:
        await peer.body()
        tls = peer.writer.get_extra_info("ssl_object")
        spoken.append(tls.selected_alpn_protocol())
        versions.append(tls.version())
        await peer.send(GOOD)

    async with scripted(script, script, tls=context) as server:
        for _ in range(2):
            assert await ask(pool, named(server)) == b"good"
        assert server.connections == 1
        await pool.aclose()
        await until(lambda: server.open == 0)
    assert (asked_for, spoken, versions) == (["provider.test"], ["http/1.1"] * 2, ["TLSv1.3"] * 2)


async def test_server_without_alpn_is_accepted(pool: Pool, authority: trustme.CA, names: Names) -> None:
    async with scripted(say(GOOD), tls=server_context(authority.issue_cert("provider.test"))) as server:
        assert await ask(pool, named(server)) == b"good"
        await pool.aclose()


async def test_an_address_is_verified_like_a_name(pool: Pool, authority: trustme.CA) -> None:
    async with scripted(say(GOOD), tls=server_context(authority.issue_cert("127.0.0.1"))) as server:
        assert await ask(pool, server.origin) == b"good"
        await pool.aclose()
    async with scripted(tls=server_context(authority.issue_cert("127.0.0.2"))) as server:
        with pytest.raises(ConnectFailed, match="not valid for"):
            await ask(pool, server.origin)


@pytest.mark.parametrize(
    ("issue", "words"),
    [
        (lambda authority: authority.issue_cert("other.test"), "Hostname mismatch"),
        (lambda authority: authority.issue_cert("*.provider.test"), "Hostname mismatch"),
        (
            lambda authority: authority.issue_cert(
                "provider.test", not_before=YESTERDAY - datetime.timedelta(days=30), not_after=YESTERDAY
            ),
            "expired",
        ),
        (lambda _: trustme.CA().issue_cert("provider.test"), "unable to get local issuer certificate"),
    ],
    ids=["another name", "a name below", "expired", "an unknown authority"],
)
async def test_untrusted_certificate_is_refused(
    pool: Pool, authority: trustme.CA, names: Names, issue: Callable[[trustme.CA], trustme.LeafCert], words: str
) -> None:
    async with scripted(tls=server_context(issue(authority))) as server:
        with pytest.raises(ConnectFailed, match=words) as raised:
            await send(pool, named(server))
        assert (raised.value.timed_out, pool._open, server.heads) == (False, 0, [])


def link_of(authority: trustme.CA, client: trustme.LeafCert | None = None) -> Link:
    chain = b"".join(pem.bytes() for pem in client.cert_chain_pems).decode() if client is not None else ""
    key = client.private_key_pem.bytes().decode() if client is not None else ""
    return Link(authority.cert_pem.bytes().decode(), chain, key)


async def test_requests_share_a_connection_only_if_their_links_are_equal(authority: trustme.CA) -> None:
    clients = trustme.CA()
    one, other = (link_of(authority, clients.issue_cert(name)) for name in ("one.test", "other.test"))
    shown: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.body()
        shown.append(peer.writer.get_extra_info("peercert")["subjectAltName"][0][1])
        await peer.send(GOOD)

    context = server_context(authority.issue_cert("127.0.0.1"), clients)
    async with scripted(*[script] * 4, tls=context) as server:
        pool = Pool(anyone)
        # An equal link of another config version shares the connection.
        for link in (one, other, replace(one), other):
            assert await ask(pool, server.origin, link) == b"good"
        assert shown == ["one.test", "other.test", "one.test", "other.test"]
        assert server.served_by == [1, 2, 1, 2]
        with pytest.raises(ConnectFailed, match="unable to get local issuer"):
            await ask(pool, server.origin)
        await pool.aclose()


async def test_link_trusts_its_own_authorities_and_no_public_ones(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    public = trustme.CA()
    public.cert_pem.write_to_path(str(tmp_path / "public.pem"))
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "public.pem"))
    async with scripted(say(GOOD), tls=server_context(public.issue_cert("127.0.0.1"))) as server:
        pool = Pool(anyone)
        with pytest.raises(ConnectFailed, match="unable to get local issuer"):
            await ask(pool, server.origin, link_of(authority))
        assert await ask(pool, server.origin) == b"good"
        await pool.aclose()


async def test_server_that_requires_a_certificate_refuses_a_link_without_one(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"), trustme.CA())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with scripted(tls=context) as server:
        pool = Pool(anyone)
        with pytest.raises(TransportError):
            await ask(pool, server.origin, link_of(authority))
        await pool.aclose()


def test_private_key_is_neither_shown_nor_left_open() -> None:
    link = link_of(trustme.CA(), trustme.CA().issue_cert("one.test"))
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    assert link.tls is not None
    if before:
        assert set(os.listdir("/proc/self/fd")) == before
    assert "PRIVATE" not in repr(link)


async def test_only_public_authorities_are_trusted_by_default(
    authority: trustme.CA, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    default = Pool(anyone)
    async with scripted(tls=server_context(authority.issue_cert("provider.test"))) as server:
        with pytest.raises(ConnectFailed, match="unable to get local issuer certificate"):
            await send(default, named(server))
        assert (default._open, server.heads) == (0, [])


def test_tls_context_requires_a_certificate_and_a_current_protocol() -> None:
    context = tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) > 50


async def test_server_without_tls_is_an_error(pool: Pool) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConnectFailed, match="SSL"):
            await send(pool, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert pool._open == 0
    await turns()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_endless_handshake_times_out_and_leaves_no_connection(pool: Pool, cancelled: bool) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        origin = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asking = asyncio.ensure_future(send(pool, origin, connect_s=30 if cancelled else 0.05))
        await arrived.wait()
        if cancelled:
            await turns()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        else:
            with pytest.raises(ConnectFailed) as raised:
                await asking
            assert raised.value.timed_out
        assert pool._open == 0
        async with asyncio.timeout(30):
            await gone.wait()
    await turns()


async def test_next_connection_succeeds_after_a_cancelled_handshake(
    trusting: ssl.SSLContext, authority: trustme.CA, names: Names
) -> None:
    async with scripted(*[say(GOOD)] * 90, tls=server_context(authority.issue_cert("provider.test"))) as server:
        for count in range(30):
            pool = Pool(anyone, trusting)
            asking = asyncio.ensure_future(ask(pool, named(server)))
            await turns(count)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            # Two at once, so that one of them gets what the first has let go of.
            assert await asyncio.gather(*[ask(pool, named(server)) for _ in range(2)]) == [b"good"] * 2
            await pool.aclose()
            assert pool._open == 0
        await until(lambda: server.open == 0)


async def test_large_bodies_pass_and_a_slow_reader_holds_them_back(
    pool: Pool, authority: trustme.CA, names: Names
) -> None:
    total, sent = 8 * 1024 * 1024, 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        assert await peer.body() == b"y" * 1_000_000
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            peer.writer.write(b"x" * 65536)
            await peer.writer.drain()
            sent += 65536

    async with scripted(script, tls=server_context(authority.issue_cert("provider.test"))) as server:
        response = await send(pool, named(server), b"y" * 1_000_000)
        connection = response._connection
        await until(lambda: connection._paused)
        await turns(50)
        assert connection._buffered <= 1024 * 1024
        received = 0
        while data := await response.read():
            received += len(data)
        assert received == sent == total
        response.close()
        await pool.aclose()


async def test_abandoned_response_closes_its_connection(pool: Pool, authority: trustme.CA, names: Names) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
    async with scripted(hold(head), tls=server_context(authority.issue_cert("provider.test"))) as server:
        response = await send(pool, named(server))
        assert await response.read() == b"half"
        response.close()
        assert pool._open == 0
        await until(lambda: server.open == 0)
