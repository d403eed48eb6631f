"""The requests of one process that wait for a bucket of a quota, by priority and then by arrival.

A request that has no room at any step may wait once, after those that wait before it. A request that comes
later takes no room before those who wait with its priority or a higher one: at such a bucket it has none.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.model.quota import Priority
from gateway.usage.amounts import NANO
from gateway.usage.quotas import QuotaHold, QuotaRefusal

_MARGIN_NS = 2_000_000
"""A timer may end a moment before the bucket has refilled by the clock of the gate."""


class LinePlace(msgspec.Struct, eq=False):
    """The place of a request that waits."""

    order: tuple[int, int]
    """Its priority and its number: the lowest is served first."""
    takes_ns: dict[bytes, int]
    """The time in which each bucket refills what it will take, by the key of the bucket."""
    ready_ns: int
    """When there will be room, in Unix nanoseconds."""
    until_ns: int
    """When it gives up."""
    is_served: bool = False
    """Whether its wait has ended."""


class QuotaLines:
    """The lines of one process, with the places of all requests that wait. The clock returns Unix nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self.places: list[LinePlace] = []

    def refusal(self, holds: Sequence[QuotaHold], priority: Priority, own: LinePlace | None) -> QuotaRefusal | None:
        """Return why a call may not ask for room yet, or None if no request waits before it. `own`: its own place."""
        now_ns, order = self._clock(), own.order if own is not None else (priority.rank, next(self._numbers))
        lacking, wait_ns = list[QuotaHold](), 0
        for one in holds:
            ahead = self._ahead(one.limit.key, order)
            ahead = [it for it in ahead if not it.is_served] if own is not None else ahead
            if ahead:
                lacking.append(one)
                ready_ns = max(it.ready_ns for it in ahead)
                wait_ns = max(wait_ns, ready_ns - now_ns + one.limit.duration_ns(one.amount), 1)
        return QuotaRefusal(tuple(lacking), wait_ns, is_behind=True) if lacking else None

    def join(self, refusal: QuotaRefusal, priority: Priority, most_s: float) -> LinePlace | None:
        """Return a place for a call without room, or None if there is none within this time."""
        if refusal.wait_ns is None or not all(one.limit.is_bucket for one in refusal.lacking):
            return None
        now_ns, order = self._clock(), (priority.rank, next(self._numbers))
        takes_ns = {one.limit.key: one.limit.duration_ns(one.amount) for one in refusal.lacking}
        before_ns = [sum(it.takes_ns[key] for it in self._ahead(key, order)) for key in takes_ns]
        ready_ns = now_ns + refusal.wait_ns + (0 if refusal.is_behind else max(before_ns)) + _MARGIN_NS
        until_ns = now_ns + int(most_s * NANO)
        if ready_ns > until_ns:
            return None
        place = LinePlace(order, takes_ns, ready_ns, until_ns)
        self._move_behind(place, 1)
        self.places.append(place)
        return place

    async def wait(self, place: LinePlace, sleep: Callable[[float], Awaitable[object]]) -> bool:
        """Wait until a place has its turn. Return False if others with a higher priority have made it too late."""
        while place.ready_ns <= place.until_ns and (left_ns := place.ready_ns - self._clock()) > 0:
            await sleep(left_ns / NANO)
        place.is_served = True
        return place.ready_ns <= place.until_ns

    def leave(self, place: LinePlace, *, has_taken: bool) -> None:
        """Remove a place. Those after it have room earlier if it has taken none."""
        if place in self.places:
            self.places.remove(place)
            if not has_taken:
                self._move_behind(place, -1)

    def _ahead(self, key: bytes, order: tuple[int, int]) -> list[LinePlace]:
        return [it for it in self.places if key in it.takes_ns and it.order < order]

    def _move_behind(self, place: LinePlace, sign: int) -> None:
        for other in self.places:
            if other.order > place.order:
                shared = [takes_ns for key, takes_ns in place.takes_ns.items() if key in other.takes_ns]
                other.ready_ns += sign * max(shared, default=0)
