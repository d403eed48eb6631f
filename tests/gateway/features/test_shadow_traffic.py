"""Shadow traffic: sent or not sent by share, boundary, health and effects of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from gateway.execution.answer_stream import AnswerStream, TextTap
from gateway.execution.concurrency_limiter import ConcurrencyLimiters
from gateway.execution.health import Health
from gateway.execution.upstream_client import Answer, UpstreamClient
from gateway.features.shadow.model import Shadow, ShadowNote, ShadowRecord
from gateway.features.shadow.traffic import (  # type: ignore[attr-defined]
    MAX_BODY_BYTES,
    MAX_CHARACTERS,
    AnswerCapture,
    ShadowSink,
    ShadowTraffic,
    anonymous,
)
from gateway.model.config_version import ConfigVersion
from gateway.model.parts import Parts
from gateway.model.record import Record, Resumed
from gateway.model.wrapper import WrapperNote
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from providers import chat
from providers.failures import Failure, FailureKind
from tests.gateway.location_reports import reported
from tests.kit.configs import BASE, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.request_records import record_with


def shadowed(
    deployment: str = "chatgpt-us", share: str = "100%", patch: Any = None, **deployments: Mapping[str, Any]
) -> ConfigVersion:
    shadow = {"deployment": deployment, "share": share}
    assistant = {"routes": {"default": ["gemini"]}, "shadow": {"default": shadow}}
    changed = BASE.merge({"assistants": {"assistant": assistant}, "deployments": deployments})
    return table_of(changed.merge(patch) if patch is not None else changed)


ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-6-luna",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
REDACTED = {"redactions": {"personal": {"kinds": ["email"]}}, "deployments": {"chatgpt-us": {"redact": "personal"}}}
QUESTION = chat.ChatRequest("assistant", (chat.UserMessage("Hello"),))
NOW_S = 1_800_000_000.0


class Passing:
    """A stream with the given batches."""

    def __init__(self, *batches: tuple[chat.StreamEvent, ...]) -> None:
        self.batches = list(batches)
        self.closed = False
        self._left = iter(batches)

    def __aiter__(self) -> Passing:
        return self

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        try:
            return next(self._left)
        except StopIteration:
            raise StopAsyncIteration from None

    def text_tap(self) -> TextTap:
        raise AssertionError("a text that takes the fast path is not captured")

    def on_outcome(self, callback: Any) -> None:
        raise AssertionError("not called")

    def on_release(self, callback: Any) -> None:
        raise AssertionError("not called")

    async def close(self) -> None:
        self.closed = True


def begun(result: AnswerStream | chat.ChatCompletion | None) -> Answer:
    step: Any = None
    if isinstance(result, chat.ChatCompletion):
        return Answer(step, completion=result)
    return Answer(step, stream=result)


def keeping(table: ConfigVersion) -> ConfigVersion:
    """The same, whose shadow keeps text."""
    assistant = table.assistants["assistant"]
    shadow = replace(assistant.parts_in("default").of(Shadow), keep_text=True)
    return replace(table, assistants={"assistant": replace(assistant, route_parts={"default": Parts((shadow,))})})


@dataclass
class Scene:
    """A process with shadow traffic to a provider of the test."""

    table: ConfigVersion = field(default_factory=shadowed)
    drawn: float = 0.0
    asked: list[httpx.Request] = field(default_factory=list)
    kept: list[ShadowRecord] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    answer: Any = None
    reloaded: ConfigVersion | None = None
    reloaded_connecting: ConfigVersion | None = None
    reloaded_meanwhile: ConfigVersion | None = None

    def __post_init__(self) -> None:
        self.health = Health()
        self.load = ConcurrencyLimiters()
        transport = HttpxTransport(httpx.MockTransport(self._provide))
        sink = ShadowSink(
            self._keep, lambda labels: self.counts.append(labels[-1]), lambda _, seconds: self.times.append(seconds)
        )
        self.shadows = ShadowTraffic(
            lambda: self.table,
            UpstreamClient(transport),
            self.health,
            sink,
            self.load,
            draw=lambda: self.drawn,
            clock=lambda: NOW_S,
        )

    async def _provide(self, request: httpx.Request) -> httpx.Response:
        self.table = self.reloaded_connecting or self.table
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        self.asked.append(request)
        self.table = self.reloaded_meanwhile or self.table
        return self.answer or httpx.Response(200, json=ANSWER)

    async def _keep(self, record: ShadowRecord) -> None:
        self.kept.append(record)

    async def offer(
        self,
        request: chat.ChatRequest = QUESTION,
        body_bytes: int = 10,
        table: ConfigVersion | None = None,
        result: AnswerStream | chat.ChatCompletion | None = None,
        **more: Any,
    ) -> Record:
        record = record_with("r", 0, self.table.version, **{"assistant": "assistant", "deployment": "gemini", **more})
        location = resolve(self.table, None, reported(EdgeReport(("JP",))))
        asked = table or self.table
        turn = self.shadows.begin(asked, location, record, begun(result))
        if turn is None:
            return record
        if turn.capture is not None and (stream := turn.capture.stream) is not None:
            # The client reads its answer through it.
            passed = [batch async for batch in stream]
            assert isinstance(result, Passing)
            assert passed == result.batches
            await stream.close()
            assert result.closed
        self.shadows.offer(turn, request, body_bytes)
        self.table = self.reloaded or self.table
        await self.shadows.settle()
        return record


async def test_an_answered_request_is_asked_and_kept() -> None:
    scene = Scene()
    await scene.offer()
    [kept] = scene.kept
    assert (kept.outcome, kept.answer_characters, kept.finish_reason, kept.beside) == ("ok", 2, "stop", "gemini")
    assert (kept.prompt, kept.answer) == (None, None)
    assert (scene.counts, len(scene.times)) == (["ok"], 1)
    assert [request.url.host for request in scene.asked] == ["us.api.openai.com"]


async def test_record_of_a_request_names_the_shadow_deployment() -> None:
    """It must be there when log line and receipt are written, because these show where the prompt went."""
    (note,) = (await Scene().offer()).notes
    assert isinstance(note, ShadowNote)
    shadow = note.attempt
    assert (shadow.deployment, shadow.provider, shadow.places) == ("chatgpt-us", "openai", ("US", "US"))
    assert shadow.redacted is None
    (note,) = (await Scene(shadowed(patch=REDACTED)).offer()).notes
    assert isinstance(note, ShadowNote)
    assert note.attempt.redacted == WrapperNote(("personal",), {})
    for scene in (Scene(shadowed(share="1%"), drawn=0.99), Scene(shadowed("qwen-intl"))):
        assert (await scene.offer()).notes == ()


@pytest.mark.parametrize(("drawn", "asked"), [(0.0, 1), (0.0099, 1), (0.01, 0), (0.99, 0)])
async def test_the_share_is_drawn_for_each_request(drawn: float, asked: int) -> None:
    scene = Scene(shadowed(share="1%"), drawn=drawn)
    await scene.offer()
    assert (len(scene.asked), len(scene.counts)) == (asked, asked)


@pytest.mark.parametrize(
    "result",
    [
        {"outcome": "interrupted"},
        {"outcome": "cancelled"},
        {"deployment": "chatgpt-us"},
        {"assistant": None},
        {"table": shadowed("qwen-intl")},
    ],
)
async def test_no_shadow_without_an_answer_to_compare(result: dict[str, Any]) -> None:
    scene = Scene()
    await scene.offer(**result)
    assert (scene.asked, scene.counts) == ([], [])


async def test_text_is_not_kept_if_the_config_changed_during_the_request() -> None:
    scene = Scene(keeping(shadowed()), reloaded_meanwhile=shadowed())
    await scene.offer(result=completion_of("It is 7."))
    [kept] = scene.kept
    assert (kept.outcome, kept.answer_characters) == ("ok", 2)
    assert (kept.prompt, kept.answer, kept.beside_answer, kept.refusal, kept.calls) == (None, None, None, None, ())


HOUSE = {"endpoint": "https://mistral.example/v1", "stores": "US", "processes": "US", "attests": None}
ENDED = {"provider": "mistral", "model": "mistral-medium-2508", **HOUSE}
"""Its vendor has stated that it ended on 2026-08-31."""


CHANGED = shadowed(**{"chatgpt-us": {"enabled": False}})
STORED = chat.ChatRequest("assistant", (chat.UserMessage("Hello"),), extra={"store": True})


@pytest.mark.parametrize(
    ("changes", "request_"),
    [
        ({"table": shadowed("qwen-intl")}, QUESTION),  # it doesn't serve Japan
        ({"table": CHANGED}, QUESTION),
        ({"table": shadowed(**{"chatgpt-us": ENDED})}, QUESTION),
        ({}, STORED),
        ({"reloaded_connecting": shadowed()}, QUESTION),
        ({"reloaded": CHANGED}, QUESTION),
    ],
    ids=["not served", "disabled", "ended", "a moving field", "reload during the connect", "config of the same moment"],
)
async def test_shadow_that_may_not_answer_is_skipped(
    changes: dict[str, ConfigVersion], request_: chat.ChatRequest
) -> None:
    scene = Scene(**changes)  # type: ignore[arg-type]
    await scene.offer(request_)
    assert (scene.asked, scene.kept, scene.counts) == ([], [], ["passed_over"])


async def test_request_with_a_data_moving_field_has_no_shadow() -> None:
    table = shadowed()
    deployment = replace(table.deployments["chatgpt-us"], allowed_moves=frozenset({"store"}))
    assistant = replace(table.assistants["assistant"], route_parts={"default": Parts((Shadow(deployment, 1.0),))})
    scene = Scene(replace(table, assistants={"assistant": assistant}))
    await scene.offer(STORED)
    assert (scene.asked, scene.counts) == ([], ["passed_over"])
    await scene.offer()
    assert scene.counts == ["passed_over", "ok"]


async def test_shadow_respects_cooldowns_and_starts_none() -> None:
    scene = Scene(answer=httpx.Response(401, json={"error": {"message": "sk-us-secret is wrong"}}))
    await scene.offer()
    assert (scene.counts, scene.kept[0].outcome) == (["credentials"], "credentials")
    assert scene.health.snapshot(scene.table) == {}
    deployment = scene.table.deployments["chatgpt-us"]
    scene.health.cool_down(deployment, deployment.credentials[0], 60, Failure(FailureKind.CREDENTIALS, "benched"))
    await scene.offer()
    assert (len(scene.asked), scene.counts) == (1, ["credentials", "passed_over"])


async def test_large_request_has_no_shadow() -> None:
    scene = Scene()
    await scene.offer(body_bytes=MAX_BODY_BYTES + 1)
    assert (scene.asked, scene.counts) == ([], ["too_large"])


async def test_shadow_uses_a_free_slot_and_never_queues() -> None:
    scene = Scene(shadowed(**{"chatgpt-us": {"concurrency": {"limit": 1, "queue": 5}}}))
    limiter = scene.load.limiter(scene.table.deployments["chatgpt-us"])
    taken: list[int] = []
    provide = scene._provide

    def watched(request: httpx.Request) -> httpx.Response:
        taken.append(limiter.in_use)
        return provide(request)

    scene.shadows._client._transport = HttpxTransport(httpx.MockTransport(watched))
    await scene.offer()
    scene.answer = httpx.Response(503)
    await scene.offer()
    assert (taken, limiter.in_use) == ([1, 1], 0), "held while it is asked, whatever comes of it, and then free again"
    busy = limiter.try_acquire()
    assert busy is not None
    await scene.offer()
    assert (len(taken), limiter.queued, scene.counts) == (2, 0, ["ok", "unavailable", "busy"])


async def test_cancelled_shadow_releases_its_slot() -> None:
    scene = Scene(shadowed(**{"chatgpt-us": {"concurrency": 1}}))
    limiter = scene.load.limiter(scene.table.deployments["chatgpt-us"])
    offering = asyncio.create_task(scene.offer())
    await asyncio.sleep(0)
    assert limiter.in_use == 1
    await scene.shadows.aclose()
    await offering
    await asyncio.sleep(0)
    assert limiter.in_use == 0


async def test_refusal_and_calls_are_kept_only_if_text_is_kept() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"of": "x"}'}}
    message = {"role": "assistant", "content": None, "refusal": "I can't", "tool_calls": [call, {**call, "id": "d"}]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    answer = httpx.Response(200, json={**ANSWER, "choices": [choice]})
    scene = Scene(answer=answer)
    await scene.offer()
    scene = Scene(keeping(shadowed()), answer=answer)
    await scene.offer()
    [kept] = scene.kept
    assert (kept.answer, kept.refusal, kept.calls) == ("", "I can't", (("look_up", '{"of": "x"}'),) * 2)
    assert kept.tool_calls == 2


def completion_of(text: str | None, finish: Any = "stop", **more: Any) -> chat.ChatCompletion:
    return chat.ChatCompletion("x", "m", 1, (chat.Choice(chat.AssistantMessage(text, **more), finish),))


OPENED, ENDED = chat.Opened("x", "m", 1), (chat.ChoiceFinish("stop"), chat.Finished())
CALL = chat.ToolCall("c", "look_up", "{}")


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (completion_of("It is 7."), "It is 7."),
        (completion_of("x" * MAX_CHARACTERS), "x" * MAX_CHARACTERS),
        (completion_of("x" * (MAX_CHARACTERS + 1)), None),
        (completion_of("It is", "length"), None),
        (completion_of("Look:", tool_calls=(CALL,)), None),
        (completion_of(None, refusal="I can't"), None),
        (completion_of(""), None),
        (chat.ChatCompletion("x", "m", 1, ()), None),
        (
            Passing((OPENED, chat.TextDelta("It is")), (chat.TextDelta("!", 1), chat.TextDelta(" 7.")), ENDED),
            "It is 7.",
        ),
        (Passing((OPENED, chat.TextRun((b"\\u00fc", b"ber"))), (chat.TextDelta(" 7"), *ENDED)), "über 7"),
        (Passing((chat.TextDelta("It is"),), (chat.ChoiceFinish("length"), chat.Finished())), None),
        (Passing((chat.TextDelta("It is"),)), None),
        (Passing((chat.TextDelta("x" * MAX_CHARACTERS),), (chat.TextDelta("y"),), (chat.TextDelta("z"), *ENDED)), None),
        (Passing((chat.TextDelta("Look:"), chat.ToolCallDelta(0, "{}", "c", "look_up")), ENDED), None),
        (Passing((chat.RefusalDelta("I can't"),), ENDED), None),
        (Passing(ENDED), None),
    ],
)
async def test_complete_plain_client_answer_is_kept_with_the_shadow_record(
    result: Passing | chat.ChatCompletion, kept: str | None
) -> None:
    scene = Scene(keeping(shadowed()))
    await scene.offer(result=result)
    assert (scene.kept[0].outcome, scene.kept[0].answer) == ("ok", "Hi")
    assert scene.kept[0].beside_answer == kept


async def test_client_answer_is_not_kept_without_the_operators_setting() -> None:
    scene = Scene()
    await scene.offer(result=completion_of("It is 7."))
    assert scene.kept[0].beside_answer is None
    location = resolve(scene.table, None, reported(EdgeReport(("JP",))))
    record = record_with("r", 0, scene.table.version, assistant="assistant", deployment="gemini")
    turn = scene.shadows.begin(scene.table, location, record, begun(Passing(ENDED)))
    assert turn.capture is None, "a stream that nobody keeps is read as it is"


@pytest.mark.parametrize(("territory", "is_kept"), [("CN", False), ("CN-BJ", False), ("RU", False), ("JP", True)])
def test_text_is_not_kept_if_prompts_must_stay_in_the_territory(territory: str, is_kept: bool) -> None:
    """A judge would read it later without its user's boundary."""
    scene = Scene(keeping(shadowed()))
    location = resolve(scene.table, None, reported(EdgeReport((territory,))))
    location = replace(location, region=scene.table.regions["default"])
    record = record_with("r", 0, scene.table.version, assistant="assistant", deployment="gemini")
    turn = scene.shadows.begin(scene.table, location, record, begun(None))
    assert (turn.shadow.keep_text, turn.capture is not None) == (is_kept, is_kept)


async def test_client_answer_of_two_models_is_not_kept() -> None:
    scene = Scene(keeping(shadowed()))
    await scene.offer(result=completion_of("It is 7."), resumed=Resumed("qwen-intl", "gemini"))
    assert (scene.kept[0].answer, scene.kept[0].beside_answer) == ("Hi", None)


async def test_unreadable_client_answer_is_counted_as_internal_error() -> None:
    scene = Scene(keeping(shadowed()))
    await scene.offer(result=Passing((chat.TextRun((b"\\u00",)),), ENDED))
    assert (scene.kept, scene.counts) == ([], ["internal_error"])


def test_shadow_request_contains_no_identity() -> None:
    named = {"safety_identifier": "anna", "metadata": {"who": "anna"}, "prompt_cache_key": "anna", "verbosity": "low"}
    messages = (
        chat.SystemMessage("Be kind."),
        chat.UserMessage("Hello", "anna"),
        chat.AssistantMessage("Hi"),
        chat.UserMessage("Well"),
    )
    bare = anonymous(chat.ChatRequest("assistant", messages, user="anna", temperature=0.5, extra=named))
    assert "anna" not in repr(bare)
    assert (bare.temperature, bare.extra) == (0.5, {"verbosity": "low"})
    assert [message.content for message in bare.messages] == ["Be kind.", "Hello", "Hi", "Well"]  # type: ignore[union-attr]


def test_a_captured_stream_has_no_text_tap() -> None:
    """Each event must pass the capture; a tap would bypass it."""
    capture = AnswerCapture(begun(Passing(ENDED)))
    assert capture.stream.text_tap() is None
