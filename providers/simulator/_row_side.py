"""The provider's side of a row: how its answers, streams and errors look. The table `[simulator]` of the row's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from providers.adapters._row_shapes import RowError
from providers.failures import FailureKind

__all__ = ["Side", "read_side"]

_WORDS = {
    "tools": ("fragments", "whole", "repeated", "same_index", "no_index"),
    "usage": ("last", "finish", "each", "choice"),
    "reasoning": ("reasoning_content", "reasoning", "tags", "parts", "details"),
    "role": ("first", "each", "empty"),
}


@dataclass(frozen=True, slots=True)
class Side:
    """What this vendor's bytes look like; the defaults are OpenAI's.

    error: the body of an error, with `$code`, `$number` (the code as a number), `$type` and `$message` to be filled in;
    errors: kind -> (code, type); without one for `quota`, a spent quota is told by status 402, and without one for
    `content_filter` the filter is told by the word for the end. refused: the code, type and status of a request that is
    wrong.
    tools, objects: how calls come in a stream; arguments as an object. usage: where it stands in a stream. reasoning:
    where thoughts stand. role: in which deltas it stands. finish: our word for the end -> theirs. answer, choice:
    members of every body, of every choice; filtered: of a choice that the safety system stopped; opening: the first
    chunk. comment: sent between events; blank: sent before a whole answer. space: whether one stands behind `data:`.
    whole_at_end: a stream ends with the whole message; message_is_delta: a stream's choices have `message`.
    """

    error: Mapping[str, Any] = field(default_factory=lambda: _OPENAI_ERROR)
    errors: Mapping[FailureKind, tuple[str, str]] = field(default_factory=dict)
    refused: tuple[str, str, int] = ("invalid_parameter", "invalid_request_error", 400)
    tools: str = "fragments"
    objects: bool = False
    usage: str = "last"
    reasoning: str = "reasoning_content"
    role: str = "first"
    finish: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    filtered: Mapping[str, Any] = field(default_factory=dict)
    opening: Mapping[str, Any] = field(default_factory=dict)
    comment: str = ""
    blank: str = ""
    space: bool = True
    whole_at_end: bool = False
    message_is_delta: bool = False


_OPENAI_ERROR: Mapping[str, Any] = {"error": {"message": "$message", "type": "$type", "param": "", "code": "$code"}}


def read_side(data: Mapping[str, Any]) -> Side:
    """The side of a parsed `[simulator]` table; raises RowError."""
    known = {one.name for one in fields(Side)}
    for name in data:
        if name not in known:
            raise RowError(f"simulator: {name!r} is not known; expected one of {', '.join(sorted(known))}")
    for name, words in _WORDS.items():
        if data.get(name, words[0]) not in words:
            raise RowError(f"simulator.{name}: {data[name]!r} is not known; expected one of {', '.join(words)}")
    values: dict[str, Any] = dict(data)
    values["errors"] = {FailureKind(kind): (str(code), str(word)) for kind, (code, word) in _errors(data).items()}
    if "refused" in data:
        code, word, status = data["refused"]
        values["refused"] = (str(code), str(word), int(status))
    return Side(**values)


def _errors(data: Mapping[str, Any]) -> Mapping[str, Any]:
    errors: Mapping[str, Any] = data.get("errors", {})
    return errors
