"""The adaptive limit on a simulated provider, in simulated time: it finds the capacity, and finds it again."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.execution.adaptive import AdaptiveLimit
from gateway.model.deployment import Concurrency

RULE = Concurrency(limit=200, least=4)


@dataclass
class Provider:
    """Answers `capacity` calls at once in the time of `base_s`; more of them share it. Chance spreads each latency."""

    capacity: float
    base_s: float = 0.4
    spread: float = 0.3
    refuses_above: float = float("inf")
    running: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def latency_s(self) -> float:
        return self.base_s * max(1.0, self.running / self.capacity) * self.chance.lognormvariate(0, self.spread)


def drive(limit: AdaptiveLimit, provider: Provider, calls: int, *, demand: int = 1000) -> list[int]:
    """So many calls, one following another as soon as the limit and the demand let it; the limit after each."""
    limits: list[int] = []
    ends: list[tuple[float, int, float, int]] = []
    begun, now = 0, 0.0
    while begun < calls:
        while provider.running < min(limit.limit, demand) and begun < calls:
            begun += 1
            provider.running += 1
            window = limit.began(provider.running)
            latency_s = provider.latency_s()
            if provider.running > provider.refuses_above:
                latency_s = -0.01
            heapq.heappush(ends, (now + abs(latency_s), begun, latency_s, window))
        now, _, latency_s, window = heapq.heappop(ends)
        provider.running -= 1
        if latency_s < 0:
            limit.refused(window)
        else:
            limit.answered(window, latency_s, whole=False)
        limits.append(limit.limit)
    provider.running = 0
    return limits


def settled(limits: list[int]) -> float:
    last = sorted(limits[-len(limits) // 3 :])
    return last[len(last) // 2]


@pytest.mark.parametrize("capacity", [8, 20, 60, 120])
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.6])
def test_it_settles_at_what_the_provider_takes(capacity: int, spread: float) -> None:
    limit = AdaptiveLimit(RULE)
    found = settled(drive(limit, Provider(capacity, spread=spread), 12_000))
    assert capacity <= found <= 2 * capacity + 4


def test_it_starts_fast_where_there_is_room() -> None:
    limit = AdaptiveLimit(RULE)
    drive(limit, Provider(1000), 1_000)
    assert limit.limit == RULE.limit


def test_it_follows_a_provider_that_shrinks_and_recovers() -> None:
    limit, provider = AdaptiveLimit(RULE), Provider(60)
    assert 60 <= settled(drive(limit, provider, 10_000)) <= 120
    provider.capacity = 10
    assert 10 <= settled(drive(limit, provider, 4_000)) <= 20
    provider.capacity = 60
    assert 60 <= settled(drive(limit, provider, 12_000)) <= 120


def test_it_learns_that_quiet_has_become_slower() -> None:
    """Longer prompts are no overload: what was quiet once is measured again."""
    limit, provider = AdaptiveLimit(RULE), Provider(40)
    drive(limit, provider, 8_000)
    provider.base_s *= 5
    assert 40 <= settled(drive(limit, provider, 20_000)) <= 80


def test_refusals_bring_it_down_to_what_is_not_refused() -> None:
    """A provider that doesn't slow down, but refuses: the limit saws beneath what it takes."""
    limit = AdaptiveLimit(RULE)
    found = settled(drive(limit, Provider(1000, refuses_above=30), 12_000))
    assert 15 <= found <= 36


def test_little_demand_neither_raises_nor_lowers_it() -> None:
    limit, provider = AdaptiveLimit(Concurrency(limit=200, least=50)), Provider(20)
    assert set(drive(limit, provider, 5_000, demand=10)) == {50}


def test_whole_answers_and_streams_are_told_apart() -> None:
    """A whole answer takes ten times as long: where both are asked for in turn, that is no overload."""
    limit = AdaptiveLimit(RULE)
    for number in range(40_000):
        window = limit.began(limit.limit)
        whole = number // 1_000 % 2 == 1
        limit.answered(window, 5.0 if whole else 0.5, whole=whole)
    assert limit.limit == RULE.limit


def test_calls_of_an_older_window_say_nothing() -> None:
    limit = AdaptiveLimit(Concurrency(limit=200, least=50))
    old = limit.began(50)
    limit.refused(old)
    assert limit.limit == 50
    assert limit.window == old + 1
    for _ in range(500):
        limit.answered(old, 9.0, whole=False)
        limit.refused(old)
    assert limit.window == old + 1


@settings(deadline=None)
@given(
    least=st.integers(1, 50),
    room=st.integers(0, 500),
    events=st.lists(
        st.one_of(
            st.tuples(st.just("answered"), st.floats(0, 1e6), st.booleans(), st.integers(1, 60)),
            st.tuples(st.just("refused"), st.just(0.0), st.just(False), st.just(1)),
            st.tuples(st.just("follow"), st.floats(1, 500), st.booleans(), st.just(1)),
        ),
        max_size=80,
    ),
)
def test_whatever_happens_it_keeps_to_its_bounds(
    least: int, room: int, events: list[tuple[str, float, bool, int]]
) -> None:
    rule = Concurrency(limit=least + room, least=least)
    limit = AdaptiveLimit(rule)
    for what, number, whole, times in events:
        for _ in range(times):
            window = limit.began(limit.limit)
            if what == "answered":
                limit.answered(window, number, whole=whole)
            elif what == "refused":
                limit.refused(window)
        if what == "follow":
            rule = Concurrency(limit=int(number) + 5, least=int(number))
            limit.follow(rule)
        assert rule.least <= limit.limit <= rule.limit
