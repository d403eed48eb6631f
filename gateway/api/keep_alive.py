"""Fill the silence of a stream, so that no proxy between the gateway and the client closes the connection.

A comment fills it, which is not an event (HTML standard, section 9.2.6): clients skip it. It stands between two events
and before the last one, and it never counts as a sign of life of the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class KeepAlive:
    """Sends something, such as a comment, while one stream is silent.

    It checks twice within `silence_s` whether anything was sent.

    The writer sets `is_silent` to False when it sends something, and calls `stop` before it sends the last of it.
    """

    __slots__ = ("_comment", "_data", "_half_s", "_loop", "_send", "_timer", "is_silent")

    def __init__(self, silence_s: float, send: Callable[[Any], Awaitable[None]], data: bytes) -> None:
        """Start the timer. With a `silence_s` of 0 nothing is sent."""
        self.is_silent = False
        self._data = data
        self._half_s = silence_s / 2
        self._send = send
        self._comment: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if silence_s:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._half_s, self._check)

    def _check(self) -> None:
        # One comment that waits for a slow reader is enough: the bytes before it keep that connection busy.
        if self.is_silent and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._send_comment())
        self.is_silent = True
        self._timer = self._loop.call_later(self._half_s, self._check)

    async def _send_comment(self) -> None:
        await self._send({"type": "http.response.body", "body": self._data, "more_body": True})

    def stop(self) -> None:
        """Send no comment from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            self._comment.cancel()
            self._comment = None
