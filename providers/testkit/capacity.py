"""The capacity of a simulated provider. Requests above it wait, as on a busy machine, or are rejected."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from providers.value import Value

_BURST_S = 1.0


class Capacity(Value, frozen=True):
    """The limits of a simulated provider: of concurrent requests, and of requests per second, or None without a limit.

    Above a limit, it answers with the status 429 or 503, or later (`slow`). A burst of one second is accepted.
    """

    concurrent: int | None = None
    rps: float | None = None
    beyond: Literal["slow", 429, 503] = "slow"


class Gate:
    """Admits requests within the capacity, and queues or rejects others."""

    def __init__(self) -> None:
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_at = 0.0

    async def enter(self, capacity: Capacity) -> int | None:
        """Return None when the request is admitted (then call `leave` at its end), or the status to reject it with."""
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
            # Another request that ends passes its slot to this one.
            slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(slot)
            try:
                await slot
            except asyncio.CancelledError:
                if slot.done() and not slot.cancelled():
                    self.leave()
                raise
        else:
            self._inside += 1
        return None

    def leave(self) -> None:
        """End a request, and pass its slot to the request that has waited longest."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._inside -= 1
