"""How many calls of each deployment run at once: places, and a short fair queue for who finds none.

More work than a provider takes is not sent to it: a request waits a little for a place, in turn with other callers, or
is shed at once, so that its plan's next step or the client itself can do something better with the time. A place is
held until the answer is over, a stream's last byte included. Each worker has its share of a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from gateway.execution.adaptive import AdaptiveLimit
from gateway.execution.deadline import Clock
from gateway.execution.fair_queue import FairQueue
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Concurrency, Deployment
from providers.failures import FailureKind

ShedReason = Literal["queue_full", "wait_over", "no_time"]
_OVERLOADED = frozenset({FailureKind.RATE_LIMITED, FailureKind.UNAVAILABLE, FailureKind.SILENT, FailureKind.CONNECT})
_WORDS: Mapping[ShedReason, str] = {
    "queue_full": "no more may wait",
    "wait_over": "none ended in the time that one may wait",
    "no_time": "the request's time would be over first",
}
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 60.0
_HELD_STEP = 0.1


class Shed(Exception):
    """A deployment has no place for this request. retry_after_s: when there may be one."""

    def __init__(self, reason: ShedReason, running: int, retry_after_s: float) -> None:
        super().__init__(f"overloaded: {running} calls are running, and {_WORDS[reason]}")
        self.reason = reason
        self.retry_after_s = retry_after_s


class Slot:
    """A place at a deployment, held by one attempt. `release` it at the end of the answer; once more does nothing."""

    __slots__ = ("_limiter", "_taken_at", "_window")

    def __init__(self, limiter: Limiter, taken_at: float, window: int) -> None:
        self._limiter: Limiter | None = limiter
        self._taken_at = taken_at
        self._window = window

    def answered(self, latency_s: float, *, whole: bool) -> None:
        """The answer began after so long, or, if `whole`, was there after it."""
        if self._limiter is not None:
            self._limiter.learn(self._window, latency_s, whole=whole)

    def failed(self, kind: FailureKind) -> None:
        """The attempt failed."""
        if self._limiter is not None and kind in _OVERLOADED:
            self._limiter.learn(self._window, None)

    def release(self) -> None:
        """The place is free for the next."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.take_back(self._taken_at)


@dataclass(slots=True, eq=False)
class _Waiter:
    """One request in the queue: it gets a place, or learns why not."""

    told: asyncio.Future[Slot | ShedReason]

    def tell(self, what: Slot | ShedReason) -> None:
        if not self.told.done():
            self.told.set_result(what)


class Limiter:
    """The places of one deployment. rule: this process's own share; None is no bound.

    in_use: how many are taken. adaptive: what leads the limit, where it is not fixed.
    """

    __slots__ = ("_clock", "_held_s", "_queue", "_rule", "adaptive", "in_use")

    def __init__(self, rule: Concurrency | None, clock: Clock) -> None:
        self.in_use = 0
        self.adaptive: AdaptiveLimit | None = None
        self._clock = clock
        self._held_s = 0.0
        self._queue: FairQueue[_Waiter] = FairQueue(0)
        self._rule: Concurrency | None = None
        self.follow(rule)

    @property
    def limit(self) -> float:
        """How many may be taken now."""
        if self.adaptive is not None:
            return self.adaptive.limit
        return self._rule.limit if self._rule is not None else float("inf")

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def follow(self, rule: Concurrency | None) -> None:
        """Go by this rule from now on. Who has a place keeps it, and who waits goes on waiting."""
        self._rule = rule
        if rule is None or not rule.least:
            self.adaptive = None
        elif self.adaptive is None:
            self.adaptive = AdaptiveLimit(rule)
        else:
            self.adaptive.follow(rule)
        self._queue.most = rule.queue if rule is not None else 0
        self._serve()

    def take(self) -> Slot | None:
        """A place, if one is free."""
        return self._slot() if self.in_use < self.limit else None

    async def wait(self, caller: str, left_s: float) -> Slot:
        """A place, once it is this caller's turn; raises Shed at once where that is not to be expected in `left_s`, or
        when the time that the rule gives is over."""
        rule = self._rule
        if rule is None:
            return self._slot()
        if self._expected_s(self._queue.ahead_of(caller)) > left_s:
            raise self._shed("no_time")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future())
        sent_away = self._queue.enter(caller, waiter)
        if sent_away is waiter:
            raise self._shed("queue_full")
        if sent_away is not None:
            sent_away.tell("queue_full")
        reason: ShedReason = "wait_over" if rule.wait_s <= left_s else "no_time"
        timer = loop.call_later(min(rule.wait_s, left_s), waiter.tell, reason)
        try:
            told = await waiter.told
        except asyncio.CancelledError:
            # The place may have come in the same moment.
            if waiter.told.done() and not waiter.told.cancelled() and isinstance(told := waiter.told.result(), Slot):
                told.release()
            raise
        finally:
            timer.cancel()
            self._queue.leave(caller, waiter)
        if isinstance(told, Slot):
            return told
        raise self._shed(told)

    def learn(self, window: int, latency_s: float | None, *, whole: bool = False) -> None:
        """A call of that window was answered after so long, or (None) refused or left in silence."""
        if self.adaptive is None:
            return
        if latency_s is None:
            self.adaptive.refused(window)
        else:
            self.adaptive.answered(window, latency_s, whole=whole)
            self._serve()

    def take_back(self, taken_at: float) -> None:
        """A place that was taken at that time is free again."""
        self.in_use -= 1
        held_s = self._clock() - taken_at
        self._held_s += (_HELD_STEP if self._held_s else 1.0) * (held_s - self._held_s)
        self._serve()

    def _slot(self) -> Slot:
        self.in_use += 1
        window = self.adaptive.began(self.in_use) if self.adaptive is not None else 0
        return Slot(self, self._clock(), window)

    def _serve(self) -> None:
        """Give what is free to those whose turn it is."""
        while self.in_use < self.limit and (waiter := self._queue.next()) is not None:
            # One that is leaving, or was told something else, has not stepped out yet.
            if not waiter.told.done():
                waiter.tell(self._slot())

    def _expected_s(self, ahead: int) -> float:
        """For how long one waits behind so many, by how long places were held lately."""
        return self._held_s * (ahead + 1) / max(self.limit, 1)

    def _shed(self, reason: ShedReason) -> Shed:
        retry_after_s = min(max(self._expected_s(len(self._queue)), _LEAST_RETRY_S), _MOST_RETRY_S)
        return Shed(reason, self.in_use, retry_after_s)


_Place = tuple[str, str, str]


class Load:
    """The limiters of one process: seat `seat` (0, 1, …) of `seats` that serve the same config. Times are monotonic."""

    def __init__(self, seat: int = 0, seats: int = 1, clock: Clock = time.monotonic) -> None:
        self._seat = seat
        self._seats = seats
        self._clock = clock
        self._limiters: dict[_Place, Limiter] = {}

    def limiter(self, deployment: Deployment) -> Limiter:
        """The deployment's limiter."""
        place = (deployment.name, deployment.origin, deployment.model)
        limiter = self._limiters.get(place)
        if limiter is None:
            limiter = self._limiters[place] = Limiter(self._share_of(deployment.concurrency), self._clock)
        return limiter

    def keep(self, table: ConfigVersion) -> None:
        """Go by the rules of this table, and forget who has nothing running and no rule."""
        rules = {(it.name, it.origin, it.model): it.concurrency for it in table.deployments.values()}
        for place, limiter in list(self._limiters.items()):
            rule = rules.get(place)
            limiter.follow(self._share_of(rule))
            if rule is None and not limiter.in_use:
                del self._limiters[place]

    def _share_of(self, rule: Concurrency | None) -> Concurrency | None:
        return share_of(rule, self._seat, self._seats) if rule is not None else None

    def rows(self, read: Callable[[Limiter], float]) -> Mapping[tuple[str, ...], int]:
        """What a look at each limiter that has a limit gives, by the deployment's name."""
        rows: dict[tuple[str, ...], int] = {}
        for (name, _, _), limiter in self._limiters.items():
            if limiter.limit != float("inf"):
                rows[(name,)] = rows.get((name,), 0) + int(read(limiter))
        return rows


def share_of(rule: Concurrency, seat: int, seats: int) -> Concurrency:
    """One process's part of a rule. The parts add up to the whole, but where one would be nothing: it is one."""
    least = _part(rule.least, seat, seats) if rule.least else 0
    queue = _part(rule.queue, seat, seats) if rule.queue else 0
    return replace(rule, limit=_part(rule.limit, seat, seats), queue=queue, least=least)


def _part(whole: int, seat: int, seats: int) -> int:
    return max(1, whole // seats + (seat < whole % seats))
