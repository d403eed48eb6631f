"""The breaker's table, row by row, and what must hold from any state."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.execution.breaker import Breaker, BreakerState
from gateway.model.resilience import BreakerRule

RULE = BreakerRule(failures=3, rate=0.5, window_s=30, samples=10, open_s=10)
LONGEST_S = RULE.longest_open_s


def breaker(rule: BreakerRule = RULE, chance: float = 0.5) -> tuple[Breaker, list[BreakerState]]:
    states: list[BreakerState] = []
    return Breaker(rule, lambda: chance, lambda changed: states.append(changed.state), "all"), states


def opened(rule: BreakerRule = RULE, chance: float = 0.5, at: float = 0.0) -> tuple[Breaker, list[BreakerState]]:
    made, states = breaker(rule, chance)
    made.open(at, "503")
    assert made.state is BreakerState.OPEN
    return made, states


def probe(made: Breaker, now: float) -> int:
    ticket = made.admit(now)
    assert ticket
    return ticket


def test_it_opens_when_the_evidence_is_enough_and_never_by_one_failure() -> None:
    made, states = breaker()
    made.failed(made.ticket, 0, "503")
    assert made.state is BreakerState.CLOSED
    made.open(0, "3 different requests failed, the last: 503")
    assert (made.state, states) == (BreakerState.OPEN, [BreakerState.OPEN])
    assert made.why_blocked == "breaker open for all: 3 different requests failed, the last: 503"
    assert made.blocked_s(0) == 10
    assert not made.admit(9.9)


def test_answer_to_another_asker_closes_it_as_new() -> None:
    made, _ = opened()
    made.failed(probe(made, 10), 10, "503")
    made.close()
    assert (made.state, made.admit(11)) == (BreakerState.CLOSED, made.ticket)
    made.open(11, "503")
    assert made.blocked_s(11) == 10


def test_probe_without_a_result_admits_the_next_probe() -> None:
    made, _ = opened()
    ticket = probe(made, 10)
    made.released(ticket)
    second = probe(made, 10)
    made.released(ticket)  # released twice: another probe runs by now
    assert not made.admit(10)
    made.succeeded(second)
    assert made.state is BreakerState.CLOSED


def test_started_stream_closes_the_breaker_and_a_failure_reopens_it_longer() -> None:
    made, _ = opened()
    ticket = made.stream_started(probe(made, 10))
    assert made.state is BreakerState.CLOSED
    made.failed(ticket, 11, "cut")
    assert (made.state, made.blocked_s(11)) == (BreakerState.OPEN, 20)
    ticket = made.stream_started(probe(made, 31))
    made.succeeded(ticket)
    made.failed(made.ticket, 33, "cut")
    assert made.state is BreakerState.CLOSED
    made.open(33, "cut")
    assert made.blocked_s(33) == 10


def open_times(rule: BreakerRule, chance: float, outage_s: float) -> list[float]:
    """Return for how long the breaker opens, each time, until a probe is sent after the outage."""
    made, _ = opened(rule, chance)
    now, held = 0.0, []
    while now < outage_s:
        held.append(made.blocked_s(now))
        now += held[-1]
        made.failed(probe(made, now), now, "503")
    return held


def test_open_time_doubles_up_to_max_open() -> None:
    assert open_times(replace(RULE, max_open_s=45), 0.5, 160) == [10, 20, 40, 45, 45]
    assert set(open_times(replace(RULE, max_open_s=RULE.open_s), 1.0, 900)) == {10}


def test_open_time_is_at_most_twice_open_by_default() -> None:
    """After an outage of any length, a healed provider is used again within 20 seconds."""
    assert open_times(RULE, 0.5, 900)[:4] == [10, 20, 20, 20]
    for chance in (0.0, 0.3, 1.0):
        assert max(open_times(RULE, chance, 900)) <= 20 + 1e-6


def test_chance_is_a_fifth_either_way() -> None:
    assert [round(opened(chance=chance)[0].blocked_s(0), 6) for chance in (0.0, 1.0)] == [8, 12]


def test_half_open_breaker_is_shown_as_waiting_for_a_probe() -> None:
    made, _ = opened()
    assert [made.shown_state(now) for now in (9.9, 10)] == [BreakerState.OPEN, BreakerState.HALF_OPEN]


def test_another_rule_keeps_the_state() -> None:
    made, _ = opened()
    made.rule = BreakerRule(failures=1, window_s=5, open_s=1)
    assert made.blocked_s(0) == 10
    made.succeeded(probe(made, 10))
    made.open(10, "503")
    assert made.blocked_s(10) == 1


class BreakerMachine(RuleBasedStateMachine):
    """Attempts that begin, end in every way and at any time, late ones too."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.breaker, self.states = breaker()
        self.running: list[int] = []
        self.probes: set[int] = set()

    @rule(seconds=st.sampled_from([0.0, 0.5, 9.0, 10.0, 40.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before, held_s = self.breaker.state, self.breaker.blocked_s(self.now)
        ticket = self.breaker.admit(self.now)
        assert (not ticket) == (held_s > 0)
        if not ticket:
            return
        self.running.append(ticket)
        if before is not BreakerState.CLOSED:
            assert not self.probes, "two probes at once"
            self.probes.add(ticket)

    def _end(self, data: Any) -> int:
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.probes.discard(ticket)
        return ticket

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data: Any) -> None:
        was, current = self.breaker.state, self.breaker.ticket
        ticket = self._end(data)
        self.breaker.succeeded(ticket)
        assert self.breaker.state is (BreakerState.CLOSED if ticket == current else was)

    @precondition(lambda self: self.breaker.state is BreakerState.CLOSED)
    @rule()
    def have_enough(self) -> None:
        self.breaker.open(self.now, "503")

    @rule()
    def answer_somebody_else(self) -> None:
        self.breaker.close()
        self.probes.clear()
        assert self.breaker.blocked_s(self.now) == 0

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: Any) -> None:
        was, current = self.breaker.state, self.breaker.ticket
        ticket = self._end(data)
        self.breaker.failed(ticket, self.now, "503")
        if ticket != current:
            assert self.breaker.state is was, "it is of an attempt from before a transition"
        elif was is BreakerState.HALF_OPEN:
            assert self.breaker.state is BreakerState.OPEN

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def probe_without_outcome(self, data: Any) -> None:
        was = self.breaker.state
        self.breaker.released(self._end(data))
        assert self.breaker.state is was

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin_stream(self, data: Any) -> None:
        ticket = self._end(data)
        self.running.append(self.breaker.stream_started(ticket))

    @invariant()
    def it_always_comes_to_a_probe(self) -> None:
        if getattr(self, "breaker", None) is not None and not self.probes:
            assert self.breaker.blocked_s(self.now + LONGEST_S) == 0
            assert self.breaker.blocked_s(self.now) <= LONGEST_S

    @invariant()
    def its_changes_are_those_of_the_table(self) -> None:
        path = [BreakerState.CLOSED, *getattr(self, "states", ())]
        allowed = {
            (BreakerState.CLOSED, BreakerState.OPEN),
            (BreakerState.OPEN, BreakerState.HALF_OPEN),
            (BreakerState.HALF_OPEN, BreakerState.OPEN),
            (BreakerState.HALF_OPEN, BreakerState.CLOSED),
            (BreakerState.OPEN, BreakerState.CLOSED),  # another asker got an answer
        }
        assert set(pairwise(path)) <= allowed


TestBreakerMachine = BreakerMachine.TestCase
