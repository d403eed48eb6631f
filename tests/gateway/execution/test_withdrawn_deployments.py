"""A deployment that is forbidden while its connection is made: no byte is sent, and no attempt is recorded."""

import asyncio

import httpx
import pytest

from gateway.execution.retry import FLOOR
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import Answer
from gateway.model.record import Record, Skipped
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import CONFIG, FIRST, SECOND, Bench, answer_json
from tests.kit.configs import Config, table_of
from tests.kit.scripted_server import until

ENVIRON = {"FIRST": "sk-first-secret", "SECOND": "sk-second-secret"}
OFF = "disabled by the current config"


class DelayedProvider:
    """A provider whose connection is established on demand; it answers the requests that it gets."""

    def __init__(self, bench: Bench, url: str, answer: httpx.Response | None = None) -> None:
        self.connecting = self.received = 0
        self.stands = asyncio.Event()
        self.answer = answer or httpx.Response(200, json=answer_json())
        bench.router.post(url).mock(side_effect=self)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.connecting += 1
        await self.stands.wait()
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        self.received += 1
        return self.answer


def ask(bench: Bench, config: Config = CONFIG) -> asyncio.Task[Answer]:
    bench.table = table_of(config, ENVIRON)
    bench.record = Record("req", 0.0, "t", client="app")
    return asyncio.ensure_future(bench.ask())


def attempts(bench: Bench) -> list[str]:
    return [attempt.deployment for attempt in bench.record.attempts]


async def test_deployment_forbidden_during_the_connect_is_skipped(bench: Bench) -> None:
    first, second = DelayedProvider(bench, FIRST), DelayedProvider(bench, SECOND)
    answer = ask(bench)
    await until(lambda: first.connecting == 1)
    bench.forbidden["first"] = OFF
    first.stands.set()
    second.stands.set()
    assert (await answer).step.deployment.name == "second"
    assert (first.received, attempts(bench), bench.record.abandoned) == (0, ["second"], ())
    assert bench.record.skipped == [Skipped("first", OFF)]
    assert bench.waits == [0]
    assert bench.health.snapshot(bench.table) == {}, "nothing is known of it"


async def test_deployment_that_is_still_allowed_is_sent_the_request(bench: Bench) -> None:
    first = DelayedProvider(bench, FIRST)
    answer = ask(bench)
    await until(lambda: first.connecting == 1)
    bench.forbidden["second"] = OFF
    first.stands.set()
    assert (await answer).step.deployment.name == "first"
    assert (first.connecting, first.received, bench.record.skipped) == (1, 1, [])


async def test_no_remaining_step_is_reported_as_no_attempt(bench: Bench) -> None:
    first = DelayedProvider(bench, FIRST)
    answer = ask(bench)
    await until(lambda: first.connecting == 1)
    bench.forbidden |= {"first": OFF, "second": OFF}
    first.stands.set()
    with pytest.raises(PlanExhausted) as raised:
        await answer
    assert (raised.value.failure.kind, attempts(bench)) == (FailureKind.UNAVAILABLE, [])
    assert [skipped.deployment for skipped in bench.record.skipped] == ["first", "second"]


async def test_deployment_benched_meanwhile_does_not_replace_a_forbidden_one(bench: Bench) -> None:
    first, second = DelayedProvider(bench, FIRST), DelayedProvider(bench, SECOND)
    answer = ask(bench)
    await until(lambda: first.connecting == 1)
    bench.forbidden["first"] = OFF
    refused = Failure(FailureKind.CREDENTIALS, "the provider refused the key")
    deployment = bench.table.deployments["second"]
    for key in bench.health.usable_keys(deployment):
        bench.health.cool_down(deployment, key, 60, refused)
    first.stands.set()
    second.stands.set()
    with pytest.raises(PlanExhausted):
        await answer
    assert (second.received, [skipped.deployment for skipped in bench.record.skipped]) == (0, ["first", "second"])


async def test_withdrawn_attempt_releases_its_slot_and_probe(bench: Bench) -> None:
    config = CONFIG.merge("deployments: {first: {concurrency: 1}}")
    first, second = DelayedProvider(bench, FIRST), DelayedProvider(bench, SECOND)
    for _ in range(2):
        first.stands.clear()
        second.stands.set()
        answer = ask(bench, config)
        bench.forbidden.clear()
        await until(lambda: first.connecting > 0)
        bench.forbidden["first"] = OFF
        first.stands.set()
        await answer
        first.connecting = 0
    assert (first.received, second.received) == (0, 2)


async def test_withdrawn_attempt_fails_over_at_once(bench: Bench) -> None:
    first, second = DelayedProvider(bench, FIRST), DelayedProvider(bench, SECOND)
    answer = ask(bench, CONFIG)
    await until(lambda: first.connecting == 1)
    bench.forbidden["first"] = OFF
    first.stands.set()
    second.stands.set()
    assert (await answer).step.deployment.name == "second"
    budget = bench.executor.budget
    paid = 0
    while budget.take(bench.table.resilience.retry_budget, bench.clock()):
        paid += 1
    assert paid >= FLOOR, "nothing was taken from the retry budget"


class ForbiddingConfig(dict[str, str]):
    """A config that forbids the step directly after the first check."""

    looks = 0

    def get(self, name: str, _: object = None) -> str | None:  # type: ignore[override]
        self.looks += name == "first"
        return OFF if name == "first" and self.looks > 1 else None
