"""The fence as properties: whatever the config, the place, the failures and the health, nothing leaves the boundary.

Random configs are compiled by the real compiler. One that could send a prompt across its boundary must be refused; in
every other one random requests are carried out against a transport that fails at random and remembers each host.
"""

import contextlib
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.execution.deadline import Deadline
from gateway.execution.exchange import Exchange
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor, PlanExhausted
from gateway.execution.service_client import ServiceClient
from gateway.execution.upstream_client import Answer, UpstreamClient
from gateway.features.shadow.model import ShadowRecord
from gateway.features.shadow.traffic import ShadowSink, ShadowTraffic
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Refused
from gateway.model.served import USES, ServedRequest, Use
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.client_limits import ClientLimits
from providers.chat import ChatRequest, UserMessage
from providers.failures import Failure, FailureKind
from providers.inputs.audio.values import SpeechRequest, TranscriptionRequest
from providers.inputs.decisions.values import DecisionQuestion, DecisionRequest
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.inputs.rerank.values import RerankRequest
from providers.moderations.values import ModerationRequest
from tests.gateway.deciding_anew import answer_of, exchange_of
from tests.gateway.decisions import place_of
from tests.gateway.random_configs import TERRITORIES, compiled, configs, fits
from tests.kit.example_counts import examples
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.request_records import record_with

pytestmark = pytest.mark.slow("compiles hundreds of random configs")


def names_in(route: list[str | dict[str, int]]) -> list[str]:
    return [name for step in route for name in ([step] if isinstance(step, str) else step)]


def leaves_boundary(config: dict[str, Any]) -> bool:
    """Whether some route or shadow leads outside its region's boundary."""
    assistant = config["assistants"]["assistant"]
    named = {region: names_in(route) for region, route in assistant["routes"].items()}
    for region, shadow in assistant["shadow"].items():
        named[region].append(shadow["deployment"])
    return not all(
        fits(config["deployments"][name], config["regions"][region]["boundary"])
        for region, names in named.items()
        for name in names
    )


@given(configs())
@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_config_that_could_leave_its_boundary_is_refused(config: dict[str, Any]) -> None:
    assert (compiled(config) is None) == leaves_boundary(config)


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
    config=configs(sound=True),
    territory=st.sampled_from([*TERRITORIES, "XX", "BR"]),
    failures=st.lists(FAILURES, min_size=1, max_size=6),
    benched=st.sets(st.sampled_from(["d0", "d1", "d2", "d3"])),
    stream=st.booleans(),
    user=st.sampled_from(["one", "two", "three", "four"]),
    killed=st.none() | st.sampled_from(["d0", "d1"]),
    use=st.sampled_from(USES),
)
@settings(
    max_examples=examples(400), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None
)
async def test_no_attempt_ever_leaves_the_boundary(
    config: dict[str, Any],
    territory: str,
    failures: list[Any],
    benched: set[str],
    stream: bool,
    user: str,
    killed: str | None,
    use: Use,
) -> None:
    config = _with_use(config, use)
    table = compiled(config)
    assert table is not None
    asked: list[str] = []
    ways: list[tuple[str, str | None]] = []
    current = [table]

    def provider(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        link = request.extensions["gateway.link"]
        ways.append((request.url.host, link.proxy if link is not None else None))
        if killed in config["deployments"] and len(asked) == 1:
            current[0] = _without(config, killed)
        outcome = failures[len(asked) % len(failures)]()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def no_sleep(_: float) -> None:
        return None

    health = Health()
    for name in benched & table.deployments.keys():
        deployment = table.deployments[name]
        health.cool_down(deployment, deployment.credentials[0], 60, Failure(FailureKind.CREDENTIALS, "benched"))
    transport = HttpxTransport(httpx.MockTransport(provider))
    executor = PlanExecutor(transport, health, sleep=no_sleep)
    locations = LocationService(ServiceClient(transport), asked.append)
    service = ChatService(lambda: current[0], executor, locations, ClientLimits())
    location = place_of(table, territory)
    request = _request(use, stream, user)

    deadline = Deadline.start(60, 50)

    def prepared() -> Exchange:
        now = current[0]
        return exchange_of(now, place_of(now, territory), request, deadline)

    with contextlib.suppress(Refused, PlanExhausted):
        await answer_of(service, prepared)
    assert "outside.example" not in asked
    if location.region is None:
        assert asked == []
        return
    lists = config["assistants"]["assistant"]["routes" if use == "chat" else use]
    route = lists.get(location.region.name, [])
    for position, host in enumerate(asked):
        name = host.removesuffix(".example")
        facts = config["deployments"][name]
        assert name in names_in(route)
        assert name in route or any(isinstance(step, dict) and step.get(name) for step in route)
        assert fits(facts, config["regions"][location.region.name]["boundary"])
        assert facts["enabled"]
        proxy = facts["proxy"]["url"].rpartition("@")[2].removeprefix("https://") if "proxy" in facts else None
        assert ways[position] == (host, f"https://{proxy}" if proxy is not None else None)
        assert position == 0 or name != killed


OWN_USES = ("rerank", "decisions", "transcription", "speech")
"""The uses for which any server of one's own is asked."""


def _with_use(config: dict[str, Any], use: Use) -> dict[str, Any]:
    """The config whose deployments answer this use instead of chats: all have one model that can do it."""
    if use == "chat":
        return config
    assistant = config["assistants"]["assistant"]
    lists = {region: list(dict.fromkeys(names_in(route))) for region, route in assistant["routes"].items()}
    model = "vectors" if use == "embeddings" else "llama-guard3"
    changes = {"model": model, **({"provider": "openai-compatible"} if use in OWN_USES else {})}
    deployments = {name: {**facts, **changes} for name, facts in config["deployments"].items()}
    return {**config, "assistants": {"assistant": {use: lists}}, "deployments": deployments}


def _request(use: Use, stream: bool, user: str) -> ServedRequest:
    match use:
        case "chat":
            return ChatRequest("assistant", (UserMessage("secret"),), stream=stream, user=user)
        case "embeddings":
            return EmbeddingRequest("assistant", ("secret",), user=user)
        case "moderations":
            return ModerationRequest("assistant", ("secret",))
        case "rerank":
            return RerankRequest("assistant", "secret", ("one", "two"))
        case "decisions":
            return DecisionRequest("assistant", "secret", (DecisionQuestion("predicate", "It is one."),))
        case "transcription":
            return TranscriptionRequest("assistant", memoryview(b"RIFF....WAVE secret"), "wav", prompt="secret")
        case "speech":
            return SpeechRequest("assistant", "secret", "anna", "mp3")
    raise AssertionError(f"add a request of the use {use}")


def _without(config: dict[str, Any], name: str) -> ConfigVersion:
    """The config after the kill switch of one deployment was used."""
    deployments = {**config["deployments"], name: {**config["deployments"][name], "enabled": False}}
    table = compiled({**config, "deployments": deployments})
    assert table is not None
    return table


@given(
    config=configs(sound=True),
    territory=st.sampled_from([*TERRITORIES, "XX", "BR"]),
    failures=st.lists(FAILURES, min_size=1, max_size=6),
    stream=st.booleans(),
)
@settings(
    max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None
)
async def test_shadow_never_receives_prompts_that_must_stay_inside(
    config: dict[str, Any], territory: str, failures: list[Any], stream: bool
) -> None:
    table = compiled(config)
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

    caller = UpstreamClient(HttpxTransport(httpx.MockTransport(provider)))
    counts: list[tuple[str, ...]] = []
    sink = ShadowSink(keep, counts.append, lambda *_: None)
    shadows = ShadowTraffic(lambda: table, caller, Health(), sink, draw=lambda: 0.0)
    location = place_of(table, territory)
    request = ChatRequest("assistant", (UserMessage("secret"),), stream=stream)
    record = record_with("r", 0, table.version, assistant="assistant", deployment="other")
    nothing: Any = None
    turn = shadows.begin(table, location, record, Answer(nothing))
    if turn is not None:
        shadows.offer(turn, request, 10)
    await shadows.settle()
    if location.region is None:
        assert asked == []
        return
    shadow = config["assistants"]["assistant"]["shadow"].get(location.region.name)
    if shadow is None:
        assert (asked, counts) == ([], [])
        return
    facts = config["deployments"][shadow["deployment"]]
    assert [host.removesuffix(".example") for host in asked] in ([], [shadow["deployment"]])
    assert not asked or (fits(facts, config["regions"][location.region.name]["boundary"]) and facts["enabled"])
    assert len(counts) == 1, "each is counted once, whatever came of it"
    assert len(kept) == len(asked)
