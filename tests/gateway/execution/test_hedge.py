"""Hedging: the winner, the effects on the loser, and the cases without a second attempt."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.execution.attempt import Attempt
from gateway.execution.deadline import Deadline
from gateway.execution.hedging import race
from gateway.execution.latency import LatencyTracker
from gateway.execution.plan_execution import PlanExhausted
from gateway.execution.retry import FLOOR
from gateway.execution.upstream_client import Answer
from gateway.model.decision import Plan
from gateway.model.record import Record
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import (
    CONFIG,
    ENVIRON,
    FIRST,
    HEDGED,
    SECOND,
    Bench,
    Pieces,
    Provider,
    answer_json,
)
from tests.kit.configs import Config, table_of
from tests.kit.runner_answers import SSE, chunk, error, until

BOUNDED = HEDGED.merge("deployments: {first: {concurrency: 5}, second: {concurrency: 5}}")


def providers_of(bench: Bench, config: Config = HEDGED, *, stream: bool = False) -> tuple[Provider, Provider]:
    """Let the bench run this configuration; return the providers of its two deployments."""
    bench.table = table_of(config, ENVIRON)
    return Provider(bench, FIRST, stream=stream), Provider(bench, SECOND, stream=stream)


def ask(bench: Bench, *, stream: bool = False) -> asyncio.Task[Answer]:
    bench.record = Record("req", 0.0, "t", client="app")
    return asyncio.ensure_future(bench.ask(stream=stream))


async def hedged(
    bench: Bench, config: Config = HEDGED, *, stream: bool = False
) -> tuple[Provider, Provider, asyncio.Task[Answer]]:
    """Ask, and wait until the hedge is sent. Return both providers and the request."""
    first, second = providers_of(bench, config, stream=stream)
    asking = ask(bench, stream=stream)
    await until(lambda: second.asked)
    return first, second, asking


def attempts_of(bench: Bench) -> list[tuple[str, str, bool, bool]]:
    return [
        (attempt.deployment, str(attempt.failure.kind) if attempt.failure else "ok", attempt.is_hedge, attempt.lost)
        for attempt in bench.record.attempts
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answers_and_the_first_is_cancelled(bench: Bench, stream: bool) -> None:
    first, second, asking = await hedged(bench, stream=stream)
    assert not asking.done()
    second.answer()
    answer = await asking
    assert answer.step.deployment.name == "second"
    assert attempts_of(bench) == [("first", "ok", False, True), ("second", "ok", True, False)]
    await until(lambda: first.cancelled)
    if answer.stream is not None:
        assert len([batch async for batch in answer.stream]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_answers_and_the_second_is_cancelled(bench: Bench, stream: bool) -> None:
    first, second, asking = await hedged(bench, stream=stream)
    first.answer()
    assert (await asking).step.deployment.name == "first"
    assert attempts_of(bench) == [("second", "ok", True, True), ("first", "ok", False, False)]
    await until(lambda: second.cancelled)


async def test_request_answered_in_time_is_not_hedged(bench: Bench) -> None:
    first, second = providers_of(bench, HEDGED.merge("assistants: {assistant: {hedge: {after: 20s}}}"))
    first.answer()
    assert (await ask(bench)).step.deployment.name == "first"
    assert (second.asked, len(bench.record.attempts)) == (0, 1)


async def test_one_attempt_wins_if_both_answer_at_the_same_time(bench: Bench) -> None:
    first, second, asking = await hedged(bench, stream=True)
    first.answer()
    second.answer()
    answer = await asking
    await until(lambda: first.closed + second.closed + first.cancelled + second.cancelled >= 1)
    assert [lost for _, _, _, lost in attempts_of(bench)].count(True) == 1
    assert answer.stream is not None
    await answer.stream.close()
    assert first.closed + second.closed + first.cancelled + second.cancelled == 2


@pytest.mark.parametrize(
    ("is_hedge", "status", "kind"), [(False, 401, "credentials"), (True, 503, "unavailable")], ids=["first", "hedge"]
)
async def test_failure_of_one_attempt_leaves_the_other_running(
    bench: Bench, is_hedge: bool, status: int, kind: str
) -> None:
    first, second, asking = await hedged(bench)
    failing, other = (second, first) if is_hedge else (first, second)
    failing.answers.put_nowait(error(status))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asking.done()
    other.answer()
    names = ("second", "first") if is_hedge else ("first", "second")
    assert (await asking).step.deployment.name == names[1]
    assert attempts_of(bench) == [(names[0], kind, is_hedge, False), (names[1], "ok", not is_hedge, False)]


async def test_plan_continues_after_the_hedge_if_both_attempts_fail(bench: Bench) -> None:
    first, second, asking = await hedged(bench)
    second.answers.put_nowait(error(503))
    first.answers.put_nowait(error(401))
    await until(lambda: second.asked == 2)
    second.answer()
    assert (await asking).step.deployment.name == "second"
    assert [kind for _, kind, _, _ in attempts_of(bench)] == ["credentials", "unavailable", "ok"]
    reasons = [attempt.decision.reason for attempt in bench.record.attempts if attempt.decision is not None]
    assert sorted(reasons) == ["backoff", "hedge"]
    assert "first" in bench.health.snapshot(bench.table), "what failed beside is benched, too"


async def test_deployment_that_was_silent_with_one_key_is_not_retried_after_an_error_with_another(bench: Bench) -> None:
    config = HEDGED.merge(
        'deployments: {first: {api_key: ["${FIRST}", "${OTHER}"], fold: true, first_token: 50ms}}',
        "resilience: {attempts: {per_deployment: 3}}",
    )
    bench.table = table_of(config, {**ENVIRON, "OTHER": "sk-other"})
    bench.forbidden["second"] = "disabled"
    bench.deadline = Deadline.start(600, 55, task=asyncio.current_task())
    calls = 0

    async def behave(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return error(503)

    bench.router.post(FIRST).mock(side_effect=behave)
    with pytest.raises(PlanExhausted) as raised:
        await ask(bench)
    assert raised.value.failure.kind is FailureKind.SILENT
    assert attempts_of(bench) == [("first", "unavailable", True, False), ("first", "silent", False, False)]


async def test_silence_within_an_answer_that_is_put_together_ends_that_attempt_alone(bench: Bench) -> None:
    class Stalled(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield chunk("hi")
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            first.answer()

    config = HEDGED.merge("deployments: {first: {fold: false}, second: {fold: true}}")
    first, second = providers_of(bench, config)
    bench.table = replace(bench.table, resilience=replace(bench.table.resilience, idle_s=0.05))
    bench.deadline = Deadline.start(600, 55, task=asyncio.current_task())
    second.answers.put_nowait(httpx.Response(200, stream=Stalled(second), headers=SSE))
    assert (await bench.ask()).step.deployment.name == "first"
    assert attempts_of(bench) == [("second", "interrupted", True, False), ("first", "ok", False, False)]


async def test_failed_attempt_starts_a_cooldown_although_the_other_one_answered(bench: Bench) -> None:
    """Otherwise a fallback with a refused key is called for each slow answer, unnoticed."""
    first, second, asking = await hedged(bench)
    second.answers.put_nowait(error(401))
    await until(lambda: bench.health.snapshot(bench.table))
    first.answer()
    assert (await asking).step.deployment.name == "first"
    assert list(bench.health.snapshot(bench.table)) == ["second"]


async def test_content_filter_ends_both_attempts_of_a_hedge(bench: Bench) -> None:
    """Another provider must not answer a request that was refused by a content filter."""
    first, second, asking = await hedged(bench)
    first.answers.put_nowait(error(400, "content_filter"))
    with pytest.raises(PlanExhausted) as raised:
        await asking
    assert raised.value.failure.kind is FailureKind.CONTENT_FILTER
    await until(lambda: second.cancelled)


async def test_failed_attempt_before_a_disconnect_is_recorded(bench: Bench) -> None:
    """It was sent the prompt. Without it, receipts and metrics would count fewer calls than the providers."""
    first, second, asking = await hedged(bench)
    second.answers.put_nowait(error(429, retry_after="30"))
    await until(lambda: bench.health.snapshot(bench.table))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: first.cancelled)
    assert attempts_of(bench) == [("second", "rate_limited", True, False)]
    assert [attempt.deployment for attempt in bench.record.abandoned] == ["first"]


async def test_disconnect_while_the_losing_attempt_is_closed_records_both(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have answered, although the client no longer reads the winner's answer."""
    first, second = providers_of(bench, stream=True)
    closing = asyncio.Event()

    async def close(_: list[Attempt], __: Attempt | None) -> None:
        closing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("gateway.execution.hedging._close_others", close)
    asking = ask(bench, stream=True)
    await until(lambda: second.asked)
    second.answer()
    await closing.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: first.cancelled)
    assert [attempt.deployment for attempt in bench.record.abandoned] == ["first", "second"]
    assert bench.record.attempts == []


async def test_disconnect_cancels_both_attempts_of_a_hedge(bench: Bench) -> None:
    first, second, asking = await hedged(bench, BOUNDED)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: first.cancelled and second.cancelled)
    assert set(bench.executor.limiters.rows(lambda limiter: limiter.in_use).values()) == {0}
    assert bench.record.attempts == []
    assert [attempt.deployment for attempt in bench.record.abandoned] == ["first", "second"], "what was sent, was sent"


async def test_hedge_that_never_started_releases_its_slot(bench: Bench) -> None:
    first, second = providers_of(bench, BOUNDED)
    asking = ask(bench)
    await until(lambda: first.asked)
    loop = asyncio.get_running_loop()

    def stillborn(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **more)
        task.cancel()
        return task

    loop.set_task_factory(stillborn)  # type: ignore[arg-type]  # the protocol of a factory is wider than its use
    try:
        with pytest.raises(asyncio.CancelledError):
            await asking
    finally:
        loop.set_task_factory(None)
    assert second.asked == 0
    await until(lambda: first.cancelled)
    assert set(bench.executor.limiters.rows(lambda limiter: limiter.in_use).values()) == {0}


async def test_loser_releases_its_slot_and_does_not_count_for_its_breaker(bench: Bench) -> None:
    config = HEDGED.merge("deployments: {first: {concurrency: 5}}")
    first, second = providers_of(bench, config)
    for _ in range(12):
        asking = ask(bench)
        await until(lambda: second.answers.empty() and second.asked > first.cancelled)
        second.answer()
        await asking
        await until(lambda: first.cancelled == first.asked)
    breaker = bench.health.breaker(bench.table.deployments["first"], bench.table.resilience.breaker)
    assert breaker is not None
    assert breaker.state == "closed"
    assert breaker._window.totals == (0, 0)
    assert bench.executor.limiters.limiter(bench.table.deployments["first"]).in_use == 0


async def test_short_client_timeout_during_a_hedge_is_not_silence_of_the_first(bench: Bench) -> None:
    config = HEDGED.merge(
        "deployments: {first: {first_token: 1s}}", "resilience: {first_token: 10ms, breaker: {failures: 1}}"
    )
    first, second = providers_of(bench, config)
    bench.deadline = Deadline.start(0.05, 0.05, bench.clock)
    with pytest.raises(PlanExhausted) as raised:
        await bench.ask(stream=True)
    assert raised.value.failure.kind is FailureKind.SILENT
    assert (first.asked, second.asked) == (1, 1)
    rule = bench.table.resilience.breaker
    breakers = [bench.health.breaker(bench.table.deployments[name], rule) for name in ("first", "second")]
    # The second is the last step, which had all that `first_token` gives.
    assert [breaker.state if breaker else None for breaker in breakers] == ["closed", "open"]


async def test_hedge_is_paid_for_from_the_retry_budget(bench: Bench) -> None:
    first, second = providers_of(bench)
    for _ in range(FLOOR + 5):
        bench.executor.budget.take(None, bench.time)
    asking = ask(bench)
    await until(lambda: bench.record.retries_refused == ("second",))
    assert second.asked == 0
    first.answer()
    assert (await asking).step.deployment.name == "first"


@pytest.mark.parametrize(
    "why", ["forbidden", "benched", "breaker", "full", "effects", "attempts", "one step"], ids=lambda why: why
)
async def test_deployment_that_is_not_allowed_is_not_hedged_to(bench: Bench, why: str) -> None:
    config = HEDGED.merge("deployments: {second: {concurrency: {limit: 1, queue: 5}}}")
    if why == "one step":
        config = config.merge("assistants: {assistant: {routes: {default: [first]}}}")
    if why == "attempts":
        config = config.merge("resilience: {attempts: {per_deployment: 1, total: 1}}")
    first, second = providers_of(bench, config)
    deployment = bench.table.deployments["second"]
    if why == "benched":
        bench.health.cool_down(deployment, deployment.credentials[0], 60, Failure(FailureKind.QUOTA, "spent"))
    if why == "breaker":
        breaker = bench.health.breaker(deployment, bench.table.resilience.breaker)
        assert breaker is not None
        for _ in range(5):
            breaker.failed(breaker.ticket, bench.time, "down")
        bench.time += 30  # its probe is due, and a hedge is not a probe
    if why == "full":
        bench.executor.limiters.limiter(deployment).try_acquire()
    if why == "effects":
        plan = bench.plan
        bench.plan = lambda request: replace(plan(request), has_effects=True)  # type: ignore[method-assign]
    asking = ask(bench)
    await until(lambda: first.asked)
    if why == "forbidden":
        bench.forbidden["second"] = "its approval has ended"
    await asyncio.sleep(0.05)  # nothing should happen, so there is no condition to wait for
    assert second.asked == 0
    first.answer()
    assert (await asking).step.deployment.name == "first"
    assert [lost for *_, lost in attempts_of(bench)] == [False]


async def test_hedge_without_a_next_step_uses_another_key(bench: Bench) -> None:
    config = HEDGED.merge(
        "assistants: {assistant: {routes: {default: [first]}}}",
        'deployments: {first: {api_key: ["${FIRST}", "${SECOND}"]}}',
    )
    first, _ = providers_of(bench, config)
    asking = ask(bench)
    await until(lambda: first.asked == 2)
    assert sorted(first.keys) == ["sk-first-secret", "sk-second-secret"]
    first.answer()
    assert (await asking).step.deployment.name == "first"
    await until(lambda: first.cancelled == 1)
    assert len(attempts_of(bench)) == 2


async def test_the_share_is_learnt_from_what_the_deployment_took(bench: Bench) -> None:
    """p95: no hedge until twenty answers are known; then requests that take longer than 95 % of them."""
    first, second = providers_of(bench, HEDGED.merge("assistants: {assistant: {hedge: {after: p95}}}"))
    deployment = bench.table.deployments["first"]
    hedge = bench.table.assistants["assistant"].hedge
    assert hedge is not None
    for number in range(20):
        assert bench.health.latency.hedge_after_s(hedge, deployment, stream=False) is None
        asking = ask(bench)
        await until(lambda number=number: first.asked == number + 1)
        bench.time += 0.03 if number == 7 else 0.02
        bench.deadline = Deadline.start(600, 55, bench.clock)
        first.answer()
        await asking
    after_s = bench.health.latency.hedge_after_s(hedge, deployment, stream=False)
    assert after_s is not None
    assert 0.02 <= after_s <= 0.033
    assert bench.health.latency.hedge_after_s(hedge, deployment, stream=True) is None, "streams are distinguished"
    asking = ask(bench)
    await until(lambda: second.asked)
    bench.time += 5
    second.answer()
    await asking
    # The loser took at least five seconds, and counts as that.
    assert bench.health.latency._histogram(deployment, False).quantile_s(0.99) is None
    assert sum(bench.health.latency._histogram(deployment, False)._counts[-60:]) == 1
    bench.executor.prune(table_of(CONFIG, ENVIRON))
    bench.executor.prune(replace(bench.table, deployments={}))
    assert bench.health.latency.hedge_after_s(hedge, deployment, stream=False) is None


async def test_only_a_first_attempt_is_hedged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = providers_of(bench)
    judged: list[object] = []
    monkeypatch.setattr(LatencyTracker, "hedge_after_s", lambda *those, **more: judged.append(those))
    first.answers.put_nowait(error(500))
    first.answer()
    assert (await ask(bench)).step.deployment.name == "first"
    assert (first.asked, second.asked, len(judged)) == (2, 0, 1)


async def test_plan_with_side_effects_is_not_hedged(bench: Bench) -> None:
    """A failed provider may have performed the effect, so it is retried only if nothing was sent."""
    bench.table = table_of(CONFIG, ENVIRON)
    plan = bench.plan
    bench.plan = lambda request: replace(plan(request), has_effects=True)  # type: ignore[method-assign]
    bench.router.post(FIRST).mock(return_value=error(503))
    second = bench.router.post(SECOND).respond(json=answer_json())
    with pytest.raises(PlanExhausted):
        await bench.ask()
    assert (bench.tried, second.call_count) == (["first"], 0)
    bench.router.post(FIRST).mock(side_effect=httpx.ReadError("reset"))
    bench.record = Record("req", 0.0, "t")
    with pytest.raises(PlanExhausted):
        await bench.ask()
    assert bench.tried == ["first"]
    bench.router.post(FIRST).mock(side_effect=httpx.ConnectError("refused"))
    bench.record = Record("req", 0.0, "t")
    assert (await bench.ask()).step.deployment.name == "second"


def test_a_plan_has_effects_if_a_field_that_keeps_something_got_through(bench: Bench) -> None:
    from gateway.policy.routing import decide
    from providers.matching.requirements import Requirements

    table = bench.table
    allowed = {
        name: replace(deployment, allowed_moves=frozenset({"store"})) for name, deployment in table.deployments.items()
    }
    routes = {"default": tuple(allowed.values())}
    assistant = replace(table.assistants["assistant"], routes=routes)
    from gateway.model.location import EdgeReport
    from gateway.policy.location.resolution import resolve
    from tests.kit.location_reports import reported

    location = resolve(table, None, reported(EdgeReport(("DE",))))
    # One that stands in a field which is left out on the way has none: the request may go to the next deployment.
    for moving, has_effects in (
        (frozenset[str](), False),
        (frozenset({"store"}), True),
        (frozenset({"more.store"}), False),
    ):
        needs = Requirements(frozenset(), frozenset(), moving)
        plan = decide(table, assistant, location, needs, {}, 0.0).outcome
        assert isinstance(plan, Plan)
        assert plan.has_effects is has_effects


# --- the race by itself -------------------------------------------------------------------------------------------


def value_after(rounds: int, value: int, ended: list[str] | None = None) -> Callable[[], Coroutine[Any, Any, int]]:
    async def run() -> int:
        try:
            for _ in range(rounds):
                await asyncio.sleep(0)
        finally:
            if ended is not None:
                ended.append("over")
        return value

    return run


@pytest.mark.parametrize(("one", "two", "wins"), [(50, 5, 2), (5, 50, 1), (7, 3, 2)])
async def test_the_first_to_end_wins(one: int, two: int, wins: int) -> None:
    ended: list[str] = []
    assert await race(value_after(one, 1, ended), 0.0, lambda: value_after(two, 2, ended), lambda _: True) == wins
    await until(lambda: len(ended) == 2)


async def test_non_final_result_waits_for_the_other_attempt() -> None:
    assert await race(value_after(2, 1), 0.0, lambda: value_after(9, 2), lambda result: result == 2) == 2
    assert await race(value_after(2, 1), 0.0, lambda: value_after(9, 2), lambda _: False) == 2
    assert await race(value_after(2, 1), 5.0, lambda: value_after(9, 2), lambda _: False) == 1
    assert await race(value_after(9, 1), 0.0, lambda: None, lambda _: True) == 1


async def test_unexpected_exception_is_raised_and_ends_the_other_attempt() -> None:
    async def bug() -> int:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    ended: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await race(value_after(10**6, 1, ended), 0.0, lambda: bug, lambda _: True)
    await until(lambda: ended)
    with pytest.raises(ZeroDivisionError):
        await race(bug, 5.0, lambda: value_after(1, 1), lambda _: True)


async def test_cancelled_race_leaves_no_running_attempt(caplog: pytest.LogCaptureFixture) -> None:
    for rounds in range(12):
        ended: list[str] = []
        other = value_after(6, 2, ended)
        racing = asyncio.ensure_future(race(value_after(8, 1, ended), 0.0, lambda: other, lambda _: True))  # noqa: B023
        for _ in range(rounds):
            await asyncio.sleep(0)
        racing.cancel()
        await asyncio.wait([racing])
        before = len(asyncio.all_tasks())
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= before
        assert len(asyncio.all_tasks()) == 1
    gc.collect()
    assert "never" not in caplog.text
