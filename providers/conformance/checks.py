"""Shared assertions of the conformance kit, and bytes with members that no provider has yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from providers.chat import (
    AnnotationsDelta,
    ChatCompletion,
    Choice,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    text_of,
)
from providers.conformance.meaning import arguments_value
from providers.json_values import JsonError, dumps, loads
from providers.wire import WireRequest

_NEW, _LAST = "x_new", "x_last"


_NEW_VALUE: dict[str, object] = {"deep": [None, 1.5]}


NEW_LINE = dumps({_NEW: _NEW_VALUE}) + b"\n"
"""What a vendor whose streams are lines of JSON says in words of tomorrow."""


NEW_EVENT = b"event: x-new-kind\nid: 17\nretry: 10\nx-field: 1\ndata: " + NEW_LINE + b"\n"
"""The same as a server-sent event of a new name."""


def with_new_members(document: bytes) -> bytes:
    """The JSON with new members in each of its objects; what is no JSON stays."""
    try:
        return dumps(_grown(loads(document)))
    except JsonError:
        return document


def event_with_new_members(event: bytes) -> bytes:
    """An event of a stream, each of whose lines of JSON, in a `data` field or bare, has them."""
    lines = event.split(b"\n")
    for position, line in enumerate(lines):
        if line.startswith(b"data:") and b"{" in line:
            lines[position] = b"data:" + with_new_members(line[5:])
        elif line.startswith(b"{"):
            lines[position] = with_new_members(line)
    return b"\n".join(lines)


def without_new_members(completion: ChatCompletion) -> ChatCompletion:
    """The answer without those that stood where everything is the model's, or passed through as it came."""
    return replace(completion, choices=tuple(_old(choice) for choice in completion.choices))


def _old(choice: Choice) -> Choice:
    calls = tuple(
        replace(call, arguments=dumps(_shrunk(arguments_value(call.arguments))).decode())
        for call in choice.message.tool_calls
    )
    return replace(choice, message=replace(choice.message, tool_calls=calls), logprobs=_shrunk(choice.logprobs))


def _grown(value: object) -> object:
    if isinstance(value, dict):
        return {_NEW: _NEW_VALUE, **{name: _grown(member) for name, member in value.items()}, _LAST: "\u2028"}
    return [_grown(member) for member in value] if isinstance(value, list) else value


def _shrunk(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shrunk(member) for name, member in value.items() if name not in (_NEW, _LAST)}
    return [_shrunk(member) for member in value] if isinstance(value, list) else value


_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+")


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


_NOT_THEIRS = frozenset(
    {
        "host",
        "content-length",
        "connection",
        "keep-alive",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "forwarded",
        "via",
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-goog-api-key",
        "accept-encoding",
    }
)
"""Headers of framing, routing and credentials: whoever sends the request writes them."""


_SAID = "its index, text, refusal, calls, finish reason and log probabilities"


_CREDENTIALS = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token"})


def check_wire(wire: WireRequest, base_path: str) -> None:
    """Assert that whoever sends this can't be led elsewhere by it."""
    assert wire.method == "POST", f"method {wire.method!r}"
    assert wire.path.startswith(base_path + "/"), f"path {wire.path!r} doesn't begin with {base_path!r} and a slash"
    # Of some APIs `/` is the only path; then the last segment is empty.
    for segment in wire.path.removesuffix("/")[1:].split("/") if wire.path != "/" else ():
        assert _SEGMENT.fullmatch(segment), f"path {wire.path!r}: segment {segment!r} is empty or not encoded"
        assert not _BAD_ESCAPE.search(segment), f"path {wire.path!r}: {segment!r} has a broken escape"
        assert segment.replace("%2e", ".").replace("%2E", ".") not in (".", ".."), (
            f"path {wire.path!r}: dot segment; no encoding hides one, so raise UnsupportedFeature for such a name"
        )
    names = [name for name, _ in wire.headers]
    assert len(set(names)) == len(names), f"a header stands twice: {names!r}"
    content_type = dict(wire.headers).get("content-type", "")
    assert "json" in content_type, f"content-type {content_type!r}: nobody adds the one of a JSON body"
    for name, value in wire.headers:
        assert _TOKEN.fullmatch(name), f"header name {name!r} is no lower-case token"
        assert name not in _NOT_THEIRS, f"header {name!r} is written by whoever sends the request"
        assert not name.startswith(("x-forwarded-", "proxy-")), f"header {name!r} routes"
        assert _VALUE.fullmatch(value), f"header {name}: {value!r}"
    for name, value in wire.query:
        assert name.lower() not in _CREDENTIALS, f"query {name!r}: a key is a header's, by `auth`; URLs are logged"
        assert _VALUE.fullmatch(f"{name}={value}"), f"query {name!r}: {value!r}"


def without_heartbeats(events: Sequence[StreamEvent]) -> list[StreamEvent]:
    """The events that mean something."""
    return [event for event in events if not isinstance(event, Heartbeat)]


def content_events(events: Sequence[StreamEvent]) -> list[StreamEvent]:
    """The events that carry something of an answer."""
    return [e for e in events if isinstance(e, TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta)]


def check_ends_once(events: Sequence[StreamEvent]) -> Finished | Failed:
    """Assert that the stream is opened at most once and first, and ended once and last; the terminal event."""
    terminal = [event for event in events if isinstance(event, Finished | Failed)]
    assert len(terminal) == 1, f"{len(terminal)} terminal events in {events!r}"
    assert events[-1] is terminal[0], f"events after the terminal one in {events!r}"
    meaningful = without_heartbeats(events)
    opened = [position for position, event in enumerate(meaningful) if isinstance(event, Opened)]
    assert opened in ([], [0]), f"the opening comes once and first, not at {opened}"
    return terminal[0]


def check_order(events: Sequence[StreamEvent]) -> None:
    """Assert that a client can put these together, in whatever order the provider's pieces came: nothing of a choice
    behind its finish, a call's id and name with its first piece and no other, and the usage once, behind it all."""
    ended = check_ends_once(events)
    finished: set[int] = set()
    begun: set[tuple[int, int]] = set()
    meaningful = without_heartbeats(events)
    for position, event in enumerate(meaningful):
        if isinstance(event, ToolCallDelta):
            is_first = (event.choice, event.index) not in begun
            assert is_first == bool(event.id) == bool(event.name), f"a call's first piece alone has its id: {event!r}"
            begun.add((event.choice, event.index))
        if isinstance(
            event, TextDelta | ReasoningDelta | RefusalDelta | AnnotationsDelta | ToolCallDelta | ChoiceFinish
        ):
            assert event.choice not in finished, f"{event!r} comes behind the finish of its choice"
        if isinstance(event, ChoiceFinish):
            finished.add(event.choice)
        if isinstance(event, UsageReport):
            assert position == len(meaningful) - 2, "usage comes once, and nothing but the end behind it"
    assert finished or isinstance(ended, Failed), "a whole answer has a finish"


def check_answer(actual: ChatCompletion, wanted: ChatCompletion, sent: bytes) -> None:
    """Assert that an answer says what the provider said in `sent`, a body or a stream."""
    # Some vendors name an answer in a header alone, which no stream parser sees.
    assert actual.id in ("", wanted.id)
    assert actual.model == wanted.model, f"the model: {actual.model!r} was read, {wanted.model!r} was sent"
    assert actual.created in (0, wanted.created), f"created is {actual.created}: the provider says when, no clock does"
    read, said = [_said(choice) for choice in actual.choices], [_said(choice) for choice in wanted.choices]
    assert read == said, f"of each choice, {_SAID} were\n{said!r} as it was sent, and\n{read!r} as it was read"
    for got, meant in zip(actual.choices, wanted.choices, strict=True):
        if meant.finish_reason == "other":
            assert got.raw_finish_reason == meant.raw_finish_reason, "the provider's own word for the end is lost"
        # Some models think without showing it.
        assert got.message.reasoning in (None, meant.message.reasoning)
        for call, named in zip(got.message.tool_calls, meant.message.tool_calls, strict=True):
            # Some vendors have no ids; the next turn names the call by the id that they do have.
            assert call.id == named.id or named.id.encode() not in sent, f"the id {named.id!r} became {call.id!r}"
        assert got.message.content is not None or got.message.tool_calls, "no text is '' where no tool is called"
    # Some vendors count thoughts as output without saying how many they were.
    uncounted = None if wanted.usage is None else replace(wanted.usage, reasoning_tokens=0)
    assert actual.usage in (wanted.usage, uncounted), f"the usage: {actual.usage!r} was read of {sent[-400:]!r}"


def _said(choice: Choice) -> tuple[object, ...]:
    message = choice.message
    calls = [(call.name, arguments_value(call.arguments)) for call in message.tool_calls]
    assert all(call.id for call in message.tool_calls), "a call without an id"
    assert len({call.id for call in message.tool_calls}) == len(calls), "two calls with one id"
    return choice.index, text_of(message.content), message.refusal, calls, choice.finish_reason, choice.logprobs
