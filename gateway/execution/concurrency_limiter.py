"""Limit the concurrent calls of each deployment, with a short queue.

A provider is not sent more calls than it takes. A request waits a short time for a slot, or is shed at once, so that
the next step of its plan (or the client) can use the time better. A slot is held until the answer is complete,
including the last byte of a stream. The queue is served by priority, then by arrival; one of several clients has at
most half of its places.

Each worker process has its share of a limit. With shared stores, it has the whole limit, and the hold of a call asks
the store for a slot too. If that has none, the request goes back to its place, and the first of the queue asks again
when a call of this process has ended, and every 100 ms.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from gateway.execution.deadline import Clock
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Concurrency, Deployment
from gateway.model.quota import KEEP_NOTHING, Keep, Priority
from providers.value import replace

ShedReason = Literal["queue_full", "wait_over", "no_time"]
_WORDS: Mapping[ShedReason, str] = {
    "queue_full": "the queue is full",
    "wait_over": "none ended within the waiting time",
    "no_time": "the request's deadline is earlier than the next free slot",
}
_ASKED_AGAIN_S = 0.1
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 60.0
_HELD_WEIGHT = 0.1
"""The weight of the last slot in the moving average of how long slots are held."""


class Shed(Exception):
    """A deployment has no slot for this request. `retry_after_s`: when it may have one."""

    def __init__(self, reason: ShedReason, running: int, retry_after_s: float, words: str = "") -> None:
        super().__init__(f"overloaded: {running} calls are running, and {words or _WORDS[reason]}")
        self.reason = reason
        self.retry_after_s = retry_after_s


class Queuer(NamedTuple):
    """The request that asks for a slot. `client` is None if its share of the queue is not limited."""

    priority: Priority = Priority.NORMAL
    client: str | None = None


ANYBODY = Queuer()


class Ticket(NamedTuple):
    """A place of the queue: its priority and number, who has it, and until when it waits."""

    order: tuple[int, int]
    queuer: Queuer
    until_s: float


class Slot:
    """A slot of a deployment, held by one attempt.

    `release` it at the end of the answer; a second call does nothing.
    """

    __slots__ = ("_acquired_at", "_limiter", "_ticket")

    def __init__(self, limiter: ConcurrencyLimiter, acquired_at: float, ticket: Ticket) -> None:
        self._limiter: ConcurrencyLimiter | None = limiter
        self._acquired_at = acquired_at
        self._ticket = ticket

    def release(self) -> None:
        """Make the slot free for the next request."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.take_back(self._acquired_at)

    def turned_away(self) -> Ticket:
        """Give it back, because the store has no slot. Return the place of the queue for `acquire`."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.turn_away()
        return self._ticket

    def confirm(self) -> None:
        """Note that the store has a slot, so that the others of the queue may ask too."""
        if self._limiter is not None:
            self._limiter.confirm()


class ConcurrencyLimiter:
    """The slots of one deployment. While it `is_blocked`, the store had no slot, and one request asks at a time."""

    __slots__ = ("_clock", "_held_s", "_numbers", "_rule", "_timer", "_waiting", "in_use", "is_blocked")

    def __init__(self, rule: Concurrency | None, clock: Clock) -> None:
        """Create a limiter without taken slots. `rule` is this process's share; None for no limit."""
        self.in_use = 0
        self.is_blocked = False
        self._clock = clock
        self._held_s = 0.0
        self._numbers = itertools.count()
        # The requests that wait, in the order in which they are served. No two have the same ticket.
        self._waiting: list[tuple[Ticket, asyncio.Future[Slot]]] = []
        self._timer: asyncio.TimerHandle | None = None
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

    def try_acquire(self, queuer: Queuer = ANYBODY) -> Slot | None:
        """Return a slot if one is free, and no request that is served before this one waits for it."""
        if self.is_blocked or not self._has_room(queuer.priority) or (self._waiting and self._ahead(queuer)):
            return None
        return self._slot(self._ticket(queuer))

    async def acquire(self, left_s: float, queuer: Queuer = ANYBODY, ticket: Ticket | None = None) -> Slot:
        """Wait for a slot. `ticket`: the place of a request that was turned away.

        Raises Shed, without a wait if no slot is expected within `left_s` or the queue is full.
        """
        rule = self._rule
        if rule is None:
            return self._slot(ticket or self._ticket(queuer))
        if self._expected_s(self._ahead(queuer, ticket)) > left_s:
            raise self._shed("no_time")
        if ticket is None or not rule.queue:
            self._make_place(rule, queuer)
        ticket = ticket or self._ticket(queuer)
        wait_s = min(max(ticket.until_s - self._clock(), 0.0), left_s)
        slot: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        place = ticket, slot
        bisect.insort(self._waiting, place, key=lambda place: place[0].order)
        if not self.is_blocked:
            self._serve()
        try:
            async with asyncio.timeout(wait_s):
                return await slot
        except TimeoutError:
            raise self._shed("wait_over" if ticket.until_s - self._clock() <= left_s else "no_time") from None
        except asyncio.CancelledError:
            # A slot may have been given in the same moment.
            if slot.done() and not slot.cancelled() and slot.exception() is None:
                slot.result().release()
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)

    def take_back(self, acquired_at: float) -> None:
        """A slot that was acquired at that time is free again."""
        self.in_use -= 1
        held_s = self._clock() - acquired_at
        self._held_s += (_HELD_WEIGHT if self._held_s else 1.0) * (held_s - self._held_s)
        self._serve()

    def turn_away(self) -> None:
        """A slot was given back because the store had none. Ask again soon."""
        self.in_use -= 1
        self.is_blocked = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_ASKED_AGAIN_S, self._ask_again)

    def confirm(self) -> None:
        """The store had a slot."""
        if self.is_blocked:
            self.is_blocked = False
            self._serve()

    def _ahead(self, queuer: Queuer, own: Ticket | None = None) -> int:
        """Return how many requests wait that are served before a new one, or before the one with this ticket."""
        order = (queuer.priority.rank + 1, 0) if own is None else own.order
        return sum(ticket.order < order for ticket, _ in self._waiting)

    def _ask_again(self) -> None:
        self._timer = None
        self.is_blocked = bool(self._waiting)
        self._serve()

    def _has_room(self, priority: Priority) -> bool:
        rule = self._rule
        if rule is None:
            return True
        kept = rule.keep.percent(priority)
        return self.in_use < (rule.limit - rule.limit * kept // 100 if kept else rule.limit)

    def _ticket(self, queuer: Queuer) -> Ticket:
        wait_s = self._rule.wait_s if self._rule is not None else 0.0
        return Ticket((queuer.priority.rank, next(self._numbers)), queuer, self._clock() + wait_s)

    def _slot(self, ticket: Ticket) -> Slot:
        self.in_use += 1
        return Slot(self, self._clock(), ticket)

    def _serve(self) -> None:
        """Give the free slots to the requests that wait: only one of them while the store may have none."""
        while self._waiting and self._has_room(self._waiting[0][0].queuer.priority):
            ticket, first = self._waiting.pop(0)
            if not first.done():
                first.set_result(self._slot(ticket))
                if self.is_blocked:
                    break

    def _make_place(self, rule: Concurrency, queuer: Queuer) -> None:
        """Raise Shed if the queue has no place, which a higher priority takes from the last of the lowest."""
        if queuer.client is not None:
            share = max(1, rule.queue // 2)
            if sum(ticket.queuer.client == queuer.client for ticket, _ in self._waiting) >= share and rule.queue:
                raise self._shed("queue_full", f"the share of its client, {share} of {rule.queue} places, is full")
        if self.queued < rule.queue:
            return
        if not self._waiting or self._waiting[-1][0].queuer.priority.rank <= queuer.priority.rank:
            raise self._shed("queue_full")
        _, last = self._waiting.pop()
        if not last.done():
            last.set_exception(self._shed("queue_full"))

    def _expected_s(self, ahead: int) -> float:
        """Return how long a request waits after `ahead` others, by how long slots were held recently."""
        return self._held_s * (ahead + 1) / max(self.limit, 1)

    def _shed(self, reason: ShedReason, words: str = "") -> Shed:
        retry_after_s = min(max(self._expected_s(self.queued), _LEAST_RETRY_S), _MOST_RETRY_S)
        return Shed(reason, self.in_use, retry_after_s, words)


class ConcurrencyLimiters:
    """The limiters of one process, which is number `process` (0, 1, …) of `processes` with the same config."""

    def __init__(self, process: int = 0, processes: int = 1, clock: Clock = time.monotonic) -> None:
        self._process = process
        self._processes = processes
        self._is_shared = False
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
        self._is_shared = config.stores is not None and config.stores.valkey is not None
        rules = {deployment.asked_at: deployment.concurrency for deployment in config.deployments.values()}
        for key, limiter in list(self._limiters.items()):
            rule = rules.get(key)
            limiter.apply_rule(self._share_of(rule))
            if rule is None and not limiter.in_use:
                del self._limiters[key]

    def _share_of(self, rule: Concurrency | None) -> Concurrency | None:
        if rule is None or self._is_shared:
            return rule
        return share_of(rule, self._process, self._processes)

    def rows(self, read: Callable[[ConcurrencyLimiter], float]) -> Mapping[tuple[str, ...], int]:
        """Return a number of each limiter that has a limit, by the deployment's name."""
        rows: dict[tuple[str, ...], int] = {}
        for (name, _, _), limiter in self._limiters.items():
            if limiter.limit != float("inf"):
                rows[(name,)] = rows.get((name,), 0) + int(read(limiter))
        return rows


def share_of(rule: Concurrency, process: int, processes: int) -> Concurrency:
    """Return one process's share of a rule. The shares add up to the whole, except that each is at least one."""
    limit, queue = _part(rule.limit, process, processes), _part(rule.queue, process, processes) if rule.queue else 0

    def kept(priority: Priority) -> int:
        """Return the percentage that leaves a priority its part of the slots that the whole rule leaves it."""
        left = _part(rule.limit - rule.limit * rule.keep.percent(priority) // 100, process, processes)
        return -(-100 * max(0, limit - left) // limit)

    keep = Keep(low=kept(Priority.LOW), normal=kept(Priority.NORMAL)) if rule.keep != KEEP_NOTHING else rule.keep
    return replace(rule, limit=limit, queue=queue, keep=keep)


def _part(whole: int, process: int, processes: int) -> int:
    return max(1, whole // processes + (process < whole % processes))
