"""How long a deployment's answers take to begin: a histogram that forgets, from which any share can be read."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

_FEWEST = 20
_HALVED_AT = 1024
_GROWTH = 1.1
_BOUNDS_S: tuple[float, ...] = tuple(0.005 * _GROWTH**power for power in range(123))
"""From 5 ms to about ten minutes, each a tenth above the one before, so that a share is known to a tenth."""


class Latencies:
    """Counts of what was measured lately: when there are 1,024, half of each count is forgotten."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts = [0.0] * (len(_BOUNDS_S) + 1)
        self._total = 0.0

    def note(self, seconds: float) -> None:
        """One more answer began after so long, or was given up then."""
        self._counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self._total += 1
        if self._total >= _HALVED_AT:
            self._counts = [count / 2 for count in self._counts]
            self._total /= 2

    def share_s(self, share: float) -> float | None:
        """The time within which this share (0 to 1) began, at most a tenth too long; None while too few are known to
        say: twenty, or so many that one of them lies beyond."""
        if self._total < max(_FEWEST, 1 / (1 - share)):
            return None
        wanted = share * self._total
        # Halved counts are sums of fractions: the last one may miss the total by a little.
        found = bisect_left(list(accumulate(self._counts)), wanted - 1e-6)
        return _BOUNDS_S[min(found, len(_BOUNDS_S) - 1)]
