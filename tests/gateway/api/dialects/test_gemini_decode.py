"""Requests of Gemini's API: what they mean as chat requests, and which of them are refused by name."""

import base64
import json
from typing import Any

import pytest

from gateway.api.dialects.gemini import Gemini, GeminiCount
from gateway.api.dialects.gemini.contents import encode_signature
from gateway.api.errors import ApiError
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.matching.requirements import moves_data
from tests.kit.case_files import cases, tables_of

HELLO = [{"role": "user", "parts": [{"text": "Hello!"}]}]
PIXEL = base64.b64encode(b"\xff\xfe\xfdpixel").decode()
URL_SAFE = base64.urlsafe_b64encode(b"\xff\xfe\xfdpixel").decode().rstrip("=")
WEATHER = {"name": "get_weather", "description": "The weather.", "parameters": {"type": "OBJECT"}}
CLOCK = {"name": "get_time", "parametersJsonSchema": {"type": "object", "additionalProperties": False}}


def decoded(**body: Any) -> chat.ChatRequest:
    return Gemini("assistant").decode(json.dumps({"contents": HELLO, **body}).encode())


def messages_of(*contents: dict[str, Any]) -> tuple[Any, ...]:
    return decoded(contents=list(contents)).messages


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def call(name: str, /, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {}, **more}}


def response(name: str, output: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": {"output": output}, **more}}


def test_request_without_more_is_one_user_message() -> None:
    assert decoded() == chat.ChatRequest("assistant", (chat.UserMessage("Hello!"),), include_usage=True)


@pytest.mark.parametrize("stream", [False, True])
def test_path_decides_on_the_stream(stream: bool) -> None:
    request = Gemini("a/b", stream=stream).decode(json.dumps({"contents": HELLO}).encode())
    assert (request.model, request.stream) == ("a/b", stream)


def test_system_instruction_is_the_first_message() -> None:
    assert decoded(systemInstruction={"parts": [{"text": "Be brief."}]}).messages[0] == chat.SystemMessage("Be brief.")
    both = decoded(system_instruction={"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}).messages
    assert both[:2] == (chat.SystemMessage("a"), chat.SystemMessage("b"))


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        ({"inlineData": {"mimeType": "image/jpg", "data": PIXEL}}, chat.ImagePart(f"data:image/jpeg;base64,{PIXEL}")),
        (
            {"inline_data": {"mime_type": "image/png", "data": URL_SAFE}},
            chat.ImagePart(f"data:image/png;base64,{PIXEL}"),
        ),
        ({"inlineData": {"mimeType": "audio/mpeg", "data": PIXEL}}, chat.AudioPart(PIXEL, "mp3")),
        ({"inlineData": {"mimeType": "audio/wav", "data": PIXEL}}, chat.AudioPart(PIXEL, "wav")),
        (
            {"inlineData": {"mimeType": "application/pdf", "data": PIXEL, "displayName": "a.pdf"}},
            chat.FilePart(f"data:application/pdf;base64,{PIXEL}", "a.pdf"),
        ),
        ({"fileData": {"fileUri": "https://example.com/a.png"}}, chat.ImagePart("https://example.com/a.png")),
    ],
)
def test_media_become_parts(part: dict[str, Any], wanted: Any) -> None:
    (message,) = messages_of(user(part, {"text": "What is it?"}))
    assert message == chat.UserMessage((wanted, chat.TextPart("What is it?")))


def test_turns_of_the_model_are_joined() -> None:
    """google-genai's streamed chats send each chunk back as a turn of its own."""
    messages = messages_of(user({"text": "Hi"}), model({"text": "Hel"}), model({"text": "lo"}), user({"text": "Go on"}))
    assert messages == (chat.UserMessage("Hi"), chat.AssistantMessage("Hello"), chat.UserMessage("Go on"))


def test_calls_in_several_turns_are_one_message_with_all_results_after_it() -> None:
    messages = messages_of(
        user({"text": "Hi"}),
        model({"text": "I look."}),
        model(call("a", id="1", args={"x": 1})),
        model(call("b", id="2")),
        user(response("b", id="2")),
        user({"text": "Well?"}, response("a", "text", id="1")),
    )
    calls = (chat.ToolCall("1", "a", '{"x":1}'), chat.ToolCall("2", "b", "{}"))
    assert messages == (
        chat.UserMessage("Hi"),
        chat.AssistantMessage("I look.", tool_calls=calls),
        chat.ToolMessage("2", "ok"),
        chat.ToolMessage("1", "text"),
        chat.UserMessage("Well?"),
    )


def test_arguments_keep_the_digits_of_integers_beyond_64_bits() -> None:
    contents = [user({"text": "Hi"}), model(call("f", args={"id": 2**70})), user(response("f"))]
    body = {"contents": contents, "generationConfig": {"temperature": 1}}
    request = Gemini("assistant").decode(json.dumps(body).encode())
    (decoded_call,) = [it for message in request.messages for it in getattr(message, "tool_calls", ())]
    assert decoded_call.arguments == f'{{"id":{2**70}}}'


def test_responses_without_ids_match_by_name_and_order() -> None:
    messages = messages_of(
        user({"text": "Hi"}),
        model(call("a"), call("b"), call("a")),
        user(response("b", "second"), response("a", "first"), response("a", "third")),
    )
    assistant, *results = messages[1:]
    ids = [one.id for one in assistant.tool_calls]
    assert len(set(ids)) == 3
    assert results == [
        chat.ToolMessage(ids[1], "second"),
        chat.ToolMessage(ids[0], "first"),
        chat.ToolMessage(ids[2], "third"),
    ]


def test_made_up_id_is_not_the_id_of_another_call() -> None:
    messages = messages_of(
        user({"text": "Hi"}), model(call("b", id="call_2"), call("a")), user(response("a"), response("b", id="call_2"))
    )
    assert len({one.id for one in messages[1].tool_calls}) == 2


@cases("result", "text", "failed")
def test_result_of_a_function_is_text(result: Any, text: str, failed: bool) -> None:
    answer = {"functionResponse": {"name": "a", "response": result}}
    assert messages_of(user({"text": "Hi"}), model(call("a")), user(answer))[2] == chat.ToolMessage(
        "call_1", text, failed
    )


def test_result_may_have_an_image() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    messages = messages_of(user({"text": "Hi"}), model(call("a")), user(response("a", parts=[image])))
    assert messages[2].content == (chat.TextPart("ok"), chat.ImagePart(f"data:image/png;base64,{PIXEL}"))


def test_repeated_response_is_left_out_by_name() -> None:
    """Gemini CLI sends the last response of a resumed session twice. Another call of the same function stays open."""
    calls = model(call("a", id="1"), call("a", id="2"))
    one, two = response("a", "one", id="1"), response("a", "two", id="2")
    for turns in ([user(one, two, one)], [user(one), user(one, two)], [user(one, one), user(two)]):
        request = decoded(contents=[*HELLO, calls, *turns])
        assert request.messages[2:] == (chat.ToolMessage("1", "one"), chat.ToolMessage("2", "two"))
        assert request.unread == {"contents.parts.functionResponse"}
    with pytest.raises(InvalidRequest, match="answers no function call"):
        decoded(contents=[*HELLO, calls, user(one, two, response("a", "other", id="1"))])


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_own_signature_returns_in_both_alphabets(encode: Any) -> None:
    state = "0123abcd.a+/b?~>"
    carried = encode(state.encode()).decode().rstrip("=")
    request = decoded(contents=[*HELLO, model({**call("a"), "thoughtSignature": carried}), user(response("a"))])
    assert request.messages[1].tool_calls[0].signature == state  # type: ignore[union-attr]
    assert request.unread == frozenset()
    assert base64.b64decode(encode_signature(state), validate=True).decode() == state


@pytest.mark.parametrize("foreign", ["skip_thought_signature_validator", "AAAA", "no base64!", ""])
def test_foreign_signature_is_dropped_by_name(foreign: str) -> None:
    request = decoded(contents=[*HELLO, model({**call("a"), "thoughtSignature": foreign}), user(response("a"))])
    assert request.messages[1].tool_calls[0].signature is None  # type: ignore[union-attr]
    assert request.unread == {"contents.parts.thoughtSignature"}


def test_thoughts_in_the_history_are_reasoning() -> None:
    messages = messages_of(*HELLO, model({"text": "hm", "thought": True}, {"text": "Yes"}), *HELLO)
    assert messages[1] == chat.AssistantMessage("Yes", reasoning="hm")


def test_functions_become_tools() -> None:
    request = decoded(tools=[{"functionDeclarations": [WEATHER]}, {"function_declarations": [CLOCK]}])
    assert request.tools == (
        chat.Tool("get_weather", "The weather.", {"type": "object"}),
        chat.Tool("get_time", None, {"type": "object", "additionalProperties": False}),
    )


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, "auto"),
        ({"mode": "NONE"}, "none"),
        ({"mode": "ANY"}, "required"),
        ({"mode": "any"}, "required"),
        ({"mode": "ANY", "allowedFunctionNames": ["get_time"]}, chat.NamedTool("get_time")),
        (
            {"mode": "ANY", "allowedFunctionNames": ["get_time", "get_weather"]},
            chat.AllowedTools("required", ("get_time", "get_weather")),
        ),
        ({"mode": "VALIDATED"}, "auto"),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["get_time"]}, chat.AllowedTools("auto", ("get_time",))),
        ({}, None),
    ],
)
def test_mode_of_calling_becomes_a_tool_choice(config: Any, choice: Any) -> None:
    tools = [{"functionDeclarations": [WEATHER, CLOCK]}]
    assert decoded(tools=tools, toolConfig={"functionCallingConfig": config}).tool_choice == choice


def test_settings_become_those_of_a_chat() -> None:
    config = {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40.0,
        "candidateCount": 2,
        "maxOutputTokens": 100,
        "stopSequences": ["a", "b", "c", "d", "e"],
        "presencePenalty": 1,
        "frequencyPenalty": -1,
        "seed": 7,
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT"],
        "responseMimeType": "text/plain",
    }
    assert decoded(generationConfig=config) == chat.ChatRequest(
        "assistant",
        (chat.UserMessage("Hello!"),),
        include_usage=True,
        temperature=0.5,
        top_p=0.9,
        n=2,
        max_tokens=100,
        stop=("a", "b", "c", "d", "e"),
        presence_penalty=1,
        frequency_penalty=-1,
        seed=7,
        logprobs=True,
        top_logprobs=3,
        extra={"top_k": 40},
    )


@cases("thinking", "effort")
def test_thinking_becomes_an_effort(thinking: Any, effort: str | None) -> None:
    assert decoded(generationConfig={"thinkingConfig": thinking}).reasoning_effort == effort


def test_schema_of_an_answer_becomes_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "b": {"type": "STRING", "format": "enum", "enum": ["x"], "nullable": True},
            "a": {"type": "ARRAY", "items": {"type": "INTEGER"}},
        },
        "required": ["a", "b"],
        "propertyOrdering": ["a", "b"],
    }
    request = decoded(generationConfig={"responseMimeType": "application/json", "responseSchema": schema})
    form = request.response_format
    assert isinstance(form, chat.JsonSchemaFormat)
    properties: Any = form.schema["properties"]
    assert list(properties) == ["a", "b"]
    assert properties["a"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["b"] == {"type": ["string", "null"], "enum": ["x", None]}
    assert form.schema["additionalProperties"] is False
    assert form.strict


def test_counts_and_examples_of_a_schema_are_read() -> None:
    schema = {"type": "ARRAY", "items": {"type": "STRING", "example": "a"}, "max_items": "3", "minItems": 1}
    request = decoded(generationConfig={"responseMimeType": "application/json", "responseSchema": schema})
    form = request.response_format
    assert isinstance(form, chat.JsonSchemaFormat)
    items = {"type": "string", "examples": ["a"]}
    assert form.schema == {"type": "array", "items": items, "maxItems": 3, "minItems": 1}


@cases("schema")
def test_schema_that_cannot_be_strict_is_unchanged(schema: Any) -> None:
    request = decoded(generationConfig={"responseMimeType": "application/json", "responseJsonSchema": schema})
    assert request.response_format == chat.JsonSchemaFormat("response", schema, None, None)


def test_json_schema_with_googles_types_is_read() -> None:
    """Gemini CLI sends it."""
    properties = {"type": {"type": ["STRING", "null"], "const": {"type": "STRING"}}}
    schema = {"type": "OBJECT", "properties": properties, "maxProperties": 1}
    request = decoded(
        tools=[{"functionDeclarations": [{"name": "a", "parametersJsonSchema": schema}]}],
        generationConfig={"responseMimeType": "application/json", "responseJsonSchema": schema},
    )
    lowered = {"type": {"type": ["string", "null"], "const": {"type": "STRING"}}}
    wanted = {"type": "object", "properties": lowered, "maxProperties": 1}
    assert request.response_format == chat.JsonSchemaFormat("response", wanted)
    assert request.tools[0].parameters == wanted


def test_json_without_a_schema_is_any_object() -> None:
    assert decoded(generationConfig={"responseMimeType": "application/json"}).response_format == chat.JsonObjectFormat()


def test_unknown_fields_are_dropped_by_name() -> None:
    request = decoded(
        safetySettings=[{"category": "x"}],
        labels={"team": "a"},
        store=False,
        generationConfig={"mediaResolution": "LOW", "thinkingConfig": {"other": 1}},
        contents=[{"role": "user", "parts": [{"text": "Hi", "videoMetadata": {}}], "extra": 1}],
        tools=[{"functionDeclarations": [{**WEATHER, "behavior": "BLOCKING", "response": {}}]}],
        toolConfig={"retrievalConfig": {}},
    )
    assert request.unread == {
        "safetySettings",
        "labels",
        "store",
        "generationConfig.mediaResolution",
        "generationConfig.thinkingConfig.other",
        "contents.parts.videoMetadata",
        "contents.extra",
        "tools.functionDeclarations.behavior",
        "tools.functionDeclarations.response",
        "toolConfig.retrievalConfig",
    }
    assert not request.extra


_TABLES = tables_of(__file__)
UNSUPPORTED = _TABLES["unsupported"]


@pytest.mark.parametrize(("body", "param"), UNSUPPORTED)
def test_what_cannot_be_carried_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedFeature) as refused:
        decoded(**body)
    assert refused.value.param == param
    assert f"`{param}`" in str(refused.value)


@pytest.mark.parametrize("name", sorted(moves_data() - {"tools"}))
def test_field_that_moves_data_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFeature):
        decoded(**{name: {"a": 1}})


INVALID = _TABLES["invalid"]


@pytest.mark.parametrize(("body", "param"), INVALID)
def test_invalid_request_is_refused_at_the_place_of_the_mistake(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decoded(**body)
    assert refused.value.param == param
    assert f"`{param}" in str(refused.value)


def test_duplicate_names_and_too_many_unknown_fields_are_refused() -> None:
    with pytest.raises(ApiError):
        Gemini("assistant").decode(b'{"contents": [], "contents": []}')
    with pytest.raises(InvalidRequest):
        decoded(**{f"unknown{number}": 1 for number in range(200)})


def test_counting_reads_a_part_of_a_conversation() -> None:
    partial = [model(call("a")), user(response("b"))]
    counted = GeminiCount("assistant").decode(json.dumps({"contents": partial}).encode())
    assert [type(message).__name__ for message in counted.messages] == ["AssistantMessage", "ToolMessage"]
    inner = {"generateContentRequest": {"model": "models/x", "contents": HELLO}}
    assert GeminiCount("assistant").decode(json.dumps(inner).encode()).messages == (chat.UserMessage("Hello!"),)
