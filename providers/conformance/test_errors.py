"""Test how an adapter classifies errors: each status with each kind of body, and errors inside a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from functools import wraps

import pytest

from providers.chat import ChoiceFinish, Failed, Finished, StreamEvent
from providers.conformance.cases import ERROR_BODIES, rich_answer
from providers.conformance.checks import altered, check_ends_once, content_events, in_list, json_lines, positions
from providers.conformance.subject import Subject
from providers.failures import LACKABLE, Failure, FailureKind, ProviderFailed
from providers.json_values import dumps
from providers.testkit.simulator import status_of
from providers.value import replace
from providers.wire import WireResponse

_AFTER_S = 7.0
_NOW = 1_795_000_000.0
_MARK = "sk-7Qx"
_MAX_DETAIL_CHARS = 2000

# The kinds that the provider reports with their usual statuses, and those that are accepted for each. Not every vendor
# has a code for each kind, and an adapter must not guess from text. So a related kind that is treated at least as
# safely is accepted too.
_REPORTED = (*LACKABLE, FailureKind.UNAVAILABLE, FailureKind.CREDENTIALS, FailureKind.INVALID_REQUEST)
_RELATED = {FailureKind.GEO_REFUSED: FailureKind.CREDENTIALS, FailureKind.CONTEXT_LENGTH: FailureKind.INVALID_REQUEST}
_KINDS = {
    (kind, status): frozenset({kind, _RELATED.get(kind, kind)})
    for kind in map(FailureKind, sorted(_REPORTED))
    for status in {status_of(kind), status_of(kind, 500)}
}
_NO_CODE_FOR_QUOTA = (
    "; if the provider has no code or type for a spent quota, its simulator must answer with status 402: "
    "the TOML file of a compatible vendor leaves `quota` out of [simulator.errors]"
)
_BY_STATUS = {
    **dict.fromkeys((401, 403), FailureKind.CREDENTIALS),
    **{402: FailureKind.QUOTA, 404: FailureKind.MODEL_NOT_FOUND, 429: FailureKind.RATE_LIMITED},
    **dict.fromkeys((408, 500, 502, 503, 504, 529), FailureKind.UNAVAILABLE),
}
"""The kind for each status when the body contains no known code."""

_BODIES = (*(text.encode() for text in ERROR_BODIES), b"\xff\xfe\x00", b"[" * 100_000)


def _each_kind(test: Callable[[Subject, FailureKind, int], None]) -> Callable[..., None]:
    """Run the test for each kind of failure that the provider has."""

    @pytest.mark.parametrize(("kind", "status"), [pytest.param(*key, id=f"{key[0].value}-{key[1]}") for key in _KINDS])
    @wraps(test)
    def test_each(subject: Subject, kind: FailureKind, status: int) -> None:
        if kind not in subject.lacks:
            test(subject, kind, status)

    return test_each


@_each_kind
def test_provider_errors_are_classified(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.simulator.write_error(kind, status)
    if response.status < 400:
        # Some vendors answer a filtered request with status 200 and no text.
        assert kind is FailureKind.CONTENT_FILTER, (
            "only a filter may be an answer; raise `ProviderFailed` for each other error"
        )
        answer = subject.adapter.parse_response(response, subject.target)
        assert {choice.finish_reason for choice in answer.choices} == {"content_filter"}, (
            "an answer in place of an error of a filter must have the finish reason 'content_filter'"
        )
        return
    failure = subject.adapter.classify_error(response)
    hint = _NO_CODE_FOR_QUOTA if kind is FailureKind.QUOTA else ""
    assert failure.kind in _KINDS[kind, status], (
        f"status {response.status} with {response.body!r} means {kind}, but was classified as {failure.kind}{hint}"
    )
    assert failure.status == response.status, "`Failure.status` must be the status of the response"
    _check_message_contains_no_provider_text(failure, response)


@_each_kind
def test_truncated_error_body_is_still_a_failure(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.simulator.write_error(kind, status)
    for cut in range(len(response.body)):
        failure = subject.adapter.classify_error(replace(response, body=response.body[:cut]))
        assert isinstance(failure, Failure), "`classify_error` must return a `Failure` for any body"


def test_retry_after_of_the_provider_is_read(subject: Subject) -> None:
    for kind, status in ((FailureKind.RATE_LIMITED, 429), (FailureKind.UNAVAILABLE, 503)):
        response = subject.simulator.write_error(kind, status, _AFTER_S)
        without = subject.simulator.write_error(kind, status)
        has_retry_after = (response.headers, response.body) != (without.headers, without.body)
        wait_s = subject.adapter.classify_error(response).retry_after_s
        assert wait_s == (_AFTER_S if has_retry_after else None), (
            f"{response.headers!r} with {response.body!r}: retry_after_s must be {_AFTER_S:g}, not {wait_s}"
        )
        assert subject.adapter.classify_error(without).retry_after_s is None, (
            f"{without.body!r} contains no time to wait, so retry_after_s must be None"
        )


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [("7", _AFTER_S), (formatdate(_NOW + _AFTER_S, usegmt=True), _AFTER_S), ("soon", None), ("", None), ("nan", None)],
    ids=["seconds", "date", "word", "empty", "nan"],
)
def test_retry_after_header_is_read(subject: Subject, value: str, wait_s: float | None) -> None:
    """RFC 9110, section 10.2.3: `retry-after` is seconds or a date. Any other value is ignored.

    `classify.failure` reads both forms.
    """
    response = subject.simulator.write_error(FailureKind.RATE_LIMITED, 429)
    response = replace(response, headers={**response.headers, "retry-after": value}, received_at=_NOW)
    assert subject.adapter.classify_error(response).retry_after_s == wait_s, (
        "`retry_after_s` must be the wait that the headers name"
    )


@_each_kind
def test_error_text_of_the_provider_does_not_reach_the_client(subject: Subject, kind: FailureKind, status: int) -> None:
    """`Failure.message` must be the adapter's own text: vendors repeat a refused API key in any of their fields."""
    error = subject.simulator.write_error(kind, status)
    for body in (_MARK.encode(), *_marked(error.body)):
        failure = subject.adapter.classify_error(replace(error, status=status, body=body))
        for message in (failure.message, _message_of_200(subject, replace(error, status=200, body=body))):
            assert _MARK not in message, f"`Failure.message` {message!r} repeats text of the provider's body {body!r}"


@_each_kind
def test_code_is_not_a_sentence_of_the_provider(subject: Subject, kind: FailureKind, status: int) -> None:
    """A code is counted, and a sentence may repeat a key or a prompt. The sentence belongs into `Failure.detail`."""
    error = subject.simulator.write_error(kind, status)
    event = subject.simulator.write_error_event(kind)
    codes = [subject.adapter.classify_error(error).code or "" if error.status >= 400 else ""]
    codes += [one.failure.code or "" for one in subject.events(event) if isinstance(one, Failed)]
    for code in codes:
        assert not code.endswith((".", "!", "?")), (
            f"`Failure.code` {code!r} is a sentence of the provider: put it into `detail`"
        )


@_each_kind
def test_error_has_a_code_or_detail_for_the_log(subject: Subject, kind: FailureKind, status: int) -> None:
    response = subject.simulator.write_error(kind, status)
    if response.status >= 400 and _texts(response.body):
        failure = subject.adapter.classify_error(response)
        assert failure.code or failure.detail, "`Failure.code` or `Failure.detail` must keep the provider's error text"


@pytest.mark.parametrize("body", _BODIES, ids=lambda body: repr(body[:24]))
def test_every_error_status_with_any_body_is_a_failure(subject: Subject, body: bytes) -> None:
    content_type = "text/html" if body.startswith(b"<") else "application/json"
    for status in range(400, 600):
        failure = subject.adapter.classify_error(subject.response(body, status, content_type))
        assert isinstance(failure, Failure), "`classify_error` must return a `Failure` for any body"
        assert failure.status == status, "`Failure.status` must be the status of the response"
        assert len(failure.detail) <= _MAX_DETAIL_CHARS, "`Failure.detail` is too long: cut it"
        if status in _BY_STATUS and not body.startswith((b'{"error":{', b"[{")):
            assert failure.kind is _BY_STATUS[status], (
                f"status {status} means {_BY_STATUS[status]}, but was classified as {failure.kind}"
            )


@_each_kind
def test_error_with_status_200_fails(subject: Subject, kind: FailureKind, status: int) -> None:
    error = subject.simulator.write_error(kind, status)
    if error.status < 400:
        return
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(replace(error, status=200), subject.target)
    actual = raised.value.failure.kind
    if kind is FailureKind.CONTENT_FILTER:
        assert actual is FailureKind.CONTENT_FILTER, (
            "only a filter may be an answer; an error with status 200 must raise `ProviderFailed`"
        )
    expected = _kind_by_body(subject, error)
    assert expected in (None, actual), (
        f"{error.body!r} means {expected} with any other status, but was classified as {actual} with status 200"
    )


def test_retry_after_is_read_with_status_200(subject: Subject) -> None:
    response = subject.simulator.write_error(FailureKind.RATE_LIMITED, 429, _AFTER_S)
    if response.status < 400:
        return
    with_status = subject.adapter.classify_error(response)
    with pytest.raises(ProviderFailed) as raised:
        subject.adapter.parse_response(replace(response, status=200), subject.target)
    assert raised.value.failure.retry_after_s == with_status.retry_after_s, (
        "an error with status 200 must have the same `retry_after_s` as with its own status"
    )


@_each_kind
def test_error_as_the_first_event_ends_the_stream(subject: Subject, kind: FailureKind, status: int) -> None:
    stream = subject.simulator.write_error_event(kind)
    for cut in range(len(stream)):
        events = subject.events(stream[:cut], stream[cut:])
        _check_ended_by(kind, status, events)
        assert not content_events(events), "an error as the first event must end the stream without content"


@_each_kind
def test_error_event_is_classified_and_logged(subject: Subject, kind: FailureKind, status: int) -> None:
    """The rules of an error status apply: no provider text for the client, a detail for the log, the kind by code."""
    event, error = subject.simulator.write_error_event(kind), subject.simulator.write_error(kind, status)
    ended = check_ends_once(subject.events(event))
    if isinstance(ended, Finished):
        return
    failure = ended.failure
    for before, body, after in json_lines(event):
        if _texts(body):
            assert failure.code or failure.detail, (
                f"`Failure.code` or `Failure.detail` must keep the error text of {event!r}"
            )
        with_status = subject.adapter.classify_error(error)
        if failure.code is not None and failure.code == with_status.code:
            expected = _kind_by_body(subject, error)
            assert expected in (None, failure.kind), (
                f"the code {failure.code} means {expected}, but was classified as {failure.kind} in a stream"
            )
        for marked in _marked(body):
            last = subject.events(before + marked + after)[-1]
            assert not isinstance(last, Failed) or _MARK not in last.failure.message, (
                f"`Failure.message` repeats text of {marked!r}"
            )


def _kind_by_body(subject: Subject, error: WireResponse) -> FailureKind | None:
    """Return the kind that follows from the body alone, or None if the status or a header decides."""
    bare = (replace(error, status=status, headers={}) for status in (error.status, 400, 500))
    kinds = {subject.adapter.classify_error(one).kind for one in bare}
    return kinds.pop() if len(kinds) == 1 else None


@_each_kind
def test_error_in_the_middle_ends_the_stream(subject: Subject, kind: FailureKind, status: int) -> None:
    stream = subject.stream(*rich_answer(subject))
    error = subject.simulator.write_error_event(kind)
    for position in range(1, len(stream) // 2):
        events = subject.events(*stream[:position], error, *stream[position:])
        _check_ended_by(kind, status, events)
        before = content_events(subject.events(*stream[:position]))
        assert content_events(events)[: len(before)] == before, "content that arrived before the error is lost"


def _check_ended_by(kind: FailureKind, status: int, events: Sequence[StreamEvent]) -> None:
    """Assert that the stream failed with this kind, or with one that is accepted because a stream has no status."""
    ended = check_ends_once(events)
    if isinstance(ended, Finished):
        # A filtered answer may also end normally, with the finish reason `content_filter`.
        finishes = {event.reason for event in events if isinstance(event, ChoiceFinish)}
        assert kind is FailureKind.CONTENT_FILTER, (
            f"an error event that means {kind} was ignored: the stream ended with `Finished`"
        )
        assert finishes == {"content_filter"}, (
            "a stream that a filter ends must have the finish reason 'content_filter'"
        )
        return
    allowed = _KINDS[kind, status]
    if kind is not FailureKind.CONTENT_FILTER:
        allowed |= {FailureKind.UNAVAILABLE, FailureKind.INTERRUPTED}
    assert ended.failure.kind in allowed, f"an error event that means {kind} was classified as {ended.failure.kind}"


def _check_message_contains_no_provider_text(failure: Failure, response: WireResponse) -> None:
    """Assert that the message for the client has no text of the provider's, which may name the operator's account."""
    assert failure.message, "`Failure.message` is empty: state for the client what happened"
    for text in _texts(response.body):
        assert text not in failure.message, "`Failure.message` quotes the provider: write its text into `detail`"


def _message_of_200(subject: Subject, response: WireResponse) -> str:
    """Return the failure's message for an error body with status 200, or "" if it is read as an answer."""
    try:
        subject.adapter.parse_response(response, subject.target)
    except ProviderFailed as failed:
        return failed.failure.message
    return ""


def _marked(body: bytes) -> Iterator[bytes]:
    """Yield the JSON of an error with each of its texts in turn replaced by a mark that must not be repeated."""
    return map(dumps, altered(body, lambda value, _: [_MARK] if isinstance(value, str) else ()))


def _texts(body: bytes) -> list[str]:
    values = [parent[key] for parent, key, _ in positions(in_list(body))]
    return [value for value in values if isinstance(value, str) and len(value) > 24]
