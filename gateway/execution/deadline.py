"""The time that one request has: made at the door, it only shrinks. All times are monotonic seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Clock = Callable[[], float]
RESOLUTION_S = 0.001
"""uvloop's timers count milliseconds: one may fire a little before its time."""
_NEVER = float("inf")


class Sweep:
    """Watches over the deadlines of a process with one timer.

    Nearly all of them end long before their time, and a timer for each, set and taken back, costs ten times what a
    place in a set does. One whose time has nearly come gets a timer of its own. every_s: how often all are looked at.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self._every_s = every_s
        self.soon_s = 2 * every_s
        """What is nearer than that is none of its business."""
        self._watched: set[Deadline] = set()
        self.forget = self._watched.discard
        """A deadline has ended."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        """See that the deadline looks at its limits when it is time."""
        self._watched.add(deadline)
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._every_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        soon = loop.time() + self.soon_s
        for deadline in [deadline for deadline in self._watched if deadline.look_at <= soon]:
            self._watched.discard(deadline)
            deadline.watch_itself()
        if self._watched:
            loop.call_later(self._every_s, self._look, loop)
        elif self._loop is loop:
            self._loop = None


class Deadline:
    """Two ends: of everything (`total_at`), and of the wait for the first real event (`commit_at`).

    It belongs to its `task`, or else to the one that first asks it for a limit; looking that up is a system call on
    Python 3.11. All of its limits share one timer, which is left running where it fires too early and looks again.
    `close` it when the request has ended.

    sweep: watches over it until its time has nearly come. look_at: the loop's time at which it must look at its limits.
    """

    __slots__ = (
        "_innermost",
        "_loop",
        "_sweep",
        "_task",
        "_timer",
        "clock",
        "commit_at",
        "look_at",
        "started_at",
        "total_at",
    )
    _loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        started_at: float,
        total_at: float,
        commit_at: float,
        clock: Clock = time.monotonic,
        sweep: Sweep | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        self.started_at = started_at
        self.total_at = total_at
        self.commit_at = commit_at
        self.clock = clock
        self.look_at = _NEVER
        self._sweep = sweep
        self._task = task
        if task is not None:
            self._loop = task.get_loop()
        self._innermost: TimeLimit | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def start(
        cls,
        total_s: float,
        commit_s: float,
        clock: Clock = time.monotonic,
        sweep: Sweep | None = None,
        task: asyncio.Task[Any] | None = None,
    ) -> Deadline:
        """A deadline that runs from now."""
        now = clock()
        return cls(now, now + total_s, now + (commit_s if commit_s < total_s else total_s), clock, sweep, task)

    def shorten(self, total_s: float) -> None:
        """End no later than `total_s` after the start."""
        self.total_at = min(self.total_at, self.started_at + total_s)
        self.commit_at = min(self.commit_at, self.total_at)

    def recommit(self, commit_s: float) -> None:
        """Wait for a first real event anew, from now on: an answer that broke off is to be continued."""
        self.commit_at = min(self.total_at, self.clock() + commit_s)

    def left_s(self, *, committed: bool) -> float:
        """Seconds until the end that counts: of everything once an answer has begun, else of the wait for it."""
        return (self.total_at if committed else self.commit_at) - self.clock()

    def is_over(self, *, committed: bool) -> bool:
        """Whether that end has come, as far as a timer that fires a little early can tell."""
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
        """`with deadline.limit(seconds): …` raises TimeoutError if the block takes longer."""
        return TimeLimit(self, seconds, self._task or self._begin())

    def apart(self) -> Deadline:
        """The same one for another task."""
        return Deadline(self.started_at, self.total_at, self.commit_at, self.clock)

    def close(self) -> None:
        """The request has ended: nothing of it is left to wait for."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        # A task that was cancelled holds its frames, and they hold this: a cycle, with whole requests in it.
        self._task = None
        if self._sweep is not None:
            self._sweep.forget(self)

    def _watch(self, at: float, now: float) -> None:
        """Look no later than at this time of the loop."""
        self.look_at = at
        sweep = self._sweep
        if sweep is not None and at > now + sweep.soon_s:
            sweep.watch(self, self._loop)
        else:
            self.watch_itself()

    def watch_itself(self) -> None:
        """Look by a timer of its own, when it is time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self.look_at, self._look)

    def _look(self) -> None:
        """Expire the innermost limit whose time is over, and look again.

        The one around it, over too where the loop has been held up, comes after what follows from the first: the end
        of a stream's time tells the client so, and only then is the request's over.
        """
        self._timer = None
        self.look_at = _NEVER
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


class TimeLimit:
    """`with deadline.limit(seconds): …`: a cheap asyncio.timeout, for one block after another with other `seconds`.

    A cancellation from elsewhere stays one. left_s: asked when the time is over, for a block that may go on for longer
    than `seconds` as long as it shows signs of life.
    """

    __slots__ = ("_before", "_deadline", "_task", "at", "expired", "left_s", "outer", "seconds")

    def __init__(self, deadline: Deadline, seconds: float, task: asyncio.Task[object]) -> None:
        self._deadline = deadline
        self._task = task
        self.seconds = seconds
        self.left_s: Callable[[], float] | None = None

    def __enter__(self) -> None:
        deadline = self._deadline
        self.expired = False
        self._before = self._task.cancelling()
        self.outer = deadline._innermost
        deadline._innermost = self
        now = deadline._loop.time()
        self.at = at = now + self.seconds if self.seconds > 0 else now
        if at < deadline.look_at:
            deadline._watch(at, now)

    def goes_on(self) -> bool:
        """At its end: whether the block may take longer, as `left_s` says."""
        left_s = 0.0 if self.left_s is None else self.left_s()
        if left_s <= RESOLUTION_S:
            return False
        self.at = self._deadline._loop.time() + left_s
        return True

    def expire(self) -> None:
        """The time is over: end the block."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline._innermost = self.outer
        # As asyncio.timeout does: only our own cancellation becomes a TimeoutError.
        if self.expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error
