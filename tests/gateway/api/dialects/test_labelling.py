"""Labels in dialects other than chat: the words once before each text, the marks in the member `x_gateway`."""

import hashlib
from dataclasses import replace
from typing import Any

from gateway.api.dialects.labelling import StreamLabels, label_answer
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Resumed
from providers.chat import ChoiceFinish, Finished, StreamEvent, TextDelta, TextRun
from providers.reading.folding import expand, fold
from tests.gateway.api.answer_events import LABELLED, OPENED, WORDS, record

PLAIN = AnswerStyle()
ANSWER = (OPENED, TextDelta("你"), TextRun((b"a\\u00e9", "好".encode())), ChoiceFinish("stop"))


def passed(style: AnswerStyle, *events: StreamEvent) -> tuple[str, StreamLabels]:
    labels = StreamLabels(style, record())
    texts = [event.text for event in expand(labels.add(events)) if isinstance(event, TextDelta)]
    return "".join(texts), labels


def test_words_stand_before_the_text_and_the_integrity_value_covers_both() -> None:
    text, labels = passed(LABELLED, *ANSWER)
    assert text.startswith(WORDS)
    assert text.endswith("你aé好")
    member: Any = labels.member()
    assert member["labels"][0]["AIGC"]["ReservedCode1"] == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert labels.reads_texts


def test_first_event_has_marks_without_an_integrity_value() -> None:
    labels = StreamLabels(LABELLED, record())
    first: Any = labels.first_member()
    assert first["labels"][0]["AIGC"]["ReservedCode1"] == ""


def test_stream_without_labels_has_no_member() -> None:
    text, labels = passed(PLAIN, *ANSWER)
    assert text == "你aé好"
    assert (labels.first_member(), labels.member()) == (None, {})
    assert not labels.reads_texts


def test_unknown_finish_reason_is_in_the_member() -> None:
    _, labels = passed(PLAIN, ANSWER[0], ChoiceFinish("other", 0, "recitation"))
    assert labels.member() == {"finish_reason": "recitation"}


def test_resumed_stream_names_both_deployments() -> None:
    resumed = record()
    resumed.resumed = Resumed("a", "b")
    resumed.shown.usage_is_estimated = True
    labels = StreamLabels(PLAIN, resumed)
    assert labels.member() == {"resumed": {"from": "a", "by": "b"}, "usage": "estimated"}


def test_whole_answer_has_the_same_words_and_marks_as_its_stream() -> None:
    text, labels = passed(LABELLED, *ANSWER)
    completion, member = label_answer(fold((*ANSWER, Finished())), LABELLED, record())
    assert completion.choices[0].message.content == text
    assert member == labels.member()


def test_whole_answer_without_labels_is_unchanged() -> None:
    whole = fold((*ANSWER, Finished()))
    assert label_answer(whole, PLAIN, record()) == (whole, {})


def test_unknown_finish_reason_of_a_whole_answer_is_in_the_member() -> None:
    whole = fold((*ANSWER, Finished()))
    other = replace(whole.choices[0], finish_reason="other", raw_finish_reason="recitation")
    _, member = label_answer(replace(whole, choices=(other,)), PLAIN, record())
    assert member == {"finish_reason": "recitation"}


def test_whole_answer_states_that_its_usage_is_an_estimate_as_its_stream_does() -> None:
    estimated = record()
    estimated.shown.usage_is_estimated = True
    _, member = label_answer(fold((*ANSWER, Finished())), PLAIN, estimated)
    assert member == StreamLabels(PLAIN, estimated).member() == {"usage": "estimated"}
