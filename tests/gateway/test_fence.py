"""The fence as properties: whatever the config, the place, the failures and the health, nothing leaves the boundary.

Random configs are compiled by the real compiler. One that could send a prompt across its boundary must be refused; in
every other one random requests are carried out against a transport that fails at random and remembers each host.
"""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.execution.attempt import Answer, Caller
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.httpx_transport import HttpxTransport
from gateway.execution.run import PlanExhausted, Runner
from gateway.execution.send import Sender
from gateway.execution.services import Services
from gateway.model.config_version import ConfigVersion
from gateway.model.record import Record
from gateway.model.shadow import ShadowRecord
from gateway.policy.location import EdgeReport, Sighting, resolve
from gateway.service.journey import Journeys, Refused
from gateway.service.shadows import Shadows
from gateway.service.signals import Signals
from providers.chat import ChatRequest, UserMessage
from providers.failures import Failure, FailureKind
from tests.kit.example_counts import examples
from tests.kit.random_configs import TERRITORIES, compiled, fits, worlds


def names_in(route: list[str | dict[str, int]]) -> list[str]:
    return [name for step in route for name in ([step] if isinstance(step, str) else step)]


def leaves_boundary(world: dict[str, Any]) -> bool:
    """Whether some route or shadow leads outside its region's boundary."""
    assistant = world["assistants"]["assistant"]
    named = {region: names_in(route) for region, route in assistant["routes"].items()}
    for region, shadow in assistant["shadow"].items():
        named[region].append(shadow["deployment"])
    return not all(
        fits(world["deployments"][name], world["regions"][region]["boundary"])
        for region, names in named.items()
        for name in names
    )


@given(worlds())
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_config_that_could_leave_its_boundary_is_refused(world: dict[str, Any]) -> None:
    assert (compiled(world) is None) == leaves_boundary(world)


FAILURES = st.sampled_from(
    [
        lambda: httpx.Response(500),
        lambda: httpx.Response(401, json={"error": {"message": "no"}}),
        lambda: httpx.Response(429, headers={"retry-after": "1"}),
        lambda: httpx.Response(302, headers={"location": "https://outside.example/"}),
        lambda: httpx.Response(200, html="<html>"),
        lambda: httpx.Response(200, content=b'data: {"error":{"message":"x"}}\n\n'),
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"),
    ]
)


@given(
    world=worlds(sound=True),
    territory=st.sampled_from([*TERRITORIES, "XX", "BR"]),
    failures=st.lists(FAILURES, min_size=1, max_size=6),
    benched=st.sets(st.sampled_from(["d0", "d1", "d2", "d3"])),
    stream=st.booleans(),
    user=st.sampled_from(["one", "two", "three", "four"]),
    killed=st.none() | st.sampled_from(["d0", "d1"]),
)
@settings(
    max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None
)
async def test_no_attempt_ever_leaves_the_boundary(
    world: dict[str, Any],
    territory: str,
    failures: list[Any],
    benched: set[str],
    stream: bool,
    user: str,
    killed: str | None,
) -> None:
    table = compiled(world)
    assert table is not None
    asked: list[str] = []
    current = [table]

    def provider(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if killed in world["deployments"] and len(asked) == 1:
            current[0] = _without(world, killed)
        outcome = failures[len(asked) % len(failures)]()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def no_sleep(_: float) -> None:
        return None

    health = Health()
    for name in benched & table.deployments.keys():
        deployment = table.deployments[name]
        health.bench(deployment, deployment.credentials[0], 60, Failure(FailureKind.CREDENTIALS, "benched"))
    transport = HttpxTransport(httpx.MockTransport(provider))
    runner = Runner(Sender(transport), health, sleep=no_sleep)
    journeys = Journeys(lambda: current[0], runner, Signals(Services(transport), asked.append))
    location = resolve(table, None, Sighting(EdgeReport((territory,))))
    request = ChatRequest("assistant", (UserMessage("secret"),), stream=stream, user=user)
    with contextlib.suppress(Refused, PlanExhausted):
        await journeys.answer(table, None, location, request, Deadline.start(60, 50), Record("r", 0, table.version))
    assert "outside.example" not in asked
    if location.region is None:
        assert asked == []
        return
    route = world["assistants"]["assistant"]["routes"].get(location.region.name, [])
    for position, host in enumerate(asked):
        name = host.removesuffix(".example")
        facts = world["deployments"][name]
        assert name in names_in(route)
        assert name in route or any(isinstance(step, dict) and step.get(name) for step in route)
        assert fits(facts, world["regions"][location.region.name]["boundary"])
        assert facts["enabled"]
        assert position == 0 or name != killed


def _without(world: dict[str, Any], name: str) -> ConfigVersion:
    """The world after somebody has pulled the kill switch of one deployment."""
    deployments = {**world["deployments"], name: {**world["deployments"][name], "enabled": False}}
    table = compiled({**world, "deployments": deployments})
    assert table is not None
    return table


@given(
    world=worlds(sound=True),
    territory=st.sampled_from([*TERRITORIES, "XX", "BR"]),
    failures=st.lists(FAILURES, min_size=1, max_size=6),
    stream=st.booleans(),
)
@settings(
    max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None
)
async def test_no_shadow_ever_gets_what_must_stay_inside(
    world: dict[str, Any], territory: str, failures: list[Any], stream: bool
) -> None:
    table = compiled(world)
    assert table is not None
    asked: list[str] = []

    def provider(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        outcome = failures[len(asked) % len(failures)]()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    kept: list[ShadowRecord] = []

    async def keep(record: ShadowRecord) -> None:
        kept.append(record)

    caller = Caller(Sender(HttpxTransport(httpx.MockTransport(provider))))
    counts: list[tuple[str, ...]] = []
    shadows = Shadows(lambda: table, caller, Health(), keep, counts.append, lambda *_: None, draw=lambda: 0.0)
    location = resolve(table, None, Sighting(EdgeReport((territory,))))
    request = ChatRequest("assistant", (UserMessage("secret"),), stream=stream)
    record = Record("r", 0, table.version, assistant="assistant", deployment="other")
    nothing: Any = None
    turn = shadows.turn(table, location, record, Answer(nothing))
    if turn is not None:
        shadows.offer(turn, table, location, request, record, 10)
    await shadows.settle()
    if location.region is None:
        assert asked == []
        return
    shadow = world["assistants"]["assistant"]["shadow"].get(location.region.name)
    if shadow is None:
        assert (asked, counts) == ([], [])
        return
    facts = world["deployments"][shadow["deployment"]]
    assert [host.removesuffix(".example") for host in asked] in ([], [shadow["deployment"]])
    assert not asked or (fits(facts, world["regions"][location.region.name]["boundary"]) and facts["enabled"])
    assert len(counts) == 1, "each is counted once, whatever came of it"
    assert len(kept) == len(asked)
