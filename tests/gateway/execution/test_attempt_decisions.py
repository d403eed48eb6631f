"""Each failed attempt records the wait that the provider named, the decision, its reason and the bound."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.api.errors import from_domain
from gateway.execution.retry import next_action
from gateway.execution.run import PlanExhausted
from gateway.model.caller import TraceContext
from gateway.model.record import Bound
from gateway.model.resilience import Attempts, Resilience
from gateway.state.receipts import receipt_of
from gateway.telemetry.otlp import Ended, encode
from gateway.telemetry.request_log import add_fields
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import FIRST, SECOND, Bench, answer_json
from tests.gateway.execution.runner_answers import error
from tests.kit.otlp_collector import attributes_of, spans_in
from tests.kit.request_records import EU, with_fields


def facts(**more: object) -> dict[str, Any]:
    usual = {"bounds": Resilience(), "tried_here": 1, "has_other_key": False, "is_last_step": False}
    return {**usual, "left_s": 60.0, "jitter": 1.0, **more}


LIMITED = Failure(FailureKind.RATE_LIMITED, "m", retry_after_s=3.0)
BROKEN = Failure(FailureKind.UNAVAILABLE, "m")
AFTER_2S = Bound("failover_after", 2.0)


@pytest.mark.parametrize(
    ("failure", "given", "action", "reason", "bound"),
    [
        (LIMITED, facts(), "failover", "wait_too_long", AFTER_2S),
        (LIMITED, facts(left_s=1.0), "failover", "wait_too_long", Bound("deadline", 1.0)),
        (LIMITED, facts(is_last_step=True), "retry", "named_wait", Bound("deadline", 60.0)),
        (LIMITED, facts(is_last_step=True, left_s=2.5), "stop", "wait_too_long", Bound("deadline", 2.5)),
        (replace(LIMITED, retry_after_s=1.0), facts(), "retry", "named_wait", AFTER_2S),
        (LIMITED, facts(has_other_key=True), "retry", "other_key", None),
        (BROKEN, facts(), "retry", "backoff", Bound("deadline", 60.0)),
        (BROKEN, facts(left_s=0.1), "failover", "wait_too_long", Bound("deadline", 0.1)),
        (BROKEN, facts(tried_here=2), "failover", "attempts_per_deployment", Bound("attempts.per_deployment", 2)),
        (replace(BROKEN, should_retry=False), facts(), "failover", "provider_refuses_retry", None),
        (Failure(FailureKind.QUOTA, "m"), facts(), "failover", "failure_kind", None),
        (Failure(FailureKind.CONTENT_FILTER, "m", should_retry=False), facts(), "stop", "failure_kind", None),
    ],
)
def test_action_after_a_failure_has_its_reason_and_its_bound(
    failure: Failure, given: dict[str, Any], action: str, reason: str, bound: Bound | None
) -> None:
    found = next_action(failure, **given)
    assert (found.action, found.reason, found.bound) == (action, reason, bound)


async def test_wait_above_failover_after_is_recorded_with_the_failover(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(429, retry_after="3"))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    await bench.ask()
    limited, answered = bench.record.attempts
    assert (bench.waits, answered.decision_fields()) == ([0.0], {})
    assert limited.decision_fields() == {
        "rule": limited.failure.rule if limited.failure is not None else "",
        "retry_after_s": 3.0,
        "decision": "failover",
        "decision_reason": "wait_too_long",
        "bound": "failover_after",
        "bound_value": 2.0,
    }


async def test_log_span_error_and_receipt_have_the_decision(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(429, retry_after="3"))
    bench.router.post(SECOND).mock(return_value=error(402))
    with pytest.raises(PlanExhausted) as raised:
        await bench.ask()
    record = bench.record
    record = with_fields(record, location=EU, trace=TraceContext("a" * 32, "b" * 16, True))
    expected = record.attempts[0].decision_fields()
    assert len(expected) == 6
    shown = from_domain(raised.value, record.attempts)
    receipt = receipt_of(record, 0.0, None)
    assert receipt is not None
    _, span, _ = spans_in(encode([Ended(record, record.trace, 10**18)], {}))
    line: dict[str, object] = {}
    add_fields(line, record)
    for output in (shown.extra["attempts"], line["attempts"], receipt["tried"]):
        assert isinstance(output, list)
        assert expected.items() <= output[0].items()
        assert (output[1]["decision"], output[1]["decision_reason"]) == ("stop", "failure_kind")
    assert {f"gateway.{name}": value for name, value in expected.items()}.items() <= attributes_of(span).items()


async def test_request_with_effects_records_why_it_is_not_sent_again(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(503))
    plan = bench.plan
    bench.plan = lambda request: replace(plan(request), has_effects=True)  # type: ignore[method-assign]
    await bench.failure()
    assert decisions_of(bench) == [("stop", "effects", None)]


async def test_last_attempt_of_the_request_names_the_bound(bench: Bench) -> None:
    bench.bound(attempts=Attempts(2, 3))
    for url in (FIRST, SECOND):
        bench.router.post(url).mock(return_value=error(503))
    await bench.failure()
    expected = [("retry", "backoff"), ("failover", "attempts_per_deployment"), ("stop", "attempts_total")]
    assert [decision[:2] for decision in decisions_of(bench)] == expected


async def test_open_breaker_and_spent_budget_are_recorded_as_reasons(bench: Bench) -> None:
    bench.bound(attempts=Attempts(3))
    bench.router.post(FIRST).mock(return_value=error(503))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    for _ in range(5):
        bench.next_request()
        await bench.ask()
    assert [reason for _, reason, _ in decisions_of(bench)] == ["breaker"], "a request counts once"
    bench.bound(breaker=None, retry_budget=0.0)
    bench.next_request()
    while bench.executor.budget.take(0.0, bench.time):
        pass
    await bench.ask()
    assert decisions_of(bench) == [("failover", "retry_budget", Bound("retry_budget", 0.0))]


def decisions_of(bench: Bench) -> list[tuple[str, str, Bound | None]]:
    decisions = [attempt.decision for attempt in bench.record.attempts]
    return [(it.action, it.reason, it.bound) for it in decisions if it is not None]
