"""The server: how it takes what connects."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop

from gateway.server.uvicorn_server import GatewayServer, bind, duplicates_of, server_config

_CROWD = 64


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _turns_for_a_crowd(of: Any) -> tuple[int, list[socket.socket]]:
    """How many turns of the loop pass until everybody who came during one of them is connected; and the sockets, which
    are closed by then."""
    listener = bind("127.0.0.1", 0)
    address, sockets = listener.getsockname(), of(listener)
    up = asyncio.Event()

    async def on_started() -> None:
        up.set()

    server = GatewayServer(server_config(_app, 1.0))
    server.on_started = on_started
    serving = asyncio.create_task(server.serve(sockets))
    await up.wait()
    crowd = [socket.create_connection(address) for _ in range(_CROWD)]
    turns = 0
    while len(server.server_state.connections) < _CROWD:
        await asyncio.sleep(0)
        turns += 1
    for one in crowd:
        one.close()
    server.stop()
    await serving
    return turns, sockets


def test_a_process_that_is_alone_takes_several_new_connections_in_a_turn() -> None:
    """However long its turns are by then: one at a time, each would wait for all before it."""
    one_by_one, _ = uvloop.run(_turns_for_a_crowd(lambda listener: [listener]))
    turns, sockets = uvloop.run(_turns_for_a_crowd(duplicates_of))
    assert turns < one_by_one / 3
    assert all(each.fileno() < 0 for each in sockets)


def test_connections_in_the_queue_of_a_listener_that_closes_are_answered() -> None:
    """The system resets the connections that no process has accepted when it closes a listening socket."""

    async def serve() -> list[bytes]:
        listener = bind("127.0.0.1", 0)
        address, up = listener.getsockname(), asyncio.Event()

        async def on_started() -> None:
            up.set()

        server = GatewayServer(server_config(_app, 10.0))
        server.on_started = on_started
        serving = asyncio.create_task(server.serve([listener]))
        await up.wait()
        # The loop does not turn from here to `stop`, so that it accepts few of them before it stops.
        crowd = [socket.create_connection(address) for _ in range(_CROWD)]
        for one in crowd[::2]:
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        server.stop()
        await asyncio.sleep(0.05)
        for one in crowd[1::2]:
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await serving
        answers = [one.recv(65536) for one in crowd]
        for one in crowd:
            one.close()
        return answers

    answers = uvloop.run(serve())
    # The application of this module answers no request, which the server reports.
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 500 "] * _CROWD
    assert all(b"connection: close" in answer for answer in answers)


def test_idle_server_sleeps_until_it_is_to_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.uvicorn_server._DATE_S", 1000.0)
    looks: list[int] = []

    class Server(GatewayServer):
        async def on_tick(self, counter: int) -> bool:
            looks.append(counter)
            return await super().on_tick(counter)

    async def serve() -> bool:
        up = asyncio.Event()

        async def on_started() -> None:
            up.set()

        server = Server(server_config(_app, 1.0))
        server.on_started = on_started
        serving = asyncio.create_task(server.serve([bind("127.0.0.1", 0)]))
        await up.wait()
        server.stop()
        await serving
        return bool(server.server_state.default_headers)

    assert uvloop.run(serve())
    assert len(looks) <= 2
