"""Rate limits decide as `throttled-py` does, which implements the same algorithm (GCRA) independently.

The rates and the times are chosen so that its arithmetic of floating-point numbers is exact.
"""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
import throttled
from hypothesis import given
from hypothesis import strategies as st
from throttled import utils as throttled_clock

from gateway.usage.gate import HoldRefused, HoldRequest
from gateway.usage.quota_store import MINUTE_NS, remaining, spend
from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.gate_places import JournalPlace, ValkeyPlace
from tests.gateway.usage.reference_gate import rate, windows_at

TICK_NS = SECOND_NS // 64
START_TICKS = 2_500_000_000 * 64
RATES = st.sampled_from([one for one in range(1, 3841) if MINUTE_NS % (one * TICK_NS) == 0])
CALLS = st.integers(0)


class Ask(NamedTuple):
    """A request for some of a rate, some ticks after the last one."""

    after_ticks: int
    cost: int


ASKS = st.lists(
    st.builds(Ask, st.sampled_from([0, 0, 0, 1, 7, 64, 640]) | st.integers(0, 64 * 90), st.integers(1, 50)),
    min_size=1,
    max_size=40,
)


class Answer(NamedTuple):
    """An answer of a rate. The wait is None if the amount never fits."""

    is_granted: bool
    remaining: int
    full_in_ns: int
    wait_ns: int | None


class Oracle:
    """A rate per minute of `throttled-py`, with a clock of ours."""

    def __init__(self, per_minute: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self._capacity = per_minute
        monkeypatch.setattr(throttled_clock, "now_mono_f", lambda: self.now_s)
        self._rate = throttled.Throttled(
            using=throttled.RateLimiterType.GCRA.value,
            quota=throttled.rate_limiter.per_min(per_minute, burst=per_minute),
            store=throttled.store.MemoryStore(),
        )

    def ask(self, now_ticks: int, cost: int) -> Answer:
        self.now_s = now_ticks / 64
        found = self._rate.limit("client", cost)
        full_in_ns = int(Fraction(found.state.reset_after) * SECOND_NS)
        if not found.limited:
            return Answer(True, found.state.remaining, full_in_ns, 0)
        wait_ns = int(Fraction(found.state.retry_after) * SECOND_NS) if cost <= self._capacity else None
        return Answer(False, found.state.remaining, full_in_ns, wait_ns)


def compare(per_minute: int, asks: list[Ask], ask: Callable[[int, int], Answer]) -> None:
    """Ask both for the same, and compare each answer."""
    now_ticks = START_TICKS
    with pytest.MonkeyPatch.context() as monkeypatch:
        oracle = Oracle(per_minute, monkeypatch)
        for one in asks:
            now_ticks += one.after_ticks
            assert ask(now_ticks, one.cost) == oracle.ask(now_ticks, one.cost)


@given(RATES, ASKS)
def test_requests_per_minute_of_one_machine(per_minute: int, asks: list[Ask]) -> None:
    full_at_ns = 0

    def ask(now_ticks: int, _: int) -> Answer:
        nonlocal full_at_ns
        now_ns = now_ticks * TICK_NS
        full_at_ns, wait_ns = spend(full_at_ns, now_ns, per_minute)
        left = remaining(full_at_ns, now_ns, per_minute)
        return Answer(not wait_ns, left, max(0, full_at_ns - now_ns), wait_ns)

    compare(per_minute, [one._replace(cost=1) for one in asks], ask)


class GateRates:
    """The rates of a gate in a place, with a clock of ours. Each call uses exactly what it held."""

    _numbers = itertools.count()

    def __init__(self, place: Any) -> None:
        self.now_ns, self._do = 0, place.do
        self.gate = place.open("host/one", lambda: self.now_ns)

    def asking(self, per_minute: int, unit: str) -> Callable[[int, int], Answer]:
        """Return a function that asks a new rate."""
        limit = rate(per_minute, unit=unit, name=f"client-{next(self._numbers)}")

        def ask(now_ticks: int, cost: int) -> Answer:
            self.now_ns = now_ticks * TICK_NS
            call = f"call-{next(self._numbers)}"
            request = HoldRequest(call, cost, 0, (), (limit,), windows_at(self.now_ns))
            found = self._do(self.gate.hold(request))
            [state] = found.rates
            if isinstance(found, HoldRefused):
                return Answer(False, state.remaining, state.full_in_ns, found.wait_ns)
            assert self._do(self.gate.settle(call, cost, 0))
            return Answer(True, state.remaining, state.full_in_ns, 0)

        return ask


@pytest.fixture(scope="module", params=[JournalPlace, ValkeyPlace], ids=["file", "valkey"])
def rates(request: pytest.FixtureRequest, valkey_place: None) -> Iterator[GateRates]:
    place = request.param()
    rates = GateRates(place)
    yield rates
    place.close([rates.gate])


@given(per_minute=RATES, asks=ASKS)
def test_tokens_per_minute(rates: GateRates, per_minute: int, asks: list[Ask]) -> None:
    compare(per_minute, asks, rates.asking(per_minute, "tokens"))


@given(per_minute=RATES, asks=ASKS)
def test_requests_per_minute_of_a_gate(rates: GateRates, per_minute: int, asks: list[Ask]) -> None:
    compare(per_minute, [one._replace(cost=1) for one in asks], rates.asking(per_minute, "requests"))
