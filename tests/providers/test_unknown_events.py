"""Unknown events of a stream are signs of life at every adapter, unless they are errors."""

from __future__ import annotations

import pytest

from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.chat import Failed, Heartbeat
from providers.conformance.cases import rich_answer
from providers.conformance.checks import without_heartbeats
from providers.conformance.subject import Subject, subjects_of
from providers.failures import FailureKind
from providers.registry import load_registry
from providers.testkit import load_simulators

ADAPTERS = load_registry().adapters
UNKNOWN = {
    "keepalive of Responses": b'data: {"type": "keepalive", "sequence_number": 3}\n\n',
    "named keepalive": b'event: keepalive\ndata: {"type": "keepalive"}\n\n',
    "named text": b"event: keepalive\ndata: waiting\n\n",
    "ping": b'data: {"type": "ping"}\n\n',
    "named ping": b'event: ping\ndata: {"type": "ping", "cost": "0"}\n\n',
    "new type": b'data: {"type": "queue.position", "position": 4, "id": "evt_1"}\n\n',
    "message alone": b'data: {"message": "processing"}\n\n',
    "code of success": b'data: {"code": 0, "message": "ok"}\n\n',
    "status of success": b'data: {"code": "200", "message": "success"}\n\n',
    "empty error": b'data: {"error": null, "type": "ping"}\n\n',
    "comment": b": keep-alive\n\n",
}
ERRORS = {
    "error object": b'data: {"error": {"message": "Overloaded"}}\n\n',
    "named error": b'event: error\ndata: {"type": "error", "error": {"type": "api_error", "message": "x"}}\n\n',
    "named text": b"event: error\ndata: upstream timeout\n\n",
}
_INNER = b'{"code": 400, "message": "prompt is too long: 9 tokens > 8 maximum", "type": "invalid_request_error"}'
_OUTER = b'{"error": ' + _INNER + b"}"
FRAMES = {
    "event": b"data: " + _OUTER + b"\n\n",
    "named event": b"event: error\ndata: " + _OUTER + b"\n\n",
    "named event, inner": b"event: error\ndata: " + _INNER + b"\n\n",
    "field": b"error: " + _INNER + b"\n\n",
    "field, outer": b"Error:" + _OUTER + b"\n\n",
    "field without an end": b"error: " + _INNER + b"\n",
    "comment": b": " + _OUTER + b"\n\n",
    "comment, inner": b": " + _INNER + b"\n\n",
    "comment that names it": b": error: " + _INNER + b"\n\n",
    "line": _OUTER + b"\n\n",
    "lines": _OUTER.replace(b"{", b"{\n").replace(b"}", b"\n}") + b"\n\n",
    "list": b"[" + _OUTER + b"]\n\n",
    "line among others": b"Trouble\n" + _OUTER + b"\nbye\n\n",
}
"""One error in each frame in which a server or a relay has sent one."""
_SIMULATORS = load_simulators().simulators
_OF_ADAPTERS = [subjects_of(adapter, _SIMULATORS[name]) for name, adapter in sorted(ADAPTERS.items())]
SUBJECTS = [one for every in _OF_ADAPTERS for one in (*every[:1], *every[1:][-1:]) if one.streams_text]
"""The first and the last model of each adapter: at OpenAI, one of each of its APIs."""
WITH_EVENTS = sorted(name for name in ADAPTERS if name != "bedrock")


@pytest.mark.parametrize("event", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_unknown_event_is_a_sign_of_life(name: str, event: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    events = [one for _ in range(3) for one in parser.feed(event)]
    assert [type(one) for one in events] == [Heartbeat] * 3


@pytest.mark.parametrize("event", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_error_event_ends_a_stream(name: str, event: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    assert [type(one) for one in parser.feed(event)] == [Failed]


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["", "done"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("name", WITH_EVENTS)
def test_error_is_read_in_any_frame(name: str, frame: bytes, end: bytes) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    events = [*parser.feed(frame + end), *parser.close()]
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("name", ["openai-compatible", "gemini"])
def test_error_in_any_frame_is_read_after_text_and_in_any_cut(name: str, frame: bytes) -> None:
    first = next(one for one in SUBJECTS if one.adapter.name == name)
    before, *_ = first.stream(*rich_answer(first))
    for step in (1, 5, 1000):
        parser = first.adapter.stream_parser(first.target)
        pieces = [before, *(frame[at : at + step] for at in range(0, len(frame), step)), b"data: [DONE]\n\n"]
        events = [event for piece in pieces for event in parser.feed(piece)]
        *_, last = (*events, *parser.close())
        assert isinstance(last, Failed)
        assert last.failure.kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("name", ["deepseek", "openai", "openai-compatible", "vllm"])
def test_type_of_an_error_is_enough(name: str) -> None:
    parser = ADAPTERS[name].stream_parser(Target("m", "", ModelFacts()))
    event = b'data: {"type": "server_error", "message": "failed"}\n\n'
    assert [type(one) for one in parser.feed(event)] == [Failed]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_unknown_events_change_nothing_of_an_answer(subject: Subject) -> None:
    events = subject.stream(*rich_answer(subject))
    noise = b"".join(UNKNOWN.values())
    noisy = subject.events(noise, *(piece + noise for piece in events[:-1]), events[-1])
    assert without_heartbeats(noisy) == without_heartbeats(subject.events(*events))
