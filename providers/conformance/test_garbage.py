"""Whatever a provider sends, an adapter answers with a failure or an answer, in bounded memory, and never raises."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from providers.chat import ChatCompletion, Failed
from providers.conformance.cases import rich_answer
from providers.conformance.checks import check_ends_once, check_order
from providers.conformance.subject import Subject
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import JsonError, dumps, loads
from providers.openai_json import encode_completion
from providers.reading.folding import fold

_HUGE_LINE_BYTES = 9 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_ENDLESS_BYTES = 80 * 1024 * 1024
_MOST_MEMORY_BYTES = 64 * 1024 * 1024
_thorough = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

# Half of a surrogate pair can be written in JSON, but not in UTF-8; whole numbers have no end.
_text = st.text(max_size=8) | st.sampled_from(["stop", "\ud83d", "x\ude00y"])
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | _text
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3))


_ODDITIES: tuple[object, ...] = (
    None,
    True,
    "",
    "x",
    "\ud83d",
    -1,
    2**70,
    1.5,
    1e300,
    float("nan"),
    [],
    [None, 1, "x", [], {}],
    {},
    {"": None, "\ude00": ["\ud83d", 2**70]},
)


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@_thorough
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_random_bytes(subject: Subject, data: bytes, cut: int) -> None:
    _check_bytes(subject, data)
    assert subject.events(data[:cut], data[cut:]) == subject.events(data)


@_thorough
@given(value=_json)
def test_random_json(subject: Subject, value: object) -> None:
    _check_bytes(subject, _encoded(value))
    _check_bytes(subject, b"data: " + _encoded(value) + b"\n\n")


def test_a_good_stream_with_something_wrong_in_it(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    events = subject.stream(completion, request)
    for position, event in enumerate(events):
        for broken in _broken_events(event):
            _check_stream(subject, b"".join((*events[:position], broken, *events[position + 1 :])))


def test_a_good_answer_with_something_wrong_in_it(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    answer = subject.dialect.write_answer(completion, subject.asked(request))
    for broken in _broken(answer.body):
        _check_answer(subject, broken)


def test_an_error_with_something_wrong_in_it(subject: Subject) -> None:
    for kind in (FailureKind.RATE_LIMITED, FailureKind.CREDENTIALS, FailureKind.CONTENT_FILTER):
        error = subject.dialect.write_error(kind, 429, 7)
        for broken in _broken(error.body):
            _check_error(subject, broken, 429)


@pytest.mark.parametrize("start", [b"data: ", b'data: {"', b": ", b"x", b"event: "], ids=repr)
def test_a_line_without_an_end_is_given_up(subject: Subject, start: bytes) -> None:
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
    assert isinstance(check_ends_once(events), Failed)


def _check_memory() -> None:
    _, most = tracemalloc.get_traced_memory()
    assert most < _MOST_MEMORY_BYTES, (
        f"{most} bytes were held: give up a line or an event beyond a few megabytes, with `FailureKind.TOO_LARGE`"
    )


def test_an_endless_event_is_given_up(subject: Subject) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    line = b"data: " + b"x" * 65530 + b"\n"
    events = [event for _ in range(_HUGE_LINE_BYTES // len(line)) for event in parser.feed(line)]
    events += parser.close()
    assert isinstance(check_ends_once(events), Failed)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 100_000, b'{"x":1e999999}'], ids=len)
def test_json_that_is_too_much_for_a_parser(subject: Subject, body: bytes) -> None:
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
    assert answer.choices
    _check_writable(answer)


def _check_error(subject: Subject, body: bytes, status: int) -> None:
    _check_writable(subject.adapter.classify_error(subject.response(body, status)))


def _check_writable(outcome: ChatCompletion | Failure) -> None:
    """Assert that a client, or a log, can be told of it: that no text or number in it is beyond JSON, and that what is
    added up never falls."""
    if isinstance(outcome, Failure):
        dumps([outcome.message, outcome.detail, outcome.code, outcome.param, outcome.request_id])
    else:
        dumps(encode_completion(outcome, outcome.model))
        counts = astuple(outcome.usage) if outcome.usage is not None else ()
        assert not any(count < 0 for count in counts), "a count is below 0; `json_values.read_count` reads that as 0"


def _broken_events(event: bytes) -> Iterator[bytes]:
    """The event with each member of its JSON, in a `data` field or a line of its own, replaced by each oddity."""
    lines = event.split(b"\n")
    for position, line in enumerate(lines):
        if line.startswith((b"data:", b"{")) and b"{" in line:
            name = b"data: " if line.startswith(b"data:") else b""
            for broken in _broken(line[5:] if name else line):
                yield b"\n".join((*lines[:position], name + broken, *lines[position + 1 :]))


def _broken(document: bytes) -> Iterator[bytes]:
    """The JSON with the value at each place replaced by each oddity; nothing of what is no JSON."""
    try:
        loads(document)
    except JsonError:
        return
    for place in range(1 + len(list(_places(loads(document))))):
        for oddity in _ODDITIES:
            value: Any = loads(document)
            parent, key = [([value], 0), *_places(value)][place]
            parent[key] = oddity
            yield _encoded(parent[0] if place == 0 else value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a value, as what holds it and the key there."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(members):
        yield value, key
        yield from _places(member)
