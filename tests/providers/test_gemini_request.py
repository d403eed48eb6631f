"""Test the requests that are sent to Gemini."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from providers.adapter import Capabilities, Target
from providers.catalogue.models import UNKNOWN_MODEL, model_facts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from providers.failures import UnsupportedFeature
from providers.formats.reasoning_state import mark_signature, own_signature
from providers.matching.capability_matching import match_capabilities, without_parameters
from providers.matching.requirements import requirements_of
from providers.vendors.gemini.adapter import ADAPTER, GeminiAdapter
from tests.kit.case_files import cases

NEW, LITE, OLD = "gemini-3.7-flash", "gemini-3.5-flash-lite", "gemini-2.5-flash"
BYPASS = base64.b64encode(b"skip_thought_signature_validator").decode()
ASK = (UserMessage("Hi"),)
TOOLS = (Tool("find", "Finds.", {"type": "object"}), Tool("count"))


def target(model: str = NEW, **more: Any) -> Target:
    return Target(model, "/v1beta", model_facts(ADAPTER.models, model), **more)


def body(request: ChatRequest, model: str = NEW, **more: Any) -> dict[str, Any]:
    value = json.loads(ADAPTER.build_request(request, target(model, **more)).body)
    assert isinstance(value, dict)
    return value


def contents(*messages: Message, model: str = NEW) -> Any:
    return body(ChatRequest("assistant", messages), model)["contents"]


def config(model: str = NEW, **fields: Any) -> Any:
    return body(ChatRequest("assistant", ASK, **fields), model).get("generationConfig")


def call(id: str, name: str = "find", arguments: str = '{"q":1}', signature: str | None = None) -> ToolCall:
    return ToolCall(id, name, arguments, signature)


# --- path, headers and body -----------------------------------------------------------------------


@cases("model", "written")
def test_model_name_cannot_change_the_path(model: str, written: str) -> None:
    wire = ADAPTER.build_request(ChatRequest("a", ASK), Target(model, "/v1beta", UNKNOWN_MODEL))
    assert wire.path == f"/v1beta/models/{written}:generateContent"
    assert wire.query == ()


@pytest.mark.parametrize("name", ["contents", "systemInstruction", "toolConfig"])
def test_derived_fields_cannot_be_passed_through(name: str) -> None:
    with pytest.raises(UnsupportedFeature, match=name):
        body(ChatRequest("a", ASK, extra={name: []}))


# --- turns ----------------------------------------------------------------------------------------


def test_consecutive_messages_of_one_role_become_one_turn() -> None:
    assert contents(
        UserMessage("a"), UserMessage("b"), AssistantMessage("c"), AssistantMessage("d"), UserMessage("e")
    ) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}]},
    ]


def test_empty_parts_are_omitted() -> None:
    image = ImagePart("data:image/png;base64,AAAA")
    assert contents(
        UserMessage((TextPart(""), image)), AssistantMessage(""), AssistantMessage(None), UserMessage("")
    ) == [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}]


@pytest.mark.parametrize(
    "messages",
    [
        (SystemMessage("Tell a joke."),),
        (UserMessage(""),),
        (UserMessage("Hi"), AssistantMessage("Hello"), SystemMessage("Sum up.")),
        (UserMessage("Hi"), AssistantMessage("Hello"), UserMessage("")),
    ],
)
def test_blank_user_turn_replaces_a_last_system_message(messages: tuple[Message, ...]) -> None:
    assert contents(*messages)[-1] == {"role": "user", "parts": [{"text": " "}]}


def test_user_turn_is_inserted_before_calls() -> None:
    calls = (AssistantMessage(tool_calls=(ToolCall("c", "f", "{}"),)), ToolMessage("c", "1"))
    roles = [turn["role"] for turn in contents(SystemMessage("Begin."), *calls)]
    assert roles == ["user", "model", "user"]
    assert [turn["role"] for turn in contents(AssistantMessage("Hello"), UserMessage("Hi"))] == ["model", "user"]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (ImagePart("data:image/jpg;base64,AAAA"), {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}}),
        (
            ImagePart("https://a.example/x.JPG?y=z.png"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/x.JPG?y=z.png"}},
        ),
        (ImagePart("https://a.example/x"), {"fileData": {"fileUri": "https://a.example/x"}}),
        (AudioPart("UklG", "wav"), {"inlineData": {"mimeType": "audio/wav", "data": "UklG"}}),
        (
            FilePart("data:application/pdf;name=a.pdf;base64,JVBE", "a.pdf"),
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
        ),
    ],
)
def test_image_audio_or_file_is_sent_inline_or_as_a_link(
    part: ImagePart | AudioPart | FilePart, written: Mapping[str, object]
) -> None:
    assert contents(UserMessage((part,))) == [{"role": "user", "parts": [written]}]


# --- calls and results ----------------------------------------------------------------------------

LOOP = (
    UserMessage("Go"),
    AssistantMessage("Let me see.", tool_calls=(call("a"), call("b"))),
    ToolMessage("b", "second"),
    ToolMessage("a", (TextPart("first"), TextPart("one"))),
    UserMessage("And?"),
)


def test_calls_and_results_are_sent_without_ids() -> None:
    turns = contents(*LOOP, model=OLD)
    assert turns[1]["parts"][1:] == [{"functionCall": {"name": "find", "args": {"q": 1}}}] * 2
    assert [part["functionResponse"]["response"]["output"] for part in turns[2]["parts"]] == ["first\n\none", "second"]
    assert all("id" not in part["functionResponse"] for part in turns[2]["parts"])


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ("", {}),
        ("  ", {}),
        ('{"n": 9007199254740993}', {"n": 9007199254740993}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ('{"cut": ', {"_raw": '{"cut": '}),
        ("[1]", {"_raw": "[1]"}),
        ('{"x": NaN}', {"_raw": '{"x": NaN}'}),
        ('{"x": "\\ud83d"}', {"_raw": '{"x": "\\ud83d"}'}),
        ('{"a":' * 300 + "1" + "}" * 300, None),
    ],
)
def test_arguments_are_always_an_object(arguments: str, args: Any) -> None:
    turns = contents(
        UserMessage("Go"), AssistantMessage(tool_calls=(call("a", arguments=arguments),)), ToolMessage("a", "")
    )
    written = turns[1]["parts"][0]["functionCall"]["args"]
    assert written == (json.loads(arguments) if args is None else args)
    assert turns[2]["parts"][0]["functionResponse"]["response"] == {"output": ""}


# --- signatures -----------------------------------------------------------------------------------


def test_signature_is_sent_back_with_its_call() -> None:
    own = mark_signature("U0lH", NEW)
    turns = contents(
        UserMessage("Go"),
        AssistantMessage(tool_calls=(call("a", signature=own), call("b"))),
        ToolMessage("a", ""),
        ToolMessage("b", ""),
        AssistantMessage(tool_calls=(call("c"), call("d", signature=own))),
        ToolMessage("c", ""),
        ToolMessage("d", ""),
    )
    steps = [[part.get("thoughtSignature") for part in turn["parts"]] for turn in turns if turn["role"] == "model"]
    assert steps == [["U0lH", None], [BYPASS, "U0lH"]]


def test_signature_of_another_model_is_ignored() -> None:
    history = (UserMessage("Go"), AssistantMessage(tool_calls=(call("a", signature=mark_signature("U0lH", LITE)),)))
    turns = contents(*history, ToolMessage("a", ""))
    assert turns[1]["parts"][0]["thoughtSignature"] == BYPASS
    assert "thoughtSignature" not in contents(*history, ToolMessage("a", ""), model=OLD)[1]["parts"][0]


def test_signature_is_marked_with_its_model() -> None:
    assert own_signature(mark_signature("U0lH", NEW), NEW) == "U0lH"
    assert own_signature(mark_signature("U0lH", NEW), LITE) is None
    assert own_signature("U0lH", NEW) is None
    assert own_signature(None, NEW) is own_signature("", NEW) is own_signature(mark_signature("", NEW), NEW) is None
    assert NEW not in mark_signature("U0lH", NEW)


def test_bypass_signature_is_configurable() -> None:
    adapter = GeminiAdapter("gemini", ADAPTER.auth, "skip_thought_signature_validator")
    history = (UserMessage("Go"), AssistantMessage(tool_calls=(call("a"),)), ToolMessage("a", ""))
    sent = json.loads(adapter.build_request(ChatRequest("a", history), target()).body)
    assert sent["contents"][1]["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"


# --- tools ----------------------------------------------------------------------------------------


def test_tools_keep_their_schema() -> None:
    schema = {"type": "object", "$schema": "x", "properties": {"a": {"$ref": "#/$defs/b"}}}
    sent = body(ChatRequest("a", ASK, tools=(Tool("find", None, schema, strict=True),)))
    assert sent["tools"] == [{"functionDeclarations": [{"name": "find", "parametersJsonSchema": schema}]}]
    assert "toolConfig" not in sent


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (NamedTool("find"), {"mode": "ANY", "allowedFunctionNames": ["find"]}),
        (AllowedTools("required", ("find", "count")), {"mode": "ANY", "allowedFunctionNames": ["find", "count"]}),
        (AllowedTools("auto", ("count",)), {"mode": "VALIDATED", "allowedFunctionNames": ["count"]}),
    ],
)
def test_tool_choice_is_converted(choice: ToolChoice, written: Mapping[str, object]) -> None:
    sent = body(ChatRequest("a", ASK, tools=TOOLS, tool_choice=choice))
    assert sent["toolConfig"] == {"functionCallingConfig": written}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("1st", "_1st"),
        ("-a", "_-a"),
        ("", "_"),
        ("a b", "a_b"),
        ("a.b:c", "a.b:c"),
        ("a" * 129, "a" * 119 + "_c12cb024"),
    ],
)
def test_function_name_fits(name: str, written: str) -> None:
    (declared,) = body(ChatRequest("a", ASK, tools=(TOOLS[0], Tool(name))))["tools"]
    assert declared["functionDeclarations"][1]["name"] == written


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "topP": 0.9}),
        ({"n": 2, "extra": {"top_k": 40}}, {"candidateCount": 2, "topK": 40}),
        ({"max_tokens": 9, "stop": ("a", "b")}, {"maxOutputTokens": 9, "stopSequences": ["a", "b"]}),
        ({"temperature": 0.0}, {"temperature": 0.01}),
        ({"presence_penalty": 0.5, "frequency_penalty": -0.5}, {"presencePenalty": 0.5, "frequencyPenalty": -0.5}),
        ({"logprobs": True}, {"responseLogprobs": True}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        # A seed is reduced to the bits of the field.
        ({"seed": 0}, {"seed": 0}),
        ({"seed": 2**31 - 1}, {"seed": 2**31 - 1}),
        ({"seed": -1}, {"seed": 2**31 - 1}),
        ({"seed": 2**31 + 5}, {"seed": 5}),
        ({"seed": 2**53 + 1}, {"seed": 1}),
    ],
)
def test_parameters_are_renamed(fields: dict[str, Any], written: dict[str, object]) -> None:
    assert config(OLD, **fields) == written


def test_request_overrides_passed_through_generation_config() -> None:
    extra = {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "maxOutputTokens": 1}}
    assert config(max_tokens=5, extra=extra) == {"mediaResolution": "MEDIA_RESOLUTION_LOW", "maxOutputTokens": 5}
    assert extra["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW", "maxOutputTokens": 1}


def test_response_format_is_converted() -> None:
    schema = {"type": "object", "$schema": "x", "properties": {"a": {"minimum": 1}}, "additionalProperties": False}
    assert config(response_format=JsonObjectFormat()) == {"responseMimeType": "application/json"}
    assert config(response_format=JsonSchemaFormat("x", schema, strict=True)) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


@cases("model", "wanted", "written")
def test_reasoning_effort_is_converted(model: str, wanted: str, written: Mapping[str, object]) -> None:
    assert config(model, reasoning_effort=wanted) == {"thinkingConfig": written}


def test_unknown_effort_is_refused() -> None:
    with pytest.raises(UnsupportedFeature):
        config(reasoning_effort="enormous")


# --- capability matching --------------------------------------------------------------------------


def capabilities(model: str) -> Capabilities:
    facts = model_facts(ADAPTER.models, model)
    mine = ADAPTER.capabilities
    return Capabilities(mine.features & facts.features, mine.parameters - facts.without)


def test_parameters_that_newer_models_refuse_are_dropped_and_reported() -> None:
    request = ChatRequest(
        "a", ASK, temperature=0.2, top_p=0.9, n=1, presence_penalty=0.5, extra={"top_k": 3}, user="u", seed=1
    )
    found = match_capabilities(requirements_of(request), capabilities(NEW), model_facts(ADAPTER.models, NEW))
    assert found.unsupported == {"temperature", "top_p", "top_k", "presence_penalty", "user"}
    sent = body(without_parameters(request, found.unsupported))
    assert sent["generationConfig"] == {"seed": 1}
    older = match_capabilities(requirements_of(request), capabilities(OLD), model_facts(ADAPTER.models, OLD))
    assert older.unsupported == {"presence_penalty", "user"}


def test_prefill_needs_a_model_that_supports_it() -> None:
    needs = requirements_of(ChatRequest("a", (UserMessage("Hi"), AssistantMessage("Hel"))))
    lacking = {
        model: match_capabilities(needs, capabilities(model), model_facts(ADAPTER.models, model)).missing
        for model in (NEW, LITE, "gemini-3.8-flash", "gemini-3.5-flash", OLD)
    }
    assert [model for model, missing in lacking.items() if missing] == [NEW, LITE, "gemini-3.8-flash"]


def test_capabilities_name_only_what_the_format_has() -> None:
    assert {"user", "logit_bias", "parallel_tool_calls", "strict_tools"}.isdisjoint(ADAPTER.capabilities.parameters)


def test_the_catalogue_is_consistent() -> None:
    for name, facts in ADAPTER.models.items():
        assert facts.features <= ADAPTER.capabilities.features, name
        assert facts.without <= ADAPTER.capabilities.parameters, name
        assert ("none" in facts.efforts) <= ("thinking_budget" in facts.flags), name
        assert bool(facts.efforts) == ("reasoning" in facts.features), name
