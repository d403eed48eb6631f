"""Let those that move much data take turns, so that the other requests of the event loop run between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pacer:
    """Runs one of the actions that wait at each turn of the event loop, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[], None], None] = {}

    def ask(self, act: Callable[[], None]) -> None:
        """Run an action at one of the next turns; once, if it waits already."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting[act] = None

    def _next(self) -> None:
        act = next(iter(self._waiting))
        del self._waiting[act]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        act()

    async def turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self.ask(lambda: None if turn.done() else turn.set_result(None))
        await turn
