"""A deployment with a concurrency limit in a plan: waiting, failover to the next step, and release of slots."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from gateway.execution.breaker import BreakerState
from gateway.execution.concurrency_limiter import ConcurrencyLimiter
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import Answer
from gateway.model.record import Record
from providers.failures import FailureKind
from tests.gateway.execution.conftest import FIRST, ONLY_FIRST, SECOND, Bench, answer_json
from tests.gateway.execution.live_streams import chunk
from tests.gateway.execution.runner_answers import SSE, error, events_of
from tests.kit.scripted_server import until


def bound(bench: Bench, first: str, second: str = "null") -> ConcurrencyLimiter:
    deployments = f"{{first: {{concurrency: {first}}}, second: {{concurrency: {second}}}}}"
    bench.use(f"deployments: {deployments}")
    return bench.executor.limiters.limiter(bench.table.deployments["first"])


def request_of(bench: Bench, client: str = "app", *, stream: bool = False) -> tuple[Record, asyncio.Task[Answer]]:
    """Start a request with its own record."""
    record = Record("req", 0.0, "t", client=client)
    bench.record = record
    return record, asyncio.ensure_future(bench.ask(stream=stream))


class Provider:
    """Answers when the test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Semaphore(0)

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        await self.go.acquire()
        return httpx.Response(200, json=answer_json())


async def test_queued_request_is_sent_when_a_slot_is_released(bench: Bench) -> None:
    limiter, provider = bound(bench, "{limit: 1, queue: 5, wait: 20s}"), Provider()
    bench.router.post(FIRST).mock(side_effect=provider)
    _, one = request_of(bench)
    await until(lambda: provider.asked == 1)
    record, other = request_of(bench)
    await until(lambda: limiter.queued == 1)
    bench.time += 2
    assert provider.asked == 1
    provider.go.release()
    await one
    await until(lambda: provider.asked == 2)
    provider.go.release()
    assert (await other).step.deployment.name == "first"
    assert (limiter.in_use, limiter.queued, record.queued_s) == (0, 0, 2.0)


async def test_full_queue_fails_over_and_does_not_count_for_the_breaker(bench: Bench) -> None:
    limiter = bound(bench, "{limit: 1, queue: 0}")
    held = limiter.try_acquire()
    second = bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    for _ in range(10):
        record, asking = request_of(bench)
        assert (await asking).step.deployment.name == "second"
        assert [attempt.deployment for attempt in record.attempts] == ["second"]
        assert [(step.deployment, step.reason) for step in record.skipped] == [
            ("first", "overloaded: 1 calls are running, and the queue is full")
        ]
        assert record.shed == (("first", "queue_full"),)
    assert second.call_count == 10
    assert bench.evidence().everybody.state is BreakerState.CLOSED
    assert bench.health.snapshot(bench.table) == {}
    held.release()


async def test_request_without_a_free_slot_in_any_step_gets_a_retry_after(bench: Bench) -> None:
    limiter = bound(bench, "{limit: 1, queue: 0}", "{limit: 1, queue: 0}")
    limiter.try_acquire()
    bench.executor.limiters.limiter(bench.table.deployments["second"]).try_acquire()
    failure = await bench.failure()
    assert (failure.kind, failure.retry_after_s) == (FailureKind.OVERLOADED, 1.0)
    assert bench.record.attempts == []
    assert [shed for shed, _ in bench.record.shed] == ["first", "second"]


@pytest.mark.parametrize(
    ("change", "reason"), [(Bench.disable, "disabled in the current config"), (Bench.cool_down, "benched: too many")]
)
async def test_deployment_that_may_no_longer_be_asked_after_the_queue_wait_is_skipped(
    bench: Bench, change: Callable[[Bench], None], reason: str
) -> None:
    """After the wait for a slot, the config, the health and the breaker are checked again. A cooldown holds for those
    that wait, too: otherwise a whole queue learns of it one by one."""
    limiter = bound(bench, "{limit: 1, queue: 5, wait: 20s}", "{limit: 1, queue: 0}")
    held = limiter.try_acquire()
    assert held is not None
    first = bench.router.post(FIRST).respond(json=answer_json())
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    record, asking = request_of(bench)
    await until(lambda: limiter.queued == 1)
    change(bench)
    held.release()
    assert (await asking).step.deployment.name == "second"
    assert not first.called
    assert limiter.in_use == 0
    assert [step.reason for step in record.skipped] == [reason]


FEW = "{limit: 1, queue: 5, wait: 20s}"


async def test_a_queue_for_the_last_step_waits_for_the_end_of_a_short_rate_limit(bench: Bench) -> None:
    """Otherwise one 429 of two seconds would end every request in the queue."""
    limiter = bound(bench, FEW)
    bench.use(ONLY_FIRST, f"deployments: {{first: {{concurrency: {FEW}}}}}")
    held = limiter.try_acquire()
    assert held is not None
    bench.router.post(FIRST).respond(json=answer_json())
    _, asking = request_of(bench)
    await until(lambda: limiter.queued == 1)
    bench.cool_down(for_s=2)
    held.release()
    assert (await asking).step.deployment.name == "first"
    assert bench.waits == [2.0]
    assert limiter.in_use == 0


@pytest.mark.parametrize(("stream", "limit_s"), [(False, 600.0), (True, 55.0)])
async def test_slot_acquired_after_the_deadline_is_released_without_an_attempt(
    bench: Bench, stream: bool, limit_s: float
) -> None:
    limiter = bound(bench, "{limit: 1, queue: 0}")
    first = bench.router.post(FIRST).mock(return_value=error(400))
    for passed_s, asked in [(limit_s - 0.1, 1), (0.1, 1)]:
        bench.time += passed_s
        failure = await bench.failure(stream=stream)
        assert (first.call_count, limiter.in_use) == (asked, 0)
    assert failure.kind is FailureKind.DEADLINE


async def test_retry_waits_in_the_queue_like_a_new_request(bench: Bench) -> None:
    limiter = bound(bench, "{limit: 1, queue: 5, wait: 20s}")
    bench.router.post(FIRST).mock(side_effect=[error(500), httpx.Response(200, json=answer_json())])
    assert (await bench.ask()).step.deployment.name == "first"
    assert limiter.in_use == 0


@pytest.mark.parametrize("answer", [error(500), error(401), error(400), httpx.ConnectError("x"), ValueError("a bug")])
async def test_failure_releases_the_slot(bench: Bench, answer: httpx.Response | Exception) -> None:
    limiter = bound(bench, "{limit: 3, queue: 0}", "{limit: 3, queue: 0}")
    for url in (FIRST, SECOND):
        route = bench.router.post(url)
        route.mock(side_effect=answer) if isinstance(answer, Exception) else route.mock(return_value=answer)
    with pytest.raises((PlanExhausted, ValueError)):
        await bench.ask()
    assert limiter.in_use == bench.executor.limiters.limiter(bench.table.deployments["second"]).in_use == 0


async def test_disconnected_client_frees_its_queue_place_and_slot(bench: Bench) -> None:
    limiter, provider = bound(bench, "{limit: 1, queue: 5, wait: 20s}"), Provider()
    bench.router.post(FIRST).mock(side_effect=provider)
    running, one = request_of(bench)
    await until(lambda: provider.asked == 1)
    queued, other = request_of(bench)
    await until(lambda: limiter.queued == 1)
    for task in (other, one):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (limiter.in_use, limiter.queued) == (0, 0)
    assert [attempt.deployment for attempt in running.abandoned] == ["first"], "what was sent, was sent"
    assert queued.abandoned == ()


def streaming(bench: Bench, *, breaks: bool = False, ends: bool = True) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield chunk("one")
        yield chunk("two")
        if breaks:
            raise httpx.ReadError("reset")
        if not ends:
            await asyncio.Event().wait()
        yield chunk(finish="stop") + b"data: [DONE]\n\n"

    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=pieces(), headers=SSE))


async def leave(answer: Answer) -> None:
    await answer.stream.close()
    await answer.stream.close()


async def be_cancelled(answer: Answer) -> None:
    reading = asyncio.ensure_future(events_of(answer))
    for _ in range(10):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize(
    ("how", "breaks", "ends"),
    [(events_of, False, True), (events_of, True, True), (leave, False, False), (be_cancelled, False, False)],
    ids=["whole", "broken", "left", "cancelled"],
)
async def test_stream_holds_its_slot_until_its_end(
    bench: Bench, how: Callable[[Answer], Coroutine[Any, Any, object]], breaks: bool, ends: bool
) -> None:
    limiter = bound(bench, "{limit: 1, queue: 0}")
    streaming(bench, breaks=breaks, ends=ends)
    answer = await bench.ask(stream=True)
    assert limiter.in_use == 1, "it is not over when it begins"
    await how(answer)
    assert limiter.in_use == 0


async def test_a_deployment_without_a_bound_has_no_limiter(bench: Bench) -> None:
    bench.router.post(FIRST).respond(json=answer_json())
    await bench.ask()
    assert bench.executor.limiters.rows(lambda limiter: limiter.in_use) == {}
    assert not bench.executor.limiters._limiters


async def test_a_request_that_is_shed_at_its_second_step_reports_the_failure_of_its_first(bench: Bench) -> None:
    """A refused key is more informative than a full queue."""
    bench.use("deployments: {second: {concurrency: {limit: 1, queue: 0}}}")
    bench.router.post(FIRST).mock(return_value=error(401))
    assert bench.executor.limiters.limiter(bench.table.deployments["second"]).try_acquire() is not None
    failure = await bench.failure()
    assert failure.kind is FailureKind.CREDENTIALS
    assert failure == bench.first_failure
    assert [(name, reason) for name, reason in bench.record.shed] == [("second", "queue_full")]
