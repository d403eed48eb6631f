"""A simple model of the gate in plain dictionaries, and builders of requests, for tests of the gates."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from gateway.model.budget import Window
from gateway.usage import gate
from gateway.usage.gate import BudgetLimit, Counter, CounterKind, CounterState, HoldGranted, HoldRefused, HoldRequest
from gateway.usage.windows import MINUTE_NS, AllBounds, bounds

BERLIN = ZoneInfo("Europe/Berlin")
CLIENT = CounterKind.CLIENT
_T = TypeVar("_T")


def windows_at(now_ns: int) -> AllBounds:
    return {window: bounds(window, now_ns, BERLIN) for window in Window}


def budget(
    limit: int, *, unit: str = "EUR", window: Window = Window.DAY, name: str = "app", kind: CounterKind = CLIENT
) -> BudgetLimit:
    return BudgetLimit(Counter(kind, name, unit, window), limit)


def rate(per_minute: int, *, unit: str = "tokens", name: str = "app") -> gate.RatePerMinute:
    return gate.RatePerMinute(CLIENT, name, unit, per_minute)


def at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of an operation, in an event loop of its own."""
    return asyncio.run(coroutine)


@dataclass
class _OpenWindow:
    start_ns: int
    end_ns: int
    spent: int = 0
    credit: int = 0
    held: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> CounterState:
        return CounterState(self.spent, sum(self.held.values()), self.credit, self.start_ns, self.end_ns)


@dataclass
class _Bucket:
    missing_ns: int = 0
    at_ns: int = 0

    def missing_at(self, now_ns: int) -> int:
        return max(0, self.missing_ns - max(0, now_ns - self.at_ns))


def _state(limit: gate.RatePerMinute, missing_ns: int) -> gate.RateState:
    return gate.RateState(max(0, MINUTE_NS - missing_ns) * limit.per_minute // MINUTE_NS, missing_ns)


@dataclass
class _Call:
    owner: int
    request: HoldRequest
    counted: list[tuple[BudgetLimit, _OpenWindow]]


class ReferenceGate:
    """The behaviour of every gate, one operation at a time, for any number of owners (processes)."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._windows: dict[Counter, _OpenWindow] = {}
        self._buckets: dict[tuple[str, str, str], _Bucket] = {}
        self.open: dict[str, _Call] = {}

    def hold(self, owner: int, request: HoldRequest) -> HoldGranted | HoldRefused:
        now_ns = self._clock()
        opened = [self._window(one.counter, request.windows) for one in request.budgets]
        buckets = [self._bucket(one, now_ns) for one in request.rates]
        missing_ns = [bucket.missing_at(now_ns) for bucket in buckets]
        amounts = request.amounts
        fits_now, fits_later = [], []
        for limit, window in zip(request.budgets, opened, strict=True):
            room, amount = limit.limit + window.credit - window.spent, amounts[limit.counter.measure]
            fits_later.append(room >= amount)
            free = room - sum(window.held.values())
            fits_now.append(room >= request.room_calls * amount and free >= amount)
        states = tuple(window.state for window in opened)
        rates = tuple(map(_state, request.rates, missing_ns))
        if not all(fits_later):
            return HoldRefused(states, rates, fits_later.index(False))
        if not all(fits_now):
            return HoldRefused(states, rates, fits_now.index(False), only_held=True)
        needed = [request.rate_amounts[one.measure] for one in request.rates]
        needed_ns = [amount * MINUTE_NS // one.per_minute for amount, one in zip(needed, request.rates, strict=True)]
        for index, limit in enumerate(request.rates):
            wait_ns = missing_ns[index] + needed_ns[index] - MINUTE_NS
            if needed[index] > limit.per_minute:  # type: ignore[attr-defined]
                return HoldRefused(states, rates, rate=index)
            if wait_ns > 0:
                return HoldRefused(states, rates, rate=index, wait_ns=wait_ns)
        for limit, window in zip(request.budgets, opened, strict=True):
            window.held[request.call] = amounts[limit.counter.measure]
        after_ns = [missing + needed for missing, needed in zip(missing_ns, needed_ns, strict=True)]
        for bucket, missing in zip(buckets, after_ns, strict=True):
            bucket.missing_ns, bucket.at_ns = missing, now_ns
        self.open[request.call] = _Call(owner, request, list(zip(request.budgets, opened, strict=True)))
        return HoldGranted(tuple(map(_state, request.rates, after_ns)))

    def settle(self, call: str, tokens: int, amount_nano: int, *, is_lost: bool = False) -> bool:
        found = self.open.pop(call, None)
        if found is None:
            return False
        now_ns = self._clock()
        for limit, window in found.counted:
            del window.held[call]
            window.spent += (tokens, amount_nano, 0)[limit.counter.measure]
        for limit in found.request.rates:
            if limit.unit == "tokens":  # type: ignore[attr-defined]
                bucket = self._bucket(limit, now_ns)
                more = 0 if is_lost else tokens - found.request.rate_amounts[0]
                missing = bucket.missing_at(now_ns) + more * MINUTE_NS // limit.per_minute  # type: ignore[attr-defined]
                bucket.missing_ns, bucket.at_ns = max(0, missing), now_ns
        return True

    def lost(self, owner: int) -> dict[str, HoldRequest]:
        """Return the open calls of an owner that has ended."""
        return {call: one.request for call, one in self.open.items() if one.owner == owner}

    def read(self, counter: Counter, windows: AllBounds) -> CounterState:
        now_ns = self._clock()
        window = self._windows.get(counter)
        start_ns, end_ns = self._current(counter, windows)
        if window is None or window.end_ns <= now_ns:
            return CounterState(start_ns=start_ns, end_ns=end_ns)
        if window.start_ns > now_ns:  # the clock was set back
            return window.state._replace(start_ns=start_ns, end_ns=end_ns)
        return window.state

    def change(self, counter: Counter, windows: AllBounds, *, credit: int = 0, spent: Any = None) -> CounterState:
        window = self._window(counter, windows)
        window.credit += credit
        window.spent = window.spent if spent is None else spent
        return window.state

    def _current(self, counter: Counter, windows: AllBounds) -> tuple[int, int]:
        start_ns, end_ns, next_end_ns = windows[counter.window]
        return (start_ns, end_ns) if self._clock() < end_ns else (end_ns, next_end_ns)

    def _window(self, counter: Counter, windows: AllBounds) -> _OpenWindow:
        now_ns = self._clock()
        start_ns, end_ns = self._current(counter, windows)
        window = self._windows.get(counter)
        if window is not None and window.start_ns > now_ns:  # the clock was set back
            window.start_ns, window.end_ns = start_ns, max(end_ns, now_ns)
        elif window is not None and window.end_ns <= now_ns and window.start_ns == start_ns:  # the bounds are old
            window.end_ns = now_ns
        elif window is None or window.end_ns <= now_ns:
            window = self._windows[counter] = _OpenWindow(start_ns, max(end_ns, now_ns))
        return window

    def _bucket(self, limit: gate.RatePerMinute, now_ns: int) -> _Bucket:
        return self._buckets.setdefault((limit.kind, limit.name, limit.unit), _Bucket(0, now_ns))
