"""The gate: holds of tokens and money for running calls, and the counters of budgets. Values and the contract.

Theory of operation:

- Before a call is sent to a provider, its worst cost is held: one atomic operation checks all budgets and rates that
  apply, and reserves the amounts in all of them or in none.
- When the call has ended, its hold is settled: the reserved amounts are replaced by the actual ones. A call belongs to
  the windows in which it was admitted. If a window has ended, the settlement changes nothing in it.
- A budget admits a hold if spent + held + hold is at most its limit and its credit (top-ups).
- An open call has a row as it would be if its process ended now. Others keep that row when it has ended.

The order of a call: hold, send, settle with the row, send the last byte.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, assert_never

import msgspec

from gateway.model.budget import Window
from gateway.usage.amounts import shown_nano
from gateway.usage.counter_tags import Tag, key_of, tag_of
from gateway.usage.lost_call import RunningCost
from gateway.usage.quotas import NOTHING, Parts, QuotaHold, QuotaLimit, QuotaRefusal, QuotaState, quota_refusal
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, AllBounds, WindowBounds
from providers.value import Value

LARGEST_AMOUNT = 2**63 - 1
"""The largest amount that a counter can hold: about 9,200,000,000 units of a currency, in nano-units."""

TOKENS = "tokens"
"""The unit of budgets in tokens, and of rates of tokens."""

REQUESTS = "requests"
"""The unit of a limit of concurrent requests, and of rates of requests."""

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class GateUnavailable(Exception):
    """The gate cannot be asked now, so a request to which a limit applies must not be sent."""


class MayBeDone(GateUnavailable):
    """The gate did not answer. It may have done what it was asked for."""


class CounterKind(StrEnum):
    """The kind of owner of a counter."""

    CLIENT = "client"
    PROJECT = "project"
    USER = "user"


class Measure(IntEnum):
    """Which amount of a hold counts in a counter: an index of `HoldRequest.amounts`."""

    TOKENS = 0
    MONEY = 1
    REQUESTS = 2


def measure_of(unit: str) -> Measure:
    """Return what a unit measures. Raises ValueError if it is neither tokens nor requests nor a currency."""
    if unit == TOKENS:
        return Measure.TOKENS
    if unit == REQUESTS:
        return Measure.REQUESTS
    if _CURRENCY.fullmatch(unit):
        return Measure.MONEY
    raise ValueError(f"a unit must be `{TOKENS}`, `{REQUESTS}` or the code of a currency, not {unit!r}")


def shown_in(unit: str, amount: int) -> str:
    """Return an amount of a unit as decimal text."""
    match measure_of(unit):
        case Measure.TOKENS | Measure.REQUESTS:
            return str(amount)
        case Measure.MONEY:
            return shown_nano(amount)
        case never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class Counter:
    """The identity of the spent and held amounts of one window. It survives every reload."""

    kind: CounterKind
    """Whether it counts for a client, a project or an end user."""
    name: str
    """The name of the client or project, or the pseudonym of the end user."""
    unit: str
    """`tokens`, a currency code, or `requests` (running requests, with the window `total`)."""
    window: Window
    client: str = ""
    """The client whose `user_budget` it counts, for an end user. Two clients may both have a user `1`."""
    measure: int = field(init=False, compare=False, repr=False)
    """Which amount of a hold counts."""
    tag: Tag = field(init=False, compare=False, repr=False)
    """The digest by which a store finds the counter."""
    key: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        measure = measure_of(self.unit)
        if measure is Measure.REQUESTS and self.window is not Window.TOTAL:
            # A request that has ended counts as none, so such a window would admit any number of them.
            raise ValueError(f"a counter of running requests has the window `total`, not `{self.window}`")
        owner = (self.client,) if self.client else ()
        # A plain integer: an index that is an enum member is slower, and holds use it several times.
        object.__setattr__(self, "measure", int(measure))
        object.__setattr__(self, "tag", tag_of("counter", self.kind, self.name, self.unit, self.window, *owner))
        object.__setattr__(self, "key", key_of(self.tag))


@dataclass(frozen=True, slots=True)
class BudgetLimit:
    """A counter and the most that may be spent and held in its window: tokens, nano-units, or concurrent requests."""

    counter: Counter
    limit: int

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= LARGEST_AMOUNT:
            raise ValueError(f"the limit of a budget must be from 0 to {LARGEST_AMOUNT}, not {self.limit}")


@dataclass(frozen=True, slots=True)
class RatePerMinute:
    """A bucket that refills evenly: so many tokens or requests per minute."""

    kind: CounterKind
    """Whether it counts for a client, a project or an end user."""
    name: str
    """The name of the client or project, or the pseudonym of the end user."""
    unit: str
    """`tokens` (settled to the actual tokens) or `requests` (each hold counts as one, and stays counted)."""
    per_minute: int
    """The size of the bucket, and what is refilled per minute."""
    measure: int = field(init=False, compare=False, repr=False)
    """Which amount of a hold counts."""
    tag: Tag = field(init=False, compare=False, repr=False)
    """The digest by which a store finds the bucket."""
    key: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.per_minute <= LARGEST_AMOUNT:
            raise ValueError(f"a rate must be from 1 to {LARGEST_AMOUNT} per minute, not {self.per_minute}")
        measure = measure_of(self.unit)
        if measure is Measure.MONEY:
            raise ValueError(f"a rate counts tokens or requests, not {self.unit}")
        object.__setattr__(self, "measure", int(measure))
        object.__setattr__(self, "tag", tag_of("rate", self.kind, self.name, self.unit))
        object.__setattr__(self, "key", key_of(self.tag))

    def duration_ns(self, amount: int) -> int:
        """Return the time in which the bucket refills an amount."""
        return amount * MINUTE_NS // self.per_minute

    def state(self, full_in_ns: int) -> RateState:
        """Return the rest of the bucket that is full again after this time."""
        return RateState(max(0, MINUTE_NS - full_in_ns) * self.per_minute // MINUTE_NS, full_in_ns)


class HoldRequest(msgspec.Struct, frozen=True, gc=False):
    """The worst cost of one upstream call, and the limits that apply to it."""

    call: str
    """Our own id of the call. It is never used again."""
    tokens: int
    """The most tokens that the call can use."""
    amount_nano: int
    """The most that it can cost, in nano-units of the operator's currency."""
    budgets: tuple[BudgetLimit, ...]
    """The budgets that apply, in the order in which they refuse: client, project, end user. A counter that occurs twice
    counts once."""
    rates: tuple[RatePerMinute, ...]
    windows: AllBounds
    """The bounds of all windows (`WindowCalendar.at`)."""
    row: bytes = b""
    """The usage row if the call is lost. Empty if it needs none: it is held for a call that begins later."""
    usual_tokens: int | None = None
    """The tokens that count in rates, which promise no exactness, or None if `tokens` count."""
    room_calls: int = 1
    """The hold is refused if a budget without its holds does not pay so many calls like this one."""
    running: RunningCost | None = None
    """Its cost if it is lost, or None if a lost call costs its whole hold."""
    quotas: tuple[QuotaHold, ...] = ()
    """Its holds in the quotas of its deployment. They are asked after budgets and rates."""

    @property
    def amounts(self) -> tuple[int, int, int]:
        """The amounts for budgets, by `Measure`."""
        return self.tokens, self.amount_nano, 1

    @property
    def rate_amounts(self) -> tuple[int, int, int]:
        """The amounts for rates, by `Measure`."""
        return self.tokens if self.usual_tokens is None else self.usual_tokens, self.amount_nano, 1

    def expect_new(self, open_calls: Container[str]) -> None:
        """Raise ValueError if an amount is negative or the call is open already."""
        if self.tokens < 0 or self.amount_nano < 0 or self.call in open_calls:
            raise ValueError(f"the amounts of a hold must not be negative, and its call must be new: {self.call}")

    def fits(self, limit: BudgetLimit, state: CounterState) -> bool:
        """Return whether a budget admits this hold."""
        amount = self.amounts[limit.counter.measure]
        return state.free(limit.limit) >= amount and state.room(limit.limit) >= self.room_calls * amount


class CounterState(NamedTuple):
    """The numbers of a counter in its window: the cost of settled calls, the holds of running calls, and the top-ups.

    A window without an end ends at `FOREVER_NS`.
    """

    spent: int = 0
    held: int = 0
    credit: int = 0
    start_ns: int = 0
    end_ns: int = FOREVER_NS

    def room(self, limit: int) -> int:
        """Return what is not spent. Negative after an overshoot or a lowered limit."""
        return limit + self.credit - self.spent

    def free(self, limit: int) -> int:
        """Return what another hold may take now: the room without the holds of running calls."""
        return self.room(limit) - self.held


def present_state(stored: CounterState | None, bounds: WindowBounds, now_ns: int) -> CounterState:
    """Return the numbers of a counter, or None, as the next hold would find them in the bounds of its window."""
    start_ns, end_ns = bounds.current(now_ns)
    if stored is None or stored.end_ns <= now_ns:
        return CounterState(start_ns=start_ns, end_ns=end_ns)
    # If the clock was set back, the spent amount counts in the window that the clock shows now.
    return stored if stored.start_ns <= now_ns else stored._replace(start_ns=start_ns, end_ns=end_ns)


class RateState(Value, frozen=True, gc=False):
    """The tokens or requests that may be taken from a bucket now, and the time until it is full again."""

    remaining: int
    full_in_ns: int


class HoldGranted(Value, frozen=True, gc=False):
    """The call may be sent. It must be settled."""

    rates: tuple[RateState, ...]


class HoldRefused(Value, frozen=True):
    """The call may not be sent. Nothing was held.

    Either `budget` or `rate` refused, or a quota: the first in the order of the request, budgets before rates.
    """

    states: tuple[CounterState, ...]
    """The state of each budget of the request, in its order."""
    rates: tuple[RateState, ...]
    """The state of each rate of the request, in its order."""
    budget: int | None = None
    only_held: bool = False
    """Whether the hold fits into every budget as soon as running calls have ended."""
    rate: int | None = None
    wait_ns: int | None = None
    """The time until the hold fits into the rate, or None if the hold is above the whole rate."""
    instead: tuple[BudgetLimit, ...] = ()
    """The budgets that decided in place of those of the request, if `usage.on_loss` allows any. `states` and `budget`
    refer to them."""
    quota: QuotaRefusal | None = None
    """The quotas that have no room, or None. The limits of the client would have admitted the call."""


class Counters(Protocol):
    """The counters of budgets and quotas. A gate for operators can also change them."""

    async def read(self, counters: Iterable[Counter], windows: AllBounds) -> list[CounterState]:
        """Return the numbers of counters in their current windows. Raises GateUnavailable."""

    async def read_quotas(self, limits: Sequence[QuotaLimit]) -> tuple[int, list[QuotaState]]:
        """Return the time of the gate, and the numbers of limits of quotas. Raises GateUnavailable."""


class RoundTrip(NamedTuple):
    """One question to a shared store: how long it took, and the own time minus that of the store. Seconds."""

    answer_s: float
    skew_s: float


class OperatorGate(Counters, Protocol):
    """The gate of an installation as operators use it. Methods raise GateUnavailable."""

    is_shared: bool
    """Whether it is a server, which other instances use too."""

    async def top_up(self, counter: Counter, windows: AllBounds, amount: int) -> CounterState:
        """Add an amount to the credit of the current window. Return its numbers."""

    async def reset(self, counter: Counter, windows: AllBounds) -> CounterState:
        """Set what was spent in the current window to 0. Return its numbers."""

    async def drop(self, counters: Iterable[Counter]) -> int:
        """Delete counters. Return how many there were."""

    async def round_trip(self) -> RoundTrip | None:
        """Ask a shared gate for its time. Return None if it does not answer."""

    async def claim(self, name: str, kept_s: int) -> bool:
        """Return whether no other instance has claimed the name in this time."""


class UsageGate(Counters, Protocol):
    """Decides whether a call may be sent, and counts what calls cost. Every method raises GateUnavailable."""

    async def hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
        """Hold the worst cost of a call in all its budgets and rates, or in none.

        If the task is cancelled during this method, nothing stays held.
        """

    async def settle(self, call: str, tokens: int, amount_nano: int, row: bytes = b"", parts: Parts = NOTHING) -> bool:
        """Replace the hold of a call by what it used, and keep its row. A call that was not sent used nothing.

        `parts` is what it used of quotas. It is not lost if it cannot be done at once: after a second it continues in
        the background. Returns whether this call had an open hold. A second settlement changes nothing.
        """

    async def count(self, keys: Sequence[bytes]) -> None:
        """Add 1 to these counts of duties (`duty_counts`). Like a settlement, it is not lost if it has to wait."""

    async def remember(self, keys: Sequence[bytes], kept_s: int) -> None:
        """Remember these keys for so long, for all processes that share the gate."""

    async def remembers(self, keys: Sequence[bytes]) -> list[bool]:
        """Return which of these keys are remembered."""

    def check(self) -> None:
        """Raise GateUnavailable if rows can't be written, so that no call may be sent."""


def refusal_of(
    request: HoldRequest,
    states: tuple[CounterState, ...],
    rates: tuple[RateState, ...],
    missing_ns: Sequence[int],
    quotas: Sequence[QuotaState] = (),
    now_ns: int = 0,
) -> HoldRefused:
    """Return the refusal of a hold that at least one budget, rate or quota does not admit.

    Budgets come before rates, and these before quotas. If the hold would fit into every budget without the running
    calls, the first budget that refuses is named. Otherwise the first into which it does not fit even without them:
    waiting for running calls does not help.
    """
    amounts = request.amounts
    spent_first = held_first = None
    for index, (budget, state) in enumerate(zip(request.budgets, states, strict=True)):
        if held_first is None and not request.fits(budget, state):
            held_first = index
        if spent_first is None and state.room(budget.limit) < amounts[budget.counter.measure]:
            spent_first = index
    if spent_first is not None:
        return HoldRefused(states, rates, spent_first)
    if held_first is not None:
        return HoldRefused(states, rates, held_first, only_held=True)
    amounts = request.rate_amounts
    for index, (rate, missing) in enumerate(zip(request.rates, missing_ns, strict=True)):
        amount = amounts[rate.measure]
        wait_ns = missing + rate.duration_ns(amount) - MINUTE_NS
        if amount > rate.per_minute:
            return HoldRefused(states, rates, rate=index)
        if wait_ns > 0:
            return HoldRefused(states, rates, rate=index, wait_ns=wait_ns)
    if request.quotas:
        # Another store may round in another way, so that there is room by now.
        found = quota_refusal(request.quotas, quotas, now_ns)
        return HoldRefused(states, rates, quota=found or QuotaRefusal(request.quotas[:1], 1))
    raise AssertionError("a refused hold has a limit that refuses it")
