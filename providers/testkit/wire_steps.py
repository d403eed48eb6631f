"""Turn an answer and a fault into the steps on the wire. It uses no socket and no clock."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from providers.chat import ChatCompletion, ChatRequest, text_of
from providers.reading.errors import by_status
from providers.testkit import scenario as faults
from providers.testkit.answer_pieces import cut
from providers.testkit.simulator import Simulator, status_of, stream_type_of
from providers.value import Value
from providers.wire import WireResponse

_HTML = b"<!doctype html><html><head><title>Welcome</title></head><body>Please sign in.</body></html>"
_GARBAGE = b'data: {"choices":[{"output":\n\n'
_FINISH = re.compile(rb'(?:finish|stop)_?reason"\s*:\s*"(?!null")', re.IGNORECASE)


class Head(Value, frozen=True):
    """The status line and the headers."""

    status: int
    headers: tuple[tuple[str, str], ...]


class Send(Value, frozen=True):
    """Bytes of the body."""

    data: bytes


class Wait(Value, frozen=True):
    """A wait of this many seconds, or without end (None)."""

    seconds: float | None


class Break(Value, frozen=True):
    """The connection ends here with incomplete framing: by a reset or by a normal close."""

    reset: bool


Step = Head | Send | Wait | Break


def stage(
    simulator: Simulator,
    request: ChatRequest,
    completion: ChatCompletion,
    scenario: faults.Scenario,
    fault: faults.Fault | None,
) -> tuple[Step, ...]:
    """Return the steps of a response, as the client sees them.

    Unless the last step is `Break`, the framing is complete.
    """
    if not request.stream:
        return stage_whole(simulator, simulator.write_answer(completion, request), scenario, fault)
    if (instead := _instead_of_an_answer(simulator, fault)) is not None:
        return (Wait(scenario.latency_s), *instead)
    events = simulator.write_stream(completion, request)
    head = Head(200, (("content-type", stream_type_of(simulator)), ("cache-control", "no-cache")))
    opening = _opening(events, completion)
    paced = _stream(simulator, events, scenario, fault) if fault else _paced(events, scenario, opening)
    return (Wait(scenario.latency_s), head, *paced)


def stage_whole(
    simulator: Simulator, answer: WireResponse, scenario: faults.Scenario, fault: faults.Fault | None
) -> tuple[Step, ...]:
    """Return the steps of a response that is never a stream, such as embeddings."""
    if (instead := _instead_of_an_answer(simulator, fault)) is not None:
        return (Wait(scenario.latency_s), *instead)
    return (Wait(scenario.latency_s + scenario.first_token_s), *_json(simulator, answer, fault))


def whole(response: WireResponse) -> tuple[Step, ...]:
    """Return the steps of a complete response, framed by its length."""
    length = ("content-length", str(len(response.body)))
    return (Head(response.status, (*response.headers.items(), length)), Send(response.body))


def _instead_of_an_answer(simulator: Simulator, fault: faults.Fault | None) -> tuple[Step, ...] | None:
    """Return the steps of a fault that is the same for JSON and streams, or None for other faults."""
    match fault:
        case faults.HttpError(status, retry_after_s, kind):
            return whole(simulator.write_error(kind or by_status(status), status, retry_after_s))
        case faults.Reset(None):
            return (Break(reset=True),)
        case faults.Silent():
            return (Wait(None),)
        case faults.Html():
            return whole(WireResponse(200, {"content-type": "text/html; charset=utf-8"}, _HTML, 0))
        case faults.Redirect(url):
            return whole(WireResponse(307, {"location": url}, b"", 0))
        case _:
            return None


def _json(simulator: Simulator, answer: WireResponse, fault: faults.Fault | None) -> Iterator[Step]:
    head, body = whole(answer)
    half = Send(answer.body[: len(answer.body) // 2])
    match fault:
        case faults.Reset():
            yield from (head, half, Break(reset=True))
        case faults.Cut():
            yield from (head, half, Break(reset=False))
        case faults.Stall():
            yield from (head, half, Wait(None))
        case faults.Slow(wait_s):
            yield from (Wait(wait_s), head, half, Wait(wait_s), Send(answer.body[len(half.data) :]))
        case faults.Empty():
            yield from whole(WireResponse(200, answer.headers, b"", 0))
        case faults.Truncated():
            yield from whole(WireResponse(200, answer.headers, half.data, 0))
        case faults.Garbage():
            yield from whole(WireResponse(200, answer.headers, _GARBAGE, 0))
        case faults.ErrorEvent(kind):
            error = simulator.write_error(kind, status_of(kind))
            yield from whole(WireResponse(200, error.headers, error.body, 0))
        case _:
            yield from (head, body)


def _stream(
    simulator: Simulator, events: Sequence[bytes], scenario: faults.Scenario, fault: faults.Fault
) -> Iterator[Step]:
    def some(count: int | None) -> Iterator[Step]:
        return _paced(events[: _middle(events) if count is None else count], scenario)

    match fault:
        case faults.Reset(after):
            yield from (*some(after), Break(reset=True))
        case faults.Cut(after):
            yield from some(after)
        case faults.Stall(after):
            yield from (*some(after), Wait(None))
        case faults.Slow(wait_s):
            yield from _paced(events, faults.Scenario(first_token_s=wait_s, between_events_s=wait_s))
        case faults.Empty():
            yield Send(b"")
        case faults.Truncated():
            middle = _middle(events)
            broken = events[middle][: len(events[middle]) // 2]
            yield from _paced((*events[:middle], broken), scenario)
        case faults.Garbage(after):
            middle = _middle(events) if after is None else after
            yield from _paced((*events[:middle], _GARBAGE, *events[middle:]), scenario)
        case faults.ErrorEvent(kind, after):
            yield from _paced((*events[:after], simulator.write_error_event(kind)), scenario)
        case faults.NoEndMark():
            yield from _paced([event for event in events if b"[DONE]" not in event], scenario)
        case faults.DuplicateFinish():
            finish = _finish_position(events)
            yield from _paced((*events[: finish + 1], *events[finish:]), scenario)
        case faults.HttpError() | faults.Silent() | faults.Html() | faults.Redirect():
            raise AssertionError("these faults replace the answer and were handled before")
        case _:
            assert_never(fault)


def _paced(events: Iterable[bytes], scenario: faults.Scenario, opening: int = 0) -> Iterator[Step]:
    """Yield the events with waits between them. Events that only open the answer are sent with its first token."""
    wait_s = scenario.first_token_s
    for index, event in enumerate(events):
        if wait_s and not 0 < index <= opening:
            yield Wait(wait_s)
        yield Send(event)
        wait_s = scenario.between_events_s


def _opening(events: Sequence[bytes], completion: ChatCompletion) -> int:
    """Return the number of events before the first token of the answer, or 0 if it is not found."""
    text = text_of(completion.choices[0].message.content) if completion.choices else ""
    first = next(iter(cut(text)), "").strip()
    forms = [json.dumps(first, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (False, True)] if first else []
    return next((index for index, event in enumerate(events) if any(form in event for form in forms)), 0)


def _middle(events: Sequence[bytes]) -> int:
    """Return the number of events in the first half of the answer, without its finish."""
    return min(len(events) // 2, _finish_position(events))


def _finish_position(events: Sequence[bytes]) -> int:
    """Return the index of the event with the finish reason, or of the last event."""
    return next((i for i, event in enumerate(events) if _FINISH.search(event)), len(events) - 1)
