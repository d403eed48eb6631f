"""Test OpenAI's Responses API where the kit and recordings do not: its use, requests and answers."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import chat
from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.failures import FailureKind, ProviderFailed, UnsupportedFeature
from providers.formats.reasoning_state import join_call_id, split_call_id
from providers.reading.folding import fold
from providers.testkit import IncomingRequest
from providers.vendors.openai.adapter import ADAPTER
from providers.vendors.openai.responses_request import SealedThought, pack, unpack
from providers.vendors.openai.simulator import SIMULATOR
from providers.wire import WireResponse
from tests.kit.case_files import cases
from tests.kit.vendor_checks import request_errors

MODEL = "gpt-6-luna"
TOOL = chat.Tool("get_weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
ASK = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), tools=(TOOL,))
CALL = chat.ToolCall("call_1", "get_weather", '{"city":"Oslo"}')


def target(model: str = MODEL, **more: Any) -> Target:
    return Target(model, "/v1", model_facts(ADAPTER.models, model), **more)


def sent(request: chat.ChatRequest, where: Target | None = None) -> dict[str, Any]:
    wire = ADAPTER.build_request(request, where or target())
    assert wire.path == "/v1/responses"
    body: dict[str, Any] = json.loads(wire.body)
    return body


def incoming(body: dict[str, Any], path: str = "/v1/responses") -> IncomingRequest:
    headers = {"authorization": "Bearer k", "content-type": "application/json"}
    return IncomingRequest("POST", path, "", headers, json.dumps(body).encode())


def read(body: dict[str, Any], path: str = "/v1/responses") -> chat.ChatRequest:
    return SIMULATOR.read_request(incoming(body, path))


def errors(body: dict[str, Any]) -> list[str]:
    """Return the places of a body that the vendor refuses, each with the reason."""
    return request_errors("openai", incoming(body))


def refusal(**changes: Any) -> list[str]:
    """Return what the vendor refuses in the changed request. The unchanged request is accepted."""
    assert not errors(sent(ASK))
    return errors({**sent(ASK), **changes})


def streamed(*events: dict[str, Any], names: bool = True) -> tuple[chat.StreamEvent, ...]:
    parser = ADAPTER.stream_parser(target())
    data = b"".join(
        (f"event: {event['type']}\n" if names else "").encode() + b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    )
    return (*parser.feed(data), *parser.close())


def response(status: str = "completed", *output: Any, **members: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 7.0, "model": MODEL, "status": status, "error": None,
        "output": list(output), **members,
    }  # fmt: skip


def completion_of(body: dict[str, Any]) -> chat.ChatCompletion:
    return ADAPTER.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 0), target())


def thought(number: int, *summaries: str, seal: str | None = "c2VhbGVk") -> dict[str, Any]:
    shown = [{"type": "summary_text", "text": text} for text in summaries]
    return {"type": "reasoning", "id": f"rs_{number}", "summary": shown, "encrypted_content": seal}


def called(name: str = "get_weather", call_id: str = "call_1", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


# --- use of the API -------------------------------------------------------------------------------


@cases("model", "effort", "path")
def test_requests_with_tools_use_the_responses_api(model: str, effort: str | None, path: str) -> None:
    asked = replace(ASK, reasoning_effort=effort)
    assert ADAPTER.build_request(asked, target(model)).path == path
    without = replace(asked, tools=())
    assert ADAPTER.build_request(without, target(model)).path == "/v1/chat/completions"
    loop = (chat.UserMessage("Hi"), chat.AssistantMessage(tool_calls=(CALL,)), chat.ToolMessage("call_1", "-3"))
    assert ADAPTER.build_request(replace(without, messages=loop), target(model)).path == path


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"store": True}])
def test_store_is_always_false(extra: dict[str, object]) -> None:
    body = sent(replace(ASK, extra=extra))
    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]
    assert sent(ASK, target(pins={"service_tier": "flex"}))["service_tier"] == "flex"


def test_rarer_fields_of_a_request_are_converted() -> None:
    picture = chat.UserMessage(
        (
            chat.TextPart("What?"),
            chat.ImagePart("https://images.example.com/a.png", "low"),
            chat.FilePart("data:application/pdf;base64,JVBERi0=", "a.pdf"),
        )
    )
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    schema = chat.JsonSchemaFormat("city", closed, "A city", strict=True)
    body = sent(
        replace(
            ASK,
            messages=(chat.SystemMessage("Be kind.", "developer"), picture),
            response_format=schema,
            reasoning_effort="high",
            user="u-1",
            extra={"verbosity": "low", "reasoning": {"summary": "auto", "effort": "low"}, "prompt_cache_key": "k"},
        )
    )
    parts = [
        {"type": "input_text", "text": "What?"},
        {"type": "input_image", "image_url": "https://images.example.com/a.png", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"},
    ]
    assert body["input"] == [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    form = {"type": "json_schema", "name": "city", "schema": closed, "strict": True, "description": "A city"}
    assert (body["text"], body["reasoning"]) == (
        {"verbosity": "low", "format": form},
        {"summary": "auto", "effort": "high"},
    )
    assert (body["user"], body["prompt_cache_key"]) == ("u-1", "k")
    understood = read(body)
    assert (understood.messages[1], understood.response_format) == (picture, schema)
    assert understood.reasoning_effort == "high"


def test_response_formats_and_tool_choices_are_converted() -> None:
    assert sent(replace(ASK, response_format=chat.JsonObjectFormat()))["text"] == {"format": {"type": "json_object"}}
    assert sent(replace(ASK, tool_choice=chat.NamedTool("f")))["tool_choice"] == {"type": "function", "name": "f"}
    allowed = sent(replace(ASK, tool_choice=chat.AllowedTools("required", ("f",))))["tool_choice"]
    assert allowed == {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}
    assert sent(replace(ASK, tool_choice="required"))["tool_choice"] == "required"
    assert sent(replace(ASK, tools=(replace(TOOL, strict=True),)))["tools"][0]["strict"] is False
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert sent(replace(ASK, tools=(chat.Tool("f", None, closed, strict=True),)))["tools"][0]["strict"] is True
    # The vendor refuses less than 16.
    assert sent(replace(ASK, max_tokens=1))["max_output_tokens"] == 16


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": (chat.UserMessage((chat.AudioPart("UklG", "wav"),)),)}, "audio"),
        ({"extra": {"instructions": "x"}}, "instructions"),
    ],
)
def test_unsupported_features_are_refused(changes: dict[str, Any], feature: str) -> None:
    with pytest.raises(UnsupportedFeature) as raised:
        sent(replace(ASK, **changes))
    assert raised.value.feature == feature


def test_refusal_in_the_history_is_text_and_an_empty_answer_is_omitted() -> None:
    messages = (
        chat.UserMessage("a"),
        chat.AssistantMessage(None, "No."),
        chat.AssistantMessage(""),
        chat.UserMessage("b"),
    )
    assert sent(replace(ASK, messages=messages))["input"] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "No.", "phase": "final_answer"},
        {"role": "user", "content": "b"},
    ]


# --- tool loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "stream"])
def test_thoughts_survive_an_openai_client_and_precede_their_calls(form: str) -> None:
    items = (
        thought(1, "First.", "Second."),
        thought(2, seal=None),
        {"type": "message", "content": [{"type": "output_text", "text": "Let me look."}]},
        called(),
        thought(3),
        called(call_id="call_2"),
    )
    if form == "json":
        answer = completion_of(response("completed", *items))
        assert answer.choices[0].message.reasoning == "First.\n\nSecond."
    else:
        done = [{"type": "response.output_item.done", "output_index": i, "item": item} for i, item in enumerate(items)]
        text = {"type": "response.output_text.delta", "output_index": 2, "delta": "Let me look."}
        answer = fold(streamed(*done, text, {"type": "response.completed", "response": response("completed", *items)}))
    calls = answer.choices[0].message.tool_calls
    outward = [join_call_id(call.id, call.signature) for call in calls]
    returned = [split_call_id(id) for id in outward]
    back = [replace(call, id=id, signature=signature) for call, (id, signature) in zip(calls, returned, strict=True)]
    messages = (
        chat.UserMessage("Hi"),
        chat.AssistantMessage("Let me look.", tool_calls=tuple(back)),
        *(chat.ToolMessage(id, "-3") for id, _ in returned),
    )
    body = sent(replace(ASK, messages=messages))
    assert body["input"][1:] == [
        thought(1, "First.", "Second."),
        {"role": "assistant", "content": "Let me look.", "phase": "commentary"},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
        thought(3),
        {"type": "function_call", "call_id": "call_2", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "-3"},
        {"type": "function_call_output", "call_id": "call_2", "output": "-3"},
    ]
    assert len(read(body).messages) == 4
    # Another model of the route gets the calls without thoughts.
    other = ADAPTER.build_request(replace(ASK, messages=messages), target("gpt-5.6-terra"))
    assert b"rs_1" not in other.body
    assert b'encrypted_content":"' not in other.body


@pytest.mark.parametrize("form", ["json", "stream"])
def test_commentary_is_a_separate_paragraph_before_the_answer(form: str) -> None:
    def message_item(text: str, phase: str, *more: str) -> dict[str, Any]:
        parts = [{"type": "output_text", "text": part} for part in (text, *more)]
        return {"type": "message", "role": "assistant", "phase": phase, "content": parts}

    items = (
        message_item("I look", "commentary", " it up."),
        thought(1),
        message_item("", "commentary"),
        message_item("It is 3.", "final_answer"),
    )
    if form == "json":
        answer = completion_of(response("completed", *items))
    else:
        deltas = [(0, "I look"), (0, " it up."), (2, ""), (3, "It is"), (3, " 3.")]
        events = [{"type": "response.output_text.delta", "output_index": i, "delta": text} for i, text in deltas]
        answer = fold(streamed(*events, {"type": "response.completed", "response": response("completed", *items)}))
    assert answer.choices[0].message.content == "I look it up.\n\nIt is 3."


def test_phase_is_sent_only_for_assistant_messages() -> None:
    messages = (chat.UserMessage("a"), chat.AssistantMessage("b"), chat.UserMessage("c"))
    body = sent(replace(ASK, messages=messages))
    assert [item.get("phase") for item in body["input"]] == [None, "final_answer", None]
    for position, phase in ((0, "commentary"), (1, None), (1, "thought")):
        changed = {**body, "input": [dict(item) for item in body["input"]]}
        changed["input"][position]["phase"] = phase
        assert any(error.startswith(f"input[{position}].phase: ") for error in errors(changed))


def test_call_ids_of_other_vendors_are_converted() -> None:
    call = replace(CALL, id="functions.get:0" + "x" * 80)
    messages = (chat.UserMessage("Hi"), chat.AssistantMessage(tool_calls=(call,)), chat.ToolMessage(call.id, "-3"))
    made, answered = sent(replace(ASK, messages=messages))["input"][1:]
    assert made["call_id"] == answered["call_id"]
    assert len(made["call_id"]) <= 64


def test_repeated_call_id_becomes_unique() -> None:
    # An earlier answer came from a server that numbers the calls of each answer from the start (`terminal:0` of Kimi).
    turn = (chat.AssistantMessage(tool_calls=(CALL,)), chat.ToolMessage(CALL.id, "-3"))
    body = sent(replace(ASK, messages=(chat.UserMessage("Hi"), *turn, *turn, *turn)))
    items = body["input"]
    ids = ["call_1", "call_1_2", "call_1_3"]
    assert [item["call_id"] for item in items if item.get("type") == "function_call"] == ids
    assert [item["call_id"] for item in items if item.get("type") == "function_call_output"] == ids
    same = [{**item, "call_id": "call_1"} if "call_id" in item else item for item in items]
    assert not errors(body)
    assert any("Duplicate function_call_output" in error for error in errors({**body, "input": same}))


@given(st.lists(st.builds(SealedThought, st.text(min_size=1), st.text(min_size=1), st.tuples(st.text())), max_size=4))
def test_packed_thoughts_are_unpacked_for_their_own_model(thoughts: list[SealedThought]) -> None:
    packed = pack(thoughts, MODEL)
    assert unpack(packed, MODEL) == tuple(thoughts)
    assert unpack(packed, "another") == ()


@given(st.text())
def test_forged_signature_is_ignored(text: str) -> None:
    assert all(one.id and one.sealed for one in unpack(text, MODEL))
    assert unpack("W10=", MODEL) == unpack("e30=", MODEL) == unpack("W1siYSJdXQ==", MODEL) == ()


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["steered", None])
def test_incomplete_answer_without_a_known_reason_is_one_if_it_has_text(reason: str | None) -> None:
    message_item = {"type": "message", "content": [{"type": "output_text", "text": "Os"}]}
    details = {"reason": reason}
    choice = completion_of(response("incomplete", message_item, incomplete_details=details)).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == ("other", reason or "incomplete")
    with pytest.raises(ProviderFailed, match="no usable output"):
        completion_of(response("incomplete", incomplete_details=details))


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
def test_incomplete_answer_has_its_finish_reason(reason: str, finish: str) -> None:
    message_item = {"type": "message", "content": [{"type": "output_text", "text": "Os"}]}
    body = response("incomplete", message_item, incomplete_details={"reason": reason})
    delta = {"type": "response.output_text.delta", "delta": "Os"}
    for answer in (completion_of(body), fold(streamed(delta, {"type": "response.incomplete", "response": body}))):
        (choice,) = answer.choices
        assert (choice.message.content, choice.finish_reason) == ("Os", finish)


@cases("error", "kind")
def test_failed_answer_fails(error: dict[str, str], kind: FailureKind) -> None:
    body = response("failed", error={**error, "message": "It says why."} if error else None)
    with pytest.raises(ProviderFailed) as raised:
        completion_of(body)
    event = streamed({"type": "response.failed", "response": body})[-1]
    assert isinstance(event, chat.Failed)
    assert raised.value.failure.kind is event.failure.kind is kind


@pytest.mark.parametrize("names", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_error_event_ends_the_stream(names: bool, nested: bool) -> None:
    error = {"code": "rate_limit_exceeded", "message": "Slow down.", "param": None}
    event = {"type": "error", "error": error} if nested else {"type": "error", **error, "sequence_number": 3}
    first = {"type": "response.output_text.delta", "delta": "Os"}
    ended = streamed(first, event, names=names)[-1]
    assert isinstance(ended, chat.Failed)
    assert (ended.failure.kind, ended.failure.detail) == (FailureKind.RATE_LIMITED, "Slow down.")


def test_answer_in_progress_fails() -> None:
    for status in ("in_progress", "queued"):
        with pytest.raises(ProviderFailed) as raised:
            completion_of(response(status))  # type: ignore[arg-type]
        assert raised.value.failure.kind is FailureKind.MALFORMED
    cut = streamed({"type": "response.created", "response": response("in_progress")}, {"type": "response.x"})
    assert [type(event) for event in cut] == [chat.Heartbeat, chat.Heartbeat, chat.Failed]


@pytest.mark.parametrize(
    ("begun", "ended", "expected"),
    [("flex", "flex", "flex"), ("auto", "default", None), (None, "priority", None), ("priority", None, "priority")],
)
def test_service_tier_is_reported(begun: str | None, ended: str | None, expected: str | None) -> None:
    """The tier decides the price of flex or priority processing. It must be reported before a stream begins."""
    message_item = {"type": "message", "content": [{"type": "output_text", "text": "Oslo"}]}
    assert completion_of(response("completed", message_item, service_tier=ended)).service_tier == ended
    events = streamed(
        {"type": "response.created", "response": response("in_progress", service_tier=begun)},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Oslo"},
        {"type": "response.completed", "response": response("completed", message_item, service_tier=ended)},
    )
    assert fold(events).service_tier == expected


def test_stream_with_all_content_at_its_end_is_read() -> None:
    message_item = {"type": "message", "content": [{"type": "output_text", "text": "Oslo"}]}
    body = response("completed", thought(1), message_item, called(arguments='{"city":"Oslo"}'))
    for events in (streamed({"type": "response.completed", "response": body}), streamed({**body, "type": "x"})):
        message = fold(events).choices[0].message
        assert isinstance(events[-1], chat.Finished)
        assert (message.content, message.tool_calls[0].arguments) == ("Oslo", '{"city":"Oslo"}')


def test_arguments_that_come_only_at_the_end_are_the_calls() -> None:
    """In an event of their own, in the item, or in the whole answer."""
    added = {"type": "response.output_item.added", "output_index": 0, "item": called(arguments="")}
    done = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'}
    item = {"type": "response.output_item.done", "output_index": 0, "item": called(arguments='{"a":1}')}
    for ends in ([done], [item], [], [done, item]):
        end = {"type": "response.completed", "response": response("completed", called(arguments='{"a":1}'))}
        (choice,) = fold(streamed(added, *ends, end)).choices
        assert [call.arguments for call in choice.message.tool_calls] == ['{"a":1}']


def test_call_without_arguments_is_complete_with_its_item() -> None:
    items = [called(call_id="call_1", arguments=""), called(call_id="call_2", arguments='{"a":1}')]
    done = [{"type": "response.output_item.done", "output_index": i, "item": item} for i, item in enumerate(items)]
    events = streamed(*done, {"type": "response.completed", "response": response("completed", *items)})
    pieces = [
        (event.index, event.arguments) for event in events if isinstance(event, chat.ToolCallDelta) and event.arguments
    ]
    assert pieces == [(0, "{}"), (1, '{"a":1}')]


# --- the simulator --------------------------------------------------------------------------------


def test_invalid_request_is_refused() -> None:
    for changes, error in (
        ({"messages": []}, "messages: Extra inputs are not permitted"),
        ({"reasoning": {"effort": "low", "x": 1}}, "reasoning.x: Extra inputs are not permitted"),
        ({"text": {"format": {"type": "text", "x": 1}}}, "text.format.x: Extra inputs are not permitted"),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            "tools[0].function: Extra inputs are not permitted",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type: the gateway sends only functions"),
        ({"max_output_tokens": 5}, "max_output_tokens: below 16"),
        ({"temperature": 0.5}, "temperature: 0.5 is not supported with this model"),
    ):
        assert error in refusal(**changes)
    for name in ("background", "previous_response_id", "conversation"):
        assert f"{name}: refers to data stored by the vendor" in refusal(**{name: "x"})
    user = {"role": "user", "content": "Hi"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "1"}
    forged = "c2ltdWxhdGVkIHRob3VnaHQgb2YgeA=="
    for items, word in (
        ([user, call], "No tool output"),
        ([user, result], "No tool call"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "input[0].content[0].type: "),
        ([user, thought(1, seal=None), call, result], "not found"),
        ([user, thought(1), user], "following item"),
        ([user, thought(1, seal=forged), call, result], "could not be verified"),
    ):
        assert any(word in error for error in refusal(input=items))
    good = {**sent(ASK), "input": [user, thought(1), call, result]}
    assert not errors(good)
    assert read(good).messages[1].content is None


def test_simulator_ignores_unknown_fields() -> None:
    asked = sent(ASK)
    unknown = {"messages": [], "background": True, "temperature": 0.5, "max_output_tokens": None}
    assert replace(read({**asked, **unknown}), temperature=None) == read(asked)
