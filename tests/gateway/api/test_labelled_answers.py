"""Labelled answers on the wire: the words once before each text, the marks where a program finds them."""

import hashlib
import json
from typing import Any

import pytest

from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.model.region_text import Label
from providers import chat
from tests.gateway.api.answer_events import ASK, CN, LOST, OPENED, WORDS, labelling
from tests.kit.chat_http import events_in

EU = Label("eu-art50", "You are talking to an AI system.", "first_turn")
STOP = (chat.ChoiceFinish("stop"), chat.Finished())


LABELLED = AnswerStyle(ASK.include_usage, labelling=labelling())
RECORD = Record("req_1", 0.0, "t")


def encoded(*events: chat.StreamEvent, request: chat.ChatRequest = ASK, labels: tuple[Label, ...] = (CN,)) -> list[Any]:
    encoder = ChunkEncoder(AnswerStyle(request.include_usage, labelling=labelling(request, *labels)), RECORD)
    return events_in(b"".join(encoder.encode((event,)) for event in events))


def text_in(chunks: list[Any], choice: int = 0) -> str:
    deltas = [
        item["delta"] for chunk in chunks if chunk != "[DONE]" for item in chunk["choices"] if item["index"] == choice
    ]
    return "".join(delta.get("content") or "" for delta in deltas)


def marks_in(chunks: list[Any]) -> list[tuple[int, Any]]:
    marked = [(at, chunk.get("x_gateway", {}).get("labels")) for at, chunk in enumerate(chunks) if chunk != "[DONE]"]
    return [(at, labels) for at, labels in marked if labels]


def value_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_label_text_comes_first_and_the_integrity_value_last() -> None:
    chunks = encoded(
        OPENED, chat.TextDelta("你"), chat.TextRun((b"a\\u00e9", "好".encode())), chat.TextDelta("!"), *STOP
    )
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": f"{WORDS}\n\n"}
    assert text_in(chunks) == f"{WORDS}\n\n你aé好!"
    (first, begun), (last, ended) = marks_in(chunks)
    assert (first, last, len(chunks)) == (0, 5, 7)
    assert begun == [
        {
            "name": "cn-gb45438",
            "ai_generated": True,
            "text": WORDS,
            "in_content": True,
            "AIGC": {
                "Label": "1",
                "ContentProducer": "0011",
                "ProduceID": "req_1",
                "ReservedCode1": "",
                "ContentPropagator": "0011",
                "PropagateID": "req_1",
                "ReservedCode2": "",
            },
        }
    ]
    assert ended == [{**begun[0], "AIGC": {**begun[0]["AIGC"], "ReservedCode1": value_of(text_in(chunks))}}]


def test_run_of_texts_stays_encoded_after_the_label() -> None:
    plain, labelled = ChunkEncoder(AnswerStyle(), RECORD), ChunkEncoder(LABELLED, RECORD)
    for encoder in (plain, labelled):
        encoder.encode((OPENED, chat.TextDelta("a")))
    run = chat.TextRun((b"\\u00e9", b'\\"', "好".encode()))
    assert labelled.encode((run,)) == plain.encode((run,)) != b""


def test_labelled_stream_has_no_fast_path_for_single_texts() -> None:
    """The words may be due before it, and each text counts for the integrity value."""
    labelled = ChunkEncoder(LABELLED, RECORD)
    labelled.encode((OPENED, chat.TextDelta("a")))
    assert labelled.lone_text(b"b") == b""


def test_reasoning_comes_before_the_words_and_has_none() -> None:
    chunks = encoded(OPENED, chat.ReasoningDelta("hm"), chat.TextDelta("Hi"), *STOP)
    thought = {"role": "assistant", "reasoning_content": "hm"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:3]]
    assert deltas == [thought, {"content": f"{WORDS}\n\n"}, {"content": "Hi"}]
    assert [at for at, _ in marks_in(chunks)] == [0, 3]
    assert [labels[0]["in_content"] for _, labels in marks_in(chunks)] == [False, True]


@pytest.mark.parametrize(
    ("events", "request_"),
    [
        ((chat.ToolCallDelta(0, "{}", "c1", "look"), chat.ChoiceFinish("tool_calls"), chat.Finished()), ASK),
        ((chat.RefusalDelta("No."), *STOP), ASK),
        ((chat.ChoiceFinish("content_filter"), chat.Finished()), ASK),
        (
            (chat.TextDelta('{"a":1}'), *STOP),
            chat.ChatRequest("a", ASK.messages, response_format=chat.JsonObjectFormat()),
        ),
    ],
)
def test_structured_output_has_no_label_text(events: tuple[chat.StreamEvent, ...], request_: chat.ChatRequest) -> None:
    chunks = encoded(OPENED, *events, request=request_)
    assert text_in(chunks) in ("", '{"a":1}')
    assert "内容由" not in json.dumps([chunk["choices"] for chunk in chunks[:-1]], ensure_ascii=False)
    marks = marks_in(chunks)
    assert marks[0][0] == 0
    assert all(labels[0]["text"] == CN.text and labels[0]["in_content"] is False for _, labels in marks)
    assert marks[-1][1][0]["AIGC"]["ReservedCode1"] == (value_of('{"a":1}') if text_in(chunks) else "")


def test_each_choice_is_labelled_and_the_last_has_the_integrity_values() -> None:
    request = chat.ChatRequest("assistant", ASK.messages, stream=True, n=2, include_usage=True)
    chunks = encoded(
        OPENED,
        chat.TextDelta("a"),
        chat.TextDelta("b", 1),
        chat.ChoiceFinish("stop"),
        chat.TextDelta("c", 1),
        chat.ChoiceFinish("stop", 1),
        chat.UsageReport(chat.Usage(1, 2)),
        chat.Finished(),
        request=request,
    )
    assert (text_in(chunks), text_in(chunks, 1)) == (f"{WORDS}\n\na", f"{WORDS}\n\nbc")
    (_, begun), (at, ended) = marks_in(chunks)
    assert chunks[at]["choices"][0] == {"index": 1, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert begun[0]["AIGC"]["ReservedCode1"] == ""
    assert ended[0]["AIGC"]["ReservedCode1"] == f"{value_of(text_in(chunks))},{value_of(text_in(chunks, 1))}"
    assert chunks[-2]["choices"] == []
    assert "x_gateway" not in chunks[-2]


@pytest.mark.parametrize("came", [1, 2, 3])
def test_integrity_values_are_sent_for_any_number_of_choices(came: int) -> None:
    request = chat.ChatRequest("assistant", ASK.messages, stream=True, n=2)
    texts = [chat.TextDelta(f"text {choice}", choice) for choice in range(came)]
    events = (OPENED, *texts, *(chat.ChoiceFinish("stop", choice) for choice in range(came)), chat.Finished())
    chunks = encoded(*events)
    assert chunks == encoded(*events, request=request)
    _, (at, ended) = marks_in(chunks)
    assert at == len(chunks) - 2
    assert ended[0]["AIGC"]["ReservedCode1"] == ",".join(value_of(text_in(chunks, choice)) for choice in range(came))


def test_interrupted_answer_has_the_label_and_no_integrity_value() -> None:
    chunks = encoded(OPENED, chat.TextDelta("Hi"), LOST)
    assert text_in(chunks[:-1]) == f"{WORDS}\n\nHi"
    [(at, labels)] = marks_in(chunks[:-1])
    assert (at, labels[0]["AIGC"]["ReservedCode1"]) == (0, "")
    assert chunks[-1]["error"]["code"] == "stream_interrupted"


def test_notice_is_shown_once_in_a_conversation_and_marked_each_time() -> None:
    later = chat.ChatRequest(
        "a", (chat.UserMessage("Hi"), chat.AssistantMessage("Hello"), chat.UserMessage("And?")), stream=True
    )
    first, second = (encoded(OPENED, chat.TextDelta("x"), *STOP, request=one, labels=(EU,)) for one in (ASK, later))
    assert (text_in(first), text_in(second)) == (f"{EU.text}\n\nx", "x")
    assert marks_in(second)[0] == (0, [{"name": "eu-art50", "ai_generated": True}])
