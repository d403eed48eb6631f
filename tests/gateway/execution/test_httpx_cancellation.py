"""httpx in place of our pool: a request that is cancelled at any time leaves no open connection."""

from __future__ import annotations

import asyncio

from gateway.execution.httpx_transport import plain_httpx
from tests.gateway.execution.transport_calls import opened
from tests.kit.scripted_server import until

_TURNS = 24
"""Of the loop: more than it takes to connect, to send a request and to wait for its answer."""


async def test_cancelled_request_leaves_no_connection() -> None:
    way, connections = plain_httpx(), set[asyncio.StreamWriter]()
    seen = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        connections.add(writer)
        while await reader.read(1024):
            pass
        connections.discard(writer)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    origin = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    for turns in range(_TURNS):
        asking = asyncio.ensure_future(opened(way, origin))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        assert asking.cancelled()
    await until(lambda: seen > 0 and not connections)
    await way.aclose()
    server.close()
