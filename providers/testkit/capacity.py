"""How much a simulated provider bears: beyond it requests wait, as on a machine that is busy, or are turned away."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal

_BURST_S = 1.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """So many requests at once and so many a second (None: any number).

    beyond: `slow`: what is more waits for its turn. 429, 503: it gets this status; a second's worth may come at once.
    """

    concurrent: int | None = None
    rps: float | None = None
    beyond: Literal["slow", 429, 503] = "slow"


class Gate:
    """The requests that are inside, and those that wait."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_at = 0.0

    async def enter(self, capacity: Capacity) -> int | None:
        """None once the request is inside, which `leave` must tell the end of; else the status that it gets."""
        now = asyncio.get_running_loop().time()
        full = capacity.concurrent is not None and self._inside >= capacity.concurrent
        if capacity.beyond != "slow":
            spent_at = max(self._next_at, now) + 1 / capacity.rps if capacity.rps else now
            if full or spent_at - now > _BURST_S:
                return capacity.beyond
            self._next_at = spent_at
            self._inside += 1
            return None
        if capacity.rps:
            starts_at = max(self._next_at, now)
            self._next_at = starts_at + 1 / capacity.rps
            await asyncio.sleep(starts_at - now)
        if capacity.concurrent is not None and self._inside >= capacity.concurrent:
            await self._turn()
        else:
            self._inside += 1
        return None

    async def _turn(self) -> None:
        """Wait until somebody leaves, whose place is then taken."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """A request has ended; who waits longest takes its place."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._inside -= 1
