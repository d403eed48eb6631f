"""Unknown events of a stream are signs of life at every adapter, unless they are errors."""

from __future__ import annotations

import pytest

from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.chat import Failed, Heartbeat
from providers.conformance.cases import rich_answer
from providers.conformance.checks import without_heartbeats
from providers.conformance.subject import Subject, subjects_of
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
}
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
