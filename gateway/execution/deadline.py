"""The time that one request has: made at the door, it only shrinks. All times are monotonic seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["Clock", "Deadline", "TimeLimit"]

Clock = Callable[[], float]


class Deadline:
    """Two ends: of everything (`total_at`), and of the wait for the first real event (`commit_at`).

    It belongs to the task that first asks it for a limit; looking that task up is a system call on Python 3.11, so that
    it is done once.
    """

    __slots__ = ("_loop", "_task", "clock", "commit_at", "started_at", "total_at")

    def __init__(self, started_at: float, total_at: float, commit_at: float, clock: Clock = time.monotonic) -> None:
        self.started_at = started_at
        self.total_at = total_at
        self.commit_at = commit_at
        self.clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None

    @classmethod
    def start(cls, total_s: float, commit_s: float, clock: Clock = time.monotonic) -> Deadline:
        """A deadline that runs from now."""
        now = clock()
        return cls(now, now + total_s, now + min(commit_s, total_s), clock)

    def shorten(self, total_s: float) -> None:
        """End no later than `total_s` after the start."""
        self.total_at = min(self.total_at, self.started_at + total_s)
        self.commit_at = min(self.commit_at, self.total_at)

    def left_s(self, *, committed: bool) -> float:
        """Seconds until the end that counts: of everything once an answer has begun, else of the wait for it."""
        return (self.total_at if committed else self.commit_at) - self.clock()

    @property
    def task(self) -> asyncio.Task[object]:
        """The task that it belongs to."""
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.current_task(self._loop)
            if self._task is None:
                raise RuntimeError("a deadline needs a task")
        return self._task

    def limit(self, seconds: float) -> TimeLimit:
        """`with deadline.limit(seconds): …` raises TimeoutError if the block takes longer."""
        task = self.task
        return TimeLimit(seconds, self._loop or asyncio.get_running_loop(), task)


class TimeLimit:
    """`with deadline.limit(seconds): …`: a cheap asyncio.timeout, made anew for each use.

    A cancellation from elsewhere stays one.
    """

    __slots__ = ("_before", "_expired", "_handle", "_loop", "_seconds", "_task")

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop, task: asyncio.Task[object]) -> None:
        self._seconds = seconds
        self._loop = loop
        self._task = task
        self._expired = False

    def __enter__(self) -> None:
        self._before = self._task.cancelling()
        self._handle = self._loop.call_later(max(self._seconds, 0), self._expire)

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
