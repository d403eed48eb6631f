"""What a request may know of its connection beyond ASGI: that it has been lost, and what is there without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

LINE = "gateway.line"
"""Where our server puts it: this key of an ASGI scope's `extensions`."""
HEAD = "gateway.head"
"""Beside it, for a request whose head is known again: a `SameHead`."""
NOT_TAKEN = "the client did not take its answer in time"
"""Why a connection was ended whose client is there."""


class Cycle(Protocol):
    """One request on its connection, for what needs no wait, and so no timer and no turn of the loop.

    What can't be done so is not done at all, and False says it: then ASGI's `send` does it. A line is one header as it
    is written, without its end; `content-length` and `connection` are the server's own. task: what runs the request.
    """

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the request."""
        ...

    async def send(self, message: Any) -> None:
        """ASGI's `send`, which may wait."""
        ...

    def whole_body(self) -> bytes | None:
        """The request's body if all of it has arrived, which is then as good as received; else None."""
        ...

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        """Write a whole answer, with status 200."""
        ...

    def respond_stream(self, lines: list[bytes], data: bytes) -> bool:
        """Write a whole stream, with status 200."""
        ...

    def begin(self, lines: list[bytes]) -> bool:
        """Begin a stream, with status 200; its head leaves with the first bytes."""
        ...

    def write(self, data: bytes) -> bool:
        """Write more of the response's body."""
        ...

    def finish(self) -> bool:
        """The response's body is complete."""
        ...


class SameHead:
    """The head of one request after another on a connection: it differs in nothing but the digits of its length.

    made: what its reader has made of it, and doesn't make anew; nothing that depends on those digits.
    """

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: Any = None


class Line:
    """Tells of the client's leaving at once and without a task that waits for it.

    cycle: the request that runs; it's the one that a request finds here until its response is complete. why_lost: where
    it isn't the client that has left.
    """

    __slots__ = ("_callbacks", "cut", "cycle", "lost", "why_lost")

    def __init__(self, cut: Callable[[], None] = lambda: None) -> None:
        self.lost = False
        self.cut = cut
        """Ends the connection at once, with whatever has not been taken from it."""
        self.cycle: Cycle | None = None
        self.why_lost: str | None = None
        # A dict for its order; nearly always there is one.
        self._callbacks: dict[Callable[[], None], None] = {}

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back when the connection is lost; at once if it is already."""
        if self.lost:
            callback()
        else:
            self._callbacks[callback] = None

    def forget(self, callback: Callable[[], None]) -> None:
        """Don't call back any more."""
        self._callbacks.pop(callback, None)

    def lose(self) -> None:
        """The connection is lost."""
        self.lost = True
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks:
            callback()
