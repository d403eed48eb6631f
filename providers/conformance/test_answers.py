"""Test how an adapter reads answers. A whole answer and a stream of it must give the same result."""

from __future__ import annotations

import pytest

from providers.chat import AssistantMessage, ChatCompletion, Choice, Finished, StreamEvent, UsageReport, text_of
from providers.conformance import checks
from providers.conformance.cases import AnswerCase, completion_of, question, rich_answer
from providers.conformance.subject import Subject
from providers.failures import FailureKind, ProviderFailed
from providers.reading.finishes import MISSING
from providers.reading.folding import expand
from providers.reading.response_reader import AnswerReader, read_answer
from providers.testkit.simulator import stream_type_of
from providers.value import replace
from providers.wire import WireResponse

_RECEIVED_AT = 1_795_000_000.0


def _whole(case: AnswerCase) -> ChatCompletion | None:
    """Return the answer, or None if the provider reports a filtered answer as an error, which is allowed."""
    try:
        return case.subject.answer(case.completion, case.request)
    except ProviderFailed as error:
        if case.name != "content_filter" or error.failure.kind is not FailureKind.CONTENT_FILTER:
            raise
        return None


def _body(case: AnswerCase) -> bytes:
    """Return the body of the provider's whole answer."""
    return case.subject.simulator.write_answer(case.completion, case.subject.received(case.request)).body


def _streamed(case: AnswerCase) -> ChatCompletion:
    return case.subject.folded(*case.subject.stream(case.completion, case.request))


def test_whole_answer_is_read_as_it_was_sent(answer_case: AnswerCase) -> None:
    whole = _whole(answer_case)
    if whole is not None:
        checks.check_answer(whole, answer_case.completion, _body(answer_case))


def test_streamed_answer_is_read_as_it_was_sent(answer_case: AnswerCase) -> None:
    sent = answer_case.subject.stream(answer_case.completion, answer_case.request)
    checks.check_answer(_streamed(answer_case), answer_case.completion, b"".join(sent))


def test_streamed_and_whole_answers_are_equal(answer_case: AnswerCase) -> None:
    whole, streamed = _whole(answer_case), _streamed(answer_case)
    if whole is not None:
        assert replace(streamed, created=0) == replace(whole, created=0), (
            "the stream of an answer must fold into the same answer as its JSON body"
        )


def test_answer_names_the_model_that_answered(subject: Subject) -> None:
    """The answer's `model` is the name that the provider states, which differs from the target's if that is an alias.

    If the provider names none, it is the model of the target.
    """
    answered = "resolved-2026-11-01"
    choice = Choice(AssistantMessage("Oslo."), "stop")
    case = AnswerCase(subject, "model", replace(completion_of(subject, choice), model=answered), question())
    stream = subject.stream(case.completion, case.request)
    for sent, read in ((_body(case), subject.answer(case.completion, case.request)), (b"".join(stream), None)):
        named = (read or subject.folded(*stream)).model
        wanted = answered if answered.encode() in sent else subject.model
        assert named == wanted, f"model: {wanted!r} answered, but the adapter returned {named!r}"


def test_unknown_finish_reason_ends_an_answer(subject: Subject) -> None:
    """Nothing shows that an answer with text is broken, so a new word of the vendor must not throw it away."""
    word = "brand_new_reason"
    choice = Choice(AssistantMessage("Oslo."), "other", raw_finish_reason=word)
    case = AnswerCase(subject, word, completion_of(subject, choice), question())
    if word.encode() not in _body(case):
        return
    for answer in (subject.answer(case.completion, case.request), _streamed(case)):
        (read,) = answer.choices
        assert (text_of(read.message.content or ""), read.finish_reason) == ("Oslo.", "other"), (
            "an unknown finish reason must become 'other', and the text before it stays"
        )
        assert read.raw_finish_reason == word, "`raw_finish_reason` must keep the provider's own word"


@pytest.mark.parametrize("kind", ["reasoning", "refusal"])
def test_reasoning_and_refusals_are_read(subject: Subject, kind: str) -> None:
    """If the provider's format contains reasoning or a refusal, the adapter must read it, at least as text."""
    words = "That is not a question for me."
    thinks = kind == "reasoning"
    message = AssistantMessage("Oslo.", reasoning=words) if thinks else AssistantMessage(None, words)
    case = AnswerCase(subject, kind, completion_of(subject, Choice(message, "stop")), question())
    if (thinks and kind not in subject.features) or words.encode() not in _body(case):
        return
    for answer in (subject.answer(case.completion, case.request), _streamed(case)):
        got = answer.choices[0].message
        assert words == (got.reasoning if thinks else got.refusal or text_of(got.content)), (
            "reasoning and refusals must be read into their own fields"
        )


def test_unknown_fields_of_a_whole_answer_are_ignored(subject: Subject) -> None:
    response = subject.written(*rich_answer(subject))
    extended = replace(response, body=checks.with_new_members(response.body))
    whole, read = (read_answer(subject.adapter, one, subject.target) for one in (response, extended))
    assert checks.without_new_members(read) == checks.without_new_members(whole), (
        "unknown members must change nothing: read only the fields that you use"
    )


def test_missing_member_of_a_whole_answer_is_tolerated_or_fails(subject: Subject) -> None:
    """Without a member, the answer is read or fails with `ProviderFailed`. A missing finish reason is named so."""
    cut_off = completion_of(subject, Choice(AssistantMessage("Oslo is the capital"), "length"))
    for completion, request in ((cut_off, question()), rich_answer(subject)):
        response = subject.written(completion, request)
        for name, smaller in checks.without_each_member(response.body):
            try:
                read = subject.adapter.parse_response(replace(response, body=smaller), subject.target)
            except ProviderFailed:
                continue
            reasons = {choice.finish_reason for choice in read.choices if choice.raw_finish_reason != MISSING}
            assert completion is not cut_off or reasons <= {"length", "other"}, (
                f"without {name!r} in {response.body!r}, the finish reason is {', '.join(reasons)}: if the reason is "
                "missing, end the answer with `complete(is_whole=True)`, use 'other' or raise `ProviderFailed`"
            )


def test_stream_is_recognised_by_its_content_type(subject: Subject) -> None:
    """A JSON content type means one body, which is read at its end. Any other type, except HTML, means a stream."""
    stream = subject.stream(*rich_answer(subject))
    content_type = stream_type_of(subject.simulator)
    head = WireResponse(200, {"content-type": content_type}, b"", _RECEIVED_AT)
    reader = AnswerReader(subject.adapter, head, subject.target)
    events = [event for piece in stream for event in reader.feed(piece)]
    assert checks.content_events(list(expand(events))), (
        "no content is emitted before the end of the stream. Either the parser holds back complete events, or the "
        f"content type {content_type!r} marks the stream as one JSON body, and the simulator needs another content type"
    )
    assert isinstance(checks.check_ends_once([*events, *reader.close()]), Finished), (
        "a whole stream must end with `Finished`"
    )


def test_generated_call_ids_differ_between_answers(subject: Subject) -> None:
    """A conversation contains several answers with tool calls, so an id such as `call_0` in each would be ambiguous."""
    completion, request = rich_answer(subject)
    if not completion.choices[0].message.tool_calls:
        return
    seen: set[str] = set()
    for number in range(2):
        turn = replace(completion, id=f"resp-{number}")
        calls = [replace(call, id=f"{call.id}-{number}") for call in turn.choices[0].message.tool_calls]
        message = replace(turn.choices[0].message, tool_calls=tuple(calls))
        turn = replace(turn, choices=(replace(turn.choices[0], message=message),))
        response = subject.simulator.write_answer(turn, subject.received(request))
        response = replace(response, received_at=_RECEIVED_AT + number)
        ids = {call.id for call in read_answer(subject.adapter, response, subject.target).choices[0].message.tool_calls}
        assert not seen & ids, f"two answers have tool calls with the same ids: {sorted(seen & ids)}"
        seen |= ids


def test_stream_events_are_in_canonical_order(subject: Subject) -> None:
    events = subject.events(*subject.stream(*rich_answer(subject)))
    assert isinstance(checks.check_ends_once(events), Finished), "a whole stream must end with `Finished`"
    assert checks.content_events(events), "the events of the answer's content are missing"
    assert sum(isinstance(event, UsageReport) for event in events) == 1, (
        "the usage must be reported once, directly before the end"
    )
    checks.check_order(events)


def test_order_is_canonical_when_events_are_repeated_or_missing(subject: Subject) -> None:
    stream = subject.stream(*rich_answer(subject))
    for position, event in enumerate(stream):
        checks.check_order(subject.events(*stream[:position], *stream[position + 1 :]))
        for repeated_at in range(len(stream) + 1):
            checks.check_order(subject.events(*stream[:repeated_at], event, *stream[repeated_at:]))


def test_text_is_streamed_before_the_end(subject: Subject) -> None:
    """A parser that emits its text only at the end would pass all other tests."""
    stream = subject.stream(*rich_answer(subject))
    parser = subject.adapter.stream_parser(subject.target)
    early = [event for piece in stream[: len(stream) // 2] for event in parser.feed(piece)]
    assert checks.content_events(list(expand(early))), "the first half of the stream gave no content events"


def test_each_event_is_emitted_when_it_arrives(subject: Subject) -> None:
    """The parser must not hold back an event until the next one arrives."""
    message = AssistantMessage("Oslo is the capital of Norway, and a fine place to be.")
    stream = subject.stream(completion_of(subject, Choice(message, "stop")), question())
    parser = subject.adapter.stream_parser(subject.target)
    emitted: list[StreamEvent] = []
    for position, piece in enumerate(stream, 1):
        emitted += parser.feed(piece)
        whole = checks.content_events(subject.events(*stream[:position]))
        assert checks.content_events(list(expand(emitted))) == whole, f"the parser held back content of {piece!r}"


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'"x"', b"<html>", b"{", b'{"choices":[]}', b"[1,2]"])
def test_body_without_an_answer_fails(subject: Subject, body: bytes) -> None:
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(subject.response(body), subject.target)
    assert raised.value.failure.kind not in (FailureKind.CREDENTIALS, FailureKind.CONTENT_FILTER), (
        "a body without an answer is a failure of the provider, not of a credential or a filter"
    )


@pytest.mark.parametrize("blank", [b"\n\n\n \n", b"\r\n" * 3], ids=["lf", "crlf"])
def test_blank_lines_before_a_json_answer_are_skipped(subject: Subject, blank: bytes) -> None:
    response = subject.written(*rich_answer(subject))
    padded = subject.response(blank + response.body)
    plain = subject.response(response.body)
    read = subject.adapter.parse_response
    assert read(padded, subject.target) == read(plain, subject.target), (
        "blank lines before the JSON of an answer must be skipped"
    )
