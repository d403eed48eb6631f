"""Test that any bytes from a provider give an answer or a failure, in bounded memory, and never another exception."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import ChatCompletion, Failed, Usage
from providers.conformance.cases import ODD_VALUES, rich_answer
from providers.conformance.checks import THOROUGH, altered, check_ends_once, check_order, in_list, json_lines, positions
from providers.conformance.subject import Subject
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import dumps
from providers.openai_json import encode_completion
from providers.reading.folding import fold

_HUGE_LINE_BYTES = 9 * 1024 * 1024
_NOTHING = Usage()
_PIECE_BYTES = 1024 * 1024
_ENDLESS_BYTES = 80 * 1024 * 1024
_MAX_MEMORY_BYTES = 64 * 1024 * 1024

# JSON can contain half of a surrogate pair, which UTF-8 cannot encode, and integers of any size.
_text = st.text(max_size=8) | st.sampled_from(["stop", "\ud83d", "x\ude00y"])
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _text
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3))


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@THOROUGH
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_random_bytes_never_raise(subject: Subject, data: bytes, cut: int) -> None:
    _check_bytes(subject, data)
    assert subject.events(data[:cut], data[cut:]) == subject.events(data), (
        "the events must not depend on where the bytes are divided"
    )


@THOROUGH
@given(value=_json)
def test_random_json_never_raises(subject: Subject, value: object) -> None:
    _check_bytes(subject, _encoded(value))
    _check_bytes(subject, b"data: " + _encoded(value) + b"\n\n")


def test_stream_with_one_wrong_value_never_raises(subject: Subject) -> None:
    """Among events in a row that repeat a value at the same place, the first and the last get the wrong values."""
    events = subject.stream(*rich_answer(subject))
    values = [set(), *map(_values_of, events), set()]
    for position, event in enumerate(events):
        for broken in _broken_events(event, values[position] & values[position + 2]):
            _check_stream(subject, b"".join((*events[:position], broken, *events[position + 1 :])))


def test_answer_with_one_wrong_value_never_raises(subject: Subject) -> None:
    answer = subject.written(*rich_answer(subject))
    for broken in _broken(answer.body):
        _check_answer(subject, broken)


def test_error_with_one_wrong_value_never_raises(subject: Subject) -> None:
    for kind in (FailureKind.RATE_LIMITED, FailureKind.CREDENTIALS, FailureKind.CONTENT_FILTER):
        error = subject.simulator.write_error(kind, 429, 7)
        for broken in _broken(error.body):
            _check_error(subject, broken, 429)


@pytest.mark.parametrize("start", [b"data: ", b'data: {"', b": ", b"x", b"event: "], ids=repr)
def test_endless_line_fails_in_bounded_memory(subject: Subject, start: bytes) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    tracemalloc.start()
    try:
        events = list(parser.feed(start))
        for _ in range(_ENDLESS_BYTES // _PIECE_BYTES):
            events += parser.feed(b"x" * _PIECE_BYTES)
            _check_memory()
        events += parser.close()
        _check_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(check_ends_once(events), Failed), "an endless line or event must end the stream with `Failed`"


def _check_memory() -> None:
    _, peak_bytes = tracemalloc.get_traced_memory()
    assert peak_bytes < _MAX_MEMORY_BYTES, (
        f"the parser held {peak_bytes} bytes. End the stream with `FailureKind.TOO_LARGE` if a line or an event is "
        "larger than a few megabytes"
    )


def test_endless_event_fails(subject: Subject) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    line = b"data: " + b"x" * 65530 + b"\n"
    events = [event for _ in range(_HUGE_LINE_BYTES // len(line)) for event in parser.feed(line)]
    events += parser.close()
    assert isinstance(check_ends_once(events), Failed), "an endless line or event must end the stream with `Failed`"


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000, b'{"x":1e999999}'], ids=len)
def test_deep_or_huge_json_never_raises(subject: Subject, body: bytes) -> None:
    _check_bytes(subject, body)
    _check_bytes(subject, b"data: " + body + b"\n\n")


def _check_bytes(subject: Subject, data: bytes) -> None:
    _check_stream(subject, data)
    _check_answer(subject, data)
    for status in (400, 401, 403, 404, 429, 500, 503):
        _check_error(subject, data, status)


def _check_stream(subject: Subject, data: bytes) -> None:
    events = subject.events(data)
    ended = check_ends_once(events)
    check_order(events)
    if isinstance(ended, Failed):
        _check_writable(ended.failure)
    else:
        _check_writable(fold(events))


def _check_answer(subject: Subject, body: bytes) -> None:
    try:
        answer = subject.adapter.parse_response(subject.response(body), subject.target)
    except ProviderFailed as error:
        _check_writable(error.failure)
        return
    assert answer.choices, "an answer must have a choice: raise `ProviderFailed` for a body without one"
    _check_writable(answer)


def _check_error(subject: Subject, body: bytes, status: int) -> None:
    _check_writable(subject.adapter.classify_error(subject.response(body, status)))


def _check_writable(outcome: ChatCompletion | Failure) -> None:
    """Assert that the outcome can be written as JSON, and that no usage count is negative."""
    if isinstance(outcome, Failure):
        dumps([outcome.message, outcome.detail, outcome.code, outcome.param, outcome.request_id])
    else:
        counts = asdict(outcome.usage) if outcome.usage is not None else {}
        for name, count in counts.items():
            assert (type(count) is int and count >= 0) or (count is None and getattr(_NOTHING, name) is None), (
                f"`{name}` of the usage is {count!r}: read counts with `json_values.read_count`, for which it is 0"
            )
        try:
            dumps(encode_completion(outcome, outcome.model))
        except (TypeError, ValueError, AttributeError) as error:
            raise AssertionError(f"a value of the answer has the wrong type, and can't be written: {error}") from error


def _broken_events(event: bytes, passed_over: Set[object] = frozenset()) -> Iterator[bytes]:
    """Yield the event with each value of its JSON, in a `data` field or on its own line, replaced by each odd value."""
    for before, document, after in json_lines(event):
        yield from (before + broken + after for broken in _broken(document, passed_over))


def _values_of(event: bytes) -> set[object]:
    """Return the place and the value of each member of its JSON."""
    wholes = [in_list(document) for _, document, _ in json_lines(event)]
    return {(place, repr(parent[key])) for whole in wholes for parent, key, place in positions(whole)}


def _broken(document: bytes, passed_over: Set[object] = frozenset()) -> Iterator[bytes]:
    """Yield the JSON with the value at each position replaced by each odd value; nothing if it is not JSON."""

    def odd_values(right: object, place: tuple[object, ...]) -> Sequence[object]:
        return () if (place, repr(right)) in passed_over else ODD_VALUES

    return map(_encoded, altered(document, odd_values))
