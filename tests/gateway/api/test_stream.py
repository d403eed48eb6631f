"""The stream of a client: OpenAI's events in their canonical order, whatever the order of the provider."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record, Resumed
from providers.chat import (
    ChatCompletion,
    ChoiceFinish,
    Failed,
    Finished,
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
from providers.failures import Failure, FailureKind
from providers.formats.reasoning_state import split_call_id
from providers.openai_json.encode_answer import OUTWARD_FINISH
from providers.reading.folding import unfold
from tests.kit.chat_http import events_in
from tests.kit.chat_strategies import completions, texts, unhurried

OPENED = Opened("id-1", "model-1", 7)
USAGE = Usage(3, 4)
RECORD = Record("r", 0.0, "t")


def encoded(*events: StreamEvent, include_usage: bool = False) -> list[Any]:
    return events_in(ChunkEncoder(AnswerStyle(include_usage=include_usage), RECORD).encode(events))


def delta_of(event: Any) -> Any:
    (choice,) = event["choices"]
    return choice["delta"]


@dataclass
class Read:
    """One choice as a client puts it together."""

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    finish: str | None = None


def read(data: bytes, *, include_usage: bool) -> tuple[dict[int, Read], Any]:
    """A strict client: the choices, and the usage; fails on anything that is not canonical."""
    *chunks, done = events_in(data)
    assert done == "[DONE]"
    choices: dict[int, Read] = {}
    usage = None
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) <= 1
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert usage is None, "something stands behind the usage"
        assert ("usage" in chunk) is include_usage
        if not chunk["choices"]:
            usage = chunk["usage"]
            continue
        assert chunk.get("usage") is None
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        assert ("role" in delta) == (choice["index"] not in choices)
        one = choices.setdefault(choice["index"], Read())
        assert one.finish is None, "something stands behind the finish"
        one.finish = choice["finish_reason"]
        assert delta or one.finish
        one.content += delta.get("content") or ""
        one.reasoning += delta.get("reasoning_content", "")
        one.refusal += delta.get("refusal", "")
        one.annotations += delta.get("annotations", ())
        if choice["logprobs"]:
            one.logprobs.append(choice["logprobs"])
        for call in delta.get("tool_calls", ()):
            if call["index"] in one.calls:
                assert set(call) == {"index", "function"}
                one.calls[call["index"]]["arguments"] += call["function"]["arguments"]
            else:
                assert call["type"] == "function"
                one.calls[call["index"]] = {"id": call["id"], **call["function"]}
    return choices, usage


@given(
    completion=completions().filter(lambda completion: completion.choices),
    include_usage=st.booleans(),
    cuts=st.lists(st.integers(0, 30)),
)
@unhurried
def test_client_reads_the_text(completion: ChatCompletion, include_usage: bool, cuts: list[int]) -> None:
    events = list(unfold(completion))
    encoder = ChunkEncoder(AnswerStyle(include_usage=include_usage), RECORD)
    ends = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    data = b"".join(encoder.encode(tuple(events[start:end])) for start, end in pairwise(ends))
    assert data == ChunkEncoder(AnswerStyle(include_usage=include_usage), RECORD).encode(tuple(events))
    choices, usage = read(data, include_usage=include_usage)
    assert sorted(choices) == sorted(choice.index for choice in completion.choices)
    for choice in completion.choices:
        one, message = choices[choice.index], choice.message
        assert one.content == (message.content or "")
        assert (one.reasoning, one.refusal) == (message.reasoning or "", message.refusal or "")
        assert one.finish == OUTWARD_FINISH[choice.finish_reason]
        assert one.annotations == list(message.annotations)
        assert one.logprobs == ([choice.logprobs] if choice.logprobs else [])
        calls = [one.calls[index] for index in sorted(one.calls)]
        shown = [(*split_call_id(call["id"]), call["name"], call["arguments"]) for call in calls]
        assert shown == [(call.id, call.signature, call.name, call.arguments) for call in message.tool_calls]
    setup = {(chunk.get("service_tier"), chunk.get("system_fingerprint")) for chunk in events_in(data)[:-1]}
    assert setup == {(completion.service_tier, completion.system_fingerprint)}
    assert encoder.usage == completion.usage
    assert (usage is not None) == (include_usage and completion.usage is not None)
    assert (encoder.finished, encoder.failed) == (True, None)


def test_the_role_comes_first_and_once_for_each_choice() -> None:
    said = TextDelta("a"), TextDelta("b"), ReasoningDelta("c", 1), TextDelta("d", 1), RefusalDelta("e", 2)
    assert [delta_of(event) for event in encoded(OPENED, *said)] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {"role": "assistant", "reasoning_content": "c"},
        {"content": "d"},
        {"role": "assistant", "refusal": "e"},
    ]


SAYINGS: dict[int, list[StreamEvent]] = {
    0: [TextDelta("zero")],
    1: [ToolCallDelta(0, "{}", "call_1", "look", choice=1)],
    2: [],
    3: [RefusalDelta("no", 3)],
}


@pytest.mark.parametrize("order", list(permutations(SAYINGS)))
def test_choices_begin_in_the_order_of_their_indexes(order: tuple[int, ...]) -> None:
    deltas = [event for choice in order for event in SAYINGS[choice]]
    ends: list[StreamEvent] = [ChoiceFinish("tool_calls" if choice == 1 else "stop", choice) for choice in SAYINGS]
    encoder = ChunkEncoder(AnswerStyle(choices=len(SAYINGS)), RECORD)
    events = events_in(encoder.encode((OPENED, *deltas, *ends, Finished())))

    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    for event in events[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    choices = state.get_final_completion().choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert [choice.message.content for choice in choices] == ["zero", None, "", None]
    assert [len(choice.message.tool_calls or []) for choice in choices] == [0, 1, 0, 0]
    assert choices[3].message.refusal == "no"
    seen = [(choice["index"], choice["delta"]) for event in events[:-1] for choice in event["choices"]]
    assert sorted(index for index, delta in seen if "role" in delta) == [0, 1, 2, 3]
    assert {} not in [delta for _, delta in seen[: -len(ends)]]


def test_unrequested_choice_introduces_no_others() -> None:
    encoder = ChunkEncoder(AnswerStyle(), RECORD)
    assert len(events_in(encoder.encode((OPENED, TextDelta("far", 10**9))))) == 1
    encoder = ChunkEncoder(AnswerStyle(choices=2), RECORD)
    assert len(events_in(encoder.encode((OPENED, TextDelta("farther", 10**9 + 1))))) == 3


def test_every_member_of_a_chunk_is_there() -> None:
    (event,) = encoded(OPENED, TextDelta("a"))
    assert event == {
        "id": "id-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "model-1",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "a"}, "logprobs": None, "finish_reason": None}
        ],
    }


def test_answer_without_an_id_gets_a_generated_one() -> None:
    assert [event["id"] for event in encoded(Opened("", "m", 1), TextDelta("a"), TextDelta("b"))] == ["chatcmpl-r"] * 2


SETUP = replace(OPENED, service_tier="default", system_fingerprint="fp_1")


def test_setup_of_the_model_that_resumed_is_not_that_of_the_first() -> None:
    record = Record("r", 0.0, "t")
    encoder = ChunkEncoder(AnswerStyle(include_usage=True), record)
    first = events_in(encoder.encode((SETUP, TextDelta("a"))) + encoder.encode((TextRun((b"b", b"c")),)))
    assert {(chunk["service_tier"], chunk["system_fingerprint"]) for chunk in first} == {("default", "fp_1")}
    record.resumed = Resumed("first", "second")
    rest = (TextDelta("d"),), (TextRun((b"e",)),), (ChoiceFinish("stop"), UsageReport(USAGE))
    second = events_in(b"".join(map(encoder.encode, rest)))
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in first + second} == {("id-1", "model-1", 7)}
    assert not any({"service_tier", "system_fingerprint"} & chunk.keys() for chunk in second)
    assert b"fp_1" not in encoder.lone_text(b"f")


def test_finish_is_sent_in_its_own_chunk() -> None:
    *_, finish = encoded(OPENED, TextDelta("a"), ChoiceFinish("stop", raw="stop"))
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert "x_gateway" not in finish


def test_an_empty_answer_is_an_empty_text() -> None:
    (finish,) = encoded(OPENED, ChoiceFinish("stop"))
    assert delta_of(finish) == {"role": "assistant", "content": ""}


def test_unknown_finish_reason_is_sent_raw() -> None:
    (known,) = encoded(OPENED, ChoiceFinish("other"))
    (raw,) = encoded(OPENED, ChoiceFinish("other", raw="sensitive"))
    assert known["choices"][0]["finish_reason"] == raw["choices"][0]["finish_reason"] == "length"
    assert "x_gateway" not in known
    assert raw["x_gateway"] == {"finish_reason": "sensitive"}


def test_usage_comes_last_and_only_if_it_was_asked_for() -> None:
    events = (OPENED, TextDelta("a"), ChoiceFinish("stop"), UsageReport(USAGE), Finished())
    first, finish, usage, done = encoded(*events, include_usage=True)
    assert (first["usage"], finish["usage"], done) == (None, None, "[DONE]")
    assert usage["choices"] == []
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (3, 4)
    unasked = encoded(*events)
    assert all("usage" not in event for event in unasked[:-1])
    assert len(unasked) == 3


def test_calls_have_their_names_once() -> None:
    events = encoded(
        OPENED,
        ToolCallDelta(0, "", "call-1", "f"),
        ToolCallDelta(0, '{"a":'),
        ToolCallDelta(1, "{}", "call-2", "g"),
        ToolCallDelta(0, "1}"),
    )
    assert [delta_of(event)["tool_calls"][0] for event in events] == [
        {"index": 0, "id": "call-1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 1, "id": "call-2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]


def test_signs_of_life_are_not_shown() -> None:
    encoder = ChunkEncoder(AnswerStyle(), RECORD)
    assert encoder.encode((Heartbeat(), OPENED, Heartbeat())) == b""
    assert encoder.encode(()) == b""
    assert (encoder.finished, encoder.failed, encoder.usage) == (False, None, None)


def test_a_failure_is_the_last_event_and_no_end() -> None:
    failed = Failed(Failure(FailureKind.INTERRUPTED, "it broke off", "sk-secret", code="their-code"))
    encoder = ChunkEncoder(AnswerStyle(include_usage=True), RECORD)
    *_, error = events_in(encoder.encode((OPENED, TextDelta("a"), failed)))
    assert error["error"] == {
        "message": "it broke off", "type": "api_error", "param": None, "code": "stream_interrupted", "reason": "outage"
    }  # fmt: skip
    assert error.keys() == {"error"}
    assert (encoder.failed, encoder.finished, encoder.usage) == (failed, False, None)


def test_usage_before_a_failure_is_only_recorded() -> None:
    encoder = ChunkEncoder(AnswerStyle(include_usage=True), RECORD)
    failure = Failure(FailureKind.INTERRUPTED, "it broke off")
    *_, error = events_in(encoder.encode((OPENED, TextDelta("a"), Failed(failure, USAGE))))
    assert (set(error), encoder.usage) == ({"error"}, USAGE)


def test_internal_error_in_a_stream_has_the_error_envelope() -> None:
    (error,) = events_in(ChunkEncoder(AnswerStyle(), RECORD).encode_failure(ApiError("stream_interrupted", "so")))
    assert set(error["error"]) == {"message", "type", "param", "code", "reason"}


# --- the short ways mean the same -----------------------------------------------------------------


@given(pieces=st.lists(texts.filter(bool), min_size=1, max_size=6), include_usage=st.booleans(), begun=st.booleans())
def test_text_run_and_lone_texts_are_encoded_like_their_events(
    pieces: Sequence[str], include_usage: bool, begun: bool
) -> None:
    start: tuple[StreamEvent, ...] = (OPENED, TextDelta("begun")) if begun else (OPENED,)
    raw = tuple(json.dumps(piece, ensure_ascii=False)[1:-1].encode() for piece in pieces)
    as_events, as_run, alone = (ChunkEncoder(AnswerStyle(include_usage=include_usage), RECORD) for _ in range(3))
    written = as_run.encode((*start, TextRun(raw)))
    assert events_in(written) == events_in(as_events.encode((*start, *map(TextDelta, pieces))))
    if begun:
        assert b"".join([alone.encode(start), *map(alone.lone_text, raw)]) == written
        end = (ChoiceFinish("stop"), Finished())
        assert alone.encode(end) == as_run.encode(end)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), include_usage=st.booleans())
@pytest.mark.parametrize("model", ["m", 'a "quoted" m', '","content":"', "模型\n"])
def test_later_texts_are_chunks_like_the_first(model: str, text: str, include_usage: bool) -> None:
    encoder = ChunkEncoder(AnswerStyle(include_usage=include_usage), RECORD)
    first, second = events_in(encoder.encode((Opened("i", model, 1), TextDelta(text), TextDelta(text))))
    assert first["model"] == model
    assert delta_of(first).pop("role") == "assistant"
    assert second == first


def test_first_text_is_not_a_lone_text() -> None:
    encoder = ChunkEncoder(AnswerStyle(), RECORD)
    assert encoder.lone_text(b"a") == b""
    encoder.encode((OPENED,))
    assert encoder.lone_text(b"a") == b""


def test_texts_with_probabilities_and_of_other_choices_are_whole_chunks() -> None:
    logprobs = {"content": [{"token": "b"}]}
    events = encoded(OPENED, TextDelta("a"), TextDelta("b", 0, logprobs), TextDelta("c", 1), TextDelta("d", 1))
    shown = [(event["choices"][0]["index"], event["choices"][0]["logprobs"]) for event in events]
    assert shown == [(0, None), (0, logprobs), (1, None), (1, None)]
