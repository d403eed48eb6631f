"""Decide what to do after a failed attempt: retry, fail over or stop. Pure; depends on the failure kind.

The table `RULES` is the whole policy, except for a provider's own instructions about retries (`x-should-retry`,
`retry-after`). No code reads an error's text.

`RetryBudget` limits how many retries a process makes: if every request fails, a retry of each doubles the traffic of a
provider that is already down. A retry on the same deployment is taken from the budget; a failover goes to another
deployment and is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gateway.execution.breaker import SlidingWindow
from gateway.model.record import AttemptAction, AttemptDecision, AttemptRecord, Bound, DecisionReason
from gateway.model.resilience import Resilience
from providers.failures import Failure, FailureKind
from providers.value import Value

MOST_COOLDOWN_S = 3600.0
"""The longest cooldown, whatever time a provider names: after it, one request finds out whether it still fails."""
WINDOW_S = 10.0
FLOOR = 10
"""This many retries in the window are always allowed, because a share of little traffic is nothing."""

_BASE_S = 0.5
_CAP_S = 8.0
_REFUSED_S = 300.0
_SPENT_S = 60.0
_REQUESTS, _RETRIES = 0, 1


class FailureRule(Value, frozen=True):
    """The rule for one kind of failure.

    Attributes:
        retry_here: It may be retried on the same deployment.
        next_step: The next step may be tried.
        cooldown_s: The cooldown of the key for failures that name no time of their own.
        cooldown_named_time: A time that the provider names is a cooldown of the key.
        counts: It counts for the breaker.
    """

    retry_here: bool = False
    next_step: bool = False
    cooldown_s: float | None = None
    cooldown_named_time: bool = False
    counts: bool = False


RULES: dict[FailureKind, FailureRule] = {
    FailureKind.CONNECT: FailureRule(retry_here=True, next_step=True, counts=True),
    FailureKind.UNAVAILABLE: FailureRule(retry_here=True, next_step=True, counts=True),
    FailureKind.RATE_LIMITED: FailureRule(retry_here=True, next_step=True, cooldown_named_time=True),
    FailureKind.QUOTA: FailureRule(next_step=True, cooldown_s=_SPENT_S, cooldown_named_time=True),
    FailureKind.SILENT: FailureRule(next_step=True, counts=True),
    FailureKind.CREDENTIALS: FailureRule(next_step=True, cooldown_s=_REFUSED_S),
    FailureKind.MODEL_NOT_FOUND: FailureRule(next_step=True, cooldown_s=_REFUSED_S),
    FailureKind.GEO_REFUSED: FailureRule(next_step=True, cooldown_s=_REFUSED_S),
    FailureKind.CONTEXT_LENGTH: FailureRule(next_step=True),
    FailureKind.FIELD_REFUSED: FailureRule(next_step=True),
    FailureKind.INVALID_REQUEST: FailureRule(),
    FailureKind.REFUSED_HERE: FailureRule(next_step=True),
    FailureKind.UNSUPPORTED: FailureRule(next_step=True),
    FailureKind.CONTENT_FILTER: FailureRule(),
    FailureKind.MALFORMED: FailureRule(retry_here=True, next_step=True, counts=True),
    FailureKind.NOT_JSON: FailureRule(retry_here=True, next_step=True),
    FailureKind.NOT_VALID: FailureRule(retry_here=True, next_step=True),
    FailureKind.INTERRUPTED: FailureRule(retry_here=True, next_step=True, counts=True),
    FailureKind.TOO_LARGE: FailureRule(next_step=True),
    FailureKind.DEADLINE: FailureRule(),
    FailureKind.OVERLOADED: FailureRule(next_step=True),
}


def next_action(
    failure: Failure,
    *,
    bounds: Resilience,
    tried_here: int,
    has_other_key: bool,
    is_last_step: bool,
    left_s: float,
    jitter: float,
) -> AttemptDecision:
    """Return what to do after a failed attempt. A retry with a bound needs the consent of breaker and budget, too.

    Args:
        failure: The failure.
        bounds: The limits of attempts and waits.
        tried_here: Attempts on this deployment, including this one.
        has_other_key: An unused key of the deployment is left, and may be tried.
        is_last_step: No step follows.
        left_s: The remaining time until the deadline.
        jitter: A random number from 0 to 1.
    """
    rule, leaving = RULES[failure.kind], partial(leave, failure, is_last_step=is_last_step)
    may_retry = rule.retry_here if failure.should_retry is None else failure.should_retry and _may_pass(failure.kind)
    key_is_to_blame = rule.cooldown_s is not None or failure.kind is FailureKind.RATE_LIMITED
    if has_other_key and key_is_to_blame:
        return AttemptDecision(AttemptAction.RETRY, DecisionReason.OTHER_KEY)
    if not may_retry:
        by_provider = failure.should_retry is False and rule.retry_here
        return leaving(DecisionReason.PROVIDER_REFUSES_RETRY if by_provider else DecisionReason.FAILURE_KIND)
    if tried_here >= (most := bounds.attempts.per_deployment):
        return leaving(DecisionReason.ATTEMPTS_PER_DEPLOYMENT, Bound("attempts.per_deployment", most))
    named_s, bound = failure.retry_after_s, Bound("deadline", left_s)
    if named_s is not None:
        if not is_last_step and left_s >= bounds.failover_after_s:
            bound = Bound("failover_after", bounds.failover_after_s)
        if named_s > bound.value:
            return leaving(DecisionReason.WAIT_TOO_LONG, bound)
        return AttemptDecision(AttemptAction.RETRY, DecisionReason.NAMED_WAIT, named_s, bound)
    wait_s = backoff_s(tried_here, jitter)
    if wait_s >= left_s:
        return leaving(DecisionReason.WAIT_TOO_LONG, bound)
    return AttemptDecision(AttemptAction.RETRY, DecisionReason.BACKOFF, wait_s, bound)


def leave(
    failure: Failure, reason: DecisionReason, bound: Bound | None = None, *, is_last_step: bool
) -> AttemptDecision:
    """Return the decision to try the next step if the failure allows it, else to stop; with why there is no retry."""
    goes_on = RULES[failure.kind].next_step and not is_last_step
    return AttemptDecision(AttemptAction.FAILOVER if goes_on else AttemptAction.STOP, reason, bound=bound)


def cooldown_of(failure: Failure) -> float | None:
    """Return how long the key is not used after a failure. None: it can be used at once."""
    rule = RULES[failure.kind]
    for_s = failure.retry_after_s if rule.cooldown_named_time and failure.retry_after_s else rule.cooldown_s
    return min(for_s, MOST_COOLDOWN_S) if for_s is not None else None


def backoff_s(attempt: int, jitter: float) -> float:
    """Return a random share (full jitter) of an exponentially growing wait, so that clients do not retry in step."""
    return jitter * min(_CAP_S, _BASE_S * 2.0 ** (attempt - 1))


def why_spent(deployment: str, attempts: Iterable[AttemptRecord], per_deployment: int) -> str | None:
    """Return why a deployment may not be tried again for a request with these attempts; None if another key may be."""
    failures = [it.failure for it in attempts if it.deployment == deployment and it.failure is not None]
    failures = [failure for failure in failures if RULES[failure.kind].cooldown_s is None]
    is_final = any(not RULES[failure.kind].retry_here or failure.should_retry is False for failure in failures)
    is_spent = is_final or len(failures) >= per_deployment
    return "it has already failed for this request" if is_spent else None


def _may_pass(kind: FailureKind) -> bool:
    """Return whether to follow a provider's instruction that the same request can succeed.

    It is followed even if the status marks the request as invalid. It is not followed if the provider refused the
    content, or if the key or the account is the cause.
    """
    return RULES[kind].retry_here or kind is FailureKind.INVALID_REQUEST


class RetryBudget:
    """Limits the retries of one process to a share of its recent requests. Times are the caller's monotonic seconds."""

    __slots__ = ("_window",)

    def __init__(self) -> None:
        self._window = SlidingWindow(WINDOW_S)

    def record_request(self, now: float) -> None:
        """Count a request that makes its first attempt."""
        self._window.count(_REQUESTS, now)

    def take(self, share: float | None, now: float) -> bool:
        """Return whether a retry may be made, and count it. There is no limit if `share` is None."""
        self._window.turn(now)
        requests, retries = self._window.totals
        if share is not None and retries >= FLOOR + share * requests:
            return False
        self._window.count(_RETRIES, now)
        return True
