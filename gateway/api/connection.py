"""The HTTP server's interface for endpoints beyond ASGI: connection loss, the complete body, and direct writes.

Our server puts these values into the `extensions` of an ASGI scope. Under another server they are absent, and the
endpoint uses ASGI alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from gateway.api.body_room import BodyLimits, BodyRoom

CONNECTION = "gateway.connection"
"""Key in a scope's `extensions` for the `ClientConnection`."""
HEAD = "gateway.head"
"""Key in a scope's `extensions` for the `SameHead`, if the server knows the head of this request already."""
NOT_TAKEN = "the client did not read its answer in time"
"""The reason why a connection was ended although its client is still there."""


_SHORT, _LONG = 126, 65_536  # RFC 6455, section 5.2: the length of a frame in one, three or nine bytes


def text_frame(text: bytes) -> bytes:
    """Return the frame of a whole message from a server: what `websockets` writes, in a fifth of its time."""
    size = len(text)
    if size < _SHORT:
        return b"\x81%c%b" % (size, text)
    if size < _LONG:
        return b"\x81\x7e%c%c%b" % (size >> 8, size & 255, text)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), text)


class Silence(Protocol):
    """The silence of one client, which what is written to it ends."""

    is_silent: bool


class Cycle(Protocol):
    """One request on its connection: the operations that need no wait.

    A method that returns a bool returns False if it would have to wait. It has done nothing then, and the caller uses
    ASGI's `send`. A line is one header as it is written, without its line end; the server adds `content-length` and
    `connection` itself.
    """

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the request."""

    can_upgrade: bool
    """Whether the connection may become a WebSocket: it was offered, nothing follows the head, and nothing waits."""

    async def upgrade(self, lines: list[bytes], session: WebSocketSession) -> bool:
        """Answer 101 with these lines, and give the connection to a session; return False if it cannot upgrade now."""

    async def send(self, message: Any) -> None:
        """ASGI's `send`, which may wait."""

    def whole_body(self) -> bytes | None:
        """Return the request's body if all of it has arrived, which then counts as received; else None."""

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        """Write a complete answer with status 200."""

    def respond_stream(self, lines: list[bytes], data: bytes) -> bool:
        """Write a complete stream with status 200."""

    def write(self, data: bytes) -> bool:
        """Write more of the body of a response that `send` has started. Its head leaves with the first bytes."""

    def text_writer(self, head: bytes, tail: bytes, silence: Silence) -> Callable[[bytes], bool] | None:
        """Return a function that does what `write` does with the bytes between these two, and ends the silence.

        None: the response has no chunks, or has not begun.
        """


_RULE = "the message breaks a rule of the protocol"


class Close(Enum):
    """How a WebSocket connection ends: why, the code of RFC 6455, and the words of the frame, which show no request.

    A close frame of the client is answered by its own code. None is sent with 1006: the connection is cut or lost.
    """

    CLIENT = "client", 1000, ""
    IDLE = "idle", 1000, "the connection was idle for too long"
    AGE = "age", 1001, "the connection is too old: open another one"
    FRAME = "protocol", 1002, _RULE
    BINARY = "protocol", 1003, _RULE
    LOST = "lost", 1006, ""
    SLOW = "slow", 1006, "the client does not read"
    NO_UTF8 = "protocol", 1007, _RULE
    RULE = "protocol", 1008, _RULE
    REFUSED = "refused", 1008, "the turn was refused, see its event"
    TOO_LARGE = "too_large", 1009, "the message is too large"
    ERROR = "error", 1011, "the gateway has an internal error"
    DRAIN = "drain", 1012, "the gateway restarts: open another connection"
    ROOM = "room", 1013, "no room is left: send the conversation again"

    def __init__(self, reason: str, code: int, words: str) -> None:
        self.reason, self.code, self.words = reason, code, words


class FrequencyLimit:
    """Counts what may happen so many times within a window of time."""

    __slots__ = ("_count", "_most", "_since", "_window_s")

    def __init__(self, most: int, window_s: float) -> None:
        self._most, self._window_s = most, window_s
        self._count, self._since = 0, 0.0

    def spend(self, now: float) -> bool:
        """Count once more at this time of the loop; return whether it is still allowed."""
        if now - self._since >= self._window_s:
            self._count, self._since = 0, now
        self._count += 1
        return self._count <= self._most


class Flow(Protocol):
    """The flow of bytes to a client, which pauses while the client has not taken what was sent."""

    write_paused: bool

    async def drain(self) -> None:
        """Wait until the client has taken most of it."""


class WebSocket(Protocol):
    """A WebSocket connection as its session uses it. The end of the server waits for the tasks of its turns.

    Attributes:
        is_draining: Whether the connection closes with the end of its turn, or after a time.
        is_closing: Whether a close frame was sent or received, so that nothing more can be sent.
        flow: Whether the client has taken what was sent.
    """

    loop: asyncio.AbstractEventLoop
    tasks: set[asyncio.Task[None]]
    is_draining: bool

    @property
    def flow(self) -> Flow: ...

    @property
    def is_closing(self) -> bool: ...

    def send_frames(self, frames: bytes) -> None:
        """Send frames of whole messages. Nothing is sent on a connection that is closing."""

    def close(self, why: Close) -> None:
        """Close the connection. Only the first call counts."""

    def cut(self) -> None:
        """End the connection at once, because its client takes nothing."""

    def look(self, now: float) -> None:
        """Look after what takes too long, at this time of the loop. It is called each second."""


class WebSocketSession(Protocol):
    """The session of a WebSocket connection, as the connection uses it. While it `is_idle`, no turn runs or waits."""

    client_name: str
    most_bytes: int
    body_limits: BodyLimits

    @property
    def is_idle(self) -> bool: ...

    def begin(self, socket: WebSocket) -> None:
        """Take the connection, whose handshake is complete."""

    def take_message(self, text: bytes, room: BodyRoom) -> None:
        """Take a whole message, and its room, which the session releases."""

    def error_event(self, code: str) -> bytes:
        """Return the event of an error of the connection: a message is too large, or late, or has no room."""

    def leave(self) -> None:
        """Cancel the turn that runs, and drop those that wait: the client has closed or lost the connection."""

    def end(self, why: Close, code: int) -> None:
        """Note that the connection has ended, with this code."""


class SameHead:
    """The head that one request after another on a connection has. Only the digits of `content-length` differ.

    The endpoint reuses `made`, its result for this head, which must not depend on those digits.
    """

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: Any = None


class ClientConnection:
    """A client's connection. It reports its loss immediately, without a task that waits for it.

    Attributes:
        cut: Ends the connection immediately; drops everything that the client has not read.
        reset: Does the same, and the client reads an error in place of an end.
        cycle: The request that runs now. A request finds itself here until its response is complete.
        why_lost: The reason of the loss, if the client did not leave by itself.
    """

    __slots__ = ("_callbacks", "cut", "cycle", "lost", "reset", "why_lost")

    def __init__(self, cut: Callable[[], None] = lambda: None) -> None:
        self.lost = False
        self.cut = self.reset = cut
        self.cycle: Cycle | None = None
        self.why_lost: str | None = None
        # A dict, because it keeps the order. There is nearly always one entry.
        self._callbacks: dict[Callable[[], None], None] = {}

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the connection is lost; call it at once if it is lost already."""
        if self.lost:
            callback()
        else:
            self._callbacks[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call `callback` any more."""
        self._callbacks.pop(callback, None)

    def lose(self) -> None:
        """Report the loss of the connection to the callbacks."""
        self.lost = True
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks:
            callback()
