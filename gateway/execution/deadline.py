"""The time that one request has: made at the door, it only shrinks. All times are monotonic seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

__all__ = ["Clock", "Deadline", "TimeLimit"]

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


class TimeLimit:
    """`with TimeLimit(seconds): …` raises TimeoutError if the block takes longer: a cheap asyncio.timeout.

    Made anew for each use, inside a task. A cancellation from elsewhere stays one.
    """

    __slots__ = ("_before", "_expired", "_handle", "_seconds", "_task")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._task = task
        self._before = task.cancelling()
        self._handle = loop.call_later(max(self._seconds, 0), self._expire)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # As asyncio.timeout does: only our own cancellation becomes a TimeoutError.
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
