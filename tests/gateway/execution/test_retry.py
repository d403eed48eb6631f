"""Properties of the retry policy: it never waits beyond the remaining time and never makes a forbidden retry."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.retry import backoff_s, next_action, rule_of
from gateway.model.record import AttemptAction
from gateway.model.resilience import Attempts, Resilience
from providers.failures import Failure, FailureKind

_KINDS = st.sampled_from(FailureKind)
_TIMES = st.none() | st.floats(0.001, 1e6)


@given(
    kind=_KINDS,
    retry_after_s=_TIMES,
    should_retry=st.none() | st.booleans(),
    tried_here=st.integers(1, 5),
    per_deployment=st.integers(1, 4),
    another_key=st.booleans(),
    is_last_step=st.booleans(),
    left_s=st.floats(0, 600),
    chance=st.floats(0, 1),
)
def test_a_verdict_keeps_every_bound(
    kind: FailureKind,
    retry_after_s: float | None,
    should_retry: bool | None,
    tried_here: int,
    per_deployment: int,
    another_key: bool,
    is_last_step: bool,
    left_s: float,
    chance: float,
) -> None:
    failure = Failure(kind, "x", retry_after_s=retry_after_s, should_retry=should_retry)
    action = next_action(
        failure,
        bounds=Resilience(attempts=Attempts(per_deployment=per_deployment)),
        tried_here=tried_here,
        has_other_key=another_key,
        is_last_step=is_last_step,
        left_s=left_s,
        jitter=chance,
    )
    again, onward = action.action is AttemptAction.RETRY, action.action is AttemptAction.FAILOVER
    assert action.wait_s <= (left_s if again else 0)
    if onward:
        assert not is_last_step
        assert rule_of(failure).next_step
    if again:
        may_repeat = should_retry is True and rule_of(failure).if_told
        assert another_key or ((rule_of(failure).retry_here or may_repeat) and tried_here < per_deployment)
    if should_retry is False:
        assert not again or another_key
    if kind in (FailureKind.CONTENT_FILTER, FailureKind.DEADLINE):
        assert not again
    if kind in (FailureKind.CONTENT_FILTER, FailureKind.INVALID_REQUEST, FailureKind.DEADLINE):
        assert not onward
    if kind is FailureKind.SILENT:
        assert not again


@given(attempt=st.integers(1, 60), chance=st.floats(0, 1))
def test_backoff_is_bounded(attempt: int, chance: float) -> None:
    assert 0 <= backoff_s(attempt, chance) <= 8.0
