"""Age, idleness, pings, readers that take nothing, late messages, and the end of the server, by a moved clock."""

import asyncio
import gc
import socket as sockets
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.server import websocket_connection as module
from tests.gateway.api.websocket.websocket_gateway import LIMIT_S, Connection, Provider, Running, connected, serving
from tests.kit.scripted_server import until

MINUTE_S = 60.0


def look_after(running: Running, seconds: float) -> None:
    """Look at the connections as if so many seconds had passed."""
    running.hub.look(asyncio.get_running_loop().time() + seconds)


async def close_of(running: Running, socket: Connection) -> tuple[int, dict[str, int]]:
    code, _ = await socket.until_closed()
    await socket.close()
    await running.until_quiet()
    return code, running.counts("gateway_websocket_closed_total")


async def test_idle_connection_is_closed_after_idle_and_a_turn_begins_it_anew() -> None:
    async with connected("websocket: {idle: 2m}") as (running, socket):
        (session,) = running.hub.sessions
        look_after(running, 2 * MINUTE_S - 1)
        session.active_at -= MINUTE_S
        assert (await socket.asked())["type"] == "response.completed"
        look_after(running, 2 * MINUTE_S - 1)
        assert socket.closed is None
        look_after(running, 2 * MINUTE_S)
        assert await close_of(running, socket) == (1000, {"idle": 1})


async def test_running_turn_is_never_idle_nor_too_old() -> None:
    async with connected("websocket: {idle: 1m, age: 1m}") as (running, socket):
        await running.hold(socket)
        look_after(running, 20 * MINUTE_S)
        running.provider.gate.set()
        assert (await socket.turn())[-1]["type"] == "response.completed"


async def test_old_connection_is_closed_at_its_own_moment_without_an_event() -> None:
    async with connected("websocket: {idle: 10m, age: 10m}") as (running, socket):
        (session,) = running.hub.sessions
        assert 0.9 <= session._share <= 1
        session.active_at += 600
        look_after(running, 600 * session._share - 1)
        assert len(running.hub.sessions) == 1
        look_after(running, 600 * session._share)
        assert await close_of(running, socket) == (1001, {"age": 1})
        assert socket.texts == []


async def test_turn_that_arrives_too_late_gets_an_error_in_its_place() -> None:
    async with connected("websocket: {age: 10m, idle: 10m}") as (running, socket):
        (session,) = running.hub.sessions
        await running.hold(socket)
        socket.create("second")
        await until(lambda: bool(session._queue), LIMIT_S)
        session._begun_at -= 600
        session._queue[0].arrived_at -= 600
        socket.create("late", stream_id="a")
        socket.create("later")
        await asyncio.sleep(0.05)
        running.provider.gate.set()
        assert (await socket.turn())[-1]["type"] == (await socket.turn())[-1]["type"] == "response.completed"
        event = await socket.event()
        assert (event["status"], event["error"]["code"], event["stream_id"]) == (
            400, "websocket_connection_limit_reached", "a"
        )  # fmt: skip
        assert await close_of(running, socket) == (1001, {"age": 1})
        assert len(running.provider.bodies) == 2


async def test_silent_connection_gets_a_ping_each_30_seconds(running: Running, socket: Connection) -> None:
    look_after(running, 0)
    look_after(running, module.PING_S - 1)
    look_after(running, module.PING_S)
    assert (await socket.asked())["type"] == "response.completed"
    assert socket.pings == 1


@pytest.mark.parametrize("begun", [b"\x81", b"\x01\x80" + bytes(4)], ids=["a byte", "an empty fragment"])
async def test_message_that_does_not_end_in_60_seconds_gets_408_and_1008(
    running: Running, socket: Connection, begun: bytes
) -> None:
    socket.write(begun)
    (websocket,) = running.state.websockets
    await until(lambda: websocket._message_since is not None, LIMIT_S)
    look_after(running, 59)
    look_after(running, 60)
    event = await socket.event()
    assert (event["status"], event["error"]["code"]) == (408, "request_timeout")
    assert await close_of(running, socket) == (1008, {"protocol": 1})
    assert running.app._chat.body_limits._held_bytes == 0


async def test_client_that_takes_nothing_is_cut_and_holds_its_provider_back() -> None:
    provider = Provider(words=("x" * 65_536,) * 400)
    async with connected(provider=provider) as (running, socket):
        raw = socket._writer.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        socket._writer.transport.pause_reading()  # type: ignore[attr-defined]
        socket.create()
        (websocket,) = running.state.websockets
        await until(lambda: websocket.flow.write_paused, LIMIT_S)
        await asyncio.sleep(0.1)
        look_after(running, 0)
        look_after(running, 74)
        assert running.state.websockets
        look_after(running, 76)
        await running.until_quiet()
        assert running.counts("gateway_websocket_closed_total") == {"slow": 1}
        await until(lambda: provider.cancelled == 1, LIMIT_S)


async def test_cancelled_turn_of_a_slow_client_leaves_out_no_event() -> None:
    async with connected(provider=Provider(words=("x" * 65_536,) * 400)) as (running, socket):
        socket._writer.transport.pause_reading()  # type: ignore[attr-defined]
        socket.create()
        (websocket,) = running.state.websockets
        await until(lambda: websocket.flow.write_paused, LIMIT_S)
        await asyncio.sleep(0.05)
        socket.send(type="response.cancel")
        await until(lambda: not running.state.tasks, LIMIT_S)
        socket._writer.transport.resume_reading()  # type: ignore[attr-defined]
        events = await socket.turn()
        assert events[-1]["response"]["error"]["code"] == "request_cancelled"
        assert [event["sequence_number"] for event in events] == [*range(len(events))]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name the options otherwise")
async def test_kernel_ends_a_connection_whose_other_end_is_gone(running: Running) -> None:
    await running.connect()
    (websocket,) = running.state.websockets
    raw = websocket._transport.get_extra_info("socket")
    options = (sockets.TCP_KEEPIDLE, sockets.TCP_KEEPINTVL, sockets.TCP_KEEPCNT, sockets.TCP_USER_TIMEOUT)
    idle_s, between_s, probes, unsent_ms = (raw.getsockopt(sockets.IPPROTO_TCP, option) for option in options)
    assert raw.getsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE)
    # With a time for data that is not acknowledged, the kernel would end that of a client that does not read.
    assert (idle_s + between_s * probes, unsent_ms) == (60, 0)


@asynccontextmanager
async def not_reading(words: tuple[str, ...]) -> AsyncIterator[Running]:
    """A client that takes nothing of its answer, which the systems of both sides hold."""
    async with connected(provider=Provider(words=words)) as (running, socket):
        (websocket,) = running.state.websockets
        for side, option in (
            (socket._writer.get_extra_info("socket"), sockets.SO_RCVBUF),
            (websocket._raw, sockets.SO_SNDBUF),
        ):
            side.setsockopt(sockets.SOL_SOCKET, option, 4096)
        socket._writer.transport.pause_reading()  # type: ignore[attr-defined]
        socket.create()
        await until(lambda: bool(running.provider.bodies) and not running.state.tasks, LIMIT_S)
        look_after(running, 0)
        yield running


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what was acknowledged")
async def test_client_that_takes_nothing_of_a_short_answer_is_slow_after_75_seconds() -> None:
    async with not_reading(("x" * 8_000,)) as running:
        (websocket,) = running.state.websockets
        assert not websocket.flow.write_paused
        look_after(running, 74)
        assert running.state.websockets
        look_after(running, 75)
        await running.until_quiet()
        assert running.counts("gateway_websocket_closed_total") == {"slow": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what was acknowledged")
async def test_client_whose_system_answers_nothing_is_lost_after_60_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with not_reading(("x" * 8_000,)) as running:
        monkeypatch.setattr(module, "_last_answer_s", lambda raw: 59.9)
        look_after(running, 60)
        assert running.state.websockets
        monkeypatch.setattr(module, "_last_answer_s", lambda raw: 60.0)
        look_after(running, 59)
        assert running.state.websockets
        look_after(running, 60)
        await running.until_quiet()
        assert running.counts("gateway_websocket_closed_total") == {"lost": 1}


async def test_client_that_takes_a_little_is_not_slow() -> None:
    async with not_reading(("x" * 8_000,)) as running:
        (socket,) = running.connections
        (websocket,) = running.state.websockets
        look_after(running, 74)
        assert websocket._unread is not None
        socket._writer.transport.resume_reading()  # type: ignore[attr-defined]
        raw, transport = websocket._raw, websocket._transport
        await until(lambda: not module._unacknowledged_bytes(raw) + transport.get_write_buffer_size(), LIMIT_S)
        look_after(running, 75)
        assert running.state.websockets
        assert websocket._unread is None


@pytest.mark.slow("holds 1,000 connections")
async def test_a_thousand_idle_connections_hold_up_no_turn_and_end_one_after_the_other() -> None:
    async with serving("clients: {app: {limits: {connections: 1000}}}") as running:
        connections = [await running.connect() for _ in range(1000)]
        assert running.hub.status()["connections"] == 1000
        look_after(running, module.PING_S)
        for socket in (connections[0], connections[999]):
            assert (await socket.asked())["type"] == "response.completed"
            assert socket.pings == 1
        running.state.websockets_s = 0.0
        running.state.begin()
        codes = {(await socket.until_closed())[0] for socket in connections}
        assert codes == {1012}
        for socket in connections:
            await socket.close()
        await running.until_quiet()
        assert running.hub.status() == {"connections": 0, "state_bytes": 0}
        assert running.counts("gateway_websocket_closed_total") == {"drain": 1000}


@pytest.mark.parametrize("words", [("one",), ("one", "by", "one")], ids=["at once", "as it comes"])
async def test_turn_is_freed_without_the_garbage_collector(words: tuple[str, ...]) -> None:
    async with connected(provider=Provider(words)) as (running, socket):
        (session,) = running.hub.sessions
        await running.hold(socket)
        turn, exchange = weakref.ref(session._turn), weakref.ref(session._turn.exchange)
        gc.disable()
        try:
            running.provider.gate.set()
            assert (await socket.turn())[-1]["type"] == "response.completed"
            await until(lambda: not running.state.tasks, LIMIT_S)
            assert (turn(), exchange()) == (None, None)
        finally:
            gc.enable()


@pytest.mark.slow("asks some hundred turns")
async def test_turns_on_one_connection_leave_nothing(running: Running, socket: Connection) -> None:

    async def objects_after(turns: int) -> int:
        for _ in range(turns):
            assert (await socket.asked())["type"] == "response.completed"
            running.provider.bodies.clear()
        running.app.metrics.settle()
        gc.collect()
        return len(gc.get_objects())

    await objects_after(250)  # as many are shown as the last requests
    before = await objects_after(50)
    assert await objects_after(250) - before < 50


async def test_end_of_a_connection_is_logged_once(running: Running) -> None:
    with capture_logs() as logged:
        socket = await running.connect()
        await socket.asked()
        await socket.close()
        await running.until_quiet()
    (line,) = [line for line in logged if line["event"] == "websocket_closed"]
    assert {name: line[name] for name in ("client", "turns", "code", "reason")} == {
        "client": "app", "turns": 1, "code": 1000, "reason": "client"
    }  # fmt: skip
    assert len(line["connection"]) == 8


# --- drain and stop -------------------------------------------------------------------------------


async def test_drain_closes_idle_connections_one_after_the_other_with_1012(running: Running) -> None:
    connections = [await running.connect() for _ in range(4)]
    running.state.websockets_s = 0.2
    running.state.begin()
    assert [(await socket.until_closed())[0] for socket in connections] == [1012] * 4
    for socket in connections:
        await socket.close()
    await running.until_quiet()
    assert running.counts("gateway_websocket_closed_total") == {"drain": 4}


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_connection_runs_one_turn_while_the_server_drains(
    running: Running, socket: Connection, begins: str
) -> None:
    running.provider.hold()
    if begins == "before":
        socket.create()
        await running.provider.asked.wait()
    running.state.begin()
    if begins == "after":
        socket.create()
        await running.provider.asked.wait()
    socket.create("second")
    running.provider.gate.set()
    assert (await socket.turn())[-1]["type"] == "response.completed"
    assert (await socket.until_closed())[0] == 1012
    assert len(running.provider.bodies) == 1


async def test_turn_that_is_not_finished_in_time_ends_with_response_failed_and_1012(
    running: Running, socket: Connection
) -> None:
    running.provider.hold()
    socket.create()
    first: dict[str, Any] = await socket.event()
    running.state.close_websockets()
    for task in [*running.state.tasks]:
        task.cancel()
    events = [first, *await socket.turn()]
    assert events[-1]["response"]["error"]["code"] == "stream_interrupted"
    assert (await socket.until_closed())[0] == 1012
