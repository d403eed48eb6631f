"""Test streams with every division into pieces, every line end, and truncated wherever something is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from providers import chat
from providers.conformance import checks
from providers.conformance.cases import completion_of, feature_requests, question, rich_answer
from providers.conformance.subject import Subject
from providers.json_values import loads
from providers.reading.finishes import MISSING
from providers.reading.folding import fold

_LINE_ENDS = pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])


def _stream(subject: Subject, line_end: bytes = b"\n") -> bytes:
    return _with_line_ends(subject, subject.stream(*rich_answer(subject)), line_end)


def _with_line_ends(subject: Subject, events: Sequence[bytes], line_end: bytes) -> bytes:
    if not subject.streams_text:
        return b"".join(events)
    return b"".join(events).replace(b"\r\n", b"\n").replace(b"\n", line_end)


@_LINE_ENDS
def test_every_split_gives_the_same_events(subject: Subject, line_end: bytes) -> None:
    stream = _stream(subject)
    if line_end != b"\n":
        # A short stream is enough here: the line ends differ, and cuts within JSON were tried with the first one.
        plain = completion_of(subject, chat.Choice(chat.AssistantMessage("你好 👍"), "stop"))
        stream = _with_line_ends(subject, subject.stream(plain, question()), line_end)
    whole = subject.events(stream)
    assert isinstance(whole[-1], chat.Finished), f"a complete stream must end with `Finished`, not {whole[-1]!r}"
    checks.check_division(subject.events, stream, range(1, len(stream)))


@_LINE_ENDS
def test_byte_by_byte_gives_the_same_events(subject: Subject, line_end: bytes) -> None:
    stream = _stream(subject, line_end)
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert subject.events(*pieces) == subject.events(stream), "the events must not depend on how the bytes are divided"


@_LINE_ENDS
def test_line_ends_make_no_difference(subject: Subject, line_end: bytes) -> None:
    assert subject.events(_stream(subject, line_end)) == subject.events(_stream(subject)), (
        "the events must not depend on the line ends of the stream"
    )


def test_empty_pieces_make_no_difference(subject: Subject) -> None:
    stream = _stream(subject)
    assert subject.events(b"", stream[:50], b"", stream[50:], b"") == subject.events(stream), (
        "empty pieces must change nothing"
    )


def test_truncated_stream_fails(subject: Subject) -> None:
    stream = _stream(subject)
    wanted = _choices(subject.events(stream))
    cuts = checks.lengths_of_prefixes(stream)
    finished = [cut for cut in cuts if _is_finished(subject, stream[:cut], wanted)]
    assert finished, "the complete stream does not end with `Finished`"
    assert finished == cuts[-len(finished) :], "more bytes made a complete answer fail"


def _is_finished(subject: Subject, prefix: bytes, wanted: chat.ChatCompletion) -> bool:
    events = subject.events(prefix)
    if isinstance(checks.check_ends_once(events), chat.Failed):
        return False
    assert _choices(events) == wanted, (
        f"a truncated stream must end with `Failed`, but an incomplete answer was finished after {prefix[-80:]!r}"
    )
    return True


def _choices(events: tuple[chat.StreamEvent, ...]) -> chat.ChatCompletion:
    """Return the answer without its usage, which a truncated stream may lack because it is sent after the text."""
    whole = fold(events)
    return chat.ChatCompletion(whole.id, whole.model, whole.created, whole.choices)


def test_invalid_json_event_is_not_ignored(subject: Subject) -> None:
    """The content of such an event is lost, so the answer is incomplete and the stream must fail."""
    if not subject.streams_text and not subject.streams_lines:
        return
    events = subject.stream(*rich_answer(subject))
    wanted = _choices(subject.events(*events))
    for position, event in enumerate(events):
        broken = re.sub(rb"(?m)^((?:data:)?\s*\{.*)\}\r?$", rb"\1", event)
        if broken == event:
            continue
        emitted = subject.events(*events[:position], broken, *events[position + 1 :])
        if isinstance(checks.check_ends_once(emitted), chat.Finished):
            # An event after the end of a choice contains none of its content, so it may be ignored.
            assert _choices(emitted) == wanted, (
                f"{broken!r} is not valid JSON and was ignored: end the stream with `Failed` there"
            )


def test_no_event_follows_the_end(subject: Subject) -> None:
    parser = subject.adapter.stream_parser(subject.target)
    events = [*parser.feed(_stream(subject)), *parser.close()]
    checks.check_ends_once(events)
    assert parser.feed(_stream(subject)) == (), "`feed` must return nothing after `close`"
    assert parser.close() == (), "a second `close` must return nothing"


def test_call_without_arguments_is_complete_before_the_next_call(subject: Subject) -> None:
    """Clients, such as the event stream of the official SDK, consider a call complete when the next one begins."""
    if "tools" not in subject.features:
        return
    clock, oslo = chat.ToolCall("call_a1", "get_time", "{}"), chat.ToolCall("call_b2", "get_weather", '{"city":"Oslo"}')
    message = chat.AssistantMessage(None, tool_calls=(clock, oslo, chat.ToolCall("call_c3", "get_time", "{}")))
    completion = completion_of(subject, chat.Choice(message, "tool_calls"))
    calls: list[str] = []
    for event in subject.events(*subject.stream(completion, feature_requests()["tools"]["tools"])):
        if isinstance(event, chat.ToolCallDelta):
            if event.index == len(calls):
                calls.append("")
            assert event.index == len(calls) - 1, f"a piece of call {event.index} follows the start of the next call"
            calls[-1] += event.arguments
    assert [loads(call.encode()) for call in calls] == [{}, {"city": "Oslo"}, {}], (
        "the arguments of the calls are not those that were sent; those of a call without any are {}"
    )


def test_comments_become_heartbeats(sse_subject: Subject) -> None:
    events = sse_subject.stream(*rich_answer(sse_subject))
    plain = sse_subject.events(*events)
    noisy = sse_subject.events(b": keep-alive\n\n" * 1000, *(piece + b": ping\n\n" for piece in events))
    assert checks.without_heartbeats(noisy) == checks.without_heartbeats(plain), (
        "comments must change nothing but the number of `Heartbeat`"
    )
    assert sum(isinstance(event, chat.Heartbeat) for event in noisy) >= 1000, (
        "each comment must become a `Heartbeat`, which keeps the stream alive"
    )


def test_a_byte_order_mark_is_skipped(sse_subject: Subject) -> None:
    stream = _stream(sse_subject)
    for mark in ((b"\xef\xbb\xbf",), (b"\xef", b"\xbb", b"\xbf")):
        assert sse_subject.events(*mark, stream) == sse_subject.events(stream), (
            "a byte order mark at the beginning of a stream must be skipped"
        )


def test_a_repeated_or_missing_end_makes_no_difference(subject: Subject) -> None:
    *events, last = subject.stream(*rich_answer(subject))
    whole = subject.folded(*events, last)
    assert subject.folded(*events, last, last) == whole, "a repeated last event must change nothing"
    assert subject.folded(*events, last.rstrip(b"\r\n")) == whole, "the line end after the last event may be missing"
    if any(map(checks.has_object, events)) and not any(checks.json_lines(last)):
        assert subject.folded(*events) == whole, "the mark at the end, which has no content, may be missing"


def test_multi_line_data_and_data_without_a_space_are_read(sse_subject: Subject) -> None:
    events = sse_subject.stream(*rich_answer(sse_subject))
    spread = [*map(_spread, events)]
    assert sse_subject.folded(*spread) == sse_subject.folded(*events), (
        "the lines of several `data` fields of an event belong together"
    )
    dense = [re.sub(rb"(?m)^data: ", b"data:", event) for event in events]
    assert sse_subject.events(*dense) == sse_subject.events(*events), "the space after `data:` may be missing"


def test_data_after_done_is_ignored(sse_subject: Subject) -> None:
    *events, last = sse_subject.stream(*rich_answer(sse_subject))
    if b"[DONE]" not in last:
        return
    whole = sse_subject.folded(*events, last)
    for mark in (b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]\r\n\r\n"):
        for after in ((), (last,), events, (b"data: {\n\n",), (b"<html>",)):
            assert sse_subject.folded(*events, mark, *after) == whole, (
                f"the answer differs if {after!r} follows {mark!r}: ignore everything after `[DONE]`"
            )


def test_unknown_fields_and_events_are_ignored(subject: Subject) -> None:
    events = subject.stream(*rich_answer(subject))
    marked = [checks.event_with_new_members(event) for event in events]
    # Lines of JSON arrays have no members, and no place for an unknown kind of line.
    has_objects = any(map(checks.has_object, events))
    unknown = (
        checks.NEW_EVENT if subject.streams_text else checks.NEW_LINE if subject.streams_lines and has_objects else b""
    )
    whole = subject.folded(*events)
    for pieces in (marked, [piece for event in events for piece in (unknown, event)]):
        assert checks.without_new_members(subject.folded(*pieces)) == checks.without_new_members(whole), (
            "unknown members and events must change nothing: read only what you use"
        )


def test_missing_member_never_becomes_another_finish_reason(subject: Subject) -> None:
    """A vendor, or a proxy before it, may leave out any member. Then the reason is `other`, or the stream fails.

    An answer that was cut off must not become a complete one because its reason is missing. Only a server of one's own
    may end a stream without one, which is named so.
    """
    cut_off = completion_of(subject, chat.Choice(chat.AssistantMessage("Oslo is the capital"), "length"))
    for completion, request in ((cut_off, question()), rich_answer(subject)):
        events = subject.stream(completion, request)
        for position, event in enumerate(events):
            for name, smaller in checks.event_without_each_member(event):
                emitted = subject.events(*events[:position], smaller, *events[position + 1 :])
                checks.check_order(emitted)
                ends = [one for one in emitted if isinstance(one, chat.ChoiceFinish)]
                reasons = {one.reason for one in ends if one.raw != MISSING}
                assert (
                    completion is not cut_off or isinstance(emitted[-1], chat.Failed) or reasons <= {"length", "other"}
                ), (
                    f"without {name!r} in {event!r}, the finish reason is {', '.join(reasons)}: if the reason is "
                    "missing, finish the choice with 'other' or end the stream with `Failed`"
                )


def test_blank_lines_and_line_ends_of_json_lines_are_ignored(subject: Subject) -> None:
    """Only for JSON Lines; server-sent events have their own tests."""
    if not subject.streams_lines:
        return
    events = subject.stream(*rich_answer(subject))
    whole = checks.without_heartbeats(subject.events(*events))
    for pieces in (
        [event.removesuffix(b"\n") + b"\r\n" for event in events],
        [b"\n", b"\r\n", *(event + b"\n" for event in events)],
    ):
        assert checks.without_heartbeats(subject.events(*pieces)) == whole, (
            "blank lines and the line ends of JSON Lines must change nothing"
        )


def _spread(event: bytes) -> bytes:
    """Return the event with each line of its indented JSON in a `data` field of its own."""
    lines: list[bytes] = []
    for line in event.split(b"\n"):
        values = checks.in_list(line.removeprefix(b"data:")) if line.startswith(b"data:") else []
        whole = [json.dumps(value, indent=1).encode() for value in values if isinstance(value, dict | list)]
        lines += [b"data: " + one for one in whole[0].splitlines()] if whole else [line]
    return b"\n".join(lines)
