"""A WebSocket connection (RFC 6455): bytes of the socket to messages of a session, and back.

The library `websockets` reads and writes the frames. Their bounds are here: the size, the time and the fragments of
a message, its room in the memory of the worker, control frames, readers that take nothing, and the end of a connection.
Nothing that a client sends raises an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.streams import StreamReader

from gateway.api.body import BODY_TIME_S
from gateway.api.body_room import SMALL_BODY_BYTES, BodyRoom
from gateway.api.connection import Close, FrequencyLimit, WebSocketSession, text_frame
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline

PING_S = 30.0
CLOSING_S = 2.0
MOST_FRAGMENTS = 1024
MOST_FRAMES = 16
"""So many frames of a connection are read in one turn of the loop."""
MOST_CONTROL_FRAMES = 60
CONTROL_WINDOW_S = 10.0
_UNREACHABLE_S = 60
"""How long the client's system may answer nothing. One whose app does not read answers, with a window of 0."""
_PROBES = 3
_CODE_BYTES = 2
_FAILURES = {it.code: it for it in (Close.FRAME, Close.NO_UTF8, Close.TOO_LARGE, Close.ERROR, Close.LOST)}
"""Why the library fails a connection with each of its codes."""
_IS_LINUX = sys.platform == "linux"
"""Others have these options of a socket under other names, or not at all."""
_LAST_ANSWER = slice(56, 60)
"""Where `tcpi_last_ack_recv` stands in `struct tcp_info` of Linux, in milliseconds."""
_QUIET = logging.getLogger("gateway.websocket")
_QUIET.disabled = True


class _Reader(StreamReader):
    """The bytes of frames. It stops the library's parser between two frames while none may be read."""

    left_frames = MOST_FRAMES

    @property
    def has_stopped(self) -> bool:
        """Whether more frames may have arrived than were read."""
        return self.left_frames <= 0 and bool(self.buffer)

    def at_eof(self) -> Generator[None, None, bool]:
        """See StreamReader. The parser asks before each frame."""
        while self.has_stopped:
            yield
        return (yield from super().at_eof())


class _Frames(Protocol):
    """The frames of one connection. The library's own reasons in close frames are replaced.

    One read may bring thousands of frames, and a frame costs a hundred times as much as its bytes. So each call of
    `receive` reads a bounded number.
    """

    reader: _Reader

    def __init__(self, most_bytes: int, failing: Callable[[int], Close]) -> None:
        super().__init__(SERVER, state=OPEN, max_size=most_bytes, logger=_QUIET)
        self._failing = failing
        self.reader, self.parser = _Reader(), self.parse()
        next(self.parser)

    def receive(self, data: bytes) -> list[Frame]:
        """Return the next frames of what has arrived, and of these bytes."""
        self.reader.left_frames = MOST_FRAMES
        self.receive_data(data)
        return self.events_received()  # type: ignore[return-value]  # a server gets frames only

    def recv_frame(self, frame: Frame) -> None:
        self.reader.left_frames -= 1
        super().recv_frame(frame)

    def fail(self, code: int, reason: str = "") -> None:
        super().fail(code, self._failing(code).words)

    def send_frame(self, frame: Frame) -> None:
        """See Protocol. A close frame of the client is answered by its code alone."""
        if frame.opcode is Opcode.CLOSE and self.close_rcvd is not None:
            frame = Frame(Opcode.CLOSE, frame.data[:_CODE_BYTES])
        super().send_frame(frame)


@dataclass(slots=True, eq=False, repr=False)
class WebSocketConnection(asyncio.Protocol):
    """See `gateway.api.connection.WebSocket`. A client may take nothing for `unread_s`."""

    _session: WebSocketSession
    _transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]
    _forget: Callable[[WebSocketConnection], None]
    _unread_s: float
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    is_draining: bool = False
    _events: deque[Frame] = field(default_factory=deque)
    # The message that arrives: its parts, its room, and since when.
    _text: bytearray | None = None
    _fragments: int = 0
    _size: int = 0
    _room: BodyRoom | None = None
    _message_since: float | None = None
    _holding: asyncio.Task[None] | None = None
    _control: FrequencyLimit = field(default_factory=lambda: FrequencyLimit(MOST_CONTROL_FRAMES, CONTROL_WINDOW_S))
    # How many bytes were sent. While the client has not taken all of them: how many it has, and since when.
    _written: int = 0
    _unread: tuple[int, float] | None = None
    _has_sent: bool = False
    _ending: asyncio.TimerHandle | None = None
    _why: Close | None = None
    flow: FlowControl = field(init=False)
    _frames: _Frames = field(init=False)
    _raw: Any = field(init=False)
    # Since when nothing was sent, as far as `look` has seen.
    _sent_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.flow = FlowControl(self._transport)
        self._frames = _Frames(self._session.most_bytes, self._note_failure)
        self._raw = self._transport.get_extra_info("socket")
        self._sent_at = self.loop.time()
        _watch_peer(self._raw)

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._frames._state is not OPEN

    def send_frames(self, frames: bytes) -> None:
        if self._frames._state is OPEN:
            self._has_sent = True
            self._written += len(frames)
            self._transport.write(frames)

    def close(self, why: Close) -> None:
        if self._frames._state is OPEN:
            self._why = self._why or why
            if why.reason == "protocol":
                self._frames.fail(why.code)  # what follows is not read
            else:
                self._frames.send_close(why.code, why.words)
            self._flush()

    def cut(self) -> None:
        self._why = self._why or Close.SLOW
        self._transport.abort()

    def look(self, now: float) -> None:
        if self._message_since is not None and now - self._message_since >= BODY_TIME_S and self._holding is None:
            self._message_since = None
            self._refuse("request_timeout", Close.RULE)
        if self._has_sent or self._unread is not None:
            self._look_at_reader(now)
        if self._has_sent:
            self._sent_at, self._has_sent = now, False
        if self._unread is None and self._frames._state is OPEN and now - self._sent_at >= PING_S:
            self._frames.send_ping(b"")
            self._flush()

    def _look_at_reader(self, now: float) -> None:
        """End the connection if nothing more was taken for too long of what was sent, or if its other end is gone."""
        unread = self._transport.get_write_buffer_size() + _unacknowledged_bytes(self._raw)
        taken = self._written - unread
        if not unread:
            self._unread = None
        elif self._unread is None or taken > self._unread[0]:
            self._unread = taken, now
        elif now - self._unread[1] >= self._unread_s:
            self.cut()
        elif now - self._unread[1] >= _UNREACHABLE_S and _last_answer_s(self._raw) >= _UNREACHABLE_S:
            self._why = self._why or Close.LOST
            self._transport.abort()

    # --- the server ------------------------------------------------------------------------------

    def close_at(self, at: float) -> None:
        """Close the connection with its next turn, or at this time of the loop if there is none."""
        self.is_draining = True
        self.loop.call_at(at, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._session.is_idle:
            self.finish()

    def finish(self) -> None:
        """Close the connection, because the server ends."""
        self.close(Close.DRAIN)

    # --- events of the transport -----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        unsent = self._transport.get_write_buffer_size()
        self._events += self._frames.receive(data)
        self._process()
        self._flush()
        if self._holding is not None:
            return
        if self.flow.write_paused and self._transport.get_write_buffer_size() > unsent:
            self.flow.pause_reading()  # until the client has taken what it is answered
        elif self._frames.reader.has_stopped:
            self.flow.pause_reading()
            self._session.body_limits.pacer.ask(self._go_on)
        else:
            self.flow.resume_reading()

    def _go_on(self) -> None:
        """Read further frames of what has arrived."""
        if self._holding is None and not self._transport.is_closing():
            self.data_received(b"")

    def eof_received(self) -> None:
        """See asyncio.Protocol. The transport closes itself."""
        self._frames.receive_eof()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self.flow.read_paused:
            self._session.body_limits.pacer.ask(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ending is not None:
            self._ending.cancel()
        if self._holding is not None:
            self._holding.cancel()
        self._release_room()
        self._events.clear()
        self.flow.resume_writing()
        self._forget(self)
        why, received = self._why or Close.LOST, self._frames.close_rcvd
        self._session.end(why, int(received.code) if why is Close.CLIENT and received is not None else why.code)

    # --- frames ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what the library has to send. After a close frame, end the turn and begin to wait for the end."""
        writes = self._frames.data_to_send()
        if writes and not self._transport.is_closing():
            self._has_sent = True
            data = b"".join(writes)
            self._written += len(data)
            self._transport.write(data)
            if not writes[-1] and self._transport.can_write_eof():
                self._transport.write_eof()
        if self._frames._state is not OPEN and self._ending is None:
            self._release_room()
            self._session.leave()
            self._ending = self.loop.call_later(CLOSING_S, self._transport.abort)

    def _note_failure(self, code: int) -> Close:
        """Note why the library fails the connection. A message that is too large gets its event before that."""
        why = _FAILURES.get(code, Close.RULE)
        if why is Close.TOO_LARGE and self._frames._state is OPEN:
            self._frames.send_text(self._session.error_event("request_too_large"))
        self._why = self._why or why
        return why

    def _process(self) -> None:
        """Take the frames that have arrived, until one has to wait for room."""
        while self._events and self._holding is None:
            self._take(self._events.popleft())
        if self._holding is not None or self._frames._state is not OPEN:
            return
        pending = len(self._frames.reader.buffer) + self._size
        if not pending and self._text is None:
            self._message_since = None
            return
        if self._message_since is None:
            self._message_since = self.loop.time()
        self._hold(pending, None)

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.CLOSE:
            self._why = self._why or Close.CLIENT
        elif self._frames._state is not OPEN:
            return
        elif opcode is Opcode.PING or opcode is Opcode.PONG:
            if not self._control.spend(self.loop.time()):
                self.close(Close.RULE)
        elif opcode is Opcode.BINARY:
            self.close(Close.BINARY)
        elif opcode is Opcode.TEXT and frame.fin:
            self._complete(bytes(frame.data))
        else:
            if self._text is None:
                self._text = bytearray()
            self._text += frame.data
            self._fragments, self._size = self._fragments + 1, len(self._text)
            if self._fragments > MOST_FRAGMENTS:
                self.close(Close.RULE)
            elif frame.fin:
                text, self._text, self._fragments, self._size = bytes(self._text), None, 0, 0
                self._complete(text)

    def _complete(self, text: bytes) -> None:
        """Check a whole message, and pass it on with its room."""
        if not text.isascii():
            try:
                text.decode()
            except UnicodeDecodeError:
                self.close(Close.NO_UTF8)
                return
        self._message_since = None
        self._hold(len(text), text)

    def _deliver(self, text: bytes) -> None:
        room, self._room = self._room, None
        if room is not None and self._frames._state is OPEN:
            room.end_reading()
            if room.held_bytes != len(text):
                room.settle(len(text))
            self._session.take_message(text, room)
        elif room is not None:
            room.release()

    # --- room ------------------------------------------------------------------------------------

    def _hold(self, size: int, text: bytes | None) -> None:
        """Have room for this much of the message, and pass it on if it is whole. It is not read while it waits."""
        room = self._room
        if room is None:
            session = self._session
            room = self._room = BodyRoom(session.body_limits, session.client_name, session.most_bytes)
            if text is None or size > SMALL_BODY_BYTES:
                room.begin_reading(self._evict)
        if not room.is_large and size > SMALL_BODY_BYTES:
            self.flow.pause_reading()
            self._holding = self.loop.create_task(self._wait_for_room(room, size, text))
            return
        try:
            if not room.is_large:
                room.take(max(size, room.held_bytes))
        except ApiError:
            self._evict()
        else:
            if text is not None:
                self._deliver(text)

    async def _wait_for_room(self, room: BodyRoom, size: int, text: bytes | None) -> None:
        deadline = Deadline.start(BODY_TIME_S, BODY_TIME_S)
        try:
            await room.hold(size, deadline)
        except ApiError:
            self._evict()
        else:
            if text is not None:
                self._deliver(text)
        finally:
            deadline.close()
            self._holding = None
        self._go_on()

    def _evict(self) -> None:
        self._refuse("overloaded", Close.ROOM)

    def _release_room(self) -> None:
        room, self._room, self._text, self._size = self._room, None, None, 0
        if room is not None:
            room.release()

    def _refuse(self, error: str, why: Close) -> None:
        """Send an event with an error of the connection, and close it."""
        self.send_frames(text_frame(self._session.error_event(error)))
        self.close(why)


def _watch_peer(raw: Any) -> None:
    """Let the kernel end an idle connection whose other end does not answer: a client may read only during a turn.

    Its option for data that is not acknowledged (`TCP_USER_TIMEOUT`) would end that of a client that does not read too.
    """
    if raw is None:
        return
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if _IS_LINUX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _UNREACHABLE_S // 2)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _UNREACHABLE_S // 2 // _PROBES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def _unacknowledged_bytes(raw: Any) -> int:
    """Return how many bytes the kernel holds for the client; 0 where that is not known."""
    if _IS_LINUX and raw is not None:
        with contextlib.suppress(OSError):
            return int.from_bytes(ioctl(raw.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def _last_answer_s(raw: Any) -> float:
    """Return how long ago the client's system has acknowledged something; 0 where that is not known."""
    if _IS_LINUX and raw is not None:
        with contextlib.suppress(OSError):
            info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ANSWER.stop)
            return int.from_bytes(info[_LAST_ANSWER], sys.byteorder) / 1000
    return 0.0
