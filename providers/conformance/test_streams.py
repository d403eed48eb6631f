"""Streams however the network cuts them, whatever their lines end with, and wherever they break off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import pytest

from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    Failed,
    Finished,
    Heartbeat,
    StreamEvent,
    ToolCall,
    ToolCallDelta,
)
from providers.conformance.cases import completion_of, feature_requests, question, rich_answer
from providers.conformance.checks import (
    NEW_EVENT,
    NEW_LINE,
    check_ends_once,
    event_with_new_members,
    without_heartbeats,
    without_new_members,
)
from providers.conformance.subject import Subject
from providers.json_values import loads
from providers.reading.folding import fold

_LINE_ENDS = pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])


def _stream(subject: Subject, line_end: bytes = b"\n") -> bytes:
    completion, request = rich_answer(subject)
    return _with_line_ends(subject, subject.stream(completion, request), line_end)


def _with_line_ends(subject: Subject, events: Sequence[bytes], line_end: bytes) -> bytes:
    if not subject.streams_text:
        return b"".join(events)
    return b"".join(events).replace(b"\r\n", b"\n").replace(b"\n", line_end)


@_LINE_ENDS
def test_every_split_gives_the_same_events(subject: Subject, line_end: bytes) -> None:
    stream = _stream(subject)
    if line_end != b"\n":
        # The same cuts within JSON would be tried thrice; what differs is near the line ends.
        plain = completion_of(subject, Choice(AssistantMessage("你好 👍"), "stop"))
        stream = _with_line_ends(subject, subject.stream(plain, question()), line_end)
    whole = subject.events(stream)
    assert isinstance(whole[-1], Finished), f"a whole stream ended with {whole[-1]!r}"
    for cut in range(1, len(stream)):
        assert subject.events(stream[:cut], stream[cut:]) == whole, f"cut at {cut}: {stream[:cut][-40:]!r}"


@_LINE_ENDS
def test_byte_by_byte_gives_the_same_events(subject: Subject, line_end: bytes) -> None:
    stream = _stream(subject, line_end)
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert subject.events(*pieces) == subject.events(stream)


@_LINE_ENDS
def test_line_ends_make_no_difference(subject: Subject, line_end: bytes) -> None:
    assert subject.events(_stream(subject, line_end)) == subject.events(_stream(subject))


def test_empty_pieces_make_no_difference(subject: Subject) -> None:
    stream = _stream(subject)
    assert subject.events(b"", stream[:50], b"", stream[50:], b"") == subject.events(stream)


def test_every_prefix_ends_once_and_a_cut_answer_fails(subject: Subject) -> None:
    stream = _stream(subject)
    wanted = _choices(subject.events(stream))
    finished = [cut for cut in range(len(stream) + 1) if _is_finished(subject, stream[:cut], wanted)]
    assert finished, "the whole stream is not finished"
    assert finished == list(range(finished[0], len(stream) + 1)), "more bytes made a whole answer fail"


def _is_finished(subject: Subject, prefix: bytes, wanted: ChatCompletion) -> bool:
    events = subject.events(prefix)
    if isinstance(check_ends_once(events), Failed):
        return False
    assert _choices(events) == wanted, f"a cut answer was passed off as whole after {prefix[-80:]!r}"
    return True


def _choices(events: tuple[StreamEvent, ...]) -> ChatCompletion:
    """The answer without its cost, which comes after its end and may be lost with a cut there."""
    whole = fold(events)
    return ChatCompletion(whole.id, whole.model, whole.created, whole.choices)


def test_an_event_that_is_no_json_is_not_passed_over(subject: Subject) -> None:
    """What was in it is lost: an answer without it isn't whole."""
    if not subject.streams_text and not subject.streams_lines:
        return
    completion, request = rich_answer(subject)
    events = subject.stream(completion, request)
    wanted = _choices(subject.events(*events))
    for position, event in enumerate(events):
        broken = re.sub(rb"(?m)^((?:data:)?\s*\{.*)\}\r?$", rb"\1", event)
        if broken == event:
            continue
        heard = subject.events(*events[:position], broken, *events[position + 1 :])
        if isinstance(check_ends_once(heard), Finished):
            # After its end a choice has nothing to lose.
            assert _choices(heard) == wanted, (
                f"{broken!r} is no JSON and was passed over: the stream has `Failed` there"
            )


def test_nothing_comes_after_the_end(subject: Subject) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    events = [*parser.feed(_stream(subject)), *parser.close()]
    check_ends_once(events)
    assert parser.feed(_stream(subject)) == ()
    assert parser.close() == ()


def test_a_call_without_arguments_is_whole_before_the_next_begins(subject: Subject) -> None:
    """Clients take a call for whole there, the official SDK's stream of events among them."""
    if "tools" not in subject.features:
        return
    clock, oslo = ToolCall("call_a1", "get_time", "{}"), ToolCall("call_b2", "get_weather", '{"city":"Oslo"}')
    message = AssistantMessage(None, tool_calls=(clock, oslo, ToolCall("call_c3", "get_time", "{}")))
    completion = completion_of(subject, Choice(message, "tool_calls"))
    calls: list[str] = []
    for event in subject.events(*subject.stream(completion, feature_requests()["tools"]["tools"])):
        if isinstance(event, ToolCallDelta):
            if event.index == len(calls):
                calls.append("")
            assert event.index == len(calls) - 1, f"a piece of call {event.index} comes behind the next one's beginning"
            calls[-1] += event.arguments
    assert [loads(call.encode()) for call in calls] == [{}, {"city": "Oslo"}, {}]


def test_comments_are_signs_of_life(sse_subject: Subject) -> None:
    completion, request = rich_answer(sse_subject)
    events = sse_subject.stream(completion, request)
    plain = sse_subject.events(*events)
    noisy = sse_subject.events(b": keep-alive\n\n" * 1000, *(piece + b": ping\n\n" for piece in events))
    assert without_heartbeats(noisy) == without_heartbeats(plain)
    assert sum(isinstance(event, Heartbeat) for event in noisy) >= 1000


def test_a_byte_order_mark_is_skipped(sse_subject: Subject) -> None:
    stream = _stream(sse_subject)
    for mark in ((b"\xef\xbb\xbf",), (b"\xef", b"\xbb", b"\xbf")):
        assert sse_subject.events(*mark, stream) == sse_subject.events(stream)


def test_a_repeated_or_missing_end_makes_no_difference(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    *events, last = subject.stream(completion, request)
    whole = subject.folded(*events, last)
    assert subject.folded(*events, last, last) == whole
    assert subject.folded(*events, last.rstrip(b"\r\n")) == whole
    if b"{" not in last:
        assert subject.folded(*events) == whole


def test_data_may_stand_on_several_lines_and_without_a_space(sse_subject: Subject) -> None:
    completion, request = rich_answer(sse_subject)
    events = sse_subject.stream(completion, request)
    spread = [_with_data(event, lambda text: json.dumps(json.loads(text), indent=1).encode()) for event in events]
    assert any(event.count(b"\ndata:") > 1 for event in spread)
    assert sse_subject.folded(*spread) == sse_subject.folded(*events)
    dense = [re.sub(rb"(?m)^data: ", b"data:", event) for event in events]
    assert sse_subject.events(*dense) == sse_subject.events(*events)


def test_nothing_is_read_behind_the_end_mark(sse_subject: Subject) -> None:
    completion, request = rich_answer(sse_subject)
    *events, last = sse_subject.stream(completion, request)
    if b"[DONE]" not in last:
        return
    whole = sse_subject.folded(*events, last)
    for mark in (b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]\r\n\r\n"):
        for behind in ((), (last,), events, (b"data: {\n\n",), (b"<html>",)):
            assert sse_subject.folded(*events, mark, *behind) == whole, f"{mark!r} with {behind!r} behind it"


def test_unknown_fields_and_events_make_no_difference(subject: Subject) -> None:
    completion, request = rich_answer(subject)
    events = subject.stream(completion, request)
    marked = [event_with_new_members(event) for event in events]
    unknown = NEW_EVENT if subject.streams_text else NEW_LINE if subject.streams_lines else b""
    assert marked != list(events) or not unknown
    whole = subject.folded(*events)
    for pieces in (marked, [piece for event in events for piece in (unknown, event)]):
        assert without_new_members(subject.folded(*pieces)) == without_new_members(whole)


def test_blank_lines_and_other_line_ends_make_no_difference(subject: Subject) -> None:
    """Of lines of JSON; those of server-sent events have cases of their own."""
    if not subject.streams_lines:
        return
    completion, request = rich_answer(subject)
    events = subject.stream(completion, request)
    whole = without_heartbeats(subject.events(*events))
    for pieces in (
        [event.removesuffix(b"\n") + b"\r\n" for event in events],
        [b"\n", b"\r\n", *(event + b"\n" for event in events)],
    ):
        assert without_heartbeats(subject.events(*pieces)) == whole


def _with_data(event: bytes, write: Callable[[bytes], bytes]) -> bytes:
    """The event with its JSON written in another way, each line of it in a `data` field."""
    lines: list[bytes] = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:") and b"{" in line:
            lines += [b"data: " + one for one in write(line[5:]).splitlines()]
        else:
            lines.append(line)
    return b"\n".join(lines)
