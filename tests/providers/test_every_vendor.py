"""Rules that every vendor keeps, each asked of all adapters or of those that differ."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.usage.estimates import is_plausible
from providers import chat
from providers.adapter import Target, answers_chats, known_models
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.conformance.cases import rich_answer
from providers.conformance.checks import without_heartbeats
from providers.conformance.subject import Subject, subjects_of
from providers.contract import prompt_text
from providers.failures import FailureKind
from providers.formats import claude_answer as anthropic
from providers.openai_json.read_answer import read_usage as read_openai
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators
from providers.vendors.dashscope import answer as dashscope
from providers.vendors.gemini import answer as gemini
from providers.vendors.openai import responses_answer as responses
from providers.wire import WireResponse
from tests.kit.case_files import cases

ADAPTERS = load_registry().adapters


@pytest.mark.parametrize("provider", sorted(ADAPTERS))
@pytest.mark.parametrize("stream", [False, True])
def test_refusal_after_text_is_valid(provider: str, stream: bool) -> None:
    # Both, as a client has them that reads a stream: first pieces of content, then of a refusal.
    answer = chat.AssistantMessage("Let me see. ", refusal="I won't.")
    request = chat.ChatRequest("assistant", (chat.UserMessage("Do it"), answer, chat.UserMessage("Why?")), stream)
    body = ADAPTERS[provider].build_request(request, Target("some-model", "/v1", UNKNOWN_MODEL)).body
    assert b"Let me see. " in body
    assert b"I won't." in body


# --- text parts of one message --------------------------------------------------------------------

CHATS = sorted(name for name, one in ADAPTERS.items() if answers_chats(one))
PARTS = (chat.TextPart("brief"), chat.TextPart("TWO"))
MESSAGES: tuple[chat.Message, ...] = (
    chat.SystemMessage(PARTS),
    chat.UserMessage(PARTS),
    chat.AssistantMessage(None, tool_calls=(chat.ToolCall("call_1", "look", "{}"),)),
    chat.ToolMessage("call_1", PARTS),
    chat.UserMessage("And?"),
)


@pytest.mark.parametrize("provider", CHATS)
def test_a_mark_of_a_cache_never_makes_a_request_impossible(provider: str) -> None:
    """A vendor without caches gets the same request without marks."""
    marked = (chat.TextPart("brief"), chat.TextPart("TWO", cache="5m"))
    history = (
        chat.UserMessage(marked),
        chat.AssistantMessage(None, tool_calls=(chat.ToolCall("call_1", "look", "{}", cache="5m"),)),
        chat.ToolMessage("call_1", marked, cache="1h"),
        chat.UserMessage("And?"),
    )
    request = chat.ChatRequest(
        "assistant", (chat.SystemMessage(marked), *history), tools=(chat.Tool("look", cache="5m"),)
    )
    target = Target("some-model", "/v1", UNKNOWN_MODEL)
    assert b"brief" in ADAPTERS[provider].build_request(request, target).body


def body_text(name: str, model: str, **more: Any) -> str:
    adapter = ADAPTERS[name]
    target = Target(model, "/v1", model_facts(known_models(adapter), model))
    request = chat.ChatRequest("assistant", MESSAGES, tools=(chat.Tool("look"),), max_tokens=100, **more)
    return adapter.build_request(request, target).body.decode()


@pytest.mark.parametrize("name", CHATS)
def test_text_parts_of_a_message_are_never_glued(name: str) -> None:
    text = body_text(name, "some-model")
    assert "briefTWO" not in text
    assert len(re.findall("brief", text)) == len(re.findall("TWO", text)) == 3, "each part is there once"


def test_text_parts_of_a_result_stay_apart_where_openai_thinks_about_tools() -> None:
    assert "briefTWO" not in body_text("openai", "gpt-5.2", reasoning_effort="high")


@cases("parts", "text")
def test_empty_line_is_between_parts_that_would_run_together(parts: tuple[str, ...], text: str) -> None:
    assert prompt_text([chat.TextPart(part) for part in parts]) == text


# --- fields for the end user ----------------------------------------------------------------------

ASK = chat.ChatRequest("m", (chat.UserMessage("Hello!"),), extra={"safety_identifier": "s-1"})
ONE_FIELD = {
    "anthropic": ("claude-haiku-5-5", "metadata", {"user_id": "s-1"}),
    "azure": ("gpt-6-luna", "user", "s-1"),
    "deepseek": ("deepseek-v4-pro", "user_id", "s-1"),
    "vllm": ("m", "user", "s-1"),
}


def sent(provider: str, model: str, request: chat.ChatRequest, **target: Any) -> dict[str, Any]:
    adapter = ADAPTERS[provider]
    facts = model_facts(adapter.models, model)  # type: ignore[attr-defined]  # ours know models
    body: dict[str, Any] = json.loads(
        adapter.build_request(request, Target(model, base_path="/v1", facts=facts, **target)).body
    )
    return body


@pytest.mark.parametrize("provider", ONE_FIELD)
def test_safety_identifier_replaces_user(provider: str) -> None:
    model, field, expected = ONE_FIELD[provider]
    assert "safety_identifier" in ADAPTERS[provider].capabilities.parameters
    for request in (ASK, chat.change_request(ASK, user="u-1")):
        body = sent(provider, model, request)
        assert body[field] == expected
        assert "safety_identifier" not in body
        assert "u-1" not in json.dumps(body)
    older = chat.change_request(ASK, user="s-1", extra={})
    assert sent(provider, model, older)[field] == expected
    blank = chat.change_request(ASK, user="s-1", extra={"safety_identifier": ""})
    assert sent(provider, model, blank)[field] == expected


def test_openai_receives_both_fields() -> None:
    body = sent("openai", "gpt-6-luna", chat.change_request(ASK, user="u-1"))
    assert (body["safety_identifier"], body["user"]) == ("s-1", "u-1")


@pytest.mark.parametrize("provider", ONE_FIELD)
def test_passthrough_safety_identifier_is_sent_unchanged(provider: str) -> None:
    body = sent(provider, ONE_FIELD[provider][0], ASK, passthrough=frozenset({"safety_identifier"}))
    assert body["safety_identifier"] == "s-1"


@pytest.mark.parametrize("provider", ["gemini", "bedrock", "mistral"])
def test_vendors_without_an_end_user_field_claim_neither(provider: str) -> None:
    assert ADAPTERS[provider].capabilities.parameters.isdisjoint({"user", "safety_identifier"})


# --- models that only stream ----------------------------------------------------------------------

THINKING = [
    "qwen3-235b-a22b-thinking-2507",
    "qwen3-30b-a3b-thinking-2507",
    "qwen3-next-80b-a3b-thinking",
    "qwen3-vl-235b-a22b-thinking",
    "qwen3-omni-30b-a3b-thinking",
    "qwq-plus",
]
REFUSALS = [
    "This model only support stream mode, please enable the stream parameter to access the model. ",
    "parameter.enable_thinking must be set to false for non-streaming calls",
    "<400> InternalError.Algo.InvalidParameter: parameter.enable_thinking must be set to false for non-streaming calls",
    "enable thinking can not be support when `stream=False`.",
]


@pytest.mark.parametrize("model", THINKING)
@pytest.mark.parametrize("provider", ["dashscope", "dashscope-compatible"])
def test_qwen_model_that_always_thinks_is_asked_for_a_stream(provider: str, model: str) -> None:
    adapter = ADAPTERS[provider]
    facts = model_facts(known_models(adapter), model)
    request = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),))
    sent = adapter.build_request(request, Target(model, "/v1", facts))
    body: dict[str, Any] = json.loads(sent.body)
    assert facts.known
    assert ("text/event-stream" in dict(sent.headers)["accept"]) is True
    assert "enable_thinking" not in {**body, **body.get("parameters", {})}


def test_instruct_version_is_not_a_model_that_always_thinks() -> None:
    facts = model_facts(known_models(ADAPTERS["dashscope"]), "qwen3-235b-a22b-instruct-2507")
    assert "thinking_only" not in facts.flags


@pytest.mark.parametrize("message", REFUSALS)
@pytest.mark.parametrize("provider", ["dashscope", "dashscope-compatible", "openai-compatible", "vllm", "anthropic"])
def test_refusal_of_a_model_that_only_streams_does_not_blame_the_client(provider: str, message: str) -> None:
    error = {"code": "invalid_parameter_error", "message": message, "type": "invalid_request_error"}
    body: dict[str, object] = {"error": error, "request_id": "r-1"}
    if provider == "dashscope":
        body = {"code": "InvalidParameter", "message": message, "request_id": "r-1"}
    response = WireResponse(400, {"content-type": "application/json"}, json.dumps(body).encode(), 0)
    failure = ADAPTERS[provider].classify_error(response)
    assert failure.kind is FailureKind.FIELD_REFUSED
    # The log still shows the provider's own sentence.
    assert message.strip() in failure.detail


# --- simulated failures ---------------------------------------------------------------------------

SIMULATORS = load_simulators().simulators
VENDORS = sorted(ADAPTERS)
WITHOUT_CODE = {"cohere", "siliconflow"}
"""Vendors whose errors have no code for an invalid request. In a stream there is no HTTP status either."""


@pytest.mark.parametrize("vendor", VENDORS)
def test_simulated_long_prompt_is_read_as_a_long_prompt(vendor: str) -> None:
    response = SIMULATORS[vendor].write_error(FailureKind.CONTEXT_LENGTH, 400)
    assert ADAPTERS[vendor].classify_error(response).kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("vendor", sorted(set(VENDORS) - WITHOUT_CODE))
def test_simulated_long_prompt_within_a_stream_is_read_as_a_long_prompt(vendor: str) -> None:
    parser = ADAPTERS[vendor].stream_parser(Target("any-model", "/v1", UNKNOWN_MODEL))
    events = [*parser.feed(SIMULATORS[vendor].write_error_event(FailureKind.CONTEXT_LENGTH)), *parser.close()]
    failures = [event.failure for event in events if isinstance(event, chat.Failed)]
    assert [failure.kind for failure in failures] == [FailureKind.CONTEXT_LENGTH]


# --- unknown events -------------------------------------------------------------------------------

UNKNOWN = {
    "keepalive of Responses": b'data: {"type": "keepalive", "sequence_number": 3}\n\n',
    "named keepalive": b'event: keepalive\ndata: {"type": "keepalive"}\n\n',
    "named text": b"event: keepalive\ndata: waiting\n\n",
    "ping": b'data: {"type": "ping"}\n\n',
    "named ping": b'event: ping\ndata: {"type": "ping", "cost": "0"}\n\n',
    "new type": b'data: {"type": "queue.position", "position": 4, "id": "evt_1"}\n\n',
    "message alone": b'data: {"message": "processing"}\n\n',
    "code of success": b'data: {"code": 0, "message": "ok"}\n\n',
    "status of success": b'data: {"code": "200", "message": "success"}\n\n',
    "empty error": b'data: {"error": null, "type": "ping"}\n\n',
    "comment": b": keep-alive\n\n",
}
_INNER = b'{"code": 400, "message": "prompt is too long: 9 tokens > 8 maximum", "type": "invalid_request_error"}'
_OUTER = b'{"error": ' + _INNER + b"}"
FRAMES = {
    "event": b"data: " + _OUTER + b"\n\n",
    "named event": b"event: error\ndata: " + _OUTER + b"\n\n",
    "named event, inner": b"event: error\ndata: " + _INNER + b"\n\n",
    "field": b"error: " + _INNER + b"\n\n",
    "field, outer": b"Error:" + _OUTER + b"\n\n",
    "field without an end": b"error: " + _INNER + b"\n",
    "comment": b": " + _OUTER + b"\n\n",
    "comment, inner": b": " + _INNER + b"\n\n",
    "comment that names it": b": error: " + _INNER + b"\n\n",
    "line": _OUTER + b"\n\n",
    "lines": _OUTER.replace(b"{", b"{\n").replace(b"}", b"\n}") + b"\n\n",
    "list": b"[" + _OUTER + b"]\n\n",
    "line among others": b"Trouble\n" + _OUTER + b"\nbye\n\n",
}
"""One error in each frame in which a server or a relay has sent one."""
_SIMULATORS = load_simulators().simulators
_OF_ADAPTERS = [subjects_of(adapter, _SIMULATORS[name]) for name, adapter in sorted(ADAPTERS.items())]
SUBJECTS = [one for every in _OF_ADAPTERS for one in (*every[:1], *every[1:][-1:]) if one.streams_text]
"""The first and the last model of each adapter: at OpenAI, one of each of its APIs."""
WITH_EVENTS = sorted(name for name in ADAPTERS if name != "bedrock")


@pytest.mark.parametrize("event", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_unknown_event_is_a_sign_of_life(name: str, event: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    events = [one for _ in range(3) for one in parser.feed(event)]
    assert [type(one) for one in events] == [chat.Heartbeat] * 3


@cases("event")
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_error_event_ends_a_stream(name: str, event: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    assert [type(one) for one in parser.feed(event)] == [chat.Failed]


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["", "done"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_error_is_read_in_any_frame(name: str, frame: bytes, end: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    events = [*parser.feed(frame + end), *parser.close()]
    assert isinstance(events[-1], chat.Failed)
    assert events[-1].failure.kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("name", ["openai-compatible", "gemini"])
def test_error_in_any_frame_is_read_after_text_and_in_any_cut(name: str, frame: bytes) -> None:
    first = next(one for one in SUBJECTS if one.adapter.name == name)
    before, *_ = first.stream(*rich_answer(first))
    for step in (1, 5, 1000):
        parser = first.adapter.stream_parser(first.target)
        pieces = [before, *(frame[at : at + step] for at in range(0, len(frame), step)), b"data: [DONE]\n\n"]
        events = [event for piece in pieces for event in parser.feed(piece)]
        *_, last = (*events, *parser.close())
        assert isinstance(last, chat.Failed)
        assert last.failure.kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("name", ["deepseek", "openai", "openai-compatible", "vllm"])
def test_type_of_an_error_is_enough(name: str) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    event = b'data: {"type": "server_error", "message": "failed"}\n\n'
    assert [type(one) for one in parser.feed(event)] == [chat.Failed]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_unknown_events_change_nothing_of_an_answer(subject: Subject) -> None:
    events = subject.stream(*rich_answer(subject))
    noise = b"".join(UNKNOWN.values())
    noisy = subject.events(noise, *(piece + noise for piece in events[:-1]), events[-1])
    assert without_heartbeats(noisy) == without_heartbeats(subject.events(*events))


# --- counts that are not exact --------------------------------------------------------------------


def of(translate: Callable[[Mapping[str, object]], Mapping[str, Any]]) -> Callable[[Mapping[str, object]], chat.Usage]:
    return lambda usage: read_openai(translate({"usage": usage, "Usage": usage})["usage"])


READERS: Mapping[str, tuple[Callable[[Mapping[str, object]], chat.Usage], str, str]] = {
    "openai": (read_openai, "prompt_tokens", "completion_tokens"),
    "anthropic": (anthropic._usage, "input_tokens", "output_tokens"),
    "dashscope": (of(dashscope._as_openai), "input_tokens", "output_tokens"),
    "gemini": (gemini.read_usage, "promptTokenCount", "candidatesTokenCount"),
    "responses": (responses._usage, "input_tokens", "output_tokens"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("invalid", [-3, 1.5, "many", True, [], 2**60])
def test_usage_with_an_invalid_count_is_not_exact(name: str, invalid: object) -> None:
    read, prompt, completion = READERS[name]
    assert is_plausible(read({prompt: 10, completion: 3}))
    assert not is_plausible(read({prompt: 10, completion: invalid}))
    assert not is_plausible(read({prompt: invalid, completion: 3}))


def test_invalid_details_are_not_exact() -> None:
    counts = {"prompt_tokens": 10, "completion_tokens": 3}
    for name, detail in ("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens"):
        assert is_plausible(read_openai({**counts, name: {detail: None}}))
        assert not is_plausible(read_openai({**counts, name: {detail: -1}}))
