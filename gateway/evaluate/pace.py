"""How fast one candidate is asked: by the limit that the operator sets, and more slowly where it says "not now".

Where it turned somebody away is remembered: the pace comes back to that quickly and goes beyond it with care, so that
few questions are turned away while as many are answered as the candidate bears.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Pace"]

_SLOWEST_S, _FIRST_S, _LEAST_S = 4.0, 0.005, 0.0005
_SLOWER = 1.5
# A share of the time from one question to the next that each answer takes off: some a second, and at least so much.
_FASTER_A_SECOND, _FASTER_AT_LEAST, _FASTER_AT_MOST = 0.2, 0.02, 0.25
_NEAR, _CAREFUL_A_SECOND, _CAREFUL_AT_LEAST = 1.05, 0.01, 0.0005


@dataclass(slots=True)
class Pace:
    """The pace of one candidate, shared by all who ask it. Times are monotonic seconds.

    least_s: from one question to the next, as the operator limits it. between_s: as the candidate bears it, 0 where
    nothing is known against asking at once; edge_s: what it was when the candidate last said "not now".
    """

    least_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    between_s: float = 0.0
    edge_s: float = 0.0
    _next_at: float = 0.0
    _slowed: int = 0
    _answered: int = 0

    async def wait(self) -> int:
        """Until the next question is due; which pace it is asked at, for `turned_away`."""
        # Evenly from the begin: a provider that counts seconds would turn away a minute's worth at once.
        between_s = max(self.between_s, self.least_s)
        if between_s or self._next_at:
            now = self.clock()
            at = max(self._next_at, now)
            self._next_at = at + between_s
            await self.sleep(at - now)
        return self._slowed

    def turned_away(self, asked_at: int, retry_after_s: float | None) -> None:
        """The candidate said "not now", and perhaps for how long."""
        self._next_at = max(self._next_at, self.clock() + (retry_after_s or 0.0))
        if asked_at != self._slowed:
            return  # it was on its way at a pace that is no more
        self._slowed += 1
        self._answered = 0
        self.edge_s = max(self.between_s, self.least_s)
        self.between_s = min(_SLOWEST_S, max(_FIRST_S, self.edge_s) * _SLOWER)

    def answered(self) -> None:
        """The candidate answered."""
        if not self.between_s:
            return
        share = min(_FASTER_AT_MOST, max(_FASTER_AT_LEAST, self.between_s * _FASTER_A_SECOND))
        if self.between_s <= self.edge_s * _NEAR:
            # Here it said "not now": on from here in steps that grow from nothing, in case it bears more by now.
            self._answered += 1
            share = min(share, max(_CAREFUL_AT_LEAST, self.between_s * _CAREFUL_A_SECOND) * self._answered)
        self.between_s *= 1 - share
        if self.between_s < _LEAST_S:
            self.between_s = 0.0
