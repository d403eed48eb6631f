"""Breakers and the retry budget in plans: counted failures, skipped deployments, and the release of probes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.deadline import Deadline
from gateway.execution.retry import FLOOR, rule_of
from gateway.execution.run import PlanExhausted
from gateway.model.record import Record
from gateway.model.resilience import Attempts, BreakerRule
from gateway.usage.accounting import Accounting
from gateway.usage.journal import Journal
from gateway.usage.usage_row import CallOutcome
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import CONFIG, FIRST, ONLY_FIRST, SECOND, TWO_KEYS, Bench, answer_json, bench_of
from tests.gateway.execution.live_streams import chunk
from tests.gateway.execution.runner_answers import SSE, error, events_of
from tests.kit.configs import table_of
from tests.kit.usage_rows import kept_rows

COUNTED = {"connect", "unavailable", "silent", "malformed", "interrupted"}
WHOLE = chunk("hi") + chunk(finish="stop") + b"data: [DONE]\n\n"


@pytest.fixture
def bench(bench: Bench) -> Bench:
    bench.bound(attempts=Attempts(1))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    return bench


def breaker(bench: Bench, name: str = "first") -> Breaker:
    return bench.evidence(name).everybody


async def ask_often(bench: Bench, times: int = 5) -> None:
    for _ in range(times):
        bench.next_request()
        await bench.ask()


async def fill(bench: Bench, times: int = 5) -> None:
    bench.router.post(FIRST).mock(return_value=error(503))
    await ask_often(bench, times)
    bench.next_request()


def test_the_kinds_that_count_are_those_of_the_design() -> None:
    assert {str(kind) for kind in FailureKind if rule_of(Failure(kind, "")).counts} == COUNTED


async def test_deployment_with_consecutive_failures_is_skipped(bench: Bench) -> None:
    await fill(bench)
    await bench.ask()
    assert bench.tried == ["second"]
    (skipped,) = bench.record.skipped
    assert skipped.reason == "breaker open for all: 5 different requests failed, the last: status 503 alone"
    unwell = bench.health.snapshot(bench.table)["first"]
    assert unwell.by_breaker
    assert 8 <= unwell.for_s <= 12


@pytest.mark.parametrize(
    "answer",
    [error(429), error(401), error(404), error(402), error(400), error(400, "content_filter")],
    ids=lambda answer: str(answer.status_code),
)
async def test_failures_that_do_not_show_the_providers_state_never_open(bench: Bench, answer: httpx.Response) -> None:
    bench.router.post(FIRST).mock(return_value=answer)
    for _ in range(30):
        bench.next_request()
        bench.time += 400  # past any bench
        with suppress(PlanExhausted):
            await bench.ask()
    assert breaker(bench).state is BreakerState.CLOSED


@pytest.mark.parametrize(
    "answer",
    [error(500), httpx.ConnectError("x"), httpx.Response(200, text="<html>"), httpx.Response(200, text="")],
    ids=["500", "connect", "html", "empty"],
)
async def test_failures_that_show_an_outage_open(bench: Bench, answer: httpx.Response | Exception) -> None:
    route = bench.router.post(FIRST)
    route.mock(side_effect=[answer] * 5) if isinstance(answer, Exception) else route.mock(return_value=answer)
    await ask_often(bench)
    assert breaker(bench).state is BreakerState.OPEN


async def test_only_one_probe_runs_and_a_cancelled_probe_is_released(bench: Bench) -> None:
    await fill(bench)
    bench.time += 13
    asked, answers = asyncio.Event(), asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        asked.set()
        await answers.wait()
        return httpx.Response(200, json=answer_json())

    bench.router.post(FIRST).mock(side_effect=slow)
    probe = asyncio.create_task(bench.ask())
    await asked.wait()
    assert "first" in bench.health.snapshot(bench.table)
    bench.next_request()
    await bench.ask()
    assert bench.tried == ["second"]
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert breaker(bench).state is BreakerState.HALF_OPEN
    assert bench.health.snapshot(bench.table) == {}
    answers.set()
    bench.next_request()
    await bench.ask()
    assert (bench.tried, breaker(bench).state) == (["first"], BreakerState.CLOSED)


async def test_deployment_with_a_newly_open_breaker_is_not_retried(bench: Bench) -> None:
    bench.bound(attempts=Attempts(3))
    bench.router.post(FIRST).mock(return_value=error(503))
    await ask_often(bench)
    assert bench.tried == ["first", "second"], "the fifth request opened it, so it is not retried"
    assert bench.waits[-1] == 0


@pytest.mark.parametrize(
    ("content", "state"), [(WHOLE, BreakerState.CLOSED), (chunk("hi"), BreakerState.OPEN)], ids=["whole", "cut"]
)
async def test_a_stream_counts_by_its_end(bench: Bench, content: bytes, state: BreakerState) -> None:
    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=content, headers=SSE))
    for _ in range(5):
        bench.next_request()
        await events_of(await bench.ask(stream=True))
    assert breaker(bench).state is state


async def test_first_stream_after_an_outage_that_breaks_off_opens_the_breaker_again(bench: Bench) -> None:
    await fill(bench)
    bench.time += 13
    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=chunk("hi"), headers=SSE))
    probe = await bench.ask(stream=True)
    assert (bench.tried, breaker(bench).state) == (["first"], BreakerState.CLOSED)
    await events_of(probe)
    assert breaker(bench).state is BreakerState.OPEN
    assert bench.health.snapshot(bench.table)["first"].for_s >= 16, "for longer than the first time"
    bench.next_request()
    await bench.ask(stream=True)
    assert bench.tried == ["second"]


async def test_stream_that_its_client_closes_does_not_count_for_the_breaker(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=chunk("hi"), headers=SSE))
    for _ in range(10):
        bench.next_request()
        answer = await bench.ask(stream=True)
        await answer.stream.close()
    assert breaker(bench).state is BreakerState.CLOSED


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by_client", [True, False])
async def test_short_timeout_of_the_client_does_not_count_as_provider_silence(
    bench: Bench, stream: bool, by_client: bool
) -> None:
    async def silent(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    if by_client:
        bench.bound(total_s=600.0, commit_s=55.0, first_token_s=10.0)
    else:
        bench.bound(total_s=0.02, commit_s=0.02, first_token_s=0.01)
    bench.router.post(FIRST).mock(side_effect=silent)
    for _ in range(5):
        bench.next_request()
        bench.deadline = Deadline.start(0.02, 0.02, bench.clock)
        with suppress(PlanExhausted):
            await bench.ask(stream=stream)
    assert breaker(bench).state is (BreakerState.CLOSED if by_client else BreakerState.OPEN)


async def test_reload_keeps_an_open_breaker_and_off_removes_it(bench: Bench) -> None:
    await fill(bench)
    bench.health.prune(table_of(CONFIG, {"FIRST": "another", "SECOND": "x"}))
    assert breaker(bench).state is BreakerState.OPEN
    moved = replace(bench.table.deployments["first"], origin="https://other.example")
    fresh = bench.health.evidence(moved, BreakerRule())
    assert fresh.everybody.state is BreakerState.CLOSED
    off = replace(bench.table, resilience=replace(bench.table.resilience, breaker=None))
    assert bench.health.snapshot(off) == {}
    bench.health.prune(off)
    assert bench.health.snapshot(bench.table) == {}
    assert bench.health.evidence(bench.table.deployments["first"], None) is None


async def test_states_and_changes_are_reported(bench: Bench) -> None:
    changes: list[tuple[str, str]] = []
    bench.health._on_breaker_change = lambda name, changed, _: changes.append((name, str(changed.state)))
    await fill(bench)
    assert changes == [("first", "open")]
    states = bench.health.breaker_states()
    assert (states["first", "open"], states["first", "closed"], states["second", "closed"]) == (1, 0, 1)


async def test_spent_retry_budget_stops_retries_and_the_plan_continues(bench: Bench) -> None:
    bench.bound(attempts=Attempts(2), breaker=None, retry_budget=0.2)
    asked = bench.router.post(FIRST).mock(return_value=error(503))
    refused = 0
    for _ in range(100):
        bench.next_request()
        bench.executor.sleep = _at_once
        await bench.ask()
        assert bench.tried[-1] == "second"
        refused += len(bench.record.retries_refused)
    assert asked.call_count == 100 + FLOOR + 20
    assert refused == 200 - asked.call_count


async def test_spent_retry_budget_on_the_last_step_returns_the_failure(bench: Bench) -> None:
    bench.bound(attempts=Attempts(2), breaker=None, retry_budget=0.0)
    for url in (FIRST, SECOND):
        bench.router.post(url).mock(return_value=error(503))
    bench.executor.sleep = _at_once
    for _ in range(FLOOR + 1):
        bench.next_request()
        assert (await bench.failure()).kind is FailureKind.UNAVAILABLE
    assert bench.tried == ["first", "second"]
    assert bench.record.retries_refused == ("first", "second")


async def test_attempt_with_another_key_is_not_a_retry() -> None:
    bench = bench_of(CONFIG.merge(TWO_KEYS, "resilience: {retry_budget: 0%}"))
    for _ in range(FLOOR):
        assert bench.executor.budget.take(0.0, bench.time)
    bench.router.post(FIRST).mock(side_effect=[error(401), httpx.Response(200, json=answer_json())])
    await bench.ask()
    assert bench.tried == ["first", "first"]


async def _at_once(_: float) -> None:
    pass


class Silence:
    """A provider that accepts and sends nothing, of which each client has enough after some seconds."""

    def __init__(self, bench: Bench) -> None:
        bench.use(ONLY_FIRST, "resilience: {first_token: 10s}")
        self.bench, self.asked, self.arrived = bench, 0, asyncio.Event()
        bench.router.post(FIRST).mock(side_effect=self)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.extensions["trace"]("http11.send_request_headers.started", None)
        self.asked += 1
        self.arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def leave_after(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> Record:
        self.bench.next_request()
        record = self.bench.record
        waiting = asyncio.create_task(self.bench.ask(stream=True))
        await self.arrived.wait()
        self.arrived.clear()
        self.bench.time += seconds
        meanwhile()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        return record


async def test_silence_counts_when_the_client_hangs_up_first(bench: Bench) -> None:
    silence = Silence(bench)
    for _ in range(5):
        record = await silence.leave_after(11)
        assert ([it.outcome for it in record.attempts], record.abandoned) == (["silent"], ())
        assert record.outcome_if_left == "failed"
    assert breaker(bench).reason == (
        "5 different requests failed, the last: the provider had sent nothing when the client left"
    )
    bench.next_request()
    await bench.failure(stream=True)
    assert silence.asked == 5


@pytest.mark.parametrize(("waits_s", "answers", "output"), [(11, False, {0}), (9, False, {451}), (11, True, {551})])
async def test_silent_call_is_charged_its_input_alone(
    bench: Bench, tmp_path: Path, waits_s: float, answers: bool, output: set[int]
) -> None:
    silence = Silence(bench)
    gate, now_ns = Journal.open(tmp_path / "journal"), [0]
    accounting = Accounting(gate, b"key of pseudonyms", clock=lambda: now_ns[0])
    bench.usage = accounting.request(bench.table, None, None, bench.record)
    of = bench.health.latency.of(bench.table.deployments["first"])

    def meanwhile() -> None:
        now_ns[0] = int(waits_s * 1e9)
        if answers:
            of.record(bench.time - 1, None)

    await silence.leave_after(waits_s, meanwhile)
    gate.close()
    (row,) = kept_rows(tmp_path)
    assert (row.outcome, {row.output_tokens}) == (CallOutcome.DISCONNECTED, output)
    assert row.input_tokens > 0


async def test_client_that_leaves_soon_shows_nothing(bench: Bench) -> None:
    silence = Silence(bench)
    for _ in range(10):
        record = await silence.leave_after(9)
        assert (record.attempts, [it.deployment for it in record.abandoned]) == ([], ["first"])
        assert record.outcome_if_left == "cancelled"
    assert bench.evidence().is_clear


@pytest.mark.parametrize("is_live", [True, False])
async def test_silence_shows_nothing_while_others_are_answered(bench: Bench, is_live: bool) -> None:
    silence, first = Silence(bench), bench.table.deployments["first"]
    answers = bench.health.latency.of(first)
    answers.live = int(is_live)
    for _ in range(10):
        record = await silence.leave_after(11, lambda: None if is_live else answers.record(bench.time - 1, None))
        assert [it.deployment for it in record.abandoned] == ["first"]
    assert bench.evidence().is_clear


async def test_stream_is_live_until_it_is_released(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=WHOLE, headers=SSE))
    answers = bench.health.latency.of(bench.table.deployments["first"])
    answer = await bench.ask(stream=True)
    await answer.stream.close()
    bench.next_request()
    await events_of(await bench.ask(stream=True))
    assert answers.live == 0
