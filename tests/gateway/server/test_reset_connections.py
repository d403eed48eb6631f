"""A connection that was reset before it was accepted: the system no longer knows its address."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from uvicorn.server import ServerState

from gateway.server.http_protocol import ConnectionProtocol
from gateway.server.uvicorn_server import server_config

REQUEST = b"POST /%b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_request_of_a_reset_connection_is_not_handled(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    received: list[str] = []

    async def app(scope: Any, _: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        received.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def serve(listener: socket.socket) -> None:
        config, state = server_config(app, 1), ServerState()
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: ConnectionProtocol(config, state, {}), sock=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(REQUEST % b"stays")
        assert (await reader.read()).startswith(b"HTTP/1.1 204")
        writer.close()
        server.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(REQUEST % b"gone")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serve(listener))
    assert received == ["/stays"]
