"""What follows from a failure: a retry on the same deployment, the next step, or the end. Pure, by kind alone.

The table below is the whole policy, but for what a provider itself says of asking again (`x-should-retry`). Nothing
reads an error's text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.model.record import AttemptRecord
from providers.failures import Failure, FailureKind

MOST_BENCH_S = 3600.0
"""Whatever time a provider names: then one request looks whether it is as bad as that. Nobody else could find out."""

_BASE_S = 0.5
_CAP_S = 8.0
_REFUSED_S = 300.0
_SPENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of failure: may it be retried here, may the next step be asked, for how long is the key benched.

    bench_s is for failures that name no time of their own; bench_named_time: whether a time that the provider names
    benches. counts: for the breaker.
    """

    retry_here: bool = False
    next_step: bool = False
    bench_s: float | None = None
    bench_named_time: bool = False
    counts: bool = False


RULES: dict[FailureKind, Rule] = {
    FailureKind.CONNECT: Rule(retry_here=True, next_step=True, counts=True),
    FailureKind.UNAVAILABLE: Rule(retry_here=True, next_step=True, counts=True),
    FailureKind.RATE_LIMITED: Rule(retry_here=True, next_step=True, bench_named_time=True),
    FailureKind.QUOTA: Rule(next_step=True, bench_s=_SPENT_S, bench_named_time=True),
    FailureKind.SILENT: Rule(next_step=True, counts=True),
    FailureKind.CREDENTIALS: Rule(next_step=True, bench_s=_REFUSED_S),
    FailureKind.MODEL_NOT_FOUND: Rule(next_step=True, bench_s=_REFUSED_S),
    FailureKind.GEO_REFUSED: Rule(next_step=True, bench_s=_REFUSED_S),
    FailureKind.CONTEXT_LENGTH: Rule(next_step=True),
    FailureKind.FIELD_REFUSED: Rule(next_step=True),
    FailureKind.INVALID_REQUEST: Rule(),
    FailureKind.UNSUPPORTED: Rule(next_step=True),
    FailureKind.CONTENT_FILTER: Rule(),
    FailureKind.MALFORMED: Rule(retry_here=True, next_step=True, counts=True),
    FailureKind.INTERRUPTED: Rule(retry_here=True, next_step=True, counts=True),
    FailureKind.TOO_LARGE: Rule(next_step=True),
    FailureKind.DEADLINE: Rule(),
    FailureKind.OVERLOADED: Rule(next_step=True),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do next: `again` after `wait_s` on the same deployment, `onward` to the next step, or neither.

    otherwise: what to do where a retry may not be made; None if `again` is another key, and no retry.
    """

    again: bool = False
    onward: bool = False
    wait_s: float = 0.0
    otherwise: Verdict | None = field(default=None, compare=False)


def judge(
    failure: Failure,
    *,
    tried_here: int,
    per_deployment: int,
    another_key: bool,
    is_last_step: bool,
    failover_after_s: float,
    left_s: float,
    draw: Callable[[], float],
) -> Verdict:
    """The verdict on one failed attempt.

    tried_here: attempts on this deployment so far, this one included. another_key: an untried key of it is left, and
    may be tried. left_s: what the deadline leaves. draw: a number from 0 to 1, for the jitter.
    """
    rule = RULES[failure.kind]
    may_retry = rule.retry_here if failure.should_retry is None else failure.should_retry and _is_passing(failure.kind)
    onward = rule.next_step and not is_last_step
    key_is_to_blame = rule.bench_s is not None or failure.kind is FailureKind.RATE_LIMITED
    if another_key and key_is_to_blame:
        return Verdict(again=True)
    if not may_retry or tried_here >= per_deployment:
        return Verdict(onward=onward)
    otherwise = Verdict(onward=onward)
    named_s = failure.retry_after_s
    if named_s is not None:
        patience_s = left_s if is_last_step else min(left_s, failover_after_s)
        return Verdict(again=True, wait_s=named_s, otherwise=otherwise) if named_s <= patience_s else otherwise
    wait_s = backoff_s(tried_here, draw)
    return Verdict(again=True, wait_s=wait_s, otherwise=otherwise) if wait_s < left_s else otherwise


def why_spent(deployment: str, attempts: Iterable[AttemptRecord], per_deployment: int) -> str | None:
    """Why a deployment has nothing left to try for a request that made these attempts; another key is left to try."""
    failures = [it.failure for it in attempts if it.deployment == deployment and it.failure is not None]
    failures = [failure for failure in failures if RULES[failure.kind].bench_s is None]
    is_final = any(not RULES[failure.kind].retry_here or failure.should_retry is False for failure in failures)
    is_spent = is_final or len(failures) >= per_deployment
    return "it has failed this request already" if is_spent else None


def _is_passing(kind: FailureKind) -> bool:
    """Whether the provider may be believed that the same request can succeed: also where its status says that it is
    wrong, but neither where it refused what was said nor where a key or an account is the matter."""
    return RULES[kind].retry_here or kind is FailureKind.INVALID_REQUEST


def backoff_s(attempt: int, draw: Callable[[], float]) -> float:
    """Full jitter: a random share of an exponentially growing wait, so that clients don't come back in step."""
    return draw() * min(_CAP_S, _BASE_S * 2.0 ** (attempt - 1))
