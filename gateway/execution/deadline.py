"""A request's deadline. It is created when the request arrives and can only be shortened.

All times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import msgspec

Clock = Callable[[], float]
RESOLUTION_S = 0.001
"""uvloop's timers count milliseconds, so one may fire slightly early."""
_NEVER = float("inf")


class Watched(Protocol):
    """A member of a sweep, which calls `watch_itself` shortly before `check_at`, in the time of the loop."""

    @property
    def check_at(self) -> float: ...

    def watch_itself(self) -> None:
        """Look from now on. The sweep has forgotten this."""


class Sweep:
    """Watches the deadlines of a process with one timer, which fires every `every_s` seconds.

    Nearly all requests end long before their deadline. Setting and cancelling a timer for each costs ten times as much
    as an entry in a set. A deadline that is near gets a timer of its own.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self._every_s = every_s
        self.soon_s = 2 * every_s
        """Deadlines that are nearer than this have their own timer."""
        self._watched: set[Watched] = set()
        self.forget = self._watched.discard
        """Stop watching a deadline that has ended."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, deadline: Watched, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the deadline until it is near."""
        self._watched.add(deadline)
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._every_s, self._check_deadlines, loop)

    def _check_deadlines(self, loop: asyncio.AbstractEventLoop) -> None:
        soon = loop.time() + self.soon_s
        for deadline in [deadline for deadline in self._watched if deadline.check_at <= soon]:
            self._watched.discard(deadline)
            deadline.watch_itself()
        if self._watched:
            loop.call_later(self._every_s, self._check_deadlines, loop)
        elif self._loop is loop:
            self._loop = None


@dataclass(slots=True, eq=False, repr=False)
class Deadline:
    """Two times: the end of everything (`total_at`), and of the wait for the first real event (`commit_at`).

    It belongs to its `task`, or to the task that first asks it for a limit (looking that up is a system call on Python
    3.11). All of its limits share one timer. A timer that fires too early is set again. `close` the deadline when the
    request has ended. At the loop's time `check_at`, it must look at its limits.
    """

    started_at: float
    total_at: float
    commit_at: float
    clock: Clock = time.monotonic
    _sweep: Sweep | None = None
    _task: asyncio.Task[Any] | None = None
    check_at: float = _NEVER
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _innermost: TimeLimit | None = None
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def start(
        cls,
        total_s: float,
        commit_s: float,
        clock: Clock = time.monotonic,
        sweep: Sweep | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> Deadline:
        """Return a deadline that starts now."""
        now = clock()
        deadline = cls(now, now + total_s, now + (commit_s if commit_s < total_s else total_s), clock, sweep, task)
        if task is not None:
            deadline._loop = task.get_loop()
        return deadline

    def shorten(self, total_s: float) -> None:
        """End no later than `total_s` after the start."""
        self.total_at = min(self.total_at, self.started_at + total_s)
        self.commit_at = min(self.commit_at, self.total_at)

    def recommit(self, commit_s: float) -> None:
        """Start the wait for the first real event again: an answer that broke off is being continued."""
        self.commit_at = min(self.total_at, self.clock() + commit_s)

    def left_s(self, *, committed: bool) -> float:
        """Return the seconds left: until the end if `committed`, else until the answer must have begun."""
        return (self.total_at if committed else self.commit_at) - self.clock()

    def is_over(self, *, committed: bool) -> bool:
        """Return whether that time is over, within the timer's resolution."""
        return self.left_s(committed=committed) <= RESOLUTION_S

    @property
    def task(self) -> asyncio.Task[object]:
        """The task that it belongs to."""
        return self._task or self._begin()

    def _begin(self) -> asyncio.Task[object]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._loop, self._task = loop, task
        return task

    def limit(self, seconds: float) -> TimeLimit:
        """Return a context manager that raises TimeoutError if its block takes longer than `seconds`."""
        return TimeLimit(self, seconds, self._task or self._begin())

    def apart(self) -> Deadline:
        """Return the same deadline for another task."""
        return Deadline(self.started_at, self.total_at, self.commit_at, self.clock)

    def close(self) -> None:
        """Stop the timer: the request has ended."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        # A task that was cancelled holds its frames, and they hold this: a cycle, with whole requests in it.
        self._task = None
        if self._sweep is not None:
            self._sweep.forget(self)

    def _watch(self, at: float, now: float) -> None:
        """Look at the limits no later than at this time of the loop."""
        self.check_at = at
        sweep = self._sweep
        if sweep is not None and at > now + sweep.soon_s:
            sweep.watch(self, self._loop)
        else:
            self.watch_itself()

    def watch_itself(self) -> None:
        """Set a timer of its own."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self.check_at, self._expire_due_limits)

    def _expire_due_limits(self) -> None:
        """Expire the innermost limit whose time is over, and look again.

        If the loop was blocked, the limit around it may be over too. It expires after the effects of the inner one: the
        client gets the error of the stream first, and then the request ends.
        """
        self._timer = None
        self.check_at = _NEVER
        over_at = self._loop.time() + RESOLUTION_S
        next_at: float | None = None
        limit = self._innermost
        while limit is not None:
            if not limit.expired:
                if limit.at <= over_at and not limit.goes_on():
                    limit.expire()
                    next_at = over_at
                    break
                if next_at is None or limit.at < next_at:
                    next_at = limit.at
            limit = limit.outer
        if next_at is not None:
            self._watch(next_at, over_at)


class TimeLimit(msgspec.Struct, eq=False):
    """A cheap `asyncio.timeout` that can be entered again with other `seconds`. See `Deadline.limit`.

    A cancellation from elsewhere stays a cancellation. When the time is over, `left_s` may return further seconds for a
    block that is making progress.
    """

    _deadline: Deadline
    seconds: float
    _task: asyncio.Task[Any]
    left_s: Callable[[], float] | None = None
    at: float = 0.0
    expired: bool = False
    outer: TimeLimit | None = None
    _before: int = 0

    def __enter__(self) -> None:
        deadline = self._deadline
        self.expired = False
        self._before = self._task.cancelling()
        self.outer = deadline._innermost
        deadline._innermost = self
        now = deadline._loop.time()
        self.at = at = now + self.seconds if self.seconds > 0 else now
        if at < deadline.check_at:
            deadline._watch(at, now)

    def goes_on(self) -> bool:
        """Return whether `left_s` gives the block more time."""
        left_s = 0.0 if self.left_s is None else self.left_s()
        if left_s <= RESOLUTION_S:
            return False
        self.at = self._deadline._loop.time() + left_s
        return True

    def expire(self) -> None:
        """End the block: its time is over."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline._innermost = self.outer
        # As asyncio.timeout does: only our own cancellation becomes a TimeoutError.
        if self.expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
