"""What an adapter reads: whole answers and streams of the same answer, which must come to the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.chat import ChatCompletion, ChoiceFinish, Finished, UsageReport
from providers.conformance.cases import AnswerCase, rich_answer
from providers.conformance.checks import check_answer, check_ends_once, content_events
from providers.conformance.subject import Subject
from providers.failures import FailureKind, ProviderFailed
from providers.folding import expand


def _whole(case: AnswerCase) -> ChatCompletion | None:
    """The answer; None where the provider refuses with an error what its filter stopped, as it may."""
    try:
        return case.subject.answer(case.completion, case.request)
    except ProviderFailed as error:
        if case.name != "content_filter" or error.failure.kind is not FailureKind.CONTENT_FILTER:
            raise
        return None


def _streamed(case: AnswerCase) -> ChatCompletion:
    return case.subject.folded(*case.subject.stream(case.completion, case.request))


def test_a_whole_answer_says_what_the_provider_said(answering: AnswerCase) -> None:
    whole = _whole(answering)
    if whole is not None:
        check_answer(whole, answering.completion)


def test_a_streamed_answer_says_what_the_provider_said(answering: AnswerCase) -> None:
    check_answer(_streamed(answering), answering.completion)


def test_streamed_and_whole_are_the_same(answering: AnswerCase) -> None:
    whole, streamed = _whole(answering), _streamed(answering)
    if whole is not None:
        assert replace(streamed, created=0) == replace(whole, created=0)


def test_a_stream_is_in_canonical_order(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    events = subject.events(*subject.stream(completion, request))
    assert isinstance(check_ends_once(events), Finished)
    assert content_events(events)
    last_content = max(events.index(event) for event in content_events(events))
    finishes = [position for position, event in enumerate(events) if isinstance(event, ChoiceFinish)]
    usages = [position for position, event in enumerate(events) if isinstance(event, UsageReport)]
    assert len(finishes) == 1
    assert len(usages) == 1
    assert last_content < finishes[0] < usages[0]


def test_text_arrives_in_pieces(subject: Subject) -> None:
    """A parser that gives out its text only at the end would pass every other case."""
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    parser = subject.adapter.stream_parser(subject.target)
    early = [event for piece in stream[: len(stream) // 2] for event in parser.feed(piece)]
    assert content_events(list(expand(early))), "half of the stream brought no content"


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
