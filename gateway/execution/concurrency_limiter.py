"""Limit the concurrent calls of each deployment, with a short queue.

A provider is not sent more calls than it takes. A request waits a short time for a slot, or
is shed at once, so that the next step of its plan (or the client) can use the time better. A slot is held until the
answer is complete, including the last byte of a stream. Each worker process has its share of a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Literal

from gateway.execution.deadline import Clock
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Concurrency, Deployment
from providers.value import replace

ShedReason = Literal["queue_full", "wait_over", "no_time"]
_WORDS: Mapping[ShedReason, str] = {
    "queue_full": "the queue is full",
    "wait_over": "none ended within the waiting time",
    "no_time": "the request's deadline is earlier than the next free slot",
}
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 60.0
_HELD_WEIGHT = 0.1
"""The weight of the last slot in the moving average of how long slots are held."""


class Shed(Exception):
    """A deployment has no slot for this request. `retry_after_s`: when it may have one."""

    def __init__(self, reason: ShedReason, running: int, retry_after_s: float) -> None:
        super().__init__(f"overloaded: {running} calls are running, and {_WORDS[reason]}")
        self.reason = reason
        self.retry_after_s = retry_after_s


class Slot:
    """A slot of a deployment, held by one attempt.

    `release` it at the end of the answer; a second call does nothing.
    """

    __slots__ = ("_acquired_at", "_limiter")

    def __init__(self, limiter: ConcurrencyLimiter, acquired_at: float) -> None:
        self._limiter: ConcurrencyLimiter | None = limiter
        self._acquired_at = acquired_at

    def release(self) -> None:
        """Make the slot free for the next request."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.take_back(self._acquired_at)


class ConcurrencyLimiter:
    """The slots of one deployment.

    Attributes:
        in_use: How many are taken.
    """

    __slots__ = ("_clock", "_held_s", "_rule", "_waiting", "in_use")

    def __init__(self, rule: Concurrency | None, clock: Clock) -> None:
        """Create a limiter without taken slots. `rule` is this process's share; None for no limit."""
        self.in_use = 0
        self._clock = clock
        self._held_s = 0.0
        # The requests that wait, in the order in which they came.
        self._waiting: dict[asyncio.Future[Slot], None] = {}
        self._rule = rule

    @property
    def limit(self) -> float:
        """How many slots there are."""
        return self._rule.limit if self._rule is not None else float("inf")

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def apply_rule(self, rule: Concurrency | None) -> None:
        """Use this rule from now on. Slots that are taken stay taken, and requests that wait go on waiting."""
        self._rule = rule
        self._serve()

    def try_acquire(self) -> Slot | None:
        """Return a slot if one is free."""
        return self._slot() if self.in_use < self.limit else None

    async def acquire(self, left_s: float) -> Slot:
        """Wait for a slot.

        Raises:
            Shed: At once if no slot is expected within `left_s` or the queue is full; later if the time to wait is
                over.
        """
        rule = self._rule
        if rule is None:
            return self._slot()
        if self._expected_s(self.queued) > left_s:
            raise self._shed("no_time")
        if self.queued >= rule.queue:
            raise self._shed("queue_full")
        slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting[slot] = None
        try:
            async with asyncio.timeout(min(rule.wait_s, left_s)):
                return await slot
        except TimeoutError:
            raise self._shed("wait_over" if rule.wait_s <= left_s else "no_time") from None
        except asyncio.CancelledError:
            # A slot may have been given in the same moment.
            if slot.done() and not slot.cancelled():
                slot.result().release()
            raise
        finally:
            self._waiting.pop(slot, None)

    def take_back(self, acquired_at: float) -> None:
        """A slot that was acquired at that time is free again."""
        self.in_use -= 1
        held_s = self._clock() - acquired_at
        self._held_s += (_HELD_WEIGHT if self._held_s else 1.0) * (held_s - self._held_s)
        self._serve()

    def _slot(self) -> Slot:
        self.in_use += 1
        return Slot(self, self._clock())

    def _serve(self) -> None:
        """Give the free slots to the requests that wait."""
        while self.in_use < self.limit and self._waiting:
            first = next(iter(self._waiting))
            del self._waiting[first]
            if not first.done():
                first.set_result(self._slot())

    def _expected_s(self, ahead: int) -> float:
        """Return how long a request waits after `ahead` others, by how long slots were held recently."""
        return self._held_s * (ahead + 1) / max(self.limit, 1)

    def _shed(self, reason: ShedReason) -> Shed:
        retry_after_s = min(max(self._expected_s(self.queued), _LEAST_RETRY_S), _MOST_RETRY_S)
        return Shed(reason, self.in_use, retry_after_s)


class ConcurrencyLimiters:
    """The limiters of one process, which is number `process` (0, 1, …) of `processes` with the same config."""

    def __init__(self, process: int = 0, processes: int = 1, clock: Clock = time.monotonic) -> None:
        self._process = process
        self._processes = processes
        self._clock = clock
        self._limiters: dict[tuple[str, str, str], ConcurrencyLimiter] = {}

    def limiter(self, deployment: Deployment) -> ConcurrencyLimiter:
        """Return the deployment's limiter."""
        limiter = self._limiters.get(deployment.asked_at)
        if limiter is None:
            limiter = ConcurrencyLimiter(self._share_of(deployment.concurrency), self._clock)
            self._limiters[deployment.asked_at] = limiter
        return limiter

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rules of this config version, and forget limiters that have neither a rule nor a taken slot."""
        rules = {deployment.asked_at: deployment.concurrency for deployment in config.deployments.values()}
        for key, limiter in list(self._limiters.items()):
            rule = rules.get(key)
            limiter.apply_rule(self._share_of(rule))
            if rule is None and not limiter.in_use:
                del self._limiters[key]

    def _share_of(self, rule: Concurrency | None) -> Concurrency | None:
        return share_of(rule, self._process, self._processes) if rule is not None else None

    def rows(self, read: Callable[[ConcurrencyLimiter], float]) -> Mapping[tuple[str, ...], int]:
        """Return a number of each limiter that has a limit, by the deployment's name."""
        rows: dict[tuple[str, ...], int] = {}
        for (name, _, _), limiter in self._limiters.items():
            if limiter.limit != float("inf"):
                rows[(name,)] = rows.get((name,), 0) + int(read(limiter))
        return rows


def share_of(rule: Concurrency, process: int, processes: int) -> Concurrency:
    """Return one process's share of a rule. The shares add up to the whole, except that each is at least one."""
    queue = _part(rule.queue, process, processes) if rule.queue else 0
    return replace(rule, limit=_part(rule.limit, process, processes), queue=queue)


def _part(whole: int, process: int, processes: int) -> int:
    return max(1, whole // processes + (process < whole % processes))
