"""Count what may happen often, for a log that names it once in a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class OccasionalCount:
    """Counts events and decides when to report them: the first at once, later ones every `every_s` seconds."""

    def __init__(self, every_s: float, ticks: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._ticks = ticks
        self._unreported = 0
        self._quiet_until = float("-inf")

    def add(self) -> int:
        """Count one event. Return how many were not reported, if it is time to report; else 0."""
        self._unreported += 1
        if self._ticks() < self._quiet_until:
            return 0
        self._quiet_until = self._ticks() + self._every_s
        count, self._unreported = self._unreported, 0
        return count
