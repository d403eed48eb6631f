"""Load tests of simulators: the measured figures match the simulated capacity, and slow answers count in full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.asking import CandidateClient, QuestionResult
from evaluation.checks import RecordedAnswer
from evaluation.load import UNANSWERED, LoadStep, arrivals, axis_of, load_of, offer, own_lag, summarise
from evaluation.store import RunStore
from evaluation.suite import ObjectivesSection, ScalabilitySection
from gateway.model.deployment import Concurrency
from providers.chat import ChatRequest, UserMessage
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from tests.evaluation.candidates import servers, table_for

REQUEST = ChatRequest("assistant", (UserMessage("?"),), stream=True, include_usage=True)
STRICT, PATIENT = (
    ObjectivesSection(first_token=first, total=total) for first, total in (("500ms", "2s"), ("20s", "30s"))
)
FINE = QuestionResult(0.3, RecordedAnswer("x"), tokens=(5, 10), first_s=0.2, between_s=0.01, pieces=10)


async def sent(
    due: Sequence[float],
    ask: Callable[[], Awaitable[QuestionResult]],
    *,
    patience_s: float = 30.0,
    outstanding: int = 500,
) -> list[QuestionResult]:
    rows: dict[int, QuestionResult] = {}
    await offer(due, ask, lambda: None, rows.__setitem__, patience_s=patience_s, outstanding=outstanding)
    return [rows[number] for number in range(len(due))]


async def measured(
    scenario: Scenario, rate: float, duration_s: float, objectives: ObjectivesSection, rule: Concurrency | None = None
) -> tuple[list[QuestionResult], LoadStep]:
    """Run one step with a simulated provider. Return its rows and summary."""
    with servers({"one": scenario}) as thread:
        table = table_for({"one": thread["one"].origin})
        candidate = replace(table.deployments["one"], concurrency=rule)
        client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
        rows = await sent(arrivals(rate, duration_s, (11,)), lambda: client.ask(candidate, REQUEST, once=True))
        await client.aclose()
    return rows, summarise(rows, {"rate": rate, "duration_s": duration_s, "own_s": 0.0, "own_most_s": 0.0}, objectives)


def unless_late(step: LoadStep) -> None:
    """Skip the check if this machine sent too late to measure the provider. The report marks such a step too."""
    if step.late:
        pytest.skip("this machine is too busy to send on time")


async def test_provider_with_enough_capacity_meets_the_objectives() -> None:
    _, step = await measured(Scenario(first_token_s=0.05, between_events_s=0.005), 40, 1, PATIENT)
    assert step.holds
    assert step.errors.value == 0
    assert step.goodput.low <= 40 <= step.goodput.high
    assert step.times["first_token"]["p50"].value >= 0.05
    assert step.times["between_tokens"]["p50"].value > 0
    assert step.tokens_per_s > 0


@pytest.mark.parametrize("rule", [Concurrency(2, queue=1, wait_s=0.1), Concurrency(2, queue=20, wait_s=5)])
async def test_load_test_ignores_the_gateway_limits(rule: Concurrency) -> None:
    """The gateway's own concurrency limit must not reduce the measured capacity, neither by rejecting nor by queueing."""
    rows, step = await measured(Scenario(first_token_s=0.4), 40, 0.5, PATIENT, rule)
    assert [row.failure for row in rows if row.failure] == []
    assert step.goodput.value == 40


@pytest.mark.slow("offers load for seconds")
@pytest.mark.parametrize("status", [429, 503])
async def test_rejections_beyond_capacity_appear_as_errors_and_lower_goodput(status: int) -> None:
    _, step = await measured(Scenario(capacity=Capacity(rps=20, beyond=status)), 60, 3, STRICT)  # type: ignore[arg-type]
    unless_late(step)
    assert not step.holds
    # A burst of one second is accepted: 20 requests, then 20 per second.
    assert step.goodput.low <= (20 + 3 * 20) / 3 <= step.goodput.high
    assert step.rejected.value == step.errors.value
    assert step.errors.low <= 1 - (80 / 180) <= step.errors.high


@pytest.mark.slow("offers load for seconds")
async def test_slow_provider_misses_the_objectives() -> None:
    """With a capacity of 20 per second and 40 offered for 2 s, the last request waits 2 s. A closed loop would miss this."""
    rows, step = await measured(Scenario(capacity=Capacity(rps=20)), 40, 2, STRICT)
    unless_late(step)
    assert not step.holds
    assert rows[-1].first_s is not None
    # A stalled machine can only lengthen the wait.
    assert rows[-1].first_s > len(rows) / 20 - rows[-1].due_s - 0.4
    assert step.times["first_token"]["p95"].value > 1


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

    rows = await sent([0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12], never, patience_s=0.1, outstanding=5)
    assert [row.failure for row in rows] == [UNANSWERED] * 7
    assert cancelled == 5, "more than may be open were sent"
    assert all(row.total_s >= 0.1 for row in rows[:5])


async def test_late_start_counts_in_the_time_of_the_answer() -> None:
    async def answers() -> QuestionResult:
        return FINE

    [row] = await sent([-0.5], answers)
    assert row.late_s >= 0.45
    assert row.first_s is not None
    assert row.first_s >= 0.65


async def test_own_lag_is_sampled_while_the_block_runs() -> None:
    async with own_lag() as lags:
        await asyncio.sleep(0.1)
    assert len(lags) >= 1
    assert all(lag >= 0 for lag in lags)


def load_with(folder: Path, *goods: str) -> object:
    """Return the recovery time after steps of good (`+`) and bad (`-`) requests, due each second."""
    store = RunStore(folder, {})
    for number, good in enumerate(goods):
        store.remember(
            f"load one {number}",
            {"rate": number + 1.0, "duration_s": 1.0, "own_s": 0.0, "own_most_s": 0.0, "attempt": 0},
        )
        for at, one in enumerate(good):
            asked = replace(FINE, due_s=float(at), first_s=0.1 if one == "+" else 9.0)
            store.add("one", axis_of(number, 0), f"{at:06}", asked)
    section = ScalabilitySection(rates=[float(one + 1) for one in range(len(goods) - 1)], prompt="?")
    found = load_of(store, "one", section)
    store.close()
    return found.recovered_s, found.holds_to, found.breaks_at


@pytest.mark.parametrize(("recovery", "after"), [("++", 0.0), ("-+-+", 3.0), ("+-", None)])
def test_recovery_is_the_time_after_which_all_requests_are_good(tmp_path: Path, recovery: str, after: object) -> None:
    assert load_with(tmp_path, "+" * 20, "-" * 20, recovery) == (after, 1.0, 2.0)


def test_lateness_of_the_measuring_machine_is_reported() -> None:
    def step(late_s: float, own_s: float) -> LoadStep:
        rows = [replace(FINE, due_s=0.1 * number, late_s=late_s) for number in range(10)]
        return summarise(rows, {"rate": 10, "duration_s": 1, "own_s": own_s, "own_most_s": own_s}, STRICT)

    assert [step(0.2, 0.0).late, step(0.001, 0.2).late, step(0.001, 0.001).late] == [True, True, False]
