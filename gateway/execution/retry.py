"""Decide what to do after a failed attempt: retry, fail over or stop. Pure.

`_TABLE` is the whole policy: what follows from what a failure is about, from whether that is stated, and from the kind
where that differs. All other code asks `rule_of`. Only a provider's own instructions about retries (`x-should-retry`,
`retry-after`), and a kept connection that ended (`is_resent`), are outside it. No code reads an error's text.

`RetryBudget` limits how many retries a process makes: if every request fails, a retry of each doubles the traffic of a
provider that is already down. A retry on the same deployment is taken from the budget; a failover goes to another
deployment and is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gateway.model.held_token import TokenSource
from gateway.model.record import AttemptAction, AttemptDecision, AttemptRecord, Bound, DecisionReason
from gateway.model.resilience import Resilience
from providers.failures import About, Failure, FailureKind
from providers.value import Value, replace

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
_SLICES = 10


RESENT = AttemptDecision(AttemptAction.RETRY, DecisionReason.KEPT_CONNECTION)
"""The decision if `is_resent`: immediately, outside all limits of attempts, because the failure shows nothing."""


RENEWED = AttemptDecision(AttemptAction.RETRY, DecisionReason.OTHER_TOKEN)
"""The decision if `is_token_refused` and there is another token: immediately, also with one attempt, and once."""
_ENDED_AT_AWS = frozenset({"ExpiredTokenException", "UnrecognizedClientException"})


def is_token_refused(failure: Failure, sign_in: TokenSource) -> bool:
    """Return whether a provider has refused the token of a sign-in, so that another one may be accepted."""
    return failure.status == 401 or (sign_in.is_aws and failure.status == 403 and failure.code in _ENDED_AT_AWS)


class FailureRule(Value, frozen=True):
    """The consequences of a failure."""

    retry_here: bool = False
    """It may be retried on the same deployment."""
    if_told: bool = False
    """It may be retried there if the provider asks for it (`x-should-retry: true`) or the refused field is left out
    from now on, else not."""
    other_key: bool = False
    """Another key of the deployment may be tried."""
    next_step: bool = False
    """The next step may be tried."""
    cooldown_s: float | None = None
    """The cooldown of the key for failures that name no time of their own."""
    cooldown_named_time: bool = False
    """A time that the provider names is a cooldown of the key."""
    is_suspicion: bool = False
    """The cooldown begins when different requests have shown it (`failure_observations`)."""
    counts: bool = False
    """It is an observation for the breaker."""
    is_certain: bool = False
    """No request can cause it, so the failures of a single caller count for the breaker's rate, too."""


_ENDS = FailureRule()
_ELSEWHERE = FailureRule(next_step=True)
_NO_ANSWER_IN_FORM = FailureRule(retry_here=True, next_step=True)
_LIMITED = FailureRule(retry_here=True, other_key=True, next_step=True, cooldown_named_time=True)
_KEY = FailureRule(other_key=True, next_step=True, cooldown_s=_REFUSED_S, cooldown_named_time=True)
_SPENT = replace(_KEY, cooldown_s=_SPENT_S)
_SERVER = FailureRule(retry_here=True, next_step=True, counts=True)

_Row = tuple[About | None, bool | None, frozenset[FailureKind] | None, FailureRule]


def _row(about: About | None, stated: bool | None, rule: FailureRule, *kinds: FailureKind) -> _Row:
    return about, stated, frozenset(kinds) or None, rule


_TABLE: tuple[_Row, ...] = (
    # about, whether it is stated (None: either), what follows, of these kinds (none: of all). The first row that fits.
    _row(None, None, _ENDS, FailureKind.CONTENT_FILTER, FailureKind.DEADLINE),
    _row(None, None, _LIMITED, FailureKind.RATE_LIMITED),
    _row(About.REQUEST, None, FailureRule(if_told=True), FailureKind.INVALID_REQUEST),
    _row(None, None, FailureRule(if_told=True, next_step=True), FailureKind.FIELD_REFUSED),
    _row(
        *(About.REQUEST, None, _NO_ANSWER_IN_FORM),
        *(FailureKind.NOT_JSON, FailureKind.NOT_VALID, FailureKind.UNAVAILABLE),
    ),
    _row(About.REQUEST, None, _ELSEWHERE),
    _row(About.KEY, True, _SPENT, FailureKind.QUOTA),
    _row(About.KEY, True, _KEY),
    _row(About.KEY, False, FailureRule(next_step=True, cooldown_s=_SPENT_S, is_suspicion=True), FailureKind.QUOTA),
    _row(About.KEY, False, FailureRule(next_step=True, cooldown_s=_REFUSED_S, is_suspicion=True)),
    _row(About.DEPLOYMENT, None, FailureRule(next_step=True, counts=True, is_certain=True), FailureKind.SILENT),
    _row(About.DEPLOYMENT, True, replace(_SERVER, is_certain=True), FailureKind.CONNECT, FailureKind.UNAVAILABLE),
    _row(About.DEPLOYMENT, None, _SERVER),
)


_RULES = {
    (about, stated, kind): next(
        rule
        for of, is_stated, kinds, rule in _TABLE
        if of in (None, about) and is_stated in (None, stated) and (kinds is None or kind in kinds)
    )
    for about in About
    for stated in (True, False)
    for kind in FailureKind
}


def rule_of(failure: Failure) -> FailureRule:
    """Return what follows from a failure."""
    return _RULES[failure.concerns, failure.is_stated, failure.kind]


def is_resent(failure: Failure, *, has_effects: bool) -> bool:
    """Return whether the request is sent again on a new connection, because a kept one ended under it."""
    return failure.was_kept and (failure.unsent or not has_effects)


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
    """Return what to do after a failed attempt. A retry that waits needs the consent of breaker and budget, too.

    This attempt counts in `tried_here`. Another key may be tried if an unused one is left. `jitter` is a random number
    from 0 to 1.
    """
    rule, leaving = rule_of(failure), partial(leave, failure, is_last_step=is_last_step)
    may_retry = rule.retry_here or rule.if_told
    may_retry = rule.retry_here if failure.should_retry is None else failure.should_retry and may_retry
    if has_other_key and (rule.other_key or (rule.is_suspicion and is_last_step)):
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
    goes_on = rule_of(failure).next_step and not is_last_step
    return AttemptDecision(AttemptAction.FAILOVER if goes_on else AttemptAction.STOP, reason, bound=bound)


def cooldown_of(failure: Failure) -> float | None:
    """Return how long the key is not used after a failure, or None if it can be used at once."""
    rule = rule_of(failure)
    for_s = failure.retry_after_s if rule.cooldown_named_time and failure.retry_after_s else rule.cooldown_s
    return min(for_s, MOST_COOLDOWN_S) if for_s is not None else None


def backoff_s(attempt: int, jitter: float) -> float:
    """Return a random share (full jitter) of an exponentially growing wait, so that clients do not retry in step."""
    return jitter * min(_CAP_S, _BASE_S * 2.0 ** (attempt - 1))


def why_spent(deployment: str, attempts: Iterable[AttemptRecord], per_deployment: int) -> str | None:
    """Return why a deployment may not be tried again for a request with these attempts; None if another key may be."""
    failures = [it.failure for it in attempts if it.deployment == deployment and it.failure is not None]
    own = [(rule, failure) for failure in failures if (rule := rule_of(failure)).retry_here or not rule.other_key]
    is_final = any(not rule.retry_here or failure.should_retry is False for rule, failure in own)
    is_spent = is_final or len(own) >= per_deployment
    return "it has already failed for this request" if is_spent else None


class RetryBudget:
    """Limits the retries of one process to a share of its recent requests. Times are the caller's monotonic seconds."""

    __slots__ = ("_window", "record_request")

    def __init__(self) -> None:
        self._window = SlidingWindow(WINDOW_S)
        self.record_request = partial(self._window.count, _REQUESTS)
        """Count a request that makes its first attempt now."""

    def take(self, share: float | None, now: float) -> bool:
        """Return whether a retry may be made, and count it. There is no limit if `share` is None."""
        self._window.turn(now)
        requests, retries = self._window.totals
        if share is not None and retries >= FLOOR + share * requests:
            return False
        self._window.count(_RETRIES, now)
        return True


class SlidingWindow:
    """Two counts over the last `span_s`, exact to a tenth of it. Times are the caller's monotonic seconds.

    The span is divided into slices, so that counting costs the same at any traffic.
    """

    __slots__ = ("_current", "_past", "_slice_s", "_turn_at")

    def __init__(self, span_s: float) -> None:
        self._slice_s = span_s / _SLICES
        self._turn_at = float("-inf")
        self._past: list[list[int]] = []
        self._current = [0, 0]

    @property
    def totals(self) -> tuple[int, int]:
        """Both counts."""
        slices = [self._current, *self._past]
        return sum([first for first, _ in slices]), sum([second for _, second in slices])

    def count(self, which: int, now: float) -> None:
        """Add one to the first (0) or the second (1) count."""
        if now >= self._turn_at:
            self.turn(now)
        self._current[which] += 1

    def turn(self, now: float) -> None:
        """Drop the slices that are over."""
        if now < self._turn_at:
            return
        since_s = now - self._turn_at
        if since_s >= self._slice_s * (_SLICES - 1):
            self._past = []
            self._turn_at = now + self._slice_s
        else:
            over = int(since_s / self._slice_s) + 1
            self._past += [self._current, *([0, 0] for _ in range(over - 1))]
            self._past = self._past[-(_SLICES - 1) :]
            self._turn_at += over * self._slice_s
        self._current = [0, 0]
