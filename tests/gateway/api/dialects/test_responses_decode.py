"""Requests of the Responses API: their form in a chat, and the fields that are refused or dropped by name."""

import json
from typing import Any

import pytest
from hypothesis import given

from gateway.api.dialects.responses import Responses
from gateway.api.dialects.responses.decode import DecodedResponse, decode_request
from gateway.api.errors import ApiError
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    NamedTool,
    SystemMessage,
    TextPart,
    Texts,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.formats.schemas import allows_strict
from tests.kit.chat_strategies import json_values, unhurried

PIXEL = "data:image/png;base64,aGk="
WEATHER: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
CLOSED = {**WEATHER, "required": ["city"], "additionalProperties": False}
FUNCTION: dict[str, Any] = {"type": "function", "name": "weather", "parameters": WEATHER}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
ASK = {"role": "user", "content": "Weather?"}


def decoded(given: Any = "Hi", **more: Any) -> DecodedResponse:
    return decode_request({"model": "assistant", "input": given, **more})


def messages_of(given: Any, **more: Any) -> tuple[Any, ...]:
    return tuple(decoded(given, **more).request.messages)


def refusal(given: Any = "Hi", **more: Any) -> InvalidRequest | UnsupportedFeature:
    with pytest.raises((InvalidRequest, UnsupportedFeature)) as refused:
        decoded(given, **more)
    return refused.value


def test_text_and_instructions_are_a_plain_chat() -> None:
    request = decoded("Hi", instructions="Be brief.", max_output_tokens=9, temperature=0.5, stream=True).request
    assert type(request.messages) is Texts
    assert tuple(request.messages) == (SystemMessage("Be brief."), UserMessage("Hi"))
    assert (request.max_tokens, request.temperature, request.stream, request.include_usage) == (9, 0.5, True, True)


def test_messages_with_parts() -> None:
    parts = [
        {"type": "input_text", "text": "Look"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"},
    ]
    answer = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "Yes", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "No"},
        ],
    }
    result = decoded([{"role": "developer", "content": "D"}, {"role": "user", "content": parts}, answer, ASK])
    assert tuple(result.request.messages) == (
        SystemMessage("D", "developer"),
        UserMessage((TextPart("Look"), ImagePart(PIXEL, "low"), FilePart("data:application/pdf;base64,aGk=", "a.pdf"))),
        AssistantMessage("Yes", "No"),
        UserMessage("Weather?"),
    )
    assert result.request.unread == {"input.id"}


def test_adjacent_calls_are_one_turn_and_outputs_follow_in_their_order() -> None:
    said = {"role": "assistant", "content": "I look."}
    second = {**CALL, "call_id": "c2"}
    outputs = [{**OUTPUT, "call_id": "c2", "output": "2"}, {**OUTPUT, "output": [{"type": "input_text", "text": "1"}]}]
    history = [ASK, said, CALL, second, *outputs, {"role": "assistant", "content": "Done."}]
    assert messages_of(history)[1:] == (
        AssistantMessage("I look.", tool_calls=(ToolCall("c1", "weather", "{}"), ToolCall("c2", "weather", "{}"))),
        ToolMessage("c1", (TextPart("1"),)),
        ToolMessage("c2", "2"),
        AssistantMessage("Done."),
    )


def test_output_may_have_images() -> None:
    output = [{"type": "input_text", "text": "1"}, {"type": "input_image", "image_url": PIXEL}]
    turns = messages_of([ASK, CALL, {**OUTPUT, "output": output}])
    assert turns[-1] == ToolMessage("c1", (TextPart("1"), ImagePart(PIXEL)))


def test_call_after_an_output_begins_another_turn_although_its_id_is_the_same() -> None:
    turns = messages_of([ASK, CALL, OUTPUT, CALL, {**OUTPUT, "output": "rain"}])
    assert [type(turn) for turn in turns] == [UserMessage, AssistantMessage, ToolMessage, AssistantMessage, ToolMessage]
    assert turns[-1].content == "rain"


def test_output_after_a_user_message_is_moved_to_its_call() -> None:
    turns = messages_of([ASK, CALL, {"role": "user", "content": "Hurry"}, OUTPUT])
    assert [type(turn) for turn in turns] == [UserMessage, AssistantMessage, ToolMessage, UserMessage]


def test_reasoning_belongs_to_the_turn_and_its_state_to_the_next_call() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    result = decoded([ASK, {**thought, "encrypted_content": "sealed"}, CALL, OUTPUT])
    turn: Any = result.request.messages[1]
    assert (turn.reasoning, turn.tool_calls[0].signature) == ("hm", "sealed")
    assert result.request.unread == {"input.id"}


@pytest.mark.parametrize(
    "thought",
    [{"type": "reasoning", "summary": []}, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
)
def test_reasoning_without_state_is_dropped_by_name(thought: Any) -> None:
    request = decoded([ASK, thought, {"role": "assistant", "content": "Hello"}, ASK]).request
    assert "input.reasoning" in request.unread
    assert [type(turn) for turn in request.messages] == [UserMessage, AssistantMessage, UserMessage]


def test_state_without_a_call_is_dropped_by_name() -> None:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "sealed"}
    assert "input.encrypted_content" in decoded([ASK, thought, ASK]).request.unread


def test_state_in_the_id_of_a_call_is_its_signature() -> None:
    turns = messages_of([ASK, {**CALL, "call_id": "c1~sig~x"}, {**OUTPUT, "call_id": "c1~sig~x"}])
    assert turns[1].tool_calls[0] == ToolCall("c1", "weather", "{}", "x")
    assert turns[2].tool_call_id == "c1"


@pytest.mark.parametrize(
    ("schema", "stated", "strict"),
    [
        (WEATHER, None, False),
        (CLOSED, None, True),
        (WEATHER, True, True),
        (CLOSED, False, False),
        (None, None, False),
        ({**CLOSED, "required": []}, None, False),
        ({**CLOSED, "properties": {"city": WEATHER}}, None, False),
        ({**CLOSED, "properties": {"city": {"anyOf": [CLOSED, {"type": "null"}]}}}, None, True),
        ({**CLOSED, "properties": {"city": {"type": "array", "items": WEATHER}}}, None, False),
        ({**CLOSED, "properties": {"city": {"$ref": "#/$defs/a"}}, "$defs": {"a": WEATHER}}, None, False),
        ({**CLOSED, "allOf": [CLOSED]}, None, False),
        ({**CLOSED, "properties": {"city": {}}}, None, False),
    ],
)
def test_strict_tool_only_where_its_schema_allows_it(schema: Any, stated: bool | None, strict: bool) -> None:
    tool = {"type": "function", "name": "weather", "parameters": schema}
    if stated is not None:
        tool["strict"] = stated
    assert decoded(tools=[tool]).request.tools == (Tool("weather", None, schema, strict),)


@given(json_values)
@unhurried
def test_any_schema_is_checked_without_an_error(schema: Any) -> None:
    assert allows_strict(schema) in (True, False)


def test_group_is_flattened_and_its_calls_are_found_again() -> None:
    group = {"type": "namespace", "name": "files", "description": "d", "tools": [{**FUNCTION, "name": "read"}]}
    call = {**CALL, "namespace": "files", "name": "read"}
    result = decoded([ASK, call, OUTPUT], tools=[FUNCTION, group])
    assert [tool.name for tool in result.request.tools] == ["weather", "files__read"]
    turn: Any = result.request.messages[1]
    assert turn.tool_calls[0].name == "files__read"
    assert result.names.split("files__read") == ("files", "read")


def test_long_name_of_a_group_is_shortened_and_stays_unique() -> None:
    groups = [
        {"type": "namespace", "name": f"{'g' * 60}{at}", "description": "", "tools": [{**FUNCTION, "name": "read"}]}
        for at in range(2)
    ]
    first, second = (tool.name for tool in decoded(tools=groups).request.tools)
    assert first != second
    assert max(len(first), len(second)) <= 64


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"type": "function", "name": "weather"}, NamedTool("weather")),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
            AllowedTools("auto", ("weather",)),
        ),
    ],
)
def test_tool_choice(choice: Any, expected: Any) -> None:
    assert decoded(tools=[FUNCTION], tool_choice=choice).request.tool_choice == expected


def test_custom_tools_and_tools_of_items_are_functions() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: A"}
    custom = {"type": "custom", "name": "edit", "format": grammar}
    later = {**FUNCTION, "description": "later"}
    group = {"type": "namespace", "name": "g", "tools": [custom, FUNCTION]}
    items = [{"type": "additional_tools", "tools": [later, group]}, {"role": "user", "content": "Hi"}]
    for fields in ({"tools": [FUNCTION, custom]}, {"tools": [FUNCTION, custom], "tool_choice": "auto"}):
        read = decoded(items, **fields)
        assert [tool.name for tool in read.request.tools] == ["weather", "edit", "g__edit", "g__weather"]
        assert read.request.tools[0].description == "later"
        assert read.names.kinds == {"edit": "custom", "g__edit": "custom"}
        assert read.names.split("g__edit") == ("g", "edit")
        assert "start: A" in str(read.request.tools[1].description)
    assert [tool.name for tool in decoded(items).request.tools] == ["weather", "g__edit", "g__weather"]
    chosen = decoded(tools=[custom], tool_choice={"type": "custom", "name": "edit"}).request
    assert chosen.tool_choice == NamedTool("edit")


def test_structured_output_effort_and_log_probabilities() -> None:
    text = {"format": {"type": "json_schema", "name": "s", "schema": WEATHER, "strict": True}, "verbosity": "low"}
    thinking = {"effort": "low", "summary": "auto"}
    request = decoded(text=text, reasoning=thinking, include=["message.output_text.logprobs"]).request
    assert request.response_format == JsonSchemaFormat("s", WEATHER, None, True)
    assert (request.reasoning_effort, request.extra, request.logprobs) == ("low", {"verbosity": "low"}, True)
    assert request.unread == {"reasoning.summary"}


def test_state_is_wanted_if_it_is_included() -> None:
    assert decoded(include=["reasoning.encrypted_content"]).wants_state
    assert not decoded(include=[]).wants_state


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"client_metadata": {"x-codex-installation-id": "1"}}, {"client_metadata"}),
        ({"truncation": "auto"}, {"truncation"}),
        ({"truncation": "disabled", "store": False, "background": False}, set()),
        ({"include": ["file_search_call.results"]}, {"include"}),
        ({"stream_options": {"include_obfuscation": False}}, set()),
        ({"max_tool_calls": 3}, {"max_tool_calls"}),
        ({"text": {"shape": 1}}, {"text.shape"}),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, {"tools.defer_loading"}),
    ],
)
def test_field_without_effect_is_dropped_by_name(fields: Any, dropped: set[str]) -> None:
    assert decoded(**fields).request.unread == dropped


def test_fields_with_the_meaning_of_chat_are_kept() -> None:
    request = decoded(stop=["END"], seed=7, user="u", prompt_cache_key="k", top_k=4, metadata={"a": "b"}).request
    assert (request.stop, request.seed, request.user) == (("END",), 7, "u")
    assert request.extra == {"prompt_cache_key": "k", "top_k": 4, "metadata": {"a": "b"}}


@pytest.mark.parametrize("search", ["web_search", "web_search_preview", "web_search_2025_08_26"])
def test_search_among_functions_is_left_out_and_named(search: str) -> None:
    offered = {"type": search, "external_web_access": False}
    more = {"type": "additional_tools", "role": "developer", "tools": [offered]}
    for request in (decoded(tools=[FUNCTION, offered]).request, decoded([more, ASK], tools=[FUNCTION]).request):
        assert [tool.name for tool in request.tools] == ["weather"]
        assert request.unread == {"tools.web_search"}
    error = refusal(tools=[FUNCTION, offered], tool_choice={"type": search})
    assert isinstance(error, InvalidRequest)
    assert error.param == "tool_choice.type"


@pytest.mark.parametrize(
    ("fields", "param", "advice"),
    [
        ({"generate": False}, "generate", "belongs to a WebSocket"),
        ({"stream_id": "a"}, "stream_id", "belongs to a WebSocket"),
        ({"conversation": "conv_1"}, "conversation", "send the whole conversation in `input`"),
        ({"store": True}, "store", "send the whole conversation in `input`"),
        ({"background": True}, "background", "set `stream` to true"),
        ({"prompt": {"id": "p"}}, "prompt", "send its text in `instructions`"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "send the whole conversation"),
        ({"max_tokens": 5}, "max_tokens", "use `max_output_tokens`"),
        ({"response_format": {"type": "text"}}, "response_format", "use `text.format`"),
        ({"n": 2}, "n", "send several requests"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", 'web_search = "disabled"'),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type", 'web_search = "disabled"'),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools[0].type", "`file_search`"),
        ({"tools": [{"type": "mcp", "server_url": "https://a.b"}]}, "tools[0].type", "offer functions"),
        ({"tools": [{"type": "tool_search"}]}, "tools[0].type", "hosted tool `tool_search`"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools", "rename one"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "`mcp`"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "`tools`"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "is an `item_reference`"),
        ({"input": [{"id": "msg_1"}]}, "input[0]", "`store` to false"),
        ({"input": [{"content": "hello"}]}, "input[0].type", "must be 'message'"),
        ({"input": [{"type": "computer_call", "id": "cu_1"}]}, "input[0].type", "leave them out"),
        ({"input": [{"type": "custom_tool_call", "name": "x"}]}, "input[0].call_id", "is required"),
        (
            {"input": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]},
            "input[0].tools[0].type",
            "hosted tool",
        ),
        ({"input": [ASK, CALL]}, "input[1].call_id", "no `function_call_output`"),
        ({"input": [ASK, OUTPUT]}, "input[1].call_id", "not the id of a function call"),
        ({"input": []}, "input", "must not be empty"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "must be one of"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
            "as a data URI",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a.b/c"}]}]},
            "input[0].content[0].file_url",
            "`file_data`",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://localhost/"}]}]},
            "input[0].content[0].image_url",
            "inside a network",
        ),
    ],
)
def test_refusal_names_the_field_and_the_form_without_state(fields: Any, param: str, advice: str) -> None:
    error = refusal(**{"given": fields.pop("input", "Hi"), **fields})
    assert error.param == param
    assert advice in str(error)
    assert param.partition("[")[0].partition(".")[0] in str(error)


@pytest.mark.parametrize(
    "body", [{"input": "Hi"}, {"input": []}, {}, {"input": [{"type": "item_reference", "id": "x"}]}]
)
def test_request_that_continues_an_answer_has_a_code_of_its_own(body: Any) -> None:
    """OpenAI's SDKs send the whole conversation again for this code."""
    with pytest.raises(ApiError, match="send the whole conversation in `input`") as refused:
        decode_request({"model": "a", "previous_response_id": "resp_1", **body})
    assert (refused.value.code, refused.value.status) == ("previous_response_not_found", 400)
    assert refused.value.param == "previous_response_id"


def test_request_of_chat_is_refused_with_the_right_name() -> None:
    with pytest.raises(InvalidRequest, match="use `input` here"):
        decode_request({"model": "assistant", "messages": [ASK]})


def test_error_of_an_inner_layer_has_the_path_of_the_client() -> None:
    dialect = Responses()
    dialect.decode(json.dumps({"model": "a", "instructions": "I", "input": [ASK, CALL, OUTPUT, ASK]}).encode())
    error = ApiError("unsupported_capability", "`messages[4].content` is bad", "messages[4].content")
    shown = json.loads(dialect.encode_error(error, "req_1"))["error"]
    assert (shown["param"], shown["message"]) == ("input[3].content", "`input[3].content` is bad")


def test_answer_repeats_the_request_with_defaults_and_a_large_one_without_tools() -> None:
    dialect = Responses()
    dialect.decode(json.dumps({"model": "a", "input": "Hi", "tools": [FUNCTION], "temperature": 1}).encode())
    echo = json.loads(b"{" + dialect._asked.echo[1:] + b"}")
    shown = {**FUNCTION, "description": None, "strict": False}
    assert (echo["tools"], echo["temperature"], echo["top_p"]) == ([shown], 1, 1.0)
    dialect.decode(json.dumps({"model": "a", "input": "x" * 70_000, "tools": [FUNCTION], "temperature": 1}).encode())
    echo = json.loads(b"{" + dialect._asked.echo[1:] + b"}")
    assert (echo["tools"], echo["temperature"]) == ([], 1)


def test_last_update_of_the_configuration_stands_in_place_of_the_requests_own() -> None:
    schema = {"type": "json_schema", "name": "a", "schema": CLOSED}
    first = {"type": "configuration_update", "reasoning": {"effort": "medium"}, "text": {"format": schema}}
    second = {"type": "configuration_update", "id": "cu_2", "reasoning": {"effort": "low"}, "text": None}
    own = {"reasoning": {"effort": "high"}, "text": {"format": {"type": "json_object"}}}
    request = decoded([first, ASK, second], **own).request
    assert (request.reasoning_effort, request.messages) == ("low", (UserMessage("Weather?"),))
    assert not request.unread
    assert isinstance(request.response_format, JsonSchemaFormat)
    plain = {"type": "configuration_update", "text": {"format": {"type": "text"}, "verbosity": "low"}}
    request = decoded([first, ASK, plain]).request
    assert (request.reasoning_effort, request.response_format) == ("medium", None)
    assert request.unread == {"input.configuration_update"}
