"""Streams of the Responses API: valid for a strict reader, equal to the whole answer, and failed if they break off."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.api.dialects.responses import Responses
from gateway.api.dialects.responses.encode import ResponsesRequest, encode_answer
from gateway.api.dialects.responses.stream import ResponseStreamEncoder
from gateway.api.dialects.responses.tools import ToolNames
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Resumed
from providers.chat import (
    AnnotationsDelta,
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChoiceFinish,
    Finished,
    FinishReason,
    Heartbeat,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from providers.reading.folding import fold, unfold
from tests.gateway.api.answer_events import LABELLED, LOST, OPENED, PLAIN, WORDS, record
from tests.kit.case_files import cases
from tests.kit.chat_strategies import completions, texts, unhurried, words
from tests.kit.event_grammar.responses import GrammarError, StreamedResponse, read_stream

USAGE = UsageReport(Usage(12, 5, 4, 2, 3))
STOP: tuple[StreamEvent, ...] = (ChoiceFinish("stop"), USAGE, Finished())


def encoder(asked: ResponsesRequest | None = None, style: AnswerStyle = PLAIN) -> ResponseStreamEncoder:
    return ResponseStreamEncoder(style, record(), asked or ResponsesRequest(body_bytes=400))


def streamed(
    *events: StreamEvent, asked: ResponsesRequest | None = None, style: AnswerStyle = PLAIN
) -> StreamedResponse:
    writer = encoder(asked, style)
    return read_stream(b"".join(writer.encode((event,)) for event in events))


def call(index: int, arguments: str = "", name: str = "f", signature: str | None = None) -> ToolCallDelta:
    return ToolCallDelta(index, arguments, f"call_{index}", name, signature)


def test_text_stream_has_every_event_in_order() -> None:
    response = streamed(OPENED, TextDelta("Hel"), TextDelta("lo"), *STOP)
    assert [event["type"] for event in response.events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert response.text == "Hello"
    assert response.response["model"] == "model-1"
    assert response.response["created_at"] == 7
    assert response.response["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    }


def test_item_ends_only_after_the_finish_reason_is_known() -> None:
    writer = encoder()
    begun = writer.encode((OPENED, call(0, "{}"), call(1, '{"a"')))
    assert b"output_item.done" not in begun
    rest = writer.encode((ChoiceFinish("length"), USAGE, Finished()))
    response = read_stream(begun + rest)
    assert [item["status"] for item in response.response["output"]] == ["completed", "incomplete"]


def test_pieces_of_parallel_calls_may_alternate() -> None:
    more = [ToolCallDelta(0, '"a":1}'), ToolCallDelta(1, '"b":2}')]
    response = streamed(OPENED, call(0, "{"), call(1, "{"), *more, ChoiceFinish("tool_calls"), USAGE, Finished())
    assert [(one["call_id"], one["arguments"]) for one in response.calls] == [
        ("call_0", '{"a":1}'),
        ("call_1", '{"b":2}'),
    ]
    assert response.status == "completed"


def test_reasoning_text_refusal_and_calls_are_items_of_their_own() -> None:
    pieces = (ReasoningDelta("hm"), ReasoningDelta("m"), TextDelta("a"), RefusalDelta("no"), call(0, "{}"))
    response = streamed(OPENED, *pieces, ChoiceFinish("tool_calls"), USAGE, Finished())
    reasoning, message, called = response.response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hmm"}]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert called["arguments"] == "{}"


def test_text_after_reasoning_in_the_middle_is_another_message() -> None:
    response = streamed(OPENED, TextDelta("a"), ReasoningDelta("b"), TextDelta("c"), *STOP)
    assert [item["type"] for item in response.response["output"]] == ["message", "reasoning", "message"]


@cases("reason", "status", "detail")
def test_finish_reason_is_the_status(reason: FinishReason, status: str, detail: str | None) -> None:
    response = streamed(OPENED, TextDelta("a"), ChoiceFinish(reason, 0, "why"), USAGE, Finished())
    assert response.status == status
    details = response.response["incomplete_details"]
    assert (details and details["reason"]) == detail
    if reason == "other":
        assert response.response["x_gateway"] == {"finish_reason": "why"}


def test_whole_answer_without_text_has_an_empty_message() -> None:
    response = streamed(OPENED, *STOP)
    assert response.response["output"][0]["content"] == [
        {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    ]


def test_filtered_answer_without_text_has_no_item() -> None:
    assert streamed(OPENED, ChoiceFinish("content_filter"), USAGE, Finished()).response["output"] == []


def test_missing_count_is_an_estimate_above_zero_that_is_not_recorded() -> None:
    writer = encoder()
    data = writer.encode((OPENED, TextDelta("Hello, world"), ChoiceFinish("stop"), Finished()))
    response = read_stream(data).response
    assert response["usage"]["input_tokens"] == 100
    assert response["usage"]["output_tokens"] > 0
    assert response["x_gateway"] == {"usage": "estimated"}
    assert writer.usage is None


def test_failure_is_the_last_event_with_a_code() -> None:
    writer = encoder()
    data = writer.encode((OPENED, TextDelta("Hel"), call(0, '{"a"'), LOST))
    response = read_stream(data)
    assert response.status == "failed"
    message = "the connection to the provider broke"
    assert response.response["error"] == {"code": "stream_interrupted", "message": message}
    # Codex runs a call when its item ends.
    assert "function_call" not in [
        event["item"]["type"] for event in response.events if event["type"] == "response.output_item.done"
    ]
    assert writer.failed is LOST
    assert writer.encode((TextDelta("late"),)) == b""
    assert writer.encode_failure(ApiError("stream_interrupted", "again")) == b""


def test_gateway_that_stops_before_the_first_event_fails_the_stream() -> None:
    response = read_stream(encoder().encode_failure(ApiError("stream_interrupted", "stopped")))
    assert response.status == "failed"
    assert response.response["error"]["message"] == "stopped"


def test_answer_larger_than_accepted_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.dialects.responses.stream.MAX_BODY_BYTES", 1_000)
    writer = encoder()
    data = [writer.encode((OPENED, TextDelta("a")))]
    piece = b"x" * 250
    while written := writer.lone_text(piece):
        data.append(written)
    assert (len(data), writer.failed) == (5, None)
    data.append(writer.encode((TextRun((piece,)),)))
    assert writer.failed is not None
    assert read_stream(b"".join(data)).status == "failed"


def test_group_of_a_call_is_returned_with_the_plain_name() -> None:
    names = ToolNames()
    flat = names.flatten("mcp__files__", "read")
    response = streamed(
        OPENED, call(0, "{}", flat), ChoiceFinish("tool_calls"), USAGE, Finished(), asked=ResponsesRequest(names=names)
    )
    assert (response.calls[0]["namespace"], response.calls[0]["name"]) == ("mcp__files__", "read")


@cases("arguments", "shown")
def test_custom_tool_is_called_in_its_own_form(arguments: str, shown: str) -> None:
    names = ToolNames(kinds={"edit": "custom", "tool_search": "tool_search"})
    asked = ResponsesRequest(names=names)
    half = len(arguments) // 2
    events = [
        call(0, arguments[:half], name="edit"),
        call(1, '{"query": "x"}', name="tool_search"),
        call(0, arguments[half:]),
    ]
    written = encoder(asked).encode((OPENED, *events, ChoiceFinish("tool_calls"), Finished()))
    sent = [json.loads(line[6:]) for line in written.decode().splitlines() if line.startswith("data: ")]
    edit, search = sent[-1]["response"]["output"]
    assert (edit["type"], edit["name"], edit["input"]) == ("custom_tool_call", "edit", shown)
    assert (search["type"], search["execution"], search["arguments"]) == ("tool_search_call", "client", {"query": "x"})
    assert "name" not in search
    texts = [event.get("delta", event.get("input")) for event in sent if "custom_tool_call_input" in event["type"]]
    assert texts == [shown, shown]
    assert not any("function_call" in event["type"] for event in sent)


@pytest.mark.parametrize("between", [(), (TextDelta("I look."),)])
def test_wanted_state_is_in_the_reasoning_item_before_the_call(between: Sequence[StreamEvent]) -> None:
    asked = ResponsesRequest(wants_state=True)
    events = (OPENED, ReasoningDelta("hm"), *between, call(0, "{}", signature="sealed"))
    output = streamed(*events, ChoiceFinish("tool_calls"), USAGE, Finished(), asked=asked).response["output"]
    assert output[-1]["call_id"] == "call_0"
    assert output[-2]["encrypted_content"] == "sealed"
    assert len(output) == (4 if between else 2)


def test_state_that_was_not_asked_for_is_in_the_id_of_the_call() -> None:
    response = streamed(OPENED, call(0, "{}", signature="sealed"), ChoiceFinish("tool_calls"), USAGE, Finished())
    assert response.calls[0]["call_id"] == "call_0~sig~sealed"


def test_citations_and_log_probabilities_have_the_form_of_this_api() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    citation = {"type": "url_citation", "url_citation": {"url": "https://a.b", "title": "t", "start_index": 0}}
    events = (TextDelta("a", 0, {"content": [token], "refusal": None}), AnnotationsDelta((citation,)))
    part = streamed(OPENED, *events, *STOP).response["output"][0]["content"][0]
    assert part["logprobs"] == [token]
    assert part["annotations"] == [{"type": "url_citation", "url": "https://a.b", "title": "t", "start_index": 0}]


def test_labels_stand_before_the_text_and_in_both_ends() -> None:
    response = streamed(OPENED, TextDelta("你"), TextRun((b"a", "好".encode())), *STOP, style=LABELLED)
    assert response.text.startswith(WORDS)
    assert response.text.endswith("你a好")
    assert response.events[0]["response"]["x_gateway"]["labels"][0]["name"] == "cn-gb45438"
    assert response.response["x_gateway"]["labels"][0]["AIGC"]["ReservedCode1"].startswith("sha256:")
    writer = encoder(style=LABELLED)
    writer.encode((OPENED, TextDelta("a")))
    assert writer.lone_text(b"b") == b""


def test_resumed_answer_names_both_deployments_in_the_last_event() -> None:
    resumed = record()
    writer = ResponseStreamEncoder(PLAIN, resumed, ResponsesRequest())
    data = writer.encode((OPENED, TextDelta("a")))
    resumed.resumed = Resumed("one", "two")
    data += writer.encode(STOP)
    assert read_stream(data).response["x_gateway"] == {"resumed": {"from": "one", "by": "two"}}


def test_heartbeats_are_not_shown() -> None:
    writer = encoder()
    assert writer.encode((Heartbeat(),)) == b""
    writer.encode((OPENED, TextDelta("a")))
    assert writer.encode((Heartbeat(),)) == b""


@given(st.lists(words, min_size=1, max_size=6), words)
@unhurried
def test_lone_texts_and_runs_are_encoded_like_their_events(pieces: list[str], first: str) -> None:
    raw = [orjson.dumps(piece)[1:-1] for piece in pieces]
    one, other, third = encoder(), encoder(), encoder()
    # An answer completes no earlier than it was created, so the clock is not read into this one.
    start = (Opened("id-1", "model-1", 2**40), TextDelta(first))
    as_events = one.encode((*start, *map(TextDelta, pieces))) + one.encode(STOP)
    as_texts = b"".join([other.encode(start), *map(other.lone_text, raw), other.encode(STOP)])
    as_run = third.encode((*start, TextRun(tuple(raw)))) + third.encode(STOP)
    assert as_texts == as_events == as_run
    assert read_stream(as_events).text == first + "".join(pieces)


def shown_part(completion: ChatCompletion) -> ChatCompletion:
    """Return the answer with one choice. Citations after a refusal have no text to which they belong."""
    choices = tuple(
        replace(one, message=replace(one.message, annotations=())) if one.message.refusal else one
        for one in completion.choices[:1]
    )
    return ChatCompletion(
        completion.id,
        completion.model or "m",
        completion.created or 1,
        choices,
        Usage(completion.usage.prompt_tokens + 1, completion.usage.completion_tokens + 1) if completion.usage else None,
    )


REASONING_ALONE = ChatCompletion("", "", 0, (Choice(AssistantMessage("", reasoning="0"), "stop"),))


@given(completions(), st.booleans())
@example(REASONING_ALONE, False)
@unhurried
def test_last_event_is_the_whole_answer(completion: ChatCompletion, wants_state: bool) -> None:
    completion = shown_part(completion)
    asked = ResponsesRequest(wants_state=wants_state, body_bytes=40)
    whole = json.loads(encode_answer(completion, PLAIN, record(), asked))
    if completion.usage is None:
        # Both are estimates: one of the text, the other of all items.
        completion = ChatCompletion(*[getattr(completion, name) for name in ("id", "model", "created", "choices")])
        whole["usage"] = None
    response = streamed(*unfold(completion), asked=asked).response
    if whole["usage"] is None:
        response = {**response, "usage": None}
    # The second may change between both.
    assert {**response, "completed_at": None} == {**whole, "completed_at": None}
    assert (response["completed_at"] is None) is (whole["completed_at"] is None)


EVENTS = st.lists(
    st.one_of(
        words.map(TextDelta),
        words.map(ReasoningDelta),
        words.map(RefusalDelta),
        st.builds(lambda at, text, state: call(at, text, "f", state), st.integers(0, 2), texts, st.none() | words),
        st.just(AnnotationsDelta(({"type": "x"},))),
    ),
    max_size=8,
)


@given(EVENTS, st.sampled_from(["stop", "length", "content_filter", "tool_calls", "other"]), st.booleans())
@unhurried
def test_every_order_of_events_is_a_valid_stream(events: list[Any], reason: FinishReason, wants_state: bool) -> None:
    whole = (OPENED, *events, ChoiceFinish(reason), USAGE, Finished())
    response = streamed(*whole, asked=ResponsesRequest(wants_state=wants_state))
    assert response.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    folded = fold(whole).choices[0].message
    assert sorted(one["arguments"] for one in response.calls) == sorted(one.arguments for one in folded.tool_calls)


@given(EVENTS, st.integers(0, 8))
@unhurried
def test_stream_that_breaks_off_anywhere_is_a_failure(events: list[Any], at: int) -> None:
    response = streamed(OPENED, *events[:at], LOST)
    assert response.status == "failed"


def broken(*changes: tuple[bytes, bytes]) -> bytes:
    data = encoder().encode((OPENED, ReasoningDelta("hm"), TextDelta("Hello"), call(0, "{}"), *STOP))
    for old, new in changes:
        assert old in data
        data = data.replace(old, new, 1)
    return data


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([(b"response.output_item.added", b"response.x")] * 2, id="missing start of an item"),
        pytest.param([(b'"sequence_number":3', b'"sequence_number":4')], id="gap in the sequence numbers"),
        pytest.param([(b'"delta":"Hello"', b'"delta":"Hell"')], id="text that is not that of its deltas"),
        pytest.param([(b'"item_id":"fc_req_1_2"', b'"item_id":"fc_other"')], id="id that changes between events"),
        pytest.param([(b'"delta":"{}"', b'"delta":""')], id="dropped arguments"),
        pytest.param([(b'"input_tokens":12', b'"input_tokens":0')], id="usage of zero"),
        pytest.param([(b'"store":false', b'"store":true')], id="state that is not kept"),
    ],
)
def test_validator_finds_the_bugs_of_other_translators(changes: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(GrammarError):
        read_stream(broken(*changes))


def test_validator_finds_a_last_event_without_output() -> None:
    head, _, last = broken().rpartition(b"event: response.completed")
    event = json.loads(last.partition(b"data: ")[2])
    event["response"]["output"] = []
    with pytest.raises(GrammarError, match="output"):
        read_stream(head + b"event: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n")


def test_validator_finds_a_stream_that_only_ends() -> None:
    with pytest.raises(GrammarError):
        read_stream(broken().rpartition(b"event: response.completed")[0])


def test_dialect_sends_comments_as_keep_alive() -> None:
    assert Responses.keep_alive.startswith(b":")
