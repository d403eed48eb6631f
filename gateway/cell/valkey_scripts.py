"""The Lua scripts of the gate on Valkey, in the folder `scripts`. One script call is one atomic operation.

**Numbers.** Lua computes with doubles, which are exact up to 2^53. An amount is two numbers, `high * BASE + low`, so it
is exact up to the largest amount of a budget. Times are microseconds of the server's clock.

**Keys.** All begin with the hash tag of the cell, so a cluster keeps them on one node:

- the epoch: its id, the run of the server, and `building` or `ready`
- for each counter: `{generation, start, end, spent, held, credit}` in MessagePack. The generation changes with each
  window, so that a call settles only in the window in which it was admitted
- for each rate: the nanoseconds until it is full, and when that was computed. For each bucket of a quota also its limit
  and what is held
- for each owner (process): a hash of its open calls, with the generations of their counters
- for each lost call, for a week: these generations, and what was charged
- the owners, with the time of their last sign of life

**Answers.** MessagePack, or the text `EPOCH` if the caller's epoch has ended.

The arguments and answers are made and read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.cell.valkey_connection import Script
from gateway.model.budget import Window
from gateway.usage.gate import LARGEST_AMOUNT, Counter, CounterState, HoldRequest, Measure, present_state
from gateway.usage.lost_call import LostUsage, RunningCost, Used, lost_usage
from gateway.usage.quotas import Parts, QuotaHold, QuotaLimit, QuotaState, weighed
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, AllBounds, WindowBounds

BASE = 1_000_000_000
"""An amount is `high * BASE + low`."""

FOREVER_US = 2**53 - 1
"""The end of the window `total`."""

LARGEST_NS = 2**53 - 1

EPOCH_ENDED = b"EPOCH"

READY, BUILDING = "ready", "building"

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode
_TOKENS = int(Measure.TOKENS)

_FOLDER = Path(__file__).with_name("scripts")
_COMMON = f"local BASE, FOREVER, LARGEST, MINUTE_NS = {BASE}, {FOREVER_US}, {LARGEST_NS}, {MINUTE_NS}\n" + (
    _FOLDER / "common.lua"
).read_text("utf-8")


def _script(name: str, *, common: str = _COMMON) -> Script:
    return Script(common + (_FOLDER / f"{name}.lua").read_text("utf-8"))


HOLD, SETTLE, CHANGE, READ, BEAT = map(_script, ("hold", "settle", "change", "read", "beat"))
READ_QUOTAS = _script("read_quotas")
FORGET, MOVE_EPOCH = _script("forget", common=""), _script("move_epoch", common="")


# Arguments and answers.


class OpenQuota(msgspec.Struct, array_like=True):
    """The hold of an open call in a limit of a quota.

    Attributes:
        high: The first half of the tag. `low`: the other half.
        amount: The amount that is held.
        uses: The weights of its use.
        bounds: The window and the end of the next one, in microseconds; None for a bucket.
        limit: The limit of a bucket in a minute, or 0.
    """

    high: int
    low: int
    amount: int
    uses: Parts
    bounds: tuple[int, int, int] | None
    limit: int

    @classmethod
    def of(cls, hold: QuotaHold) -> OpenQuota:
        """Return what is stored of a hold."""
        limit, amount, bounds = hold.limit, hold.amount, hold.bounds
        stored = None if bounds is None else _in_us(bounds)
        return cls(*limit.tag, amount, limit.uses, stored, 0 if stored is not None else limit.limit)


class OpenCall(msgspec.Struct, array_like=True):
    """An open call, as its process and the store keep it: tag, measure, and bounds or size of each counter and rate.

    `running` is its cost if it is lost, or None if a lost call costs its whole hold.
    """

    call: str
    row: bytes
    tokens: int
    amount_nano: int
    counters: list[tuple[int, int, int, int, int, int]]
    rates: list[tuple[int, int, int, int]]
    usual_tokens: int | None = None
    running: RunningCost | None = None
    quotas: list[OpenQuota] = []

    @classmethod
    def of(cls, request: HoldRequest) -> OpenCall:
        """Return the call of a hold."""
        windows = request.windows
        return cls(
            request.call,
            request.row,
            request.tokens,
            request.amount_nano,
            [(*one.counter.tag, one.counter.measure, *_in_us(windows[one.counter.window])) for one in request.budgets],
            [(*rate.tag, rate.measure, rate.per_minute) for rate in request.rates],
            request.usual_tokens,
            request.running,
            list(map(OpenQuota.of, request.quotas)),
        )

    @classmethod
    def stored(cls, raw: bytes) -> OpenCall:
        """Return a call of the store, where the generations of its counters precede it."""
        return unpack(raw[8 + int(raw[:8]) :], type=cls)

    def lost(self, alive_ns: int | None) -> LostUsage:
        """Return what it is charged if its process gave its last sign of life then, or at an unknown time."""
        return lost_usage(self.row, self.tokens, self.amount_nano, self.running, alive_ns)

    @property
    def amounts(self) -> tuple[int, int, int]:
        """The amounts for budgets, by `Measure`."""
        return self.tokens, self.amount_nano, 1

    @property
    def rate_amounts(self) -> tuple[int, int, int]:
        """The amounts for rates, by `Measure`."""
        return self.tokens if self.usual_tokens is None else self.usual_tokens, self.amount_nano, 1


def hold_arguments(owner: str, one: OpenCall, request: HoldRequest | None, *, needs_ready: bool) -> bytes:
    """Return what `HOLD` is asked for. Without a request, the call is held in any case."""
    amounts = one.amounts
    # The least rest of each limit without its holds, and with them.
    rests = [(0, 0, 0, 0)] * len(one.counters)
    if request is not None:
        rests = [
            (
                *divmod(budget.limit - request.room_calls * amounts[budget.counter.measure], BASE),
                *divmod(budget.limit - amounts[budget.counter.measure], BASE),
            )
            for budget in request.budgets
        ]
    counters = [
        (*divmod(amounts[counter[2]], BASE), *counter[3:], *rest)
        for counter, rest in zip(one.counters, rests, strict=True)
    ]
    amounts = one.rate_amounts
    rates = [
        (_bounded(amounts[measure] * MINUTE_NS // size), amounts[measure] > size) for _, _, measure, size in one.rates
    ]
    quotas = [_asked(held, None) for held in one.quotas]
    if request is not None:
        quotas = [_asked(held, hold.limit) for held, hold in zip(one.quotas, request.quotas, strict=True)]
    return pack((owner, one.call, request is None, needs_ready, counters, rates, quotas))


def _asked(held: OpenQuota, limit: QuotaLimit | None) -> tuple[object, ...]:
    """Return what `HOLD` is asked for of a limit of a quota. Without one, it is held in any case."""
    is_never = limit is not None and held.amount > limit.whole
    if held.bounds is None:
        amount_ns = _bounded(held.amount * MINUTE_NS // held.limit)
        return True, amount_ns, held.limit, 0 if limit is None else limit.most_ns, held.amount, is_never
    most = LARGEST_AMOUNT if limit is None else limit.most
    kept = 0 if limit is None or limit.window is Window.TOTAL else limit.kept
    rule = (kept, 0, 0) if limit is None else (kept, limit.always, limit.limit)
    return False, *held.bounds, *divmod(held.amount, BASE), *divmod(most, BASE), *rule, is_never


def settle_arguments(one: OpenCall, used: Used, *, is_lost: bool) -> bytes:
    """Return what `SETTLE` is asked for. `used` has the tokens and the amount of the call, and its parts."""
    amounts, actual, parts = one.amounts, (*used[:2], 0), used[2]
    seen: set[tuple[int, int]] = set()
    counters = []
    for high, low, measure, *_ in one.counters:
        is_second = (high, low) in seen
        seen.add((high, low))
        held, spent = (0, 0) if is_second else (amounts[measure], actual[measure])
        counters.append((*divmod(held, BASE), *divmod(spent, BASE)))
    # A request stays counted in a rate. A lost call used its hold.
    more = 0 if is_lost else used[0] - one.rate_amounts[_TOKENS]
    rates = [measure == _TOKENS and _bounded(more * MINUTE_NS // size) for _, _, measure, size in one.rates]
    quotas: list[tuple[object, ...]] = []
    for quota in one.quotas:
        now_used = max(0, weighed(quota.uses, parts))
        if quota.bounds is None:
            quotas.append((quota.amount, 0, now_used, 0, quota.limit))
        else:
            quotas.append((*divmod(quota.amount, BASE), *divmod(now_used, BASE), False))
    return pack((one.call, counters, rates, quotas))


def quota_state(numbers: Sequence[int], limit: QuotaLimit, now_ns: int) -> QuotaState:
    """Return the numbers of a limit of a quota in an answer. `numbers` is empty if the store has none."""
    if limit.is_bucket:
        return QuotaState(*numbers)
    found = counter_state(numbers) if numbers else None
    state = present_state(found, limit.calendar.at(now_ns)[limit.window], now_ns)
    return QuotaState(state.spent, state.held, state.start_ns, state.end_ns)


def change_arguments(
    counter: Counter | QuotaLimit, windows: AllBounds, credit: int, spent: int, *, is_set: bool
) -> bytes:
    """Return what `CHANGE` is asked for: a credit that is added or set, and what was spent, or -1 to leave it."""
    spent_parts = divmod(spent, BASE) if spent >= 0 else (-1, 0)
    return pack((*_in_us(windows[counter.window]), *divmod(credit, BASE), *spent_parts, is_set))


def counter_state(numbers: Sequence[int]) -> CounterState:
    """Return the state of a counter in an answer."""
    start_us, end_us, spent, spent_low, held, held_low, credit, credit_low = numbers
    return CounterState(
        spent * BASE + spent_low,
        held * BASE + held_low,
        credit * BASE + credit_low,
        start_us * 1000,
        FOREVER_NS if end_us >= FOREVER_US else end_us * 1000,
    )


def _bounded(duration_ns: int) -> int:
    return max(-LARGEST_NS, min(duration_ns, LARGEST_NS))


def _in_us(bounds: WindowBounds) -> tuple[int, int, int]:
    start_ns, end_ns, next_end_ns = bounds
    return start_ns // 1000, min(end_ns // 1000, FOREVER_US), min(next_end_ns // 1000, FOREVER_US)
