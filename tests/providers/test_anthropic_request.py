"""Test Anthropic requests: turns, thoughts, tools, schemas, limits, and what each model generation refuses."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    FilePart,
    ImagePart,
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
from providers.formats.reasoning_state import Thought, pack, unpack
from providers.formats.tool_calls import turns_with_results
from providers.matching.capability_matching import match_capabilities, parameters_of, without_parameters
from providers.matching.requirements import requirements_of
from providers.vendors.anthropic.adapter import ADAPTER
from tests.kit.case_files import cases

NEWEST, HAIKU, SONNET, OPUS_48, SIX, OLD = (
    "claude-opus-5-5",
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-4-8",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
)
WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CLOCK = Tool("get_time")
HI = UserMessage("Hi")
CALL = ToolCall("toolu_1", "get_weather", '{"city":"Oslo"}')


def target(model: str = NEWEST, **pins: object) -> Target:
    return Target(model, "/v1", model_facts(ADAPTER.models, model), pins)


def asked(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest("assistant", messages or (HI,), **more)


def sent(request: ChatRequest, model: str = NEWEST, **pins: object) -> dict[str, Any]:
    body = json.loads(ADAPTER.build_request(request, target(model, **pins)).body)
    assert isinstance(body, dict)
    return body


def turns(*messages: Message, model: str = NEWEST) -> list[Any]:
    found = sent(asked(*messages, tools=(WEATHER,)), model)["messages"]
    assert isinstance(found, list)
    return found


def refused(request: ChatRequest, model: str = NEWEST) -> str:
    with pytest.raises(UnsupportedFeature) as caught:
        sent(request, model)
    return caught.value.feature


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


# --- turns ----------------------------------------------------------------------------------------


def test_system_texts_become_system_blocks_without_blank_ones() -> None:
    body = sent(
        asked(SystemMessage("One."), SystemMessage(" \n", "developer"), HI, SystemMessage((TextPart("Two."),)), HI)
    )
    assert body["system"] == [text("One."), text("Two.")]
    assert body["messages"] == [{"role": "user", "content": [text("Hi"), text("Hi")]}]


def test_blank_texts_are_omitted() -> None:
    assert turns(HI, AssistantMessage(""), UserMessage((TextPart(""), TextPart("Still?")))) == [
        {"role": "user", "content": [text("Hi"), text("Still?")]}
    ]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ((SystemMessage("Be brief."),), ["user"]),
        ((UserMessage("  "),), ["user"]),
        ((AssistantMessage("Welcome!"), HI), ["user", "assistant", "user"]),
        ((HI, AssistantMessage("Hello."), SystemMessage("Say more.")), ["user", "assistant", "user"]),
        ((HI, AssistantMessage("Hello."), UserMessage("")), ["user", "assistant", "user"]),
        ((HI, AssistantMessage("Hello,")), ["user", "assistant"]),
    ],
)
def test_missing_user_turn_becomes_a_filler(messages: tuple[Message, ...], roles: list[str]) -> None:
    sent_turns = turns(*messages, model=OLD)
    assert [turn["role"] for turn in sent_turns] == roles
    assert [text(".")] in [turn["content"] for turn in sent_turns] or len(sent_turns) == 2


def test_tool_results_begin_the_next_turn_in_the_order_of_the_calls() -> None:
    other = ToolCall("toolu_2", "get_weather", "")
    made = turns(
        HI,
        AssistantMessage("Look.", tool_calls=(CALL, other)),
        ToolMessage("toolu_2", " \n"),
        ToolMessage("toolu_1", (TextPart("-3"),)),
        UserMessage("And tomorrow?"),
    )
    assert [turn["role"] for turn in made] == ["user", "assistant", "user"]
    assert made[-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "-3"},
        {"type": "tool_result", "tool_use_id": "toolu_2"},
        text("And tomorrow?"),
    ]


@pytest.mark.parametrize(
    "messages",
    [
        (HI, AssistantMessage(tool_calls=(CALL,)), HI),
        (HI, AssistantMessage(tool_calls=(CALL,)), ToolMessage("toolu_1", "a"), ToolMessage("toolu_1", "b")),
        (HI, ToolMessage("toolu_1", "a")),
    ],
    ids=["missing", "too many", "of no call"],
)
def test_unmatched_calls_and_results_are_refused(messages: tuple[Message, ...]) -> None:
    assert refused(asked(*messages, tools=(WEATHER,))) == "tools"


def test_ids_and_arguments_of_other_vendors_are_converted() -> None:
    call = replace(CALL, id="functions.get:0", arguments="{broken")
    other = replace(CALL, id="functions_get_0")
    made = turns(HI, AssistantMessage(tool_calls=(call, other)), ToolMessage(call.id, "a"), ToolMessage(other.id, "b"))
    first, second = made[1]["content"]
    assert first["input"] == {"_raw": "{broken"}
    assert (first["id"], second["id"]) == ("functions_get_0_c0f4f93a", "functions_get_0")
    assert [block["tool_use_id"] for block in made[2]["content"]] == [first["id"], second["id"]]


def test_repeated_call_ids_become_unique() -> None:
    """Servers that number the calls of each answer from the start repeat ids, and Claude refuses that."""
    ids = ("call_0", "call_0", "call_0_2", "call_0")
    loops = [
        message
        for number, id in enumerate(ids)
        for message in (AssistantMessage(None, tool_calls=(ToolCall(id, "now", "{}"),)), ToolMessage(id, f"{number}"))
    ]
    sent_turns = turns(UserMessage("When?"), *loops)
    made = [block["id"] for turn in sent_turns for block in turn["content"] if block["type"] == "tool_use"]
    results = [
        (b["tool_use_id"], b["content"]) for turn in sent_turns for b in turn["content"] if b["type"] == "tool_result"
    ]
    assert made == ["call_0", "call_0_2", "call_0_2_2", "call_0_3"]
    assert results == [(id, f"{number}") for number, id in enumerate(made)]


def test_call_id_repeated_a_thousand_times_is_renamed_in_linear_time() -> None:
    written = []

    class Id(str):
        __slots__ = ()

        def __format__(self, form: str) -> str:
            written.append(form)
            return str(self)

    call = ToolCall(Id("call_0"), "now", "{}")
    loops = [AssistantMessage(None, tool_calls=(call,)), ToolMessage("call_0", "12")] * 1000
    made = {pairs[0][0].id for _, pairs in turns_with_results(loops)}
    assert (len(made), len(written)) == (1000, 999)


def test_name_of_a_call_to_an_unknown_tool_gets_accepted_characters() -> None:
    """A model may invent a tool name, or another product may use one; the client sends it in every later turn."""
    looped = (UserMessage("When?"), AssistantMessage(None, tool_calls=(ToolCall("c", "api.now", "{}"),)))
    alone = sent(asked(*looped, ToolMessage("c", "no such tool")))
    assert alone["messages"][1]["content"][0]["name"] == alone["tools"][0]["name"] == "api_now"


def test_calls_without_tools_are_sent_with_tool_choice_none() -> None:
    body = sent(asked(HI, AssistantMessage(tool_calls=(CALL,)), ToolMessage("toolu_1", "a")))
    assert body["tools"] == [{"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "none"}
    assert "tools" not in sent(asked())


def test_prefill_loses_trailing_white_space() -> None:
    assert turns(HI, AssistantMessage("One, \n"), model=OLD)[-1] == {"role": "assistant", "content": [text("One,")]}


# --- images and files -----------------------------------------------------------------------------


def test_images_and_files_use_the_vendors_format() -> None:
    plain = base64.b64encode("Grüße".encode()).decode()
    parts = (
        ImagePart("DATA:image/JPG;base64,QUJD"),
        FilePart("data:application/pdf;base64,JVBERg==", "a.pdf"),
        FilePart(f"data:text/plain;base64,{plain}"),
    )
    assert turns(UserMessage(parts))[0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
    ]


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        (ImagePart("data:image/svg+xml;base64,QUJD"), "vision"),
        (FilePart("data:application/zip;base64,QUJD"), "file"),
        (FilePart("data:text/plain;base64,/w=="), "file"),
    ],
)
def test_unsupported_content_is_refused(part: ImagePart | FilePart, feature: str) -> None:
    assert refused(asked(UserMessage((part,)))) == feature


# --- thoughts -------------------------------------------------------------------------------------


def test_thoughts_in_a_call_signature_precede_its_text_and_call() -> None:
    thoughts = (Thought("想 \ud83d\ude80", "c2ln"), Thought(redacted="c2VhbGVk"))
    call = replace(CALL, signature=pack(thoughts, NEWEST))
    later = replace(CALL, id="toolu_2", signature=pack([Thought("", "b3RoZXI=")], NEWEST))
    message = AssistantMessage("Look.", reasoning="as the client kept it", tool_calls=(call, later))
    blocks = turns(HI, message, ToolMessage("toolu_1", "a"), ToolMessage("toolu_2", "b"))[1]["content"]
    assert [block["type"] for block in blocks] == "thinking redacted_thinking text tool_use thinking tool_use".split()
    assert (blocks[0]["thinking"], blocks[4]["signature"]) == ("想 🚀", "b3RoZXI=")


def test_thoughts_of_other_models_and_forged_ones_are_ignored() -> None:
    packed = pack([Thought("t", "s")], NEWEST)
    assert packed is not None
    assert unpack(packed, NEWEST) == (Thought("t", "s"),)
    assert unpack(packed, HAIKU) == ()
    mark = packed.partition(".")[0]
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    wrong = base64.urlsafe_b64encode(b'[["t","s"],[1]]').decode()
    marked = [f"{mark}.{rest}" for rest in ("", "!!", "QUJD", deep, wrong)]
    for forged in ("", "x", "é", mark, *marked, "CiQBVA=="):
        assert unpack(forged, NEWEST) == ()
    assert pack([Thought("unsigned")], NEWEST) is None


@cases("model", "effort", "thinking", "config")
def test_effort_is_sent_in_the_form_of_the_model(model: str, effort: str | None, thinking: Any, config: Any) -> None:
    body = sent(asked(reasoning_effort=effort), model)
    assert (body.get("thinking"), body.get("output_config")) == (thinking, config)


def test_thinking_budget_is_below_max_tokens_or_omitted() -> None:
    assert sent(asked(reasoning_effort="high", max_tokens=2000), OLD)["thinking"]["budget_tokens"] == 1999
    assert "thinking" not in sent(asked(reasoning_effort="high", max_tokens=1024), OLD)


def test_thinking_budget_is_omitted_for_a_tool_loop_of_another_model() -> None:
    loop = (HI, AssistantMessage(tool_calls=(CALL,)), ToolMessage("toolu_1", "a"))
    own = replace(CALL, signature=pack([Thought("t", "s")], OLD))
    thoughtful = (HI, AssistantMessage(tool_calls=(own,)), ToolMessage("toolu_1", "a"))
    assert "thinking" not in sent(asked(*loop, tools=(WEATHER,), reasoning_effort="high"), OLD)
    assert "thinking" in sent(asked(*thoughtful, tools=(WEATHER,), reasoning_effort="high"), OLD)
    ended = (*loop, AssistantMessage("Cold."), HI)
    assert "thinking" in sent(asked(*ended, tools=(WEATHER,), reasoning_effort="high"), OLD)


# --- tools and schemas ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": NamedTool("get_time")}, {"type": "tool", "name": "get_time"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"tool_choice": "required", "parallel_tool_calls": True}, {"type": "any", "disable_parallel_tool_use": False}),
    ],
)
def test_tool_choice_is_converted(more: dict[str, Any], choice: Any) -> None:
    assert sent(asked(tools=(WEATHER, CLOCK), **more), OPUS_48).get("tool_choice") == choice


def test_forced_tool_switches_thinking_off() -> None:
    forced = asked(tools=(WEATHER,), tool_choice="required", reasoning_effort="high")
    assert sent(forced, HAIKU)["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent(forced, OPUS_48)
    assert not target(NEWEST).facts.features & {"tool_choice_required", "tool_choice_named"}


@pytest.mark.parametrize(
    ("model", "messages", "more"),
    [
        (OPUS_48, (HI,), {"tools": (WEATHER,), "tool_choice": "required"}),
        (SIX, (HI,), {"temperature": 0.5}),
        (OLD, (HI, AssistantMessage("It is")), {}),
    ],
    ids=["forced tool", "sampling", "prefill"],
)
def test_effort_is_dropped_where_the_model_cannot_think(
    model: str, messages: tuple[Message, ...], more: dict[str, Any]
) -> None:
    needs = requirements_of(asked(*messages, reasoning_effort="high", **more))
    assert match_capabilities(needs, ADAPTER.capabilities, target(model).facts).unsupported == {"reasoning_effort"}


@pytest.mark.parametrize(
    ("model", "more", "dropped"),
    [
        (OLD, {"temperature": 0.5, "top_p": 0.9}, {"top_p"}),
        (SIX, {"temperature": 0.5, "top_p": 0.9}, {"top_p"}),
        (OLD, {"top_p": 0.9}, set()),
        (OLD, {"stop": ("\n", "END")}, {"blank_stop"}),
        (NEWEST, {"stop": ("\n", "END")}, {"blank_stop"}),
    ],
)
def test_parameter_that_the_model_refuses_is_dropped_and_reported(
    model: str, more: dict[str, Any], dropped: set[str]
) -> None:
    facts = model_facts(ADAPTER.models, model)
    able = replace(ADAPTER.capabilities, parameters=parameters_of(ADAPTER.capabilities, facts))
    request = asked(**more)
    assert match_capabilities(requirements_of(request), able, facts).unsupported == dropped
    body = sent(without_parameters(request, dropped), model)
    assert not {"temperature", "top_p"} <= body.keys()
    assert body.get("stop_sequences", ["END"]) == ["END"]


def test_schema_is_converted_without_changing_the_clients() -> None:
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "How many"},
            "tags": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "format": "uri"}},
            "other": {"oneOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "$defs": {"node": {"type": ["object", "null"], "properties": {}}},
    }
    before = json.dumps(schema)
    wanted = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": 'How many\n\n{"minimum":1}'},
            "tags": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "format": "uri"},
                "description": '{"maxItems":3}',
            },
            "other": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "$defs": {"node": {"type": ["object", "null"], "properties": {}, "additionalProperties": False}},
        "additionalProperties": False,
    }
    body = sent(asked(response_format=JsonSchemaFormat("x", schema), tools=(Tool("f", None, schema, strict=True),)))
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": wanted}}
    assert body["tools"] == [{"name": "f", "input_schema": wanted, "strict": True}]
    assert json.dumps(schema) == before


@pytest.mark.parametrize("strict", [True, False])
def test_tool_schema_without_a_type_becomes_an_object(strict: bool) -> None:
    schema = {"properties": {"city": {"type": "string"}}, "additionalProperties": False}
    (tool,) = sent(asked(tools=(Tool("f", None, schema, strict=strict),)))["tools"]
    assert tool["input_schema"] == {"type": "object", **schema}


def test_strict_tool_with_unnamed_properties_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="all named"):
        sent(asked(tools=(Tool("f", None, {"description": "anything"}, strict=True),)))


@cases("schema")
def test_schema_outside_the_subset_is_refused(schema: dict[str, Any]) -> None:
    assert refused(asked(response_format=JsonSchemaFormat("x", schema))) == "json_schema"
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        nested = {"type": "array", "items": nested}
    assert refused(asked(response_format=JsonSchemaFormat("x", nested))) == "json_schema"


@pytest.mark.parametrize(
    ("more", "feature"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": ("END", "\n")}, "stop"),
        ({"extra": {"system": "mine"}}, "system"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
    ],
)
def test_unsupported_feature_is_refused(more: dict[str, Any], feature: str) -> None:
    assert refused(asked(**more)) == feature


# --- limits, sampling, fields ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked_for", "sent_as"),
    [(NEWEST, None, 128000), (OLD, None, 64000), ("else", None, 4096), (OLD, 99999, 64000), ("else", 99999, 99999)],
)
def test_max_tokens_is_always_sent_within_the_models_limit(model: str, asked_for: int | None, sent_as: int) -> None:
    assert sent(asked(max_tokens=asked_for), model)["max_tokens"] == sent_as


@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-opus-5", "claude-opus-4-8", "claude-sonnet-4-6"])
def test_model_sizes_match_the_vendors_pages(model: str) -> None:
    facts = target(model).facts
    assert (facts.context_tokens, facts.output_tokens) == (1_000_000, 128_000)
    assert sent(asked(max_tokens=100_000), model)["max_tokens"] == 100_000


def test_sampling_parameters_use_the_older_api_version() -> None:
    def version(request: ChatRequest, model: str) -> str:
        return dict(ADAPTER.build_request(request, target(model)).headers)["anthropic-version"]

    assert version(asked(), OLD) == "2026-10-21"
    assert version(asked(temperature=2.0, top_p=0.0), OLD) == "2023-06-01"
    assert version(asked(extra={"top_k": 5}), OLD) == "2023-06-01"
    assert sent(asked(temperature=2.0), OLD)["temperature"] == 1
    assert target(NEWEST).facts.without >= {"temperature", "top_p", "top_k"}


def test_pinned_values_are_written_last_and_extra_parameters_are_merged() -> None:
    request = asked(
        user="u-1",
        stop=("END",),
        stream=True,
        extra={"inference_geo": "global", "metadata": {"user_id": "x", "y": 1}, "service_tier": "auto"},
    )
    body = sent(request, inference_geo="us")
    assert body["inference_geo"] == "us"
    assert body["metadata"] == {"user_id": "u-1", "y": 1}
    assert (body["service_tier"], body["stop_sequences"], body["stream"]) == ("auto", ["END"], True)


def test_cache_marks_are_sent_where_they_stand() -> None:
    call = ToolCall("c1", "look", "{}", cache="5m")
    request = ChatRequest(
        "assistant",
        (
            SystemMessage((TextPart("Long rules."), TextPart("More rules.", cache="1h"))),
            UserMessage((TextPart("Look."),)),
            AssistantMessage((TextPart("I look."),), tool_calls=(call,)),
            ToolMessage("c1", "seen", cache="5m"),
        ),
        tools=(Tool("look", cache="1h"),),
    )
    body = sent(request, "claude-sonnet-4-6")
    five, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    assert [block.get("cache_control") for block in body["system"]] == [None, hour]
    assert [[block.get("cache_control") for block in turn["content"]] for turn in body["messages"]] == [
        [None],
        [None, five],
        [five],
    ]
    assert body["tools"][0]["cache_control"] == hour
