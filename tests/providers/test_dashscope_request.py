"""Test DashScope requests: path, headers, messages, parameters, and refusals before sending."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.failures import UnsupportedFeature
from providers.vendors.dashscope.adapter import ADAPTER
from tests.kit.case_files import cases

HI = UserMessage("Hi")
WEATHER = Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def target(model: str = "qwen-plus", facts: ModelFacts | None = None, **fields: Any) -> Target:
    return Target(model, "/api/v1", facts or model_facts(ADAPTER.models, model), **fields)


def ask(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest("assistant", messages or (HI,), **fields)


def body(request: ChatRequest, to: Target | None = None) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(ADAPTER.build_request(request, to or target()).body)
    return parsed


def refused(request: ChatRequest, to: Target | None = None) -> str:
    with pytest.raises(UnsupportedFeature) as refusal:
        body(request, to)
    return refusal.value.feature


def parameters(to: Target | None = None, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = body(ask(**fields), to)["parameters"]
    return found


def messages(*given: Message, model: str = "qwen-plus") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(ask(*given), target(model))["input"]["messages"]
    return found


# --- path and headers -----------------------------------------------------------------------------


@cases("model", "path")
def test_path_follows_the_catalogue(model: str, path: str) -> None:
    wire = ADAPTER.build_request(ask(), target(model))
    assert (wire.method, wire.path, wire.query) == ("POST", f"/api/v1/services/aigc/{path}/generation", ())


# --- messages -------------------------------------------------------------------------------------


def test_text_path_sends_strings() -> None:
    given = UserMessage((TextPart("one "), TextPart("two")))
    assert messages(given) == [{"role": "user", "content": "one two"}]
    glued = UserMessage((TextPart("Be brief"), TextPart("TWO"), TextPart(""), TextPart("\nthree")))
    assert messages(glued) == [{"role": "user", "content": "Be brief\n\nTWO\nthree"}]


@pytest.mark.parametrize("part", [ImagePart(PIXEL), AudioPart("UklGRg==", "wav")])
def test_text_path_refuses_images_and_audio(part: ImagePart | AudioPart) -> None:
    with pytest.raises(UnsupportedFeature, match="only text"):
        messages(UserMessage((TextPart("look"), part)))


def test_multimodal_path_sends_lists_keyed_by_modality() -> None:
    parts = (TextPart("look"), ImagePart(PIXEL), ImagePart("https://x.example/a.png"), AudioPart("UklGRg==", "wav"))
    (found,) = messages(UserMessage(parts), model="qwen3.5-plus")
    links = [{"image": "https://x.example/a.png"}, {"audio": "data:audio/wav;base64,UklGRg=="}]
    assert found["content"] == [{"text": "look"}, {"image": PIXEL}, *links]


def test_only_the_first_message_is_a_system_message() -> None:
    """Case 71: developer messages become system messages, and a later one becomes text of the user."""
    given = (SystemMessage("One.", "developer"), HI, SystemMessage((TextPart("Two."),)), UserMessage("Go on"))
    assert messages(*given) == [
        {"role": "system", "content": "One."},
        {"role": "user", "content": "Hi\n\n[System message]\nTwo.\n\nGo on"},
    ]


@pytest.mark.parametrize(("model", "content"), [("qwen-plus", ""), ("qwen3.5-plus", [])])
def test_tool_loop_keeps_calls_and_drops_reasoning(model: str, content: object) -> None:
    """The multimodal path has lists of parts, and no strings."""
    call = ToolCall("call_1", "get_weather", '{"city": "Oslo"}', signature="opaque")
    given = (HI, AssistantMessage(None, reasoning="hm", tool_calls=(call,)), ToolMessage("call_1", "4°"))
    asked, result = messages(*given, model=model)[1:]
    assert (asked.keys(), asked["content"]) == ({"role", "content", "tool_calls"}, content)
    assert [sent.keys() for sent in asked["tool_calls"]] == [{"id", "type", "function"}]
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "4°"}


def test_refusal_in_the_history_is_sent_as_text() -> None:
    assert messages(HI, AssistantMessage(refusal="I won't."), HI)[1] == {"role": "assistant", "content": "I won't."}
    assert messages(HI, AssistantMessage("Hello"), HI, model="qwen3-vl-plus")[1]["content"] == [{"text": "Hello"}]


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        ((SystemMessage("Be brief."),), ["system", "user"]),
        ((HI, AssistantMessage("Hello."), SystemMessage("Say more.")), ["user", "assistant", "user"]),
        ((HI, SystemMessage("Be brief.")), ["user"]),
    ],
)
def test_last_message_is_never_a_system_message(given: tuple[Message, ...], roles: list[str]) -> None:
    """OpenAI accepts such a conversation, but DashScope requires the last message to be a user's or a tool's."""
    assert [message["role"] for message in messages(*given)] == roles


# --- parameters -----------------------------------------------------------------------------------


def test_sampling_parameters_are_clamped_to_the_range() -> None:
    """Case 70."""
    assert parameters(temperature=2.0)["temperature"] == 1.99
    assert parameters(temperature=0.0)["temperature"] == 0.0
    assert parameters(top_p=0.0)["top_p"] == 0.01
    assert parameters(top_p=1.0)["top_p"] == 1.0


def test_max_tokens_is_limited_to_the_model() -> None:
    assert parameters(target("qwen3-max"), max_tokens=2**31 - 1)["max_tokens"] == 65536
    assert parameters(target("qwen3-max"), max_tokens=9)["max_tokens"] == 9
    assert parameters(target("some-new-model"), max_tokens=2**31 - 1)["max_tokens"] == 2**31 - 1


def test_parameters_keep_their_names() -> None:
    found = parameters(logprobs=True, top_logprobs=3, n=2)
    assert found == {"logprobs": True, "top_logprobs": 3, "n": 2, "result_format": "message"}


def test_unsupported_parameters_are_not_sent() -> None:
    found = parameters(frequency_penalty=1.0, logit_bias={"5": 1.0}, user="u", parallel_tool_calls=True, n=1)
    assert found == {"result_format": "message", "n": 1, "parallel_tool_calls": True}


@pytest.mark.parametrize(("seed", "sent"), [(0, 0), (2**53 + 1, 2**31 - 1), (-1, 0)])
def test_seed_is_a_non_negative_integer(seed: int, sent: int) -> None:
    assert parameters(seed=seed)["seed"] == sent


def test_choices_are_limited() -> None:
    assert parameters(n=4)["n"] == 4
    assert refused(ask(n=5)) == refused(ask(n=2, tools=(WEATHER,))) == "n"


def test_extra_parameters_are_sent_and_pinned_values_are_last() -> None:
    extras = {"top_k": 20, "repetition_penalty": 1.1, "result_format": "text", "incremental_output": False}
    found = body(ask(extra=extras), target(pins={"top_k": 5}))
    assert found["parameters"] == {"repetition_penalty": 1.1, "result_format": "message"}
    assert found["top_k"] == 5
    assert parameters(extra=extras)["top_k"] == 20


# --- tools ----------------------------------------------------------------------------------------


def test_tools_have_openais_format() -> None:
    weather, now = parameters(tools=(replace(WEATHER, strict=True), Tool("now")))["tools"]
    assert weather["function"].keys() == {"name", "description", "parameters"}, "without `strict`"
    assert now["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(("requested", "sent"), [(None, True), (True, True), (False, False)])
def test_parallel_tool_calls_is_always_sent(requested: bool | None, sent: bool) -> None:
    assert parameters(tools=(WEATHER,), parallel_tool_calls=requested)["parallel_tool_calls"] is sent


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        (NamedTool("get_weather"), {"type": "function", "function": {"name": "get_weather"}}),
        (AllowedTools("auto", ("get_weather",)), "auto"),
    ],
)
def test_tool_choice_is_converted(choice: Any, sent: object) -> None:
    found = parameters(target("qwen3-max"), tools=(Tool("now"), WEATHER), tool_choice=choice)
    assert found["tool_choice"] == sent
    names = [tool["function"]["name"] for tool in found["tools"]]
    assert names == (["get_weather"] if isinstance(choice, AllowedTools) else ["now", "get_weather"])


@pytest.mark.parametrize("choice", ["required", AllowedTools("required", ("get_weather",))])
def test_tool_choice_required_is_refused(choice: Any) -> None:
    assert refused(ask(tools=(WEATHER,), tool_choice=choice)) == "tool_choice_required"
    assert "tool_choice_required" not in ADAPTER.capabilities.features


def test_tool_named_search_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="search"):
        parameters(tools=(Tool("search"),))


# --- response format ------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [UserMessage("Answer as JSON."), UserMessage((TextPart("in Json"),))])
def test_json_object_with_the_word_json_is_sent(message: UserMessage) -> None:
    found = body(ask(message, response_format=JsonObjectFormat()))
    assert found["parameters"]["response_format"] == {"type": "json_object"}
    assert len(found["input"]["messages"]) == 1


def test_json_object_without_the_word_json_is_refused() -> None:
    history = (HI, AssistantMessage("json?"), HI)
    with pytest.raises(UnsupportedFeature, match="'json'") as refusal:
        body(ask(*history, response_format=JsonObjectFormat()))
    assert refusal.value.feature == "json_object"


def test_schema_is_sent_unchanged() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert parameters(response_format=JsonSchemaFormat("answer", schema, strict=True))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


# --- thinking -------------------------------------------------------------------------------------

BY_MODEL: Mapping[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    # model: the parameters for one JSON body, those for a stream, and whether one JSON body is requested as a stream
    "qwen-plus": ({}, {}, False),
    "qwen3-max": ({}, {}, False),
    "qwen3.5-plus": ({"enable_thinking": False}, {}, False),
    "qwen3-32b": ({"enable_thinking": False}, {}, False),
    "qwen3-235b-a22b": ({"enable_thinking": False}, {}, False),
    "qwen3-vl-plus": ({}, {}, False),
    "qwq-plus": ({}, {}, True),
    "deepseek-r1": ({}, {}, True),
    "qwen3.8-omni-flash": ({}, {}, True),
}


def thinking(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in ("enable_thinking", "thinking_budget")}


@pytest.mark.parametrize("model", BY_MODEL)
def test_request_without_an_effort_uses_the_models_default(model: str) -> None:
    """Case 87: a model that only streams is requested as a stream."""
    plain, streamed, asked_as_stream = BY_MODEL[model]
    wire = ADAPTER.build_request(ask(), target(model))
    found = json.loads(wire.body)["parameters"]
    assert thinking(found) == plain
    assert (dict(wire.headers).get("x-dashscope-sse") == "enable") is asked_as_stream
    assert found.get("incremental_output") is (True if asked_as_stream else None)
    assert thinking(parameters(target(model), stream=True)) == streamed


@pytest.mark.parametrize("model", ["qwen-plus", "qwen3.5-plus", "qwen3-vl-plus"])
@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 512), ("low", 2048), ("medium", 8192), ("high", 24576), ("xhigh", 32768), ("max", 32768)],
)
def test_effort_becomes_a_budget_and_a_stream(model: str, effort: str, budget: int) -> None:
    wire = ADAPTER.build_request(ask(reasoning_effort=effort), target(model))
    assert thinking(json.loads(wire.body)["parameters"]) == {"enable_thinking": True, "thinking_budget": budget}
    assert ("x-dashscope-sse", "enable") in wire.headers


@pytest.mark.parametrize("stream", [True, False])
def test_effort_none_switches_thinking_off(stream: bool) -> None:
    wire = ADAPTER.build_request(ask(reasoning_effort="none", stream=stream), target("qwen3.5-plus"))
    assert thinking(json.loads(wire.body)["parameters"]) == {"enable_thinking": False}
    assert (("x-dashscope-sse", "enable") in wire.headers) is stream


def test_thinking_budget_is_limited_by_max_tokens() -> None:
    assert parameters(reasoning_effort="high", max_tokens=100)["thinking_budget"] == 100


def test_models_without_a_budget_or_switch_get_neither() -> None:
    assert thinking(parameters(target("deepseek-v3.2"), reasoning_effort="high")) == {"enable_thinking": True}
    assert thinking(parameters(target("qwen3-max"), reasoning_effort="high")) == {}
    assert thinking(parameters(target("unknown", UNKNOWN_MODEL), reasoning_effort="high")) == {}


def test_model_that_always_thinks_gets_the_smallest_budget() -> None:
    facts = ModelFacts(frozenset({"reasoning"}), flags=frozenset({"thinking_only"}))
    assert thinking(parameters(target("deep", facts), reasoning_effort="none")) == {"thinking_budget": 512}


def test_enable_thinking_of_the_client_overrides_the_effort() -> None:
    extra = {"enable_thinking": True, "thinking_budget": 77}
    wire = ADAPTER.build_request(ask(reasoning_effort="none", extra=extra), target())
    assert thinking(json.loads(wire.body)["parameters"]) == extra
    assert ("x-dashscope-sse", "enable") in wire.headers
    assert thinking(parameters(extra={"enable_thinking": False}, stream=True)) == {"enable_thinking": False}


@pytest.mark.parametrize("fields", [{}, {"reasoning_effort": "high"}, {"extra": {"enable_thinking": True}}])
def test_forced_tool_switches_thinking_off(fields: dict[str, Any]) -> None:
    """Case 86."""
    request = ask(tools=(WEATHER,), tool_choice=NamedTool("get_weather"), stream=True, **fields)
    assert thinking(body(request, target("qwen3.7-plus"))["parameters"]) == {"enable_thinking": False}


@pytest.mark.parametrize("wanted", [JsonObjectFormat(), JsonSchemaFormat("x", {"type": "object"})])
def test_json_format_switches_thinking_off_with_older_models(wanted: Any) -> None:
    request = ask(UserMessage("json!"), response_format=wanted, reasoning_effort="high")
    assert thinking(body(request)["parameters"]) == {"enable_thinking": False}
    newer = body(request, target("qwen3.7-plus"))["parameters"]
    assert thinking(newer) == {"enable_thinking": True, "thinking_budget": 24576}


def test_forced_tool_is_refused_if_the_model_always_thinks() -> None:
    forced = ask(tools=(WEATHER,), tool_choice=NamedTool("get_weather"))
    assert refused(forced, target("qwq-plus")) == "tool_choice_named"
