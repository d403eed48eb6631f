"""A deployment that is forbidden while its connection is made: no byte is sent, and no attempt is recorded."""

import asyncio

import httpx
import pytest

from gateway.execution.retry import FLOOR
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import Answer
from gateway.model.record import Record, Skipped
from providers.failures import FailureKind
from tests.gateway.execution.conftest import FIRST, SECOND, Bench, answer_json
from tests.kit.scripted_server import until

OFF = "disabled in the current config"


class DelayedProvider:
    """A provider whose connection is established on demand; it answers the requests that it gets."""

    def __init__(self, bench: Bench, url: str) -> None:
        self.connecting = self.received = 0
        self.stands = asyncio.Event()
        bench.router.post(url).mock(side_effect=self)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.connecting += 1
        await self.stands.wait()
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        self.received += 1
        return httpx.Response(200, json=answer_json())


class Connecting:
    """A request whose first deployment is being connected to."""

    def __init__(self, bench: Bench) -> None:
        self.first, self.second = DelayedProvider(bench, FIRST), DelayedProvider(bench, SECOND)
        self.bench = bench

    async def begin(self) -> asyncio.Task[Answer]:
        self.bench.record = Record("req", 0.0, "t", client="app")
        answer = asyncio.ensure_future(self.bench.ask())
        await until(lambda: self.first.connecting > 0)
        return answer

    def go_on(self) -> None:
        self.first.stands.set()
        self.second.stands.set()

    @property
    def skipped(self) -> list[str]:
        return [skipped.deployment for skipped in self.bench.record.skipped]


@pytest.fixture
def asked(bench: Bench) -> Connecting:
    return Connecting(bench)


async def test_deployment_forbidden_during_the_connect_is_skipped_and_costs_nothing(
    bench: Bench, asked: Connecting
) -> None:
    answer = await asked.begin()
    bench.disable()
    asked.go_on()
    assert (await answer).step.deployment.name == "second"
    assert (asked.first.received, bench.tried, bench.record.abandoned) == (0, ["second"], ())
    assert bench.record.skipped == [Skipped("first", OFF)]
    assert bench.waits == [0]
    assert bench.health.snapshot(bench.table) == {}, "nothing is known of it"
    for _ in range(FLOOR):
        assert bench.executor.budget.take(0.0, bench.clock()), "nothing was taken from the retry budget"


async def test_deployment_that_is_still_allowed_is_sent_the_request(bench: Bench, asked: Connecting) -> None:
    answer = await asked.begin()
    bench.disable("second")
    asked.go_on()
    assert (await answer).step.deployment.name == "first"
    assert (asked.first.connecting, asked.first.received, asked.skipped) == (1, 1, [])


async def test_no_remaining_step_is_reported_as_no_attempt(bench: Bench, asked: Connecting) -> None:
    answer = await asked.begin()
    bench.disable()
    bench.disable("second")
    asked.go_on()
    with pytest.raises(PlanExhausted) as raised:
        await answer
    assert (raised.value.failure.kind, bench.tried) == (FailureKind.UNAVAILABLE, [])
    assert asked.skipped == ["first", "second"]


async def test_deployment_benched_meanwhile_does_not_replace_a_forbidden_one(bench: Bench, asked: Connecting) -> None:
    answer = await asked.begin()
    bench.disable()
    bench.cool_down("second")
    asked.go_on()
    with pytest.raises(PlanExhausted):
        await answer
    assert (asked.second.received, asked.skipped) == (0, ["first", "second"])


async def test_withdrawn_attempt_releases_its_slot_and_probe(bench: Bench, asked: Connecting) -> None:
    bench.use("deployments: {first: {concurrency: 1}}")
    for _ in range(2):
        asked.first.stands.clear()
        bench.forbidden.clear()
        answer = await asked.begin()
        bench.disable()
        asked.go_on()
        await answer
        asked.first.connecting = 0
    assert (asked.first.received, asked.second.received) == (0, 2)
