"""What a request may know of its connection beyond ASGI: that it has been lost, and what is there without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["CYCLE", "LINE", "Cycle", "Line"]

LINE = "gateway.line"
CYCLE = "gateway.cycle"
"""Where our server puts them: these keys of an ASGI scope's `extensions`."""


class Cycle(Protocol):
    """One request on its connection, for what needs no wait, and so no timer and no turn of the loop."""

    def whole_body(self) -> bytes | None:
        """The request's body if all of it has arrived, which is then as good as received; else None."""
        ...

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write a whole response if the client takes it without a wait; else do nothing, and say so by False."""
        ...

    def write(self, data: bytes) -> bool:
        """Write more of the response's body, likewise."""
        ...


class Line:
    """Tells of the client's leaving at once and without a task that waits for it."""

    __slots__ = ("_callbacks", "cut", "lost")

    def __init__(self, cut: Callable[[], None] = lambda: None) -> None:
        self.lost = False
        self.cut = cut
        """Ends the connection at once, with whatever has not been taken from it."""
        self._callbacks: list[Callable[[], None]] = []

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back when the connection is lost; at once if it is already."""
        if self.lost:
            callback()
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Don't call back any more."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def lose(self) -> None:
        """The connection is lost."""
        self.lost = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
