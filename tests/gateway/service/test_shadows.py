"""Who is asked too, and who is not: by the share, the law, the health, and what asking twice would do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from gateway.execution.attempt import Caller
from gateway.execution.health import Health
from gateway.execution.httpx_transport import HttpxTransport
from gateway.execution.load import Load
from gateway.execution.send import Sender
from gateway.model.record import Record
from gateway.model.route import Shadow
from gateway.model.shadow import ShadowRecord
from gateway.model.table import Table
from gateway.policy.location import EdgeReport, Sighting, resolve
from gateway.service.shadows import MOST_BODY_BYTES, Shadows, anonymous
from providers.chat import AssistantMessage, ChatRequest, SystemMessage, UserMessage
from providers.failures import Failure, FailureKind
from tests.tables import WORLD, table_of


def shadowed(deployment: str = "chatgpt-us", share: str = "100%", **changes: str) -> Table:
    text = WORLD.replace(
        "default: [gemini, qwen-intl]",
        f"default: [gemini]\n    shadow: {{default: {{deployment: {deployment}, share: {share}}}}}",
    )
    for old, new in changes.items():
        assert old in text
        text = text.replace(f"{old}: {{provider", f"{old}: {{{new}, provider")
    return table_of(text)


ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-6-luna",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
QUESTION = ChatRequest("assistant", (UserMessage("Hello"),))


@dataclass
class Scene:
    """A process with shadows, on a provider of the test's own."""

    table: Table = field(default_factory=shadowed)
    drawn: float = 0.0
    asked: list[httpx.Request] = field(default_factory=list)
    kept: list[ShadowRecord] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    answer: Any = None

    def __post_init__(self) -> None:
        self.health = Health()
        self.load = Load()
        sender = Sender(HttpxTransport(httpx.MockTransport(self._provide)))
        self.shadows = Shadows(
            lambda: self.table,
            Caller(sender),
            self.health,
            self._keep,
            lambda labels: self.counts.append(labels[-1]),
            lambda _, seconds: self.times.append(seconds),
            self.load,
            draw=lambda: self.drawn,
            clock=lambda: 0.0,
        )

    def _provide(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answer or httpx.Response(200, json=ANSWER)

    async def _keep(self, record: ShadowRecord) -> None:
        self.kept.append(record)

    async def offer(
        self, request: ChatRequest = QUESTION, body_bytes: int = 10, table: Table | None = None, **more: Any
    ) -> None:
        told = {"assistant": "assistant", "deployment": "gemini", **more}
        record = Record("r", 0, self.table.version, **told)
        location = resolve(self.table, None, Sighting(EdgeReport("cf-ipcountry", ("JP",))))
        self.shadows.offer(table or self.table, location, request, record, body_bytes)
        await self.shadows.settle()


async def test_an_answered_request_is_asked_and_kept() -> None:
    scene = Scene()
    await scene.offer()
    [kept] = scene.kept
    assert (kept.outcome, kept.answer_characters, kept.finish_reason, kept.beside) == ("ok", 2, "stop", "gemini")
    assert (kept.prompt, kept.answer) == (None, None)
    assert (scene.counts, len(scene.times)) == (["ok"], 1)
    assert [request.url.host for request in scene.asked] == ["us.api.openai.com"]


@pytest.mark.parametrize(("drawn", "asked"), [(0.0, 1), (0.0099, 1), (0.01, 0), (0.99, 0)])
async def test_the_share_is_drawn_for_each_request(drawn: float, asked: int) -> None:
    scene = Scene(shadowed(share="1%"), drawn=drawn)
    await scene.offer()
    assert (len(scene.asked), len(scene.counts)) == (asked, asked)


@pytest.mark.parametrize(
    "told",
    [
        {"outcome": "interrupted"},
        {"outcome": "cancelled"},
        {"deployment": "chatgpt-us"},
        {"assistant": None},
        {"table": shadowed("qwen-intl")},
    ],
)
async def test_where_there_is_nothing_to_compare_nobody_is_asked(told: dict[str, Any]) -> None:
    scene = Scene()
    await scene.offer(**told)
    assert (scene.asked, scene.counts) == ([], [])


@pytest.mark.parametrize(
    ("table", "request_"),
    [
        (shadowed("qwen-intl"), QUESTION),  # it doesn't serve Japan
        (shadowed(**{"chatgpt-us": "enabled: false"}), QUESTION),
        (shadowed(), ChatRequest("assistant", (UserMessage("Hello"),), extra={"store": True})),
    ],
)
async def test_who_may_not_answer_is_not_asked_either(table: Table, request_: ChatRequest) -> None:
    scene = Scene(table)
    await scene.offer(request_)
    assert (scene.asked, scene.kept, scene.counts) == ([], [], ["passed_over"])


async def test_what_moves_data_is_asked_once_also_where_it_may_be() -> None:
    table = shadowed()
    deployment = replace(table.deployments["chatgpt-us"], allowed_moves=frozenset({"store"}))
    assistant = replace(table.assistants["assistant"], shadows={"default": Shadow(deployment, 1.0)})
    scene = Scene(replace(table, assistants={"assistant": assistant}))
    await scene.offer(ChatRequest("assistant", (UserMessage("Hello"),), extra={"store": True}))
    assert (scene.asked, scene.counts) == ([], ["passed_over"])
    await scene.offer()
    assert scene.counts == ["passed_over", "ok"]


async def test_who_is_benched_is_left_alone_and_a_failure_benches_nobody() -> None:
    scene = Scene(answer=httpx.Response(401, json={"error": {"message": "sk-us-secret is wrong"}}))
    await scene.offer()
    assert (scene.counts, scene.kept[0].outcome) == (["credentials"], "credentials")
    assert scene.health.snapshot(scene.table) == {}
    deployment = scene.table.deployments["chatgpt-us"]
    scene.health.bench(deployment, deployment.credentials[0], 60, Failure(FailureKind.CREDENTIALS, "benched"))
    await scene.offer()
    assert (len(scene.asked), scene.counts) == (1, ["credentials", "passed_over"])


async def test_what_is_large_is_left_out() -> None:
    scene = Scene()
    await scene.offer(body_bytes=MOST_BODY_BYTES + 1)
    assert (scene.asked, scene.counts) == ([], ["too_large"])


async def test_it_takes_a_place_where_the_deployment_has_so_many_and_waits_for_none() -> None:
    scene = Scene(shadowed(**{"chatgpt-us": "concurrency: {limit: 1, queue: 5}"}))
    limiter = scene.load.limiter(scene.table.deployments["chatgpt-us"])
    taken: list[int] = []
    provide = scene._provide

    def watched(request: httpx.Request) -> httpx.Response:
        taken.append(limiter.in_use)
        return provide(request)

    scene.shadows._caller._sender = Sender(HttpxTransport(httpx.MockTransport(watched)))
    await scene.offer()
    scene.answer = httpx.Response(503)
    await scene.offer()
    assert (taken, limiter.in_use) == ([1, 1], 0), "held while it is asked, whatever comes of it, and then free again"
    busy = limiter.take()
    assert busy is not None
    await scene.offer()
    assert (len(taken), limiter.queued, scene.counts) == (2, 0, ["ok", "unavailable", "busy"])


async def test_one_that_is_given_up_before_it_began_holds_no_place() -> None:
    scene = Scene(shadowed(**{"chatgpt-us": "concurrency: 1"}))
    limiter = scene.load.limiter(scene.table.deployments["chatgpt-us"])
    offering = asyncio.create_task(scene.offer())
    await asyncio.sleep(0)
    assert limiter.in_use == 1
    await scene.shadows.aclose()
    await offering
    await asyncio.sleep(0)
    assert limiter.in_use == 0


async def test_what_is_more_than_text_is_kept_where_text_is() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"of": "x"}'}}
    message = {"role": "assistant", "content": None, "refusal": "I can't", "tool_calls": [call, {**call, "id": "d"}]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    answer = httpx.Response(200, json={**ANSWER, "choices": [choice]})
    scene = Scene(answer=answer)
    await scene.offer()
    table = shadowed()
    assistant = table.assistants["assistant"]
    keeping = {"default": replace(assistant.shadows["default"], keep_text=True)}
    scene = Scene(replace(table, assistants={"assistant": replace(assistant, shadows=keeping)}), answer=answer)
    await scene.offer()
    [kept] = scene.kept
    assert (kept.answer, kept.refusal, kept.calls) == ("", "I can't", (("look_up", '{"of": "x"}'),) * 2)
    assert kept.tool_calls == 2


def test_nothing_says_who_asked() -> None:
    named = {"safety_identifier": "anna", "metadata": {"who": "anna"}, "prompt_cache_key": "anna", "verbosity": "low"}
    messages = (SystemMessage("Be kind."), UserMessage("Hello", "anna"), AssistantMessage("Hi"), UserMessage("Well"))
    bare = anonymous(ChatRequest("assistant", messages, user="anna", temperature=0.5, extra=named))
    assert "anna" not in repr(bare)
    assert (bare.temperature, bare.extra) == (0.5, {"verbosity": "low"})
    assert [message.content for message in bare.messages] == ["Be kind.", "Hello", "Hi", "Well"]  # type: ignore[union-attr]
