"""Shared assertions of the conformance kit, and functions that add unknown members to JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from providers import chat
from providers.conformance.meaning import arguments_value
from providers.json_values import JsonError, dumps, loads
from providers.value import replace
from providers.wire import WireRequest

THOROUGH = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
"""The settings of a test with generated values, which are the same in each run."""
_CUTS_AT_ONCE = 8
_LAST_BYTES, _STEP = b'}]"\r\n', 5
_NEW, _LAST = "x_new", "x_last"
_NEW_VALUE: dict[str, object] = {"deep": [None, 1.5]}
NEW_LINE = dumps({_NEW: _NEW_VALUE}) + b"\n"
"""A line of a JSON Lines stream whose content is unknown, as a vendor might add it later."""
NEW_EVENT = b"event: x-new-kind\nid: 17\nretry: 10\nx-field: 1\ndata: " + NEW_LINE + b"\n"
"""The same content as a server-sent event of an unknown type."""
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_RESERVED_HEADERS = frozenset(
    "host content-length connection keep-alive transfer-encoding te trailer upgrade expect forwarded via "
    "authorization proxy-authorization cookie x-api-key x-goog-api-key accept-encoding".split()
)
"""Headers for framing, routing and credentials. The HTTP client writes them, never an adapter."""
_COMPARED_FIELDS = "index, text, refusal, tool calls, finish reason and log probabilities"
_CREDENTIALS = frozenset({"key", "api_key", "api-key", "apikey", "access_token", "token"})


def check_division(events_of: Callable[..., tuple[chat.StreamEvent, ...]], stream: bytes, cuts: Sequence[int]) -> None:
    """Assert that the stream has the same events if it is divided at the cuts, of which each reading tries eight."""
    whole = events_of(stream)
    rounds = -(-len(cuts) // _CUTS_AT_ONCE)
    for first in range(rounds):
        chosen = cuts[first::rounds]
        if events_of(*(stream[start:end] for start, end in pairwise((0, *chosen, len(stream))))) != whole:
            at = next((cut for cut in chosen if events_of(stream[:cut], stream[cut:]) != whole), chosen[0])
            raise AssertionError(
                f"the events differ if the stream is divided at byte {at}, after {stream[:at][-40:]!r}"
            )


def lengths_of_prefixes(stream: bytes) -> list[int]:
    """Return where a truncated stream can end with whole JSON or a whole line, each fifth byte, and its end."""
    ends = range(1, len(stream))
    return [0, *(end for end in ends if end % _STEP == 0 or stream[end - 1] in _LAST_BYTES), len(stream)]


def with_new_members(document: bytes) -> bytes:
    """Return the JSON with unknown members added to each of its objects, or `document` itself if it is not JSON."""
    try:
        return dumps(_grown(loads(document)))
    except JsonError:
        return document


def event_with_new_members(event: bytes) -> bytes:
    """Return the event with unknown members added to each object of its JSON, bare or in a `data` field."""
    lines = event.split(b"\n")
    for position, line in enumerate(lines):
        start = b"data:" if line.startswith(b"data:") else b""
        lines[position] = start + with_new_members(line[len(start) :])
    return b"\n".join(lines)


def has_object(event: bytes) -> bool:
    """Return whether the JSON of an event has an object, to which members can be added."""
    return _NEW.encode() in event_with_new_members(event)


def without_each_member(document: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the JSON without each of its members in turn, after the name of that member. Nothing if it is not JSON."""
    yield from ((name, dumps(smaller)) for value in in_list(document) for name, smaller in _smaller(value))


def event_without_each_member(event: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the event without each member of its JSON lines in turn, after the name of that member."""
    for before, document, after in json_lines(event):
        yield from ((name, before + smaller + after) for name, smaller in without_each_member(document))


def json_lines(event: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield each JSON object or array of an event, bare or in a `data` field, with what stands before and after it."""
    lines = event.split(b"\n")
    for position, line in enumerate(lines):
        start = b"data: " if line.startswith(b"data:") else b""
        document = line[5:].strip() if start else line
        if isinstance(next(iter(in_list(document)), None), dict | list):
            after = lines[position + 1 :]
            yield b"\n".join([*lines[:position], start]), document, b"\n".join([b"", *after] if after else [])


def altered(document: bytes, values_of: Callable[[object, tuple[object, ...]], Iterable[object]]) -> Iterator[object]:
    """Yield the JSON with the value at each place in turn replaced by each of `values_of`; nothing without JSON."""
    whole = in_list(document)
    for parent, key, place in list(positions(whole)):
        right = parent[key]
        for value in values_of(right, place):
            parent[key] = value
            yield whole[0]
        parent[key] = right


def in_list(document: bytes) -> list[Any]:
    """Return the JSON as the only entry of a list, which is empty if it is not JSON."""
    try:
        return [loads(document)]
    except JsonError:
        return []


def positions(value: Any, place: tuple[object, ...] = ()) -> Iterator[tuple[Any, Any, tuple[object, ...]]]:
    """Yield each position in a value as its container, the key or index in it, and all keys that lead to it."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(members):
        yield value, key, (*place, key)
        yield from positions(member, (*place, key))


def _smaller(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield name, {other: kept for other, kept in value.items() if other != name}
            yield from ((inner, {**value, name: smaller}) for inner, smaller in _smaller(member))
    elif isinstance(value, list):
        for at, member in enumerate(value):
            yield from ((inner, [*value[:at], smaller, *value[at + 1 :]]) for inner, smaller in _smaller(member))


def without_new_members(completion: chat.ChatCompletion) -> chat.ChatCompletion:
    """Return the answer without unknown members in tool arguments and log probabilities, and without signatures.

    Those parts are passed on unchanged, so unknown members stay in them. A signature may contain the unknown members
    of its call, for the model that sent them.
    """
    return replace(completion, choices=tuple(_old(choice) for choice in completion.choices))


def _old(choice: chat.Choice) -> chat.Choice:
    calls = tuple(
        replace(call, arguments=dumps(_shrunk(arguments_value(call.arguments))).decode(), signature=None)
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


def check_wire(wire: WireRequest, base_path: str) -> None:
    """Assert that the request is valid and cannot change where it is sent."""
    assert wire.method == "POST", f"method {wire.method!r}: must be 'POST'"
    assert wire.path.startswith(base_path + "/"), (
        f"path {wire.path!r}: must begin with the base path {base_path!r} and a slash"
    )
    # For some APIs `/` is the only path; then the last segment is empty.
    for segment in wire.path.removesuffix("/")[1:].split("/") if wire.path != "/" else ():
        assert _SEGMENT.fullmatch(segment), (
            f"path {wire.path!r}: the segment {segment!r} is empty or not percent-encoded"
        )
        assert not _BAD_ESCAPE.search(segment), f"path {wire.path!r}: the segment {segment!r} has an invalid % escape"
        assert segment.replace("%2e", ".").replace("%2E", ".") not in (".", ".."), (
            f"path {wire.path!r}: a dot segment is unsafe, even if encoded: raise UnsupportedFeature for such a name"
        )
    names = [name for name, _ in wire.headers]
    assert len(set(names)) == len(names), f"a header name occurs twice: {names!r}"
    content_type = dict(wire.headers).get("content-type", "")
    assert "json" in content_type, (
        f"content-type {content_type!r}: the adapter must set the content type of its JSON body"
    )
    for name, value in wire.headers:
        assert _TOKEN.fullmatch(name), f"header name {name!r}: must be a valid token in lower case"
        assert name not in _RESERVED_HEADERS, f"header {name!r}: reserved for the HTTP client; do not set it"
        assert not name.startswith(("x-forwarded-", "proxy-")), (
            f"header {name!r}: proxy headers must not be set by an adapter"
        )
        assert _VALUE.fullmatch(value), f"header {name}: invalid value {value!r}"
    for name, value in wire.query:
        assert name.lower() not in _CREDENTIALS, (
            f"query parameter {name!r}: URLs are logged, so credentials must be sent in a header, with `auth`"
        )
        assert _VALUE.fullmatch(f"{name}={value}"), f"query parameter {name!r}: invalid value {value!r}"


def without_heartbeats(events: Sequence[chat.StreamEvent]) -> list[chat.StreamEvent]:
    return [event for event in events if not isinstance(event, chat.Heartbeat)]


def content_events(events: Sequence[chat.StreamEvent]) -> list[chat.StreamEvent]:
    """Return the events that carry text, reasoning, a refusal or tool calls of the answer."""
    return [
        e
        for e in events
        if isinstance(e, chat.TextDelta | chat.ReasoningDelta | chat.RefusalDelta | chat.ToolCallDelta)
    ]


def check_ends_once(events: Sequence[chat.StreamEvent]) -> chat.Finished | chat.Failed:
    """Return the terminal event. Assert that it is the only one and the last, and that `Opened` can only be first."""
    terminal = [event for event in events if isinstance(event, chat.Finished | chat.Failed)]
    assert len(terminal) == 1, (
        f"the stream must end with exactly one `Finished` or `Failed`, not {len(terminal)}: {events!r}"
    )
    assert events[-1] is terminal[0], f"events follow the terminal event: {events!r}"
    meaningful = without_heartbeats(events)
    opened = [position for position, event in enumerate(meaningful) if isinstance(event, chat.Opened)]
    assert opened in ([], [0]), f"`Opened` must be the first event and occur only once; found at positions {opened}"
    return terminal[0]


def check_order(events: Sequence[chat.StreamEvent]) -> None:
    """Assert that the events are in canonical order, so that a client can assemble them.

    Nothing of a choice follows its `ChoiceFinish`. A tool call's first piece, and no other, has its id and name. Usage
    is reported once, just before the end.
    """
    ended = check_ends_once(events)
    finished: set[int] = set()
    begun: set[tuple[int, int]] = set()
    meaningful = without_heartbeats(events)
    for position, event in enumerate(meaningful):
        if isinstance(event, chat.ToolCallDelta):
            is_first = (event.choice, event.index) not in begun
            assert is_first == bool(event.id) == bool(event.name), (
                f"only the first piece of a tool call, and always that one, must have its id and name: {event!r}"
            )
            begun.add((event.choice, event.index))
        if isinstance(
            event,
            chat.TextDelta
            | chat.ReasoningDelta
            | chat.RefusalDelta
            | chat.AnnotationsDelta
            | chat.ToolCallDelta
            | chat.ChoiceFinish,
        ):
            assert event.choice not in finished, f"{event!r} follows the `ChoiceFinish` of its choice"
        if isinstance(event, chat.ChoiceFinish):
            finished.add(event.choice)
        if isinstance(event, chat.UsageReport):
            assert position == len(meaningful) - 2, "`UsageReport` must occur once, directly before the terminal event"
    assert finished or isinstance(ended, chat.Failed), "a stream that ends with `Finished` needs a `ChoiceFinish`"


def check_answer(actual: chat.ChatCompletion, wanted: chat.ChatCompletion, sent: bytes) -> None:
    """Assert that the adapter read the answer that the simulator was given and that it `sent` as these bytes."""
    # Some vendors send the answer's id in a header only, and a stream parser sees no headers.
    assert actual.id in ("", wanted.id), f"id: {wanted.id!r} was sent, and {actual.id!r} was read"
    assert actual.model == wanted.model, f"model: {wanted.model!r} was sent, and {actual.model!r} was read"
    assert actual.created in (0, wanted.created), (
        f"created: {actual.created} was read; it must be the provider's time ({wanted.created}), or 0 if it sends none"
    )
    read, expected = [_fields(choice) for choice in actual.choices], [_fields(choice) for choice in wanted.choices]
    assert read == expected, (
        f"choices ({_COMPARED_FIELDS}) differ. The provider sent\n{expected!r}\nand the adapter read\n{read!r}"
    )
    for choice, expected_choice in zip(actual.choices, wanted.choices, strict=True):
        if expected_choice.finish_reason == "other":
            assert choice.raw_finish_reason == expected_choice.raw_finish_reason, (
                "`raw_finish_reason` must keep the provider's own value if `finish_reason` is 'other'"
            )
        # Some models do not show their reasoning.
        assert choice.message.reasoning in (None, expected_choice.message.reasoning), (
            f"reasoning: {expected_choice.message.reasoning!r} was sent, and {choice.message.reasoning!r} was read"
        )
        calls = zip(choice.message.tool_calls, expected_choice.message.tool_calls, strict=True)
        for call, expected_call in calls:
            # Some vendors have no call ids. If an id was sent, the next turn must refer to the call by it.
            assert call.id == expected_call.id or expected_call.id.encode() not in sent, (
                f"tool call id: {expected_call.id!r} was sent, and {call.id!r} was read"
            )
        assert choice.message.content is not None or choice.message.tool_calls, (
            "`content` must be '' if an answer has neither text nor tool calls"
        )
    # Some vendors count reasoning as output without a separate count.
    uncounted = None if wanted.usage is None else replace(wanted.usage, reasoning_tokens=0)
    assert actual.usage in (wanted.usage, uncounted), (
        f"usage: {wanted.usage!r} was sent, and {actual.usage!r} was read from {sent[-400:]!r}"
    )


def _fields(choice: chat.Choice) -> tuple[object, ...]:
    message = choice.message
    calls = [(call.name, arguments_value(call.arguments)) for call in message.tool_calls]
    assert all(call.id for call in message.tool_calls), "a tool call has no id"
    assert len({call.id for call in message.tool_calls}) == len(calls), "two tool calls have the same id"
    return choice.index, chat.text_of(message.content), message.refusal, calls, choice.finish_reason, choice.logprobs
