"""Bytes after the 101: what ends the connection, with which code, and nothing is left of it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from websockets.frames import Frame

from gateway.api.connection import Close
from gateway.api.websocket.session import MOST_ERRORS
from gateway.server import websocket_connection as module
from tests.gateway.api.websocket.websocket_gateway import LIMIT_S, Connection, Provider, Running, connected
from tests.kit.scripted_server import until

CODES = {it.code for it in Close} | {1005}


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    size = len(data)
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    return head + (bytes(4) if mask else b"") + data


TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


async def left_nothing(running: Running) -> None:
    await running.until_quiet()
    assert running.app._chat.body_limits._held_bytes == 0
    assert (running.hub.state_bytes, len(running.hub.sessions), dict(running.hub._of_client)) == (0, 0, {})


async def closed_by(running: Running, *data: bytes) -> tuple[tuple[int, str], Connection]:
    socket = await running.connect()
    for part in data:
        socket.write(part)
    found = await socket.until_closed()
    await socket.close()
    await left_nothing(running)
    return found, socket


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(BINARY, b"x"), 1003, "protocol"),
        (frame(TEXT, b"\xff"), 1007, "protocol"),
        (frame(TEXT, b"{}", mask=False), 1002, "protocol"),
        (frame(TEXT, b"{}", rsv=0x40), 1002, "protocol"),
        (frame(3, b"{}"), 1002, "protocol"),
        (frame(CONT, b"{}"), 1002, "protocol"),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002, "protocol"),
        (frame(PING, b"x" * 126), 1002, "protocol"),
        (frame(PING, b"x", fin=False), 1002, "protocol"),
        (frame(CLOSE, b"x"), 1002, "protocol"),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002, "protocol"),
        (frame(CLOSE, struct.pack("!H", 5000)), 1002, "protocol"),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007, "protocol"),
        (frame(CLOSE, fin=False), 1002, "protocol"),
        (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1009, "too_large"),
        (frame(CLOSE, struct.pack("!H", 1001) + b"of the client"), 1001, "client"),
        (frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * module.MOST_FRAGMENTS, 1008, "protocol"),
        (frame(PING) * (module.MOST_CONTROL_FRAMES + 1), 1008, "protocol"),
    ],
)
async def test_bytes_that_break_a_rule_close_the_connection(
    running: Running, data: bytes, code: int, reason: str
) -> None:
    with capture_logs() as logged:
        found, _ = await closed_by(running, data)
    assert found[0] == code
    assert [type(line["code"]) for line in logged if line["event"] == "websocket_closed"] == [int]
    assert len(found[1]) <= 60
    assert found[1] in {it.words for it in Close if it.reason == reason}
    assert running.counts("gateway_websocket_closed_total") == {reason: 1}


async def test_fragments_and_control_frames_up_to_the_bound_are_accepted(socket: Connection) -> None:
    text = b'{"type":"response.create","model":"assistant","input":"hi"}'
    pieces = [b" "] * (module.MOST_FRAGMENTS - 1)
    first, *rest = [*pieces, text]
    socket.write(frame(TEXT, first, fin=False) + b"".join(frame(CONT, it, fin=False) for it in rest[:-1]))
    socket.write(frame(PING, b"x") * module.MOST_CONTROL_FRAMES)
    socket.write(frame(CONT, rest[-1]))
    assert (await socket.turn())[-1]["type"] == "response.completed"


@pytest.mark.parametrize("fragmented", [False, True])
async def test_message_above_the_limit_gets_413_and_1009(fragmented: bool) -> None:
    async with connected("clients: {app: {limits: {body_bytes: 1024}}}") as (running, socket):
        body = b'{"type":"response.create","model":"assistant","input":"%b"}'
        exact = body % (b"x" * (1024 - len(body) + 2))
        assert len(exact) == 1024
        socket.send_text(exact.decode())
        assert (await socket.turn())[-1]["type"] == "response.completed"
        if fragmented:
            socket.write(frame(TEXT, b"x" * 1000, fin=False) + frame(CONT, b"x" * 25))
        else:
            socket.write(frame(TEXT, b"x" * 1025)[:20])
        event = await socket.event()
        assert (event["status"], event["error"]["code"]) == (413, "request_too_large")
        assert (await socket.until_closed())[0] == 1009
        await socket.close()
        await left_nothing(running)
        assert running.counts("gateway_websocket_closed_total") == {"too_large": 1}


async def test_large_message_has_room_for_all_of_it_and_gives_it_back(running: Running, socket: Connection) -> None:
    limits = running.app._chat.body_limits
    socket.write(frame(TEXT, b"x" * 5_000_000)[:1_000_000])
    await until(lambda: limits._held_bytes >= 32 * 1024 * 1024, LIMIT_S)
    await socket.close()
    await left_nothing(running)
    socket = await running.connect()
    assert (await socket.asked("x" * 3_000_000))["type"] == "response.completed"
    assert limits._held_bytes == 0


@pytest.mark.parametrize(
    ("one", "most"),
    [(frame(TEXT, b"{}"), MOST_ERRORS), (frame(PING), module.MOST_CONTROL_FRAMES), (frame(PONG), 0)],
    ids=["no turns", "pings", "pongs"],
)
async def test_thousands_of_frames_in_one_write_are_read_in_turns_and_end_with_1008(
    running: Running, one: bytes, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    receive = module._Frames.receive

    def received(frames: module._Frames, data: bytes) -> list[Frame]:
        found = receive(frames, data)
        read.append(len(found))
        return found

    monkeypatch.setattr(module._Frames, "receive", received)
    (code, _), socket = await closed_by(running, one * 20_000)
    assert code == 1008
    # The frame at which a read stops may have begun in an earlier one.
    assert max(read) <= module.MOST_FRAMES + 1
    assert sum(read) <= max(MOST_ERRORS, module.MOST_CONTROL_FRAMES) + module.MOST_FRAMES + 1
    # The library answers the pings of a read before they are counted.
    assert most <= len(socket.texts) + socket.pongs <= most + (module.MOST_FRAMES if socket.pongs else 0)
    assert running.counts("gateway_websocket_closed_total") == {"protocol": 1}


async def test_other_requests_run_between_the_frames_of_one_write(running: Running, socket: Connection) -> None:
    socket.write(frame(TEXT, b'{"type":"response.processed"}') * 2000)
    await until(lambda: bool(running.hub.endpoint.body_limits.pacer._waiting), LIMIT_S)
    (websocket,) = running.state.websockets
    assert len(websocket._frames.reader.buffer) > 0
    assert websocket.flow.read_paused
    assert (await socket.asked())["type"] == "response.completed"
    assert not websocket.flow.read_paused


async def test_errors_up_to_the_bound_keep_the_connection(socket: Connection) -> None:
    socket.write(frame(TEXT, b"{}") * MOST_ERRORS)
    assert [(await socket.event())["status"] for _ in range(MOST_ERRORS)] == [400] * MOST_ERRORS
    assert (await socket.asked())["type"] == "response.completed"
    socket.send()
    assert (await socket.until_closed())[0] == 1008


async def test_nothing_more_is_read_of_a_client_that_does_not_take_its_errors() -> None:
    async with connected(provider=Provider(words=("x" * 65_536,) * 100)) as (running, socket):
        (websocket,) = running.state.websockets
        socket._writer.transport.pause_reading()  # type: ignore[attr-defined]
        socket.create()
        await until(lambda: websocket.flow.write_paused, LIMIT_S)
        assert not websocket.flow.read_paused
        socket.write(frame(PING, b"x"))
        await until(lambda: websocket.flow.read_paused, LIMIT_S)
        socket.create()
        socket._writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(2):
            assert (await socket.turn())[-1]["type"] == "response.completed"


async def test_message_without_room_gets_503_and_1013(running: Running) -> None:
    limits = running.app._chat.body_limits
    socket = await running.connect()
    limits.take(limits._most_bytes - 10)
    socket.create()
    assert (await socket.event())["error"]["code"] == "overloaded"
    assert (await socket.until_closed())[0] == 1013
    limits.give_back(limits._most_bytes - 10)


@given(st.lists(st.binary(max_size=40) | st.builds(
    frame, st.sampled_from([TEXT, BINARY, CONT, CLOSE, PING, PONG, 3]), st.binary(max_size=30),
    fin=st.booleans(), mask=st.booleans(), rsv=st.sampled_from([0, 0, 0, 0x40]),
), max_size=6), st.integers(1, 20))  # fmt: skip
async def test_any_bytes_end_in_a_known_code_and_leave_nothing(parts: list[bytes], cut: int) -> None:
    async with connected() as (running, socket):
        data = b"".join(parts)
        for start in range(0, len(data), cut):
            socket.write(data[start : start + cut])
        await socket.close()
        code, reason = await socket.until_closed()
        # A close frame of the client is sent back as it is.
        assert code in CODES or running.counts("gateway_websocket_closed_total") == {"client": 1}
        assert reason in {it.words for it in Close}
        await left_nothing(running)
        assert "error" not in running.counts("gateway_websocket_closed_total")
