"""The HTTP server's interface for endpoints beyond ASGI: connection loss, the complete body, and direct writes.

Our server puts these values into the `extensions` of an ASGI scope. Under another server they are absent, and the
endpoint uses ASGI alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

CONNECTION = "gateway.connection"
"""Key in a scope's `extensions` for the `ClientConnection`."""
HEAD = "gateway.head"
"""Key in a scope's `extensions` for the `SameHead`, if the server knows the head of this request already."""
NOT_TAKEN = "the client did not read its answer in time"
"""The reason why a connection was ended although its client is still there."""


class Cycle(Protocol):
    """One request on its connection: the operations that need no wait.

    A method that returns a bool returns False if it would have to wait. It has done nothing then, and the caller uses
    ASGI's `send`. A line is one header as it is written, without its line end; the server adds `content-length` and
    `connection` itself.
    """

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that runs the request."""

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


class SameHead:
    """The head that one request after another on a connection has. Only the digits of `content-length` differ.

    Attributes:
        made: The endpoint's result for this head, which it reuses. It must not depend on those digits.
    """

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: Any = None


class ClientConnection:
    """A client's connection. It reports its loss at once, without a task that waits for it.

    Attributes:
        cut: Ends the connection at once; drops everything that the client has not read.
        cycle: The request that runs now. A request finds itself here until its response is complete.
        why_lost: The reason of the loss, if the client did not leave by itself.
    """

    __slots__ = ("_callbacks", "cut", "cycle", "lost", "why_lost")

    def __init__(self, cut: Callable[[], None] = lambda: None) -> None:
        self.lost = False
        self.cut = cut
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
