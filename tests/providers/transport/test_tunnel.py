"""Tunnels of the pool on both loops: TLS in a tunnel and in TLS, connections that are shared, and waits that end."""

from __future__ import annotations

import asyncio

import pytest
import trustme

from providers.transport.errors import ConnectFailed
from providers.transport.pool import Pool
from providers.transport.tls import Link
from tests.kit.network_peers import connect_proxy, server_context
from tests.kit.scripted_server import GOOD, say, scripted, until
from tests.providers.transport.pool_calls import ask

AUTHORITY = trustme.CA()
CA = AUTHORITY.cert_pem.bytes().decode()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("secure_proxy", [False, True], ids=["plain proxy", "tls proxy"])
async def test_connection_through_a_tunnel_is_used_again_and_closed_at_both_ends(
    pool: Pool, secure: bool, secure_proxy: bool
) -> None:
    context = server_context(AUTHORITY.issue_cert("127.0.0.1"))
    async with (
        scripted(say(GOOD), say(GOOD), tls=context if secure else None) as server,
        connect_proxy(tls=context if secure_proxy else None) as proxy,
    ):
        for _ in range(2):
            assert await ask(pool, server.origin, Link(CA, proxy=proxy.origin)) == b"good"
        assert (server.served_by, proxy.connections) == ([1, 1], 1)
        await pool.aclose()
        await until(lambda: server.open == proxy.open == 0)


async def test_connections_through_a_proxy_and_directly_are_kept_apart(pool: Pool) -> None:
    async with scripted(*[say(GOOD)] * 4) as server, connect_proxy() as one, connect_proxy() as other:
        for link in (None, Link(proxy=one.origin), Link(proxy=other.origin), None):
            assert await ask(pool, server.origin, link) == b"good"
        assert (server.served_by, one.connections, other.connections) == ([1, 2, 3, 1], 1, 1)


async def test_cancelled_wait_for_a_tunnel_ends_its_connection(pool: Pool) -> None:
    async with connect_proxy() as proxy:
        proxy.reply = b""
        task = asyncio.ensure_future(ask(pool, "https://llm.test", Link(CA, proxy=proxy.origin)))
        await until(lambda: len(proxy.heads) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: proxy.open == 0)
        assert pool._open == 0


async def test_name_of_the_server_is_left_to_the_proxy_and_written_in_brackets_if_it_is_an_address(pool: Pool) -> None:
    async with connect_proxy() as proxy:
        proxy.reply = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
        for origin in ("https://nowhere.invalid", "https://[::1]:8443", "http://house.invalid"):
            with pytest.raises(ConnectFailed, match="it answered 502"):
                await ask(pool, origin, Link(CA, proxy=proxy.origin))
        assert [head.split(b" ")[1] for head in proxy.heads] == [
            b"nowhere.invalid:443",
            b"[::1]:8443",
            b"house.invalid:80",
        ]
        assert pool._open == 0
