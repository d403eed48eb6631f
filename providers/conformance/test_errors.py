"""Errors: every status with every kind of body, and errors inside a stream that began well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.utils import formatdate

import pytest

from providers.chat import ChoiceFinish, Failed, Finished, StreamEvent
from providers.conformance.cases import rich_answer
from providers.conformance.checks import check_ends_once, content_events
from providers.conformance.subject import Subject
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import JsonError, dumps, loads
from providers.wire import WireResponse

_AFTER_S = 7.0
_NOW = 1_795_000_000.0
_MARK = "sk-7Qx"
_MOST_DETAIL = 2000

# What the provider says, and what may be made of it. Not every vendor has a code for each kind, and none is guessed
# from text; what else is allowed is the kind next to it that is treated no worse.
_KINDS: dict[tuple[FailureKind, int], frozenset[FailureKind]] = {
    (FailureKind.RATE_LIMITED, 429): frozenset({FailureKind.RATE_LIMITED}),
    (FailureKind.QUOTA, 429): frozenset({FailureKind.QUOTA}),
    (FailureKind.UNAVAILABLE, 500): frozenset({FailureKind.UNAVAILABLE}),
    (FailureKind.UNAVAILABLE, 503): frozenset({FailureKind.UNAVAILABLE}),
    (FailureKind.CREDENTIALS, 401): frozenset({FailureKind.CREDENTIALS}),
    (FailureKind.GEO_REFUSED, 403): frozenset({FailureKind.GEO_REFUSED, FailureKind.CREDENTIALS}),
    (FailureKind.MODEL_NOT_FOUND, 404): frozenset({FailureKind.MODEL_NOT_FOUND}),
    (FailureKind.CONTEXT_LENGTH, 400): frozenset({FailureKind.CONTEXT_LENGTH, FailureKind.INVALID_REQUEST}),
    (FailureKind.CONTENT_FILTER, 400): frozenset({FailureKind.CONTENT_FILTER}),
    (FailureKind.INVALID_REQUEST, 400): frozenset({FailureKind.INVALID_REQUEST}),
}
_NO_WORD_FOR_QUOTA = (
    "; a provider that has no code and no type for a spent quota answers with status 402, and so must its dialect: "
    "a row leaves `quota` out of [simulator.errors]"
)
_BY_STATUS = {
    401: FailureKind.CREDENTIALS,
    402: FailureKind.QUOTA,
    403: FailureKind.CREDENTIALS,
    404: FailureKind.MODEL_NOT_FOUND,
    408: FailureKind.UNAVAILABLE,
    429: FailureKind.RATE_LIMITED,
    500: FailureKind.UNAVAILABLE,
    502: FailureKind.UNAVAILABLE,
    503: FailureKind.UNAVAILABLE,
    504: FailureKind.UNAVAILABLE,
    529: FailureKind.UNAVAILABLE,
}
"""What a status means where the body says nothing: what follows from it is decided by this alone."""

_BODIES = (
    b"",
    b"<!doctype html><html><body>Bad gateway</body></html>",
    b"upstream connect error",
    b'{"error":',
    b'{"error":null}',
    b'{"error":"model is overloaded"}',
    b'{"error":{"code":429,"message":[1],"type":{},"details":{"a":1}}}',
    b'[{"error":{"code":{},"status":7}}]',
    b'"Invalid token"',
    b"null",
    b"17",
    b"[]",
    b"\xff\xfe\x00",
    b"data:{}\n\n",
    b"[" * 100_000,
)

_each_kind = pytest.mark.parametrize(
    ("kind", "status"), [pytest.param(*key, id=f"{key[0].value}-{key[1]}") for key in _KINDS]
)


@_each_kind
def test_the_provider_s_own_errors_are_told_apart(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.dialect.write_error(kind, status)
    if response.status < 400:
        # Some vendors answer what their filter stopped with 200 and no text.
        assert kind is FailureKind.CONTENT_FILTER
        answer = subject.adapter.parse_response(response, subject.target)
        assert {choice.finish_reason for choice in answer.choices} == {"content_filter"}
        return
    failure = subject.adapter.classify_error(response)
    way_out = _NO_WORD_FOR_QUOTA if kind is FailureKind.QUOTA else ""
    assert failure.kind in _KINDS[kind, status], (
        f"{response.status} with {response.body!r} means {kind}, and became {failure.kind}{way_out}"
    )
    assert failure.status == response.status
    _check_says_nothing_of_theirs(failure, response)


@_each_kind
def test_a_cut_error_body_is_still_a_failure(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.dialect.write_error(kind, status)
    for cut in range(len(response.body)):
        failure = subject.adapter.classify_error(replace(response, body=response.body[:cut]))
        assert isinstance(failure, Failure)


def test_a_time_to_wait_is_read(subject: Subject) -> None:
    for kind, status in ((FailureKind.RATE_LIMITED, 429), (FailureKind.UNAVAILABLE, 503)):
        response = subject.dialect.write_error(kind, status, _AFTER_S)
        silent = subject.dialect.write_error(kind, status)
        names_a_wait = (response.headers, response.body) != (silent.headers, silent.body)
        wait_s = subject.adapter.classify_error(response).retry_after_s
        told = f"{response.headers!r} with {response.body!r}"
        assert wait_s == (_AFTER_S if names_a_wait else None), f"{told} names {_AFTER_S:g} s, and {wait_s} s were read"
        assert subject.adapter.classify_error(silent).retry_after_s is None, f"{silent.body!r} names no time to wait"


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [("7", _AFTER_S), (formatdate(_NOW + _AFTER_S, usegmt=True), _AFTER_S), ("soon", None), ("", None), ("nan", None)],
    ids=["seconds", "date", "word", "empty", "nan"],
)
def test_a_retry_after_header_is_read(subject: Subject, value: str, wait_s: float | None) -> None:
    """RFC 9110, section 10.2.3: seconds, or a date; `classify.failure` reads both, and passes over what is neither."""
    response = subject.dialect.write_error(FailureKind.RATE_LIMITED, 429)
    response = replace(response, headers={**response.headers, "retry-after": value}, received_at=_NOW)
    assert subject.adapter.classify_error(response).retry_after_s == wait_s


@_each_kind
def test_no_text_of_theirs_reaches_the_client(subject: Subject, kind: FailureKind, status: int) -> None:
    """Vendors repeat the key that they refuse, in whichever field: `Failure.message` is the adapter's own words."""
    error = subject.dialect.write_error(kind, status)
    for body in (_MARK.encode(), *_marked(error.body)):
        failure = subject.adapter.classify_error(replace(error, status=status, body=body))
        for message in (failure.message, _message_of_200(subject, replace(error, status=200, body=body))):
            assert _MARK not in message, f"{message!r} repeats {body!r}"


@_each_kind
def test_an_error_leaves_a_word_for_the_log(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.dialect.write_error(kind, status)
    if response.status >= 400 and _texts(response.body):
        failure = subject.adapter.classify_error(response)
        assert failure.code or failure.detail, "the provider's own words go into `code` and `detail`"


@pytest.mark.parametrize("body", _BODIES, ids=lambda body: repr(body[:24]))
def test_every_status_with_any_body(subject: Subject, body: bytes) -> None:
    content_type = "text/html" if body.startswith(b"<") else "application/json"
    for status in range(400, 600):
        failure = subject.adapter.classify_error(subject.response(body, status, content_type))
        assert isinstance(failure, Failure)
        assert failure.status == status
        assert len(failure.detail) <= _MOST_DETAIL
        if status in _BY_STATUS and not body.startswith((b'{"error":{', b"[{")):
            assert failure.kind is _BY_STATUS[status], f"{status} became {failure.kind}"


@_each_kind
def test_an_error_with_status_200_is_no_answer(subject: Subject, kind: FailureKind, status: int) -> None:
    error = subject.dialect.write_error(kind, status)
    if error.status < 400:
        return
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(replace(error, status=200), subject.target)
    became = raised.value.failure.kind
    if kind is FailureKind.CONTENT_FILTER:
        assert became is FailureKind.CONTENT_FILTER
    said = _kind_by_its_word(subject, error)
    assert said in (None, became), f"{error.body!r} means {said} with any status, and became {became} with 200"


def test_a_time_to_wait_is_read_with_status_200(subject: Subject) -> None:
    response = subject.dialect.write_error(FailureKind.RATE_LIMITED, 429, _AFTER_S)
    if response.status < 400:
        return
    told = subject.adapter.classify_error(response)
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(replace(response, status=200), subject.target)
    assert raised.value.failure.retry_after_s == told.retry_after_s


@_each_kind
def test_an_error_as_the_first_event(subject: Subject, kind: FailureKind, status: int) -> None:
    stream = subject.dialect.write_error_event(kind)
    for cut in range(len(stream)):
        events = subject.events(stream[:cut], stream[cut:])
        _check_ended_by(kind, status, events)
        assert not content_events(events)


@_each_kind
def test_what_an_error_event_says(subject: Subject, kind: FailureKind, status: int) -> None:
    """As with a status: nothing of theirs for the client, a word for the log, and the kind by its code."""
    event, error = subject.dialect.write_error_event(kind), subject.dialect.write_error(kind, status)
    ended = check_ends_once(subject.events(event))
    if isinstance(ended, Finished):
        return
    failure = ended.failure
    for body in _documents_in(event):
        if _texts(body):
            assert failure.code or failure.detail, f"of {event!r} nothing is left for the log"
        told = subject.adapter.classify_error(error)
        if failure.code is not None and failure.code == told.code:
            said = _kind_by_its_word(subject, error)
            assert said in (None, failure.kind), f"{failure.code} means {said}, and became {failure.kind} in a stream"
        for marked in _marked(body):
            last = subject.events(event.replace(body, marked))[-1]
            assert not isinstance(last, Failed) or _MARK not in last.failure.message, f"{marked!r} is repeated"


def _kind_by_its_word(subject: Subject, error: WireResponse) -> FailureKind | None:
    """What the error means by its body alone; None where the status decides, or a header."""
    bare = (replace(error, status=status, headers={}) for status in (error.status, 400, 500))
    kinds = {subject.adapter.classify_error(one).kind for one in bare}
    return kinds.pop() if len(kinds) == 1 else None


def _documents_in(event: bytes) -> list[bytes]:
    """The JSON objects of an event, each in a `data` field or on a line of its own."""
    lines = (line.removeprefix(b"data:").strip() for line in event.split(b"\n"))
    return [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]


@_each_kind
def test_an_error_in_the_middle(subject: Subject, kind: FailureKind, status: int) -> None:
    completion, request = rich_answer(subject)
    stream = subject.stream(completion, request)
    error = subject.dialect.write_error_event(kind)
    for position in range(1, len(stream) // 2):
        events = subject.events(*stream[:position], error, *stream[position:])
        _check_ended_by(kind, status, events)
        before = content_events(subject.events(*stream[:position]))
        assert content_events(events)[: len(before)] == before, "what came before the error is lost"


def _check_ended_by(kind: FailureKind, status: int, events: Sequence[StreamEvent]) -> None:
    """Assert that the stream failed with this kind, or one that is treated no worse: it has no status to go by."""
    ended = check_ends_once(events)
    if isinstance(ended, Finished):
        # A filter is how an answer may end, but it must be called one.
        finishes = {event.reason for event in events if isinstance(event, ChoiceFinish)}
        assert kind is FailureKind.CONTENT_FILTER, f"an event that means {kind} was passed over: the answer ended well"
        assert finishes == {"content_filter"}
        return
    allowed = _KINDS[kind, status]
    if kind is not FailureKind.CONTENT_FILTER:
        allowed |= {FailureKind.UNAVAILABLE, FailureKind.INTERRUPTED}
    assert ended.failure.kind in allowed, f"an event that means {kind} became {ended.failure.kind}"


def _check_says_nothing_of_theirs(failure: Failure, response: WireResponse) -> None:
    """The provider's text may name our account: it is for the log, not for the client."""
    assert failure.message
    for text in _texts(response.body):
        assert text not in failure.message


def _message_of_200(subject: Subject, response: WireResponse) -> str:
    """What is said of an error with status 200; empty where it passes for an answer."""
    try:
        subject.adapter.parse_response(response, subject.target)
    except ProviderFailed as failed:
        return failed.failure.message
    return ""


def _marked(body: bytes) -> Iterator[bytes]:
    """The JSON of an error with each of its texts in turn replaced by one that must not be repeated."""
    try:
        value = loads(body)
    except JsonError:
        return
    yield from (dumps(changed) for changed in _with_a_mark(value))


def _with_a_mark(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from ({**value, key: one} for key, member in value.items() for one in _with_a_mark(member))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            yield from ([*value[:at], one, *value[at + 1 :]] for one in _with_a_mark(member))
    elif isinstance(value, str):
        yield _MARK


def _texts(body: bytes) -> list[str]:
    try:
        todo = [loads(body)]
    except JsonError:
        return []
    texts: list[str] = []
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, str) and len(value) > 24:
            texts.append(value)
    return texts
