"""The states of an attempt: each final state is reached once, from RUNNING, and releases the held resources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.execution.attempt import Attempt, AttemptState
from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.concurrency_limiter import ConcurrencyLimiter
from gateway.execution.upstream_client import Answer, AttemptOptions
from gateway.model.deployment import Concurrency
from gateway.model.resilience import BreakerRule, Resilience
from providers.chat import ChatRequest, UserMessage
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import Bench

REQUEST = ChatRequest("assistant", (UserMessage("hello"),))
FAILURE = Failure(FailureKind.UNAVAILABLE, "it is down")
ENDS: dict[AttemptState, Callable[[Attempt], None]] = {
    AttemptState.ANSWERED: lambda attempt: attempt.answered(Answer(attempt.step)),
    AttemptState.FAILED: lambda attempt: attempt.failed(FAILURE, counts=True),
    AttemptState.WITHDRAWN: Attempt.withdrawn,
    AttemptState.ABANDONED: Attempt.abandon,
}


class Scene:
    """A probe that holds the only slot."""

    def __init__(self, bench: Bench) -> None:
        self.breaker = Breaker(BreakerRule(failures=1, open_s=1), lambda: 0.5, lambda _: None)
        self.breaker.failed(self.breaker.ticket, 0.0, "x")
        self.limiter = ConcurrencyLimiter(Concurrency(limit=1), bench.clock)
        options = AttemptOptions.within(1.0, REQUEST, Resilience())
        ticket, slot = self.breaker.admit(bench.time), self.limiter.try_acquire()
        step = bench.plan(REQUEST).steps[0]
        self.attempt = Attempt(step, None, options, bench.time, bench.clock, self.breaker, ticket, slot)
        bench.time += 2


def test_every_state_but_the_first_is_an_end() -> None:
    assert {AttemptState.RUNNING, *ENDS} == set(AttemptState)


@pytest.mark.parametrize(
    ("end", "breaker"),
    [
        (AttemptState.ANSWERED, BreakerState.CLOSED),
        (AttemptState.FAILED, BreakerState.OPEN),
        (AttemptState.WITHDRAWN, BreakerState.HALF_OPEN),
        (AttemptState.ABANDONED, BreakerState.HALF_OPEN),
    ],
)
def test_each_end_state_releases_the_slot_and_the_ticket(
    bench: Bench, end: AttemptState, breaker: BreakerState
) -> None:
    scene = Scene(bench)
    assert (scene.attempt.state, scene.limiter.in_use) == (AttemptState.RUNNING, 1)
    ENDS[end](scene.attempt)
    assert (scene.attempt.state, scene.limiter.in_use, scene.breaker.state) == (end, 0, breaker)
    assert scene.attempt.duration_s == 2
    if breaker is BreakerState.HALF_OPEN:
        assert scene.breaker.admit(bench.time) is not None, "the next attempt may be the probe"


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_an_end_is_final(bench: Bench, first: AttemptState, second: AttemptState) -> None:
    scene = Scene(bench)
    ENDS[first](scene.attempt)
    if second is AttemptState.ABANDONED:
        scene.attempt.abandon()
    else:
        with pytest.raises(RuntimeError, match=f"is {first.name} cannot become {second.name}"):
            ENDS[second](scene.attempt)
    assert (scene.attempt.state, scene.limiter.in_use) == (first, 0)


def test_a_failure_that_does_not_count_only_releases_the_ticket(bench: Bench) -> None:
    scene = Scene(bench)
    scene.attempt.failed(replace(FAILURE, kind=FailureKind.CREDENTIALS), counts=False)
    assert scene.breaker.state is BreakerState.HALF_OPEN
    assert scene.breaker.admit(bench.time) is not None
