"""The time that one request has: made at the door, it only shrinks. All times are monotonic seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock", "Deadline"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """Two ends: of everything (`total_at`), and of the wait for the first real event (`commit_at`)."""

    started_at: float
    total_at: float
    commit_at: float
    clock: Clock = time.monotonic

    @classmethod
    def start(cls, total_s: float, commit_s: float, clock: Clock = time.monotonic) -> Deadline:
        """A deadline that runs from now."""
        now = clock()
        return cls(now, now + total_s, now + min(commit_s, total_s), clock)

    def shortened(self, total_s: float) -> Deadline:
        """The same start, ending no later than `total_s` after it."""
        total_at = min(self.total_at, self.started_at + total_s)
        return Deadline(self.started_at, total_at, min(self.commit_at, total_at), self.clock)

    def left_s(self, *, committed: bool) -> float:
        """Seconds until the end that counts: of everything once an answer has begun, else of the wait for it."""
        return (self.total_at if committed else self.commit_at) - self.clock()
