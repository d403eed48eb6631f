"""The connection that a request came on, as far as the request may know of it: that it has been lost, or is to be."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LINE", "Line"]

LINE = "gateway.line"
"""Where our server puts it: this key of an ASGI scope's `extensions`."""


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
