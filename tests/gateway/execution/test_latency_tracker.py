"""Deployments that answer quickly, so that a missing answer counts as silence."""

import asyncio

import httpx
import pytest
import respx

from gateway.execution.latency import SLOW_ANSWER_REMEMBERED_S, LatencyTracker
from gateway.model.deployment import Deployment
from providers.failures import FailureKind
from providers.value import replace
from tests.gateway.execution.conftest import CONFIG, ENVIRON, FIRST, SECOND, Bench, answer_json
from tests.kit.config_cases import compiled
from tests.kit.configs import table_of

DEMO = """
version: 1
demo: true
assistants: {assistant: {routes: {default: [first, second]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  first: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: eu, attests: [zdr]}
  second: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us}
"""


@pytest.fixture
def deployments() -> dict[str, Deployment]:
    return dict(table_of(CONFIG, ENVIRON).deployments)


def test_deployment_without_recent_answers_is_not_quick(deployments: dict[str, Deployment]) -> None:
    latency, first = LatencyTracker(), deployments["first"]
    assert not latency.answers_quickly(first, 10, now=0)
    latency.of(first).record(100, 1)
    assert latency.answers_quickly(first, 10, now=109)
    assert not latency.answers_quickly(deployments["second"], 10, now=109)
    assert not latency.answers_quickly(first, 10, now=110)


def test_a_failure_ends_it_and_an_answer_begins_it_anew(deployments: dict[str, Deployment]) -> None:
    latency, first = LatencyTracker(), deployments["first"]
    latency.of(first).record(100, 1)
    latency.record_failure(first)
    assert not latency.answers_quickly(first, 10, now=101)
    assert latency.of(first).since(99)
    latency.of(first).record(102, 1)
    assert latency.answers_quickly(first, 10, now=103)
    assert latency.of(first).since(101)
    assert not latency.of(first).since(102)


def test_one_slow_answer_is_remembered_for_a_while(deployments: dict[str, Deployment]) -> None:
    latency, first = LatencyTracker(), deployments["first"]
    latency.of(first).record(100, 5.1)
    for now in range(101, 100 + int(SLOW_ANSWER_REMEMBERED_S)):
        latency.of(first).record(now, 0.2)
        assert not latency.answers_quickly(first, 10, now=now)
        assert latency.answers_quickly(first, 11, now=now), "to who may wait longer, five seconds are quick"
    latency.of(first).record(101 + SLOW_ANSWER_REMEMBERED_S, 0.2)
    assert latency.answers_quickly(first, 10, now=102 + SLOW_ANSWER_REMEMBERED_S)


def test_started_answer_does_not_count_as_a_complete_one(deployments: dict[str, Deployment]) -> None:
    latency, first = LatencyTracker(), deployments["first"]
    latency.of(first).record(100, None)
    assert latency.of(first).since(99)
    assert not latency.answers_quickly(first, 10, now=101), "a stream has begun, and may take minutes"
    latency.of(first).record(102, 1)
    assert latency.answers_quickly(first, 10, now=103)
    latency.of(first).record(103 + SLOW_ANSWER_REMEMBERED_S, None)
    assert not latency.answers_quickly(first, 10, now=104 + SLOW_ANSWER_REMEMBERED_S), (
        "the whole answer is too long ago"
    )


def test_simulator_is_quick_from_its_first_answer_on_unless_it_was_slow_or_failed(
    deployments: dict[str, Deployment],
) -> None:
    latency, simulated = LatencyTracker(), replace(deployments["first"], simulates="eu")
    assert latency.answers_quickly(simulated, 10, now=0)
    latency.of(simulated).record(0, 0.1)
    assert latency.answers_quickly(simulated, 10, now=2 * SLOW_ANSWER_REMEMBERED_S), "a pause changes nothing"
    latency.record_failure(simulated)
    assert not latency.answers_quickly(simulated, 10, now=2 * SLOW_ANSWER_REMEMBERED_S)
    latency.of(simulated).record(2 * SLOW_ANSWER_REMEMBERED_S, 6)
    assert not latency.answers_quickly(simulated, 10, now=1 + 2 * SLOW_ANSWER_REMEMBERED_S)


def test_latencies_of_removed_deployments_are_pruned(deployments: dict[str, Deployment]) -> None:
    latency = LatencyTracker()
    for deployment in deployments.values():
        latency.of(deployment).record(100, 1)
    latency.prune([deployments["second"]])
    assert not latency.answers_quickly(deployments["first"], 10, now=101)
    assert latency.answers_quickly(deployments["second"], 10, now=101)


def asked_for_streams(route: respx.Route) -> list[bool]:
    return [b'"stream":true' in call.request.content for call in route.calls]


async def test_stream_that_has_just_begun_does_not_make_a_deployment_quick(bench: Bench) -> None:
    first = bench.router.post(FIRST).respond(json=answer_json())
    await bench.ask(stream=True)
    bench.next_request()
    await bench.ask()
    assert asked_for_streams(first) == [True, True], "asked for one JSON, a long answer would be taken for silence"


async def test_json_of_a_simulator_is_not_folded_after_a_pause(bench: Bench) -> None:
    origins = {("openai", "eu"): "https://first.example", ("openai", "us"): "https://second.example"}
    bench.table = compiled(DEMO, simulators=origins, demo=True).config
    first = bench.router.post(FIRST).respond(json=answer_json())
    for _ in range(2):
        bench.next_request()
        await bench.ask()
        bench.time += 61
    assert asked_for_streams(first) == [False, False], "its stream has the pace of a reader"


@pytest.mark.parametrize("others_are_answered", [True, False])
async def test_silent_request_counts_for_the_breaker_only_without_other_answers(
    bench: Bench, others_are_answered: bool
) -> None:
    bench.use("resilience: {first_token: 50ms, breaker: {failures: 1}}")
    response, asked_for = httpx.Response(200, json=answer_json()), list[bool]()

    async def answer_streams(request: httpx.Request) -> httpx.Response:
        asked_for.append(b'"stream":true' in request.content)
        if not asked_for[-1]:
            await asyncio.Event().wait()
        return response

    bench.router.post(FIRST).mock(side_effect=answer_streams)
    bench.router.post(SECOND).mock(return_value=response)
    await bench.ask()
    asked = asyncio.create_task(bench.ask())
    bench.next_request()
    while others_are_answered and not asked.done():
        bench.time += 0.001
        bench.health.latency.of(bench.table.deployments["first"]).record(bench.time, 0.001)
        await asyncio.sleep(0)
    answer = await asked
    assert asked_for == [True, False], "the first was folded, and has shown that it is quick"
    assert answer.step.deployment.name == "second"
    assert bench.first_failure.kind is FailureKind.SILENT
    assert ("first" in bench.health.snapshot(bench.table)) is not others_are_answered
