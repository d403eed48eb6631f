"""Whatever a provider sends, an adapter answers with a failure or an answer, in bounded memory, and never raises."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers._json import JsonError, dumps, loads
from providers.chat import ChatCompletion, Failed
from providers.conformance.cases import rich_answer
from providers.conformance.checks import check_ends_once
from providers.conformance.subject import Subject
from providers.failures import Failure, FailureKind, ProviderFailed

_HUGE_LINE_BYTES = 9 * 1024 * 1024
_MOST_MEMORY_BYTES = 64 * 1024 * 1024
_thorough = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

_scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.just("stop")
)
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@_thorough
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_random_bytes(subject: Subject, data: bytes, cut: int) -> None:
    _check_bytes(subject, data, cut)


@_thorough
@given(value=_json)
def test_random_json(subject: Subject, value: object) -> None:
    _check_bytes(subject, _encoded(value), 0)
    _check_bytes(subject, b"data: " + _encoded(value) + b"\n\n", 0)


@_thorough
@given(data=st.data())
def test_the_right_shape_with_something_wrong_in_it(subject: Subject, data: st.DataObject) -> None:
    """One member of a good event, answer or error is replaced by something that nobody expects there."""
    completion, request = rich_answer(subject)
    events = subject.stream(completion, request)
    position = data.draw(st.integers(0, len(events) - 1))
    broken = _with_something_wrong(events[position], data)
    _check_stream(subject, b"".join((*events[:position], broken, *events[position + 1 :])), 0)
    answer = subject.dialect.write_answer(completion, subject.asked(request))
    _check_answer(subject, _replaced(loads(answer.body), data))
    error = subject.dialect.write_error(FailureKind.RATE_LIMITED, 429, 7)
    _check_error(subject, _replaced(loads(error.body), data), error.status)


@pytest.mark.parametrize("start", [b"data: ", b'data: {"', b": ", b"x", b"event: "], ids=repr)
def test_a_line_without_an_end_is_given_up(subject: Subject, start: bytes) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        events = list(parser.feed(start))
        for _ in range(_HUGE_LINE_BYTES // len(piece)):
            events += parser.feed(piece)
        events += parser.close()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(check_ends_once(events), Failed)
    assert most < _MOST_MEMORY_BYTES, f"{most} bytes were held"


def test_an_endless_event_is_given_up(subject: Subject) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    line = b"data: " + b"x" * 65530 + b"\n"
    events = [event for _ in range(_HUGE_LINE_BYTES // len(line)) for event in parser.feed(line)]
    events += parser.close()
    assert isinstance(check_ends_once(events), Failed)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000, b'{"x":1e999999}'], ids=len)
def test_json_that_is_too_much_for_a_parser(subject: Subject, body: bytes) -> None:
    _check_bytes(subject, body, 0)
    _check_bytes(subject, b"data: " + body + b"\n\n", 0)


def _check_bytes(subject: Subject, data: bytes, cut: int) -> None:
    _check_stream(subject, data, cut)
    _check_answer(subject, data)
    for status in (400, 401, 403, 404, 429, 500, 503):
        _check_error(subject, data, status)


def _check_stream(subject: Subject, data: bytes, cut: int) -> None:
    events = subject.events(data[:cut], data[cut:])
    check_ends_once(events)
    assert subject.events(data) == events


def _check_answer(subject: Subject, body: bytes) -> None:
    try:
        answer = subject.adapter.parse_response(subject.response(body), subject.target)
    except ProviderFailed:
        return
    assert isinstance(answer, ChatCompletion)
    assert answer.choices


def _check_error(subject: Subject, body: bytes, status: int) -> None:
    assert isinstance(subject.adapter.classify_error(subject.response(body, status)), Failure)


def _with_something_wrong(event: bytes, data: st.DataObject) -> bytes:
    lines = event.split(b"\n")
    for position, line in enumerate(lines):
        if line.startswith(b"data:"):
            try:
                lines[position] = b"data: " + _replaced(loads(line[5:]), data)
            except JsonError:
                continue
    return b"\n".join(lines)


def _replaced(value: Any, data: st.DataObject) -> bytes:
    """The JSON with the value at a random place replaced by a random one."""
    value = loads(dumps(value))
    places = [(None, None), *_places(value)]
    parent, key = data.draw(st.sampled_from(places))
    wrong = data.draw(_json)
    if parent is None:
        return _encoded(wrong)
    parent[key] = wrong
    return _encoded(value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value, as what holds it and the key there."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(members):
        yield value, key
        yield from _places(member)
