"""A provider's bytes with what no provider has yet: new members in every object, and a new kind of event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from providers.chat import ChatCompletion, Choice
from providers.conformance.meaning import arguments_value
from providers.json_values import JsonError, dumps, loads

__all__ = ["NEW_EVENT", "NEW_LINE", "event_with_new_members", "with_new_members", "without_new_members"]

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
