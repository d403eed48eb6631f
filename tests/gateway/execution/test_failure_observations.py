"""FailureObservations reaches as far as those who have seen it: the rules one by one, and as a whole against a small reference."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.execution.breaker import ALL, Breaker
from gateway.execution.failure_observations import EVERYBODY, Asker, FailureObservations, digest_of
from gateway.model.resilience import BreakerRule
from providers.chat import ChatRequest, UserMessage

RULE = BreakerRule(failures=3, rate=0.5, window_s=30, samples=10, open_s=10)
A, B = ("client a",), ("client b",)
A1, A2, B1 = (*A, "user 1"), (*A, "user 2"), (*B, "user 1")


class Asked:
    """A deployment that is asked, at the same time unless it waits."""

    def __init__(self, rule: BreakerRule = RULE) -> None:
        self.opened: list[tuple[str, str]] = []
        self.evidence = FailureObservations(rule, lambda: 0.5, self._changed)
        self.now = 0.0

    def _changed(self, breaker: Breaker) -> None:
        if breaker.state == "open":
            self.opened.append((breaker.scope, breaker.reason))

    def fail(self, asker: Asker, *contents: str, is_certain: bool = False) -> None:
        for content in contents:
            tickets = self.evidence.admit(asker, self.now)
            self.evidence.failed(tickets, asker, content.encode(), self.now, "status 500 alone", is_certain=is_certain)

    def answer(self, asker: Asker) -> None:
        self.evidence.answered(self.evidence.admit(asker, self.now), asker, self.now)

    def admits(self, asker: Asker) -> bool:
        return self.evidence.blocking(asker, self.now) is None


@pytest.mark.parametrize(
    ("failures", "scope"),
    [
        ([(A1, "xyz")], "one user of client a"),
        ([(A1, "xy"), (A2, "z")], "client a"),
        ([(A, "xyz")], "client a"),
        ([(A1, "x"), (A, "yz")], "client a"),
        ([(A1, "xy"), (B1, "x")], "all"),
        ([(A, "xy"), (B, "x")], "all"),
        ([(EVERYBODY, "xyz")], "all"),
        ([(("user 1",), "xyz")], "one user"),
        ([(("user 1",), "xy"), (("user 2",), "x")], "all"),
        ([(A1, "xyxyxyxy")], None),
        ([(EVERYBODY, "xxxxxxxx")], None),
        ([(A, "xx"), (B, "x")], None),
    ],
)
def test_closes_for_those_who_have_shown_it(failures: list[tuple[Asker, str]], scope: str | None) -> None:
    asked = Asked()
    for asker, contents in failures:
        asked.fail(asker, *contents)
    reason = "3 different requests failed, the last: status 500 alone"
    assert asked.opened == ([(scope, reason)] if scope is not None else [])


def test_others_go_on_and_an_answer_to_anybody_opens_it_for_all() -> None:
    asked = Asked()
    asked.fail(A1, *"xyz")
    assert [asked.admits(asker) for asker in (A1, A2, A, B)] == [False, True, True, True]
    asked.answer(A2)
    assert asked.evidence.is_clear
    assert asked.admits(A1)
    asked.fail(A1, *"uv")
    assert asked.admits(A1), "what was seen before the answer does not count"


def test_closed_scope_is_asked_again_by_one_request_and_longer_each_time() -> None:
    asked = Asked()
    asked.fail(A, *"xyz")
    asked.now = 10.0
    tickets = asked.evidence.admit(A, asked.now)
    assert not asked.admits(A)
    assert asked.admits(B)
    asked.evidence.failed(tickets, A, b"w", asked.now, "status 500 alone")
    assert asked.opened[-1] == (A[0], "the probe failed: status 500 alone")
    blocking = asked.evidence.blocking(A, asked.now)
    assert blocking.blocked_s(asked.now) == 20


def test_stream_that_breaks_off_after_a_probe_closes_the_scope_again() -> None:
    asked = Asked()
    asked.fail(A, *"xyz")
    asked.now = 10.0
    tickets = asked.evidence.stream_started(asked.evidence.admit(A, asked.now))
    assert asked.admits(A)
    asked.evidence.failed(tickets, A, b"x", asked.now, "cut")
    assert not asked.admits(A)
    asked.now = 30.0
    tickets = asked.evidence.stream_started(asked.evidence.admit(A, asked.now))
    asked.evidence.answered(tickets, A, asked.now)
    assert asked.evidence.is_clear


def test_probe_that_fails_after_it_closed_for_all_does_not_block_its_client_for_ever() -> None:
    asked = Asked()
    asked.fail(A, *"xyz")
    asked.now = 10.0
    tickets = asked.evidence.admit(A, asked.now)
    asked.fail(B, "x")
    assert asked.opened[-1][0] == ALL
    asked.evidence.failed(tickets, A, b"w", asked.now, "status 500 alone")
    asked.now = 40.0
    assert asked.admits(A)


def test_calls_that_were_running_when_it_closed_change_nothing() -> None:
    asked = Asked()
    running = [asked.evidence.admit(EVERYBODY, 0.0) for _ in range(100)]
    for number, tickets in enumerate(running):
        asked.evidence.failed(tickets, EVERYBODY, bytes([number]), 0.0, "down")
    assert len(asked.opened) == 1
    asked.evidence.answered(running[0], EVERYBODY, 1.0)
    assert not asked.admits(EVERYBODY)


@pytest.mark.parametrize(
    ("askers", "is_certain", "is_opened"),
    [
        ([A, B], False, True),
        ([A1, A2], False, False),
        ([A, A], False, False),
        ([A, A], True, False),
        ([EVERYBODY], False, False),
        ([EVERYBODY], True, True),
        ([("user 1",), ("user 2",)], False, True),
    ],
)
def test_rate_counts_without_the_worst_caller(askers: list[Asker], is_certain: bool, is_opened: bool) -> None:
    """Half of the requests of each asker fail, always with the same content."""
    asked = Asked()
    for _ in range(20):
        for asker in askers:
            asked.answer(asker)
            asked.fail(asker, "x", is_certain=is_certain)
    assert (ALL in [scope for scope, _ in asked.opened]) is is_opened
    if is_opened:
        assert any("calls failed" in reason for _, reason in asked.opened)


def test_one_hostile_client_never_opens_the_rate_for_others() -> None:
    asked = Asked()
    for number in range(200):
        asked.fail(A, f"{number}")
        if number % 5 == 0:
            asked.answer(B)
        assert asked.admits(B)


def test_rate_forgets_what_is_older_than_the_window() -> None:
    asked = Asked()
    for _ in range(40):
        asked.now += 10
        asked.fail(EVERYBODY, "x", is_certain=True)
        asked.answer(EVERYBODY)
    assert asked.opened == []


def test_memory_is_bounded_whatever_callers_send() -> None:
    asked = Asked()
    for number in range(3000):
        asked.fail((f"client {number % 7}", f"user {number}"), f"{number}")
        asked.now += 0.01
    evidence = asked.evidence
    assert len(evidence._seen) <= 64
    assert len(evidence._narrow) <= 256
    assert len(evidence._recent) <= 512


def test_another_rule_keeps_states_and_observations() -> None:
    asked = Asked()
    asked.fail(A, *"xy")
    asked.evidence.apply_rule(replace(RULE, failures=2))
    asked.fail(B, "x")
    assert asked.opened == [(ALL, "3 different requests failed, the last: status 500 alone")]
    asked.evidence.apply_rule(RULE)
    assert not asked.admits(A)


def test_digest_is_that_of_the_content() -> None:
    one = ChatRequest("m", (UserMessage("Hi"),), stream=True, user="a")
    assert digest_of(one) == digest_of(replace(one, stream=False, user="b", folded=True))
    assert digest_of(one) != digest_of(replace(one, messages=(UserMessage("Ho"),)))
    odd = [replace(one, extra={"x": value}) for value in (2**80, "\ud800", object)]
    assert len({digest_of(each) for each in odd}) == 3


ASKERS = [EVERYBODY, A, B, A1, A2, B1]


class EvidenceMachine(RuleBasedStateMachine):
    """Requests that begin and end in any order, against a list of what was observed since the last whole answer."""

    @initialize(failures=st.integers(1, 4))
    def begin(self, failures: int) -> None:
        self.failures = failures
        self.asked = Asked(replace(RULE, failures=failures, samples=100_000))
        self.running: list[tuple[Any, Asker]] = []
        self.seen: set[tuple[Asker, bytes]] = set()

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.asked.now += seconds

    @rule(asker=st.sampled_from(ASKERS))
    def ask(self, asker: Asker) -> None:
        if self.asked.admits(asker):
            self.running.append((self.asked.evidence.admit(asker, self.asked.now), asker))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), content=st.sampled_from([b"x", b"y", b"z", b"w"]))
    def fail(self, data: Any, content: bytes) -> None:
        tickets, asker = self._ended(data)
        before = len(self.asked.opened)
        is_current = tickets[0][1] == tickets[0][0].ticket
        if is_current:
            self.seen.add((asker, content))
        self.asked.evidence.failed(tickets, asker, content, self.asked.now, "down")
        for scope, reason in self.asked.opened[before:]:
            if "probe" not in reason:
                assert self._has_shown(scope, asker)
        if is_current and self._has_shown("", asker):
            assert not self.asked.admits(asker), "left after this many different requests"

    def _has_shown(self, scope: str, asker: Asker) -> bool:
        """Whether the contract closes this scope; with an empty one, whether it closes any that has the asker."""
        for depth in range(len(asker) + 1):
            inside = [of for of, _ in self.seen if of[:depth] == asker[:depth]]
            members = {of[depth : depth + 1] for of in inside}
            if len(inside) >= self.failures and (len(members) > 1 or members == {()}):
                return True
        return False

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        self.asked.evidence.released(self._ended(data)[0])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data: Any) -> None:
        tickets, asker = self._ended(data)
        is_current = tickets[0][1] == tickets[0][0].ticket
        self.asked.evidence.answered(tickets, asker, self.asked.now)
        self.seen.clear()
        if is_current:
            assert self.asked.evidence.is_clear
            assert all(self.asked.admits(asker) for asker in ASKERS)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin_stream(self, data: Any) -> None:
        tickets, asker = self._ended(data)
        self.running.append((self.asked.evidence.stream_started(tickets), asker))

    def _ended(self, data: Any) -> tuple[Any, Asker]:
        return self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))

    @invariant()
    def it_always_comes_to_a_probe(self) -> None:
        asked = getattr(self, "asked", None)
        if asked is not None and not self.running:
            later = asked.now + RULE.longest_open_s
            assert all(asked.evidence.blocking(asker, later) is None for asker in ASKERS)

    @invariant()
    def nobody_closes_it_for_others(self) -> None:
        if (asked := getattr(self, "asked", None)) is None or asked.evidence.everybody.state != "closed":
            return
        for asker in ASKERS:
            blocking = asked.evidence.blocking(asker, asked.now)
            if blocking is not None:
                assert asker, "one without a scope is blocked by nobody else's"
                assert asker[0] in blocking.scope or asker[-1].startswith("user ")


TestEvidenceMachine = EvidenceMachine.TestCase
TestEvidenceMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
