"""What an adapter reads: whole answers and streams of the same answer, which must come to the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.chat import AssistantMessage, ChatCompletion, Choice, Finished, StreamEvent, UsageReport, text_of
from providers.conformance.cases import AnswerCase, completion_of, question, rich_answer
from providers.conformance.checks import (
    check_answer,
    check_ends_once,
    check_order,
    content_events,
    with_new_members,
    without_new_members,
)
from providers.conformance.subject import Subject
from providers.failures import FailureKind, ProviderFailed
from providers.reading.folding import expand
from providers.reading.response_reader import AnswerReader, read_answer
from providers.testkit.simulator import stream_type_of
from providers.wire import WireResponse

_MOMENT_S = 1_795_000_000.0


def _whole(case: AnswerCase) -> ChatCompletion | None:
    """The answer; None where the provider refuses with an error what its filter stopped, as it may."""
    try:
        return case.subject.answer(case.completion, case.request)
    except ProviderFailed as error:
        if case.name != "content_filter" or error.failure.kind is not FailureKind.CONTENT_FILTER:
            raise
        return None


def _body(case: AnswerCase) -> bytes:
    """What the provider sends as the whole answer."""
    return case.subject.dialect.write_answer(case.completion, case.subject.asked(case.request)).body


def _streamed(case: AnswerCase) -> ChatCompletion:
    return case.subject.folded(*case.subject.stream(case.completion, case.request))


def test_a_whole_answer_says_what_the_provider_said(answering: AnswerCase) -> None:
    whole = _whole(answering)
    if whole is not None:
        check_answer(whole, answering.completion, _body(answering))


def test_a_streamed_answer_says_what_the_provider_said(answering: AnswerCase) -> None:
    sent = answering.subject.stream(answering.completion, answering.request)
    check_answer(_streamed(answering), answering.completion, b"".join(sent))


def test_streamed_and_whole_are_the_same(answering: AnswerCase) -> None:
    whole, streamed = _whole(answering), _streamed(answering)
    if whole is not None:
        assert replace(streamed, created=0) == replace(whole, created=0)


def test_the_model_that_answered_is_the_one_that_is_named(subject: Subject) -> None:
    """An alias, or a pointer to the newest, is answered by a model of another name. Where the provider names none, it
    is the one that was asked."""
    answered = "resolved-2026-11-01"
    choice = Choice(AssistantMessage("Oslo."), "stop")
    case = AnswerCase(subject, "model", replace(completion_of(subject, choice), model=answered), question())
    stream = subject.stream(case.completion, case.request)
    for sent, read in ((_body(case), subject.answer(case.completion, case.request)), (b"".join(stream), None)):
        named = (read or subject.folded(*stream)).model
        wanted = answered if answered.encode() in sent else subject.model
        assert named == wanted, f"{wanted!r} answered, and {named!r} is named"


@pytest.mark.parametrize("kind", ["reasoning", "refusal"])
def test_thoughts_and_refusals_that_are_sent_are_read(subject: Subject, kind: str) -> None:
    """Not every format has them: what stands in the provider's bytes must come of them, if only as text."""
    words = "That is not for me to say."
    thinks = kind == "reasoning"
    message = AssistantMessage("Oslo.", reasoning=words) if thinks else AssistantMessage(None, words)
    case = AnswerCase(subject, kind, completion_of(subject, Choice(message, "stop")), question())
    if (thinks and kind not in subject.features) or words.encode() not in _body(case):
        return
    for answer in (subject.answer(case.completion, case.request), _streamed(case)):
        got = answer.choices[0].message
        assert words == (got.reasoning if thinks else got.refusal or text_of(got.content))


def test_unknown_fields_of_a_whole_answer_make_no_difference(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    response = subject.dialect.write_answer(completion, subject.asked(request))
    grown = replace(response, body=with_new_members(response.body))
    whole, read = (read_answer(subject.adapter, one, subject.target) for one in (response, grown))
    assert without_new_members(read) == without_new_members(whole)


def test_a_stream_is_known_by_its_content_type(subject: Subject) -> None:
    """What is called JSON is one body, which is read at its end; anything else but a page is a stream."""
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    content_type = stream_type_of(subject.dialect)
    head = WireResponse(200, {"content-type": content_type}, b"", _MOMENT_S)
    reader = AnswerReader(subject.adapter, head, subject.target)
    events = [event for piece in stream for event in reader.feed(piece)]
    assert content_events(list(expand(events))), (
        f"nothing of a stream is given out before its end: {content_type!r} is read as one body and needs another word,"
        " or its parser keeps back events that are whole"
    )
    assert isinstance(check_ends_once([*events, *reader.close()]), Finished)


def test_ids_that_a_provider_doesn_t_give_differ_between_answers(subject: Subject) -> None:
    """A conversation has several answers with calls: what is called `call_0` in each can't be told apart."""
    completion, request = rich_answer(subject)
    if not completion.choices[0].message.tool_calls:
        return
    seen: set[str] = set()
    for number in range(2):
        turn = replace(completion, id=f"resp-{number}")
        calls = [replace(call, id=f"{call.id}-{number}") for call in turn.choices[0].message.tool_calls]
        message = replace(turn.choices[0].message, tool_calls=tuple(calls))
        turn = replace(turn, choices=(replace(turn.choices[0], message=message),))
        response = subject.dialect.write_answer(turn, subject.asked(request))
        response = replace(response, received_at=_MOMENT_S + number)
        ids = {call.id for call in read_answer(subject.adapter, response, subject.target).choices[0].message.tool_calls}
        assert not seen & ids, f"two answers have calls with the same ids: {sorted(seen & ids)}"
        seen |= ids


def test_a_stream_is_in_canonical_order(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    events = subject.events(*subject.stream(completion, request))
    assert isinstance(check_ends_once(events), Finished)
    assert content_events(events)
    assert sum(isinstance(event, UsageReport) for event in events) == 1
    check_order(events)


def test_order_holds_whatever_the_provider_repeats_or_leaves_out(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    for position, event in enumerate(stream):
        check_order(subject.events(*stream[:position], *stream[position + 1 :]))
        for place in range(len(stream) + 1):
            check_order(subject.events(*stream[:place], event, *stream[place:]))


def test_text_arrives_in_pieces(subject: Subject) -> None:
    """A parser that gives out its text only at the end would pass every other case."""
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    parser = subject.adapter.stream_parser(subject.target)
    early = [event for piece in stream[: len(stream) // 2] for event in parser.feed(piece)]
    assert content_events(list(expand(early))), "half of the stream brought no content"


def test_no_event_waits_for_the_next(subject: Subject) -> None:
    """A client sees each word when the provider has sent it, and not when the one behind it comes."""
    said = AssistantMessage("Oslo is the capital of Norway, and a fine place to be.")
    stream = subject.stream(completion_of(subject, Choice(said, "stop")), question())
    parser = subject.adapter.stream_parser(subject.target)
    given: list[StreamEvent] = []
    for position, piece in enumerate(stream, 1):
        given += parser.feed(piece)
        whole = content_events(subject.events(*stream[:position]))
        assert content_events(list(expand(given))) == whole, f"something of {piece!r} is held back"


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'"x"', b"<html>", b"{", b'{"choices":[]}', b"[1,2]"])
def test_what_is_no_answer_fails(subject: Subject, body: bytes) -> None:
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(subject.response(body), subject.target)
    assert raised.value.failure.kind not in (FailureKind.CREDENTIALS, FailureKind.CONTENT_FILTER)


@pytest.mark.parametrize("blank", [b"\n\n\n \n", b"\r\n" * 3], ids=["lf", "crlf"])
def test_blank_lines_before_a_json_answer_are_skipped(subject: Subject, blank: bytes) -> None:
    completion, request = rich_answer(subject)
    response = subject.dialect.write_answer(completion, subject.asked(request))
    padded = subject.response(blank + response.body)
    plain = subject.response(response.body)
    read = subject.adapter.parse_response
    assert read(padded, subject.target) == read(plain, subject.target)
