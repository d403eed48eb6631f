"""Comments into a stream in which the provider is silent, so that nothing between us and the client closes it.

A comment is no event (HTML standard, section 9.2.6): clients skip it. It is sent only behind the commit, between two
events and before the last one, and it is never taken for a sign of life of the provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

COMMENT = b": keep-alive\n\n"


class KeepAlive:
    """One stream's. It looks twice within `silence_s` whether anything has been sent; with 0, never.

    Who sends something sets `is_silent` to False, and stops this before the last thing that is sent.
    """

    __slots__ = ("_comment", "_half_s", "_loop", "_send", "_timer", "is_silent")

    def __init__(self, silence_s: float, send: Callable[[Any], Awaitable[None]]) -> None:
        self.is_silent = False
        self._half_s = silence_s / 2
        self._send = send
        self._comment: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if silence_s:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._half_s, self._look)

    def _look(self) -> None:
        # A comment that waits for a slow reader is enough: what is before it keeps that connection busy.
        if self.is_silent and (self._comment is None or self._comment.done()):
            self._comment = self._loop.create_task(self._say())
        self.is_silent = True
        self._timer = self._loop.call_later(self._half_s, self._look)

    async def _say(self) -> None:
        await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})

    def stop(self) -> None:
        """No comment from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:
            self._comment.cancel()
            self._comment = None
