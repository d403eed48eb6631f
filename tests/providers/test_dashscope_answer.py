"""Test how DashScope's answers are read: whole answers, streams, filters, errors, and every split of the bytes."""

import json
from collections.abc import Iterable

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import ChatCompletion, Heartbeat, StreamEvent, TextDelta, ToolCall, Usage
from providers.failures import FailureKind, ProviderFailed
from providers.reading.folding import fold
from providers.vendors.dashscope.adapter import ADAPTER
from providers.wire import WireResponse
from tests.kit.case_files import cases

TARGET = Target("qwen-plus", "/api/v1", UNKNOWN_MODEL)


def response(body: object, status: int = 200, content_type: str = "application/json") -> WireResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireResponse(status, {"content-type": content_type}, data, 1_000.0)


def answer_body(message: object, finish: object = "stop", **more: object) -> dict[str, object]:
    choice = {"finish_reason": finish, "message": message}
    return {"request_id": "r-1", "output": {"text": None, "finish_reason": None, "choices": [choice]}, **more}


def read(body: object) -> ChatCompletion:
    return ADAPTER.parse_response(response(body), TARGET)


def test_choices_without_an_index_are_numbered() -> None:
    body = answer_body({"content": "One."})
    body["output"]["choices"].append({"finish_reason": "length", "message": {"content": "Two"}})  # type: ignore[index]
    one, two = read(body).choices
    assert (one.index, one.message.content, one.finish_reason) == (0, "One.", "stop")
    assert (two.index, two.message.content, two.finish_reason) == (1, "Two", "length")


def fails(body: object) -> FailureKind:
    with pytest.raises(ProviderFailed) as error:
        read(body)
    return error.value.failure.kind


def event(body: object, name: str = "result", status: int = 200) -> bytes:
    return f"id:1\nevent:{name}\n:HTTP_STATUS/{status}\ndata:".encode() + json.dumps(body).encode() + b"\n\n"


def delta(message: object, finish: object = "null", **more: object) -> bytes:
    return event(answer_body(message, finish, **more))


def text_events(*texts: str, last: str = "", finish: str = "stop") -> list[bytes]:
    return [*(delta({"content": text, "role": "assistant"}) for text in texts), delta({"content": last}, finish)]


def stream(pieces: Iterable[bytes]) -> list[StreamEvent]:
    parser = ADAPTER.stream_parser(TARGET)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [event for event in (*events, *parser.close()) if not isinstance(event, Heartbeat)]


def texts(pieces: Iterable[bytes]) -> list[str]:
    return [event.text for event in stream(pieces) if isinstance(event, TextDelta)]


# --- whole answers --------------------------------------------------------------------------------


@cases("content", "text")
def test_content_may_be_text_or_a_list(content: object, text: str) -> None:
    """Case 32."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    assert read({**answer_body({"content": content}), "usage": usage}).choices[0].message.content == text


def test_result_format_text_is_read() -> None:
    completion = read({"request_id": "r", "output": {"text": "Hi", "finish_reason": "stop"}})
    assert completion.choices[0].message.content == "Hi"


@pytest.mark.parametrize("arguments", [{"city": "Ås"}, '{"city":"Ås"}'])
def test_arguments_may_be_an_object(arguments: object) -> None:
    """Case 43."""
    message = {"content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
    assert read(answer_body(message, "tool_calls")).choices[0].message.tool_calls == (
        ToolCall("c", "f", '{"city":"Ås"}'),
    )


@pytest.mark.parametrize("arguments", ["", None, {}])
def test_missing_arguments_become_an_empty_object(arguments: object) -> None:
    message = {
        "content": "",
        "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}],
    }
    assert read(answer_body(message, "stop")).choices[0].message.tool_calls[0].arguments == "{}"
    assert read(answer_body(message, "stop")).choices[0].finish_reason == "tool_calls"


@cases("word", "reason", "raw")
def test_finish_reasons_are_converted(word: str, reason: str, raw: str | None) -> None:
    choice = read(answer_body({"content": "a"}, word)).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, raw)


@pytest.mark.parametrize("word", ["null", None, ""])
def test_null_is_not_a_finish_reason(word: object) -> None:
    """Case 26: both the string and the value."""
    choice = read(answer_body({"content": "a"}, word)).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == ("stop", "missing")
    assert fails(answer_body({"content": ""}, word)) is FailureKind.INTERRUPTED


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 5, "output_tokens": 2, "cached_tokens": 3}, Usage(5, 2, 3, 0)),
        ({"input_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 3}, Usage(5, 0, 0, 0)),
        ({"input_tokens": 5, "output_tokens": 2, "image_tokens": 4, "total_tokens": 99}, Usage(5, 2)),
        ({}, None),
        (None, None),
    ],
)
def test_usage_is_read(usage: object, counted: Usage | None) -> None:
    assert read(answer_body({"content": "a"}, usage=usage)).usage == counted


def test_several_choices_with_log_probabilities_are_read() -> None:
    logprobs = {"content": [{"token": "b", "logprob": -0.5}]}
    choices = [
        {"index": 1, "finish_reason": "length", "message": {"content": "b"}, "logprobs": logprobs},
        {"finish_reason": "stop", "message": {"content": "a"}},
    ]
    found = read({"request_id": "r", "output": {"choices": choices}}).choices
    assert [(one.index, one.message.content, one.finish_reason) for one in found] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]
    assert found[1].logprobs == {"content": logprobs["content"], "refusal": None}


@pytest.mark.parametrize(
    "body",
    [{}, [], 7, b"", b"\n", b"<html>", {"output": {}}, {"output": {"choices": []}}, {"output": {"choices": None}}],
)
def test_body_without_choices_fails(body: object) -> None:
    """Case 33."""
    assert fails(body) is FailureKind.MALFORMED


def test_code_with_status_200_is_an_error() -> None:
    assert fails({**answer_body({"content": "a"}), "code": "DataInspectionFailed"}) is FailureKind.CONTENT_FILTER
    assert fails({"code": "SomethingNew", "message": "m"}) is FailureKind.UNAVAILABLE
    assert read({**answer_body({"content": "a"}), "code": ""}).choices[0].message.content == "a"


def test_error_in_an_event_stream_labelled_json_is_read() -> None:
    """Case 53, with status 200."""
    assert fails(event({"code": "Throttling", "message": "m"}, "error", 429)) is FailureKind.RATE_LIMITED


# --- streams --------------------------------------------------------------------------------------


def test_usage_of_several_choices_is_added_up() -> None:
    def piece(index: int, text: str, finish: str, output: int) -> bytes:
        choice = {"index": index, "message": {"content": text}, "finish_reason": finish}
        usage = {"input_tokens": 5, "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 1}}
        return event({"request_id": "r", "output": {"choices": [choice]}, "usage": usage})

    data = [piece(0, "a", "null", 1), piece(1, "b", "null", 1), piece(0, "", "stop", 2), piece(1, "", "stop", 3)]
    completion = fold(stream(data))
    assert completion.usage == Usage(5, 5, 0, 2)
    assert [choice.message.content for choice in completion.choices] == ["a", "b"]
    total = event({"request_id": "r", "output": {"choices": []}, "usage": {"input_tokens": 5, "output_tokens": 9}})
    assert fold(stream([*data, total])).usage == Usage(5, 9)


# --- repeated text --------------------------------------------------------------------------------


def test_cumulative_events_give_only_new_text() -> None:
    """Case 55, with and without the text in the last event, once 16 characters are repeated."""
    said = ("Oslo is", "Oslo is the capital", "Oslo is the capital of Norway.")
    assert texts(text_events(*said, last=said[-1])) == ["Oslo is", " the capital of Norway."]
    assert texts(text_events(*said)) == ["Oslo is", " the capital of Norway."]
    assert texts(text_events(said[-1], last=said[-1])) == [said[-1]]


def test_increment_that_begins_like_the_text_is_kept() -> None:
    assert "".join(texts(text_events("ha", "haha", "!"))) == "hahaha!"
    assert "".join(texts(text_events("ha", "ha", "ha"))) == "hahaha"
    assert "".join(texts(text_events("ha", "haha"))) == "hahaha"
    assert "".join(texts(text_events("ha", "haha", "hahaha"))) == "hahahahahaha"
    assert "".join(texts(text_events("Hello, you there", "Hello, you there!", " Bye"))) == "Hello, you there! Bye"


def call(arguments: str, id: str = "c", finish: str = "null") -> bytes:
    fragment = {"index": 0, "id": id, "function": {"name": "f", "arguments": arguments}}
    return delta({"content": "", "tool_calls": [fragment]}, finish)


def test_cumulative_tool_calls_give_only_new_arguments() -> None:
    answer = fold(stream([call('{"x'), call('{"x":'), call('{"x":1}'), call('{"x":1}', finish="tool_calls")]))
    assert answer.choices[0].message.tool_calls == (ToolCall("c", "f", '{"x":1}'),)


def test_new_id_at_the_same_index_is_a_new_call() -> None:
    pieces = [call('{"x":1}', "a"), call('{"x":1}', "b"), delta({"content": ""}, "tool_calls")]
    assert fold(stream(pieces)).choices[0].message.tool_calls == (
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("b", "f", '{"x":1}'),
    )


# --- filters --------------------------------------------------------------------------------------


def test_filter_keeps_other_finish_reasons_and_held_text() -> None:
    ended = event({"output": {"choices": [{"index": 1, "message": {"content": "b"}, "finish_reason": "stop"}]}})
    blocked = event({"code": "DataInspectionFailed", "message": "Output data"}, "error", 400)
    answer = fold(stream([delta({"content": "ha"}), ended, delta({"content": "haha"}), blocked]))
    found = [(choice.message.content, choice.finish_reason) for choice in answer.choices]
    assert found == [("hahaha", "content_filter"), ("b", "stop")]
