"""Load tests of simulators: the measured figures match the simulated capacity, and slow answers count in full."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from evaluation.candidate_client import CandidateClient, QuestionResult, Timing
from evaluation.items import RecordedAnswer
from evaluation.load_test import (
    UNANSWERED,
    LoadStep,
    LoadStepResult,
    arrivals,
    holds,
    offer,
    recovered_after,
    summarise,
)
from evaluation.run_store import LoadRow
from gateway.execution.transport import PoolTransport
from gateway.model.deployment import Concurrency
from providers.chat import ChatRequest, Usage, UserMessage
from providers.failures import FailureKind
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import servers, table_for

REQUEST = ChatRequest("assistant", (UserMessage("?"),), stream=True, include_usage=True)
FIRST_S, TOTAL_S = 0.5, 2.0


def summarised(rows: list[LoadRow], rate: float, duration_s: float, **own: float) -> LoadStepResult:
    return summarise(rows, {"rate": rate, "duration_s": duration_s, **own}, FIRST_S, TOTAL_S)


async def offered(
    origin: str, rate: float, duration_s: float, patience_s: float, concurrency: Concurrency | None = None
) -> list[LoadRow]:
    """Return the rows of one step."""
    table = table_for({"one": origin})
    candidate = replace(table.deployments["one"], concurrency=concurrency)
    asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
    try:
        due = arrivals(rate, duration_s, (11,))
        step = LoadStep(rate, duration_s, patience_s, 500)
        return await offer(step, due, lambda: asker.ask(candidate, REQUEST, once=True))
    finally:
        await asker.aclose()


async def measured(
    scenario: Scenario, rate: float, duration_s: float, patience_s: float = 1.0
) -> tuple[list[LoadRow], LoadStepResult]:
    """Run one step with a simulated provider. Return its rows and summary."""
    with servers({"one": scenario}) as thread:
        rows = await offered(thread["one"].origin, rate, duration_s, patience_s)
    return rows, summarised(rows, rate, duration_s)


def unless_late(step: LoadStepResult) -> None:
    """Skip the check if this machine sent too late to measure the provider. The report marks such a step too."""
    if step.late:
        pytest.skip("this machine is too busy to send on time")


async def test_provider_with_enough_capacity_meets_the_objectives() -> None:
    rows, _ = await measured(Scenario(first_token_s=0.05, between_events_s=0.005), 40, 1, patience_s=30)
    # Objectives that a busy machine can meet. Other tests check durations.
    step = summarise(rows, {"rate": 40, "duration_s": 1}, 20.0, 30.0)
    assert step.holds
    assert step.errors is not None
    assert step.errors.value == 0
    assert step.goodput is not None
    assert step.goodput.low <= 40 <= step.goodput.high
    assert step.first_token["p50"].value >= 0.05
    assert step.between_tokens["p50"].value > 0
    assert step.tokens_per_s > 0
    assert holds(rows, 20.0, 30.0)


@pytest.mark.parametrize("rule", [Concurrency(2, queue=1, wait_s=0.1), Concurrency(2, queue=20, wait_s=5)])
async def test_load_test_ignores_the_gateway_limits(rule: Concurrency) -> None:
    """The gateway's own concurrency limit must not reduce the measured capacity, neither by rejecting nor by queueing."""
    with servers({"one": Scenario(first_token_s=0.4)}) as thread:
        rows = await offered(thread["one"].origin, 40, 0.5, patience_s=30, concurrency=rule)
        connections = thread["one"].accepted
    step = summarise(rows, {"rate": 40, "duration_s": 0.5}, 20.0, 30.0)
    assert [row.failure for row in rows if row.failure] == []
    assert step.errors is not None
    assert step.goodput is not None
    assert (step.errors.value, step.goodput.value) == (0, 40)
    # Two concurrent calls would need two connections.
    assert connections > 2


async def test_questions_respect_the_concurrency_limit_of_the_config() -> None:
    with servers({"one": Scenario(latency_s=0.2)}) as thread:
        table = table_for({"one": thread["one"].origin})
        candidate = replace(table.deployments["one"], concurrency=Concurrency(1, queue=1, wait_s=0.01))
        asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
        try:
            found = await asyncio.gather(*(asker.ask(candidate, replace(REQUEST, stream=False)) for _ in range(4)))
        finally:
            await asker.aclose()
        assert thread["one"].received == 1
    assert [str(one.failure.kind) for one in found if one.failure] == ["overloaded"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
async def test_rejections_beyond_capacity_appear_as_errors_and_lower_goodput(status: int) -> None:
    capacity = Capacity(rps=20, beyond=status)  # type: ignore[arg-type]
    _, step = await measured(Scenario(capacity=capacity), 60, 3)
    unless_late(step)
    assert not step.holds
    assert step.goodput is not None
    # A burst of one second is accepted: 20 requests, then 20 per second.
    assert step.goodput.low <= (20 + 3 * 20) / 3 <= step.goodput.high
    assert step.throttled is not None
    assert step.errors is not None
    assert step.throttled.value == step.errors.value
    assert step.errors.low <= 1 - (80 / 180) <= step.errors.high


@pytest.mark.slow
async def test_slow_provider_misses_the_objectives() -> None:
    """With a capacity of 20 per second and 40 offered for 2 s, the last request waits 2 s. A closed loop would miss this."""
    rows, step = await measured(Scenario(capacity=Capacity(rps=20)), 40, 2, patience_s=30)
    unless_late(step)
    assert not step.holds
    last = rows[-1]
    assert last.first_s is not None
    # A stalled machine can only lengthen the wait.
    assert last.first_s > len(rows) / 20 - last.due_s - 0.4
    assert step.first_token["p95"].value > 1
    waits = [row.first_s for row in rows if row.first_s is not None]
    assert waits[-1] > waits[len(waits) // 2] > waits[0]


@pytest.mark.slow
async def test_requests_beyond_the_concurrency_capacity_wait() -> None:
    scenario = Scenario(first_token_s=0.1, capacity=Capacity(concurrent=4))
    _, step = await measured(scenario, 80, 1.5, patience_s=4)
    unless_late(step)
    # Four concurrent answers of 0.1 s are about 40 per second; the others wait.
    assert not step.holds or step.first_token["p95"].value > 0.3


def fine(first_s: float) -> QuestionResult:
    return QuestionResult(Timing(first_s + 0.1, first_s, 10, 0.01), RecordedAnswer("x"), usage=Usage(5, 10))


async def test_unanswered_requests_are_counted_and_cancelled() -> None:
    cancelled = 0

    async def never() -> QuestionResult:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        raise AssertionError

    rows = await offer(LoadStep(50, 0.2, 0.1, 5), [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12], never)
    assert [row.failure for row in rows] == [UNANSWERED] * 7
    assert cancelled == 5, "more than may be open were sent"
    assert all(row.total_s >= 0.1 for row in rows[:5])


async def test_late_start_counts_in_the_time_of_the_answer() -> None:
    async def answers() -> QuestionResult:
        return fine(0.2)

    [row] = await offer(LoadStep(1, 1, 1, 5), [-0.5], answers)
    assert row.late_s >= 0.45
    assert row.first_s is not None
    assert row.first_s >= 0.65


def test_recovery_is_the_time_after_which_all_requests_are_good() -> None:
    good, bad = LoadRow(0.0, 1.0, 0.1), LoadRow(0.0, 9.0, 9.0)

    def at(row: LoadRow, due_s: float) -> LoadRow:
        return LoadRow(due_s, row.total_s, row.first_s)

    assert recovered_after([at(good, 0.3), at(good, 1.0)], FIRST_S, TOTAL_S) == 0
    assert recovered_after([at(bad, 0.3), at(good, 1.0), at(bad, 2.0), at(good, 3.0)], FIRST_S, TOTAL_S) == 3.0
    assert recovered_after([at(good, 0.3), at(bad, 1.0)], FIRST_S, TOTAL_S) is None
    assert recovered_after([], FIRST_S, TOTAL_S) is None


def test_lateness_of_the_measuring_machine_is_reported() -> None:
    rows = [LoadRow(0.1 * number, 1.0, 0.1, late_s=0.2) for number in range(10)]
    assert summarised(rows, 10, 1).late
    on_time = [LoadRow(0.1 * number, 1.0, 0.1, late_s=0.001) for number in range(10)]
    assert not summarised(on_time, 10, 1).late
    failed = [*on_time, LoadRow(1.0, 1.0, failure=str(FailureKind.RATE_LIMITED), status=None)]
    throttled = summarised(failed, 10, 1).throttled
    assert throttled is not None
    assert throttled.value == pytest.approx(1 / 11)
