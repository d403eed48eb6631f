"""Test OpenAI's adapter where the kit and recordings do not: its claims, and requests for each model."""

import json
from dataclasses import replace
from typing import Literal

import pytest

from providers import chat
from providers.adapter import Adapter, Target
from providers.auth import Bearer, NoAuth
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.compatible.adapter import adapter_named
from providers.failures import FailureKind, ProviderFailed
from providers.json_values import dumps
from providers.matching.capability_matching import match_capabilities
from providers.matching.requirements import FEATURES, PARAMETERS, requirements_of
from providers.openai_json import encode_completion
from providers.reading.folding import fold
from providers.registry import load_registry
from providers.vendors.openai.adapter import ADAPTER, COMPATIBLE, OpenAIAdapter
from providers.wire import WireResponse
from tests.kit.case_files import cases

ASK = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),))
TOOLS = replace(ASK, tools=(chat.Tool("get_time"),))
PLAIN = Target("some-model", "/v1", UNKNOWN_MODEL)


def target(model: str, **more: object) -> Target:
    return Target(model, "/v1", model_facts(ADAPTER.models, model), **more)  # type: ignore[arg-type]


def body(request: chat.ChatRequest, where: Target, adapter: OpenAIAdapter = ADAPTER) -> dict[str, object]:
    value = json.loads(adapter.build_request(request, where).body)
    assert isinstance(value, dict)
    return value


def stream(*chunks: object, end: bytes = b"data: [DONE]\n\n") -> tuple[chat.StreamEvent, ...]:
    parser = COMPATIBLE.stream_parser(PLAIN)
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return (*parser.feed(data + end), *parser.close())


def delta(finish: str | None = None, **fields: object) -> dict[str, object]:
    return {"id": "r", "created": 7, "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


# --- claims ---------------------------------------------------------------------------------------


def test_both_adapters_are_registered() -> None:
    assert (ADAPTER.name, ADAPTER.auth) == ("openai", Bearer())
    assert (COMPATIBLE.name, COMPATIBLE.auth) == ("openai-compatible", NoAuth())
    for adapter in (ADAPTER, COMPATIBLE):
        assert adapter.capabilities.features == FEATURES
        assert adapter.capabilities.parameters >= PARAMETERS
    assert "verbosity" in ADAPTER.capabilities.parameters - COMPATIBLE.capabilities.parameters


# --- requests -------------------------------------------------------------------------------------


@cases("model", "wanted", "sent")
def test_effort_is_one_that_the_model_knows(model: str, wanted: str, sent: str) -> None:
    assert body(replace(ASK, reasoning_effort=wanted), target(model))["reasoning_effort"] == sent


@pytest.mark.parametrize(("model", "sent"), [("gpt-6-luna", "low"), ("gpt-5-mini", "minimal"), ("o3", "low")])
def test_a_budget_of_tokens_is_never_no_reasoning(model: str, sent: str) -> None:
    asked = replace(ASK, reasoning_effort="minimal", reasoning_budget=1024)
    assert body(asked, target(model))["reasoning_effort"] == sent


@pytest.mark.parametrize("model", ["gpt-6-luna", "gpt-5", "o3", "o4-mini"])
def test_logprobs_false_is_omitted_for_models_without_logprobs(model: str) -> None:
    asked = replace(ASK, logprobs=False)
    assert "logprobs" not in body(asked, target(model))
    assert body(asked, target("gpt-4o"))["logprobs"] is False


def test_model_that_always_reasons_gets_tools_through_the_responses_api() -> None:
    asked = replace(TOOLS, reasoning_effort="none", stop=("x",))
    facts = target("gpt-6-astra").facts
    assert match_capabilities(requirements_of(asked), ADAPTER.capabilities, facts).unsupported == {"stop"}
    wire = ADAPTER.build_request(asked, target("gpt-6-astra"))
    assert (wire.path, json.loads(wire.body)["reasoning"]) == ("/v1/responses", {"effort": "low"})


def test_refusal_in_the_history_is_text_for_compatible_servers() -> None:
    with_refusal = replace(
        ASK, messages=(*ASK.messages, chat.AssistantMessage(refusal="No."), chat.UserMessage("Why?"))
    )
    refused = {"role": "assistant", "content": "", "refusal": "No."}
    assert body(with_refusal, target("gpt-4o"))["messages"][1] == refused  # type: ignore[index]
    plain = {"role": "assistant", "content": "No."}
    assert body(with_refusal, PLAIN, COMPATIBLE)["messages"][1] == plain  # type: ignore[index]


@pytest.mark.parametrize(("streams", "accept"), [(False, "application/json"), (True, "text/event-stream")])
def test_accept_header_matches_the_form_of_the_answer(streams: bool, accept: str) -> None:
    asked = replace(ASK, stream=streams)
    assert dict(ADAPTER.build_request(asked, PLAIN).headers) == {"content-type": "application/json", "accept": accept}
    assert body(asked, PLAIN).get("stream_options") == ({"include_usage": True} if streams else None)


def test_max_tokens_field_depends_on_the_server() -> None:
    limited = replace(ASK, max_tokens=5)
    assert body(limited, PLAIN).keys() - body(ASK, PLAIN).keys() == {"max_completion_tokens"}
    assert body(limited, PLAIN, COMPATIBLE).keys() - body(ASK, PLAIN).keys() == {"max_tokens"}


def test_signatures_of_other_providers_are_not_sent() -> None:
    call = chat.ToolCall("call_1", "get_time", "{}", signature="opaque")
    messages = (chat.UserMessage("Hi"), chat.AssistantMessage(tool_calls=(call,)), chat.ToolMessage("call_1", "12:00"))
    assert b"opaque" not in ADAPTER.build_request(replace(TOOLS, messages=messages), PLAIN).body


# --- answers --------------------------------------------------------------------------------------


def test_halves_of_a_surrogate_pair_are_joined() -> None:
    """Edge case 73. Fields other than text have nothing to join."""
    events = stream(delta(content="\ud83d"), delta(content="\ude00"), delta("stop"))
    assert fold(events).choices[0].message.content == "😀"
    lonely = stream(delta(content="a\ud83d"), delta(refusal="b\ud83d"), delta("stop", reasoning_content="c\ud83d"))
    message = fold(lonely).choices[0].message
    assert (message.content, message.refusal, message.reasoning) == ("a\ufffd", "b\ufffd", "c\ufffd")
    odd = {"id": "\ud83d", "model": "\ud83d", **{"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}}
    answer = fold(stream(odd))
    assert (answer.id, answer.model) == ("\ufffd", "\ufffd")


def test_arguments_as_an_object_with_a_lone_surrogate_are_read() -> None:
    call = {"index": 0, "id": "c\ud83d", "function": {"name": "n\ud83d", "arguments": {"a": "\ud83d", "b": 2**70}}}
    (read,) = fold(stream(delta("tool_calls", tool_calls=[call]))).choices[0].message.tool_calls
    read.arguments.encode()
    assert (read.id, read.name) == ("c\ufffd", "n\ufffd")
    assert json.loads(read.arguments)["b"] == pytest.approx(2**70)


def test_log_probabilities_are_passed_on_if_they_can_be_written() -> None:
    """Edge case 72: `-Infinity` becomes null."""
    good = {"content": [{"token": "x", "logprob": -0.5}], "refusal": None}
    entry = {"index": 0, "delta": {"content": "x"}, "logprobs": good, "finish_reason": "stop"}
    assert fold(stream({"choices": [entry]})).choices[0].logprobs == good
    raw = json.dumps({"choices": [entry]}).replace("-0.5", "-Infinity").encode()
    parser = ADAPTER.stream_parser(PLAIN)
    infinite = fold([*parser.feed(b"data: " + raw + b"\n\n"), *parser.close()])
    assert infinite.choices[0].logprobs == {"content": [{"token": "x", "logprob": None}], "refusal": None}
    broken = {**entry, "logprobs": {"content": [{"token": "\ud83d"}]}}
    answer = fold(stream({"choices": [broken]})).choices[0]
    assert (answer.message.content, answer.logprobs) == ("x", None)


def begun(index: int, arguments: object) -> dict[str, object]:
    function = {"name": f"f{index}", "arguments": arguments}
    return delta(tool_calls=[{"index": index, "id": f"c{index}", "function": function}])


def test_arguments_that_begin_as_an_empty_object_continue_as_text() -> None:
    pieces = [delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in ('{"a":', "1}")]
    calls = fold(stream(begun(0, {}), *pieces, begun(1, {}), delta("tool_calls"))).choices[0].message.tool_calls
    assert [call.arguments for call in calls] == ['{"a":1}', "{}"]


def test_call_with_empty_arguments_is_complete_before_the_next_call() -> None:
    events = stream(begun(0, {}), begun(1, {}), begun(2, {"a": 1}), delta("tool_calls"))
    pieces = [(event.index, event.arguments) for event in events if isinstance(event, chat.ToolCallDelta)]
    assert [piece for piece in pieces if piece[1]] == [(0, "{}"), (1, "{}"), (2, '{"a":1}')]
    assert [index for index, _ in pieces] == sorted(index for index, _ in pieces)


def test_excessive_counts_are_ignored() -> None:
    usage = {"prompt_tokens": 2**70, "completion_tokens": 1e300, "prompt_tokens_details": {"cached_tokens": "7"}}
    answer = fold(stream({**delta("stop", content="x"), "created": 1e300, "usage": usage}))
    assert (answer.created, answer.usage) == (0, chat.Usage(0, 0, cached_tokens=7))


@cases("before", "content", "reasoning", "calls")
def test_whole_message_at_the_end_adds_only_new_text(
    before: list[dict[str, object]], content: str, reasoning: str, calls: int
) -> None:
    """Edge case 29."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning, "tool_calls": [call]}
    last = {"id": "r", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    answer = fold(stream(*before, last)).choices[0].message
    assert (answer.content, answer.reasoning, len(answer.tool_calls)) == (content, reasoning, calls)
    assert answer.tool_calls[0].arguments == "{}"


@cases("fields")
def test_reasoning_under_several_names_is_read_once(fields: dict[str, object]) -> None:
    """Edge case 36."""
    events = stream(delta(**fields), delta("stop"))
    assert [event for event in events if isinstance(event, chat.ReasoningDelta)] == [chat.ReasoningDelta("r")]
    assert not [event for event in events if isinstance(event, chat.TextDelta)]


@cases("word", "reason", "raw")
def test_finish_reasons_are_converted(word: str, reason: str, raw: str | None) -> None:
    """Edge case 34; `tool_calls` without a call becomes `stop`."""
    choice = fold(stream(delta(word, content="x"))).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, raw)


@cases("fields", "named")
def test_stop_sequence_that_a_server_names_is_read(fields: dict[str, object], named: str | None) -> None:
    last = {"index": 0, "delta": {}, "finish_reason": "stop", **fields}
    streamed = fold(stream(delta(content="x"), {"id": "r", "created": 7, "choices": [last]}))
    entry = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", **fields}
    body = {"id": "r", "model": "m", "created": 7, "choices": [entry]}
    whole = COMPATIBLE.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 5.0), PLAIN)
    assert streamed.choices[0].stop_sequence == whole.choices[0].stop_sequence == named


CITED = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2, "url": "https://x.example"}}


@pytest.mark.parametrize("adapter", [ADAPTER, COMPATIBLE, adapter_named("deepseek")], ids=lambda it: it.name)
def test_metadata_and_annotations_are_kept_in_every_form(adapter: Adapter) -> None:
    """Service tier, system fingerprint and annotations. A chunk before the text has the first two."""
    frame = {"id": "r", "created": 5, "model": "m"}
    setup = {"service_tier": "flex", "system_fingerprint": "fp_1"}
    message = {"role": "assistant", "content": "Hi", "annotations": [CITED, CITED]}
    body = {**frame, **setup, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    answer = adapter.parse_response(WireResponse(200, {}, dumps(body), 0), PLAIN)
    assert (answer.service_tier, answer.system_fingerprint) == ("flex", "fp_1")
    assert answer.choices[0].message.annotations == (CITED, CITED)
    deltas = [
        ({"content": "H"}, None),
        ({"content": "i"}, None),
        *([({"annotations": [CITED]}, None)] * 2),
        ({}, "stop"),
    ]
    choices = [[{"index": 0, "delta": message_delta, "finish_reason": finish}] for message_delta, finish in deltas]
    for chunks in (
        [{**frame, **setup, "choices": choice} for choice in choices],
        [{"id": "", "model": "", "choices": [], **setup}, *({**frame, "choices": choice} for choice in choices)],
    ):
        parser = adapter.stream_parser(PLAIN)
        data = b"".join(b"data: %b\n\n" % dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n"
        assert fold([*parser.feed(data), *parser.close()]) == answer


@pytest.mark.parametrize("annotations", [None, {}, "x", [1, {}, None], [{"x": "\ud800"}], [{"x": 1e400}]], ids=repr)
def test_invalid_annotations_are_omitted(annotations: object) -> None:
    message = {"role": "assistant", "content": "Hi", "annotations": annotations}
    body = {"id": "r", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    answer = ADAPTER.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 0), PLAIN)
    dumps(encode_completion(answer))
    assert all(one for one in answer.choices[0].message.annotations)


@pytest.mark.parametrize("adapter", [ADAPTER, COMPATIBLE, adapter_named("vllm")], ids=lambda it: it.name)
@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter"])
def test_choice_that_ended_without_a_message_fails(adapter: Adapter, finish: str) -> None:
    body = {"id": "r", "model": "m", "created": 1, "choices": [{"index": 0, "finish_reason": finish}]}
    response = WireResponse(200, {"content-type": "application/json"}, json.dumps(body).encode(), 0)
    if finish == "content_filter":
        # A filtered choice may be empty.
        assert adapter.parse_response(response, PLAIN).choices[0].finish_reason == "content_filter"
        return
    with pytest.raises(ProviderFailed) as raised:
        adapter.parse_response(response, PLAIN)
    assert raised.value.failure.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("provider", ["openai-compatible", "qianfan"])
def test_function_call_of_2023_is_read(provider: str) -> None:
    adapter = load_registry().adapters[provider]
    function = {"name": "get_time", "arguments": '{"city":"Oslo"}'}
    message = {"role": "assistant", "content": "", "function_call": function}
    choices = [{"index": 0, "message": message, "finish_reason": "function_call"}]
    body = {"id": "r", "created": 7, "model": "m", "choices": choices}
    answer = adapter.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 0), PLAIN)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.name, call.arguments, call.id) == ("get_time", '{"city":"Oslo"}', "call_r_0")
    assert answer.choices[0].finish_reason == "tool_calls"
    pieces = [{"name": "get_time"}, {"arguments": '{"city":'}, {"name": "get_time", "arguments": '"Oslo"}'}]
    chunks = [*(delta(function_call=piece) for piece in pieces), delta("function_call")]
    parser = adapter.stream_parser(PLAIN)
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    assert fold((*parser.feed(data), *parser.close())).choices == answer.choices


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_sent_only_to_openai(mode: Literal["auto", "required"]) -> None:
    tools = (chat.Tool("get_time"), chat.Tool("get_weather"))
    asked = replace(ASK, tools=tools, tool_choice=chat.AllowedTools(mode, ("get_weather",)))
    sent_body = body(asked, PLAIN, COMPATIBLE)
    assert sent_body["tool_choice"] == mode
    empty = {"type": "object", "properties": {}}
    assert sent_body["tools"] == [{"type": "function", "function": {"name": "get_weather", "parameters": empty}}]
    own = body(asked, PLAIN)["tool_choice"]
    assert isinstance(own, dict)
    assert own["type"] == "allowed_tools"


# --- errors ---------------------------------------------------------------------------------------


def classified(status: int, value: object, **headers: str) -> FailureKind:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ADAPTER.classify_error(WireResponse(status, headers, data, 0)).kind


@cases("status", "error", "kind")
def test_errors_are_classified_by_code_and_status(status: int, error: object, kind: FailureKind) -> None:
    assert classified(status, {"error": error}) is kind
    assert classified(status, error) is kind  # the fields at the top, without an envelope


@cases("status", "message", "kind")
def test_known_sentence_classifies_a_host_with_unusual_statuses(status: int, message: str, kind: FailureKind) -> None:
    """xAI: a filtered request is not retried and does not affect the key; a wrong key is not a client error."""
    assert classified(status, {"code": "Client specified an invalid argument", "error": message}) is kind


@cases("error", "kind")
def test_error_in_a_stream_is_classified_without_a_status(error: object, kind: FailureKind) -> None:
    (failed,) = stream({"error": error})
    assert isinstance(failed, chat.Failed)
    assert failed.failure.kind is kind


@cases("reported", "expected")
def test_param_of_an_error_is_converted_to_the_clients_field(reported: str | None, expected: str | None) -> None:
    response = WireResponse(400, {}, json.dumps({"error": {"message": "no", "param": reported}}).encode(), 0)
    assert ADAPTER.classify_error(response).param == expected


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, FailureKind.INVALID_REQUEST), (404, FailureKind.MODEL_NOT_FOUND), (500, FailureKind.UNAVAILABLE)],
)
def test_object_type_error_is_an_error(code: int, kind: FailureKind) -> None:
    """Older versions of vLLM send such errors."""
    error = {"object": "error", "message": "no", "type": "BadRequestError", "param": None, "code": code}
    (failed,) = stream(error)
    assert isinstance(failed, chat.Failed)
    assert failed.failure.kind is kind
    with pytest.raises(ProviderFailed) as raised:
        COMPATIBLE.parse_response(WireResponse(200, {}, json.dumps(error).encode(), 0), PLAIN)
    assert raised.value.failure.kind is kind


@cases("code", "kind")
def test_bare_error_with_status_200_is_classified(code: str, kind: FailureKind) -> None:
    """DashScope's compatible mode sends such errors. A filtered request must not fail over."""
    error = {"code": code, "message": "Input data may contain inappropriate content.", "request_id": "r"}
    (failed,) = stream(error)
    assert isinstance(failed, chat.Failed)
    assert (failed.failure.kind, failed.failure.code) == (kind, code)
    with pytest.raises(ProviderFailed) as raised:
        COMPATIBLE.parse_response(WireResponse(200, {}, json.dumps(error).encode(), 0), PLAIN)
    assert (raised.value.failure.kind, raised.value.failure.request_id) == (kind, "r")


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", ["data_inspection_failed", "DataInspectionFailed"])
def test_filter_codes_of_dashscope_are_known_for_a_custom_url(code: str, status: int) -> None:
    error = {"error": {"code": code, "message": "no", "type": code}}
    assert COMPATIBLE.classify_error(WireResponse(status, {}, json.dumps(error).encode(), 0)).kind is (
        FailureKind.CONTENT_FILTER
    )


def test_answer_with_a_code_is_not_an_error() -> None:
    answer = {"code": "content_filter", "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}
    response = WireResponse(200, {}, json.dumps(answer).encode(), 0)
    assert COMPATIBLE.parse_response(response, PLAIN).choices[0].message.content == "x"


def test_error_details_are_read() -> None:
    error = {"message": "Incorrect API key provided: sk-ab***", "code": "invalid_api_key", "param": "p\ud83d"}
    failure = ADAPTER.classify_error(
        WireResponse(401, {"x-request-id": "req_1", "retry-after": "2"}, json.dumps({"error": error}).encode(), 0)
    )
    assert "sk-" not in failure.message
    assert "sk-" in failure.detail
    assert (failure.code, failure.param, failure.request_id) == ("invalid_api_key", "p\ufffd", "req_1")
    assert (failure.status, failure.retry_after_s) == (401, 2)


def test_unknown_models_have_the_configured_capabilities() -> None:
    facts = ModelFacts(features=frozenset({"tools"}))
    assert body(TOOLS, Target("m", "", facts), COMPATIBLE)["tools"]
    assert COMPATIBLE.build_request(TOOLS, Target("m", "", facts)).path == "/chat/completions"


def test_complete_message_keeps_all_calls_with_any_ids() -> None:
    """Some servers give all calls the same id, or none, and the same index."""
    for identity in ({"id": "call_0"}, {}, {"id": "call_0", "index": 0}):
        calls = [
            {**identity, "type": "function", "function": {"name": "f", "arguments": f'{{"a":{n}}}'}} for n in (1, 2)
        ]
        choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}}
        answer = {"id": "i", "model": "m", "created": 1, "choices": [{**choice, "finish_reason": "tool_calls"}]}
        response = WireResponse(200, {"content-type": "application/json"}, json.dumps(answer).encode(), 0)
        message = COMPATIBLE.parse_response(response, PLAIN).choices[0].message
        assert [call.arguments for call in message.tool_calls] == ['{"a":1}', '{"a":2}']
        assert len({call.id for call in message.tool_calls}) == 2


def test_too_deeply_nested_arguments_are_malformed() -> None:
    """The maximum depth depends on the version of Python."""
    deep = "[" * 1000 + "]" * 1000
    message = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "@"}}]}
    text = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).replace('"@"', deep)
    try:
        answer = COMPATIBLE.parse_response(WireResponse(200, {}, text.encode(), 0), PLAIN)
        result: object = answer.choices[0].message.tool_calls[0].arguments
    except ProviderFailed as error:
        result = error.failure.kind
    assert result in (deep, FailureKind.MALFORMED)
