"""What a simulated model says, in the pieces that it would make it of: text as tokens, and the arguments of calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from providers.chat import ChatCompletion, ChatRequest, Choice, ToolCall
from providers.json_values import JsonError, as_map, loads

__all__ = ["arguments_of", "cut", "cut_in_two", "with_stop_left_in"]

# A word with the space before it, one ideograph or kana, or a run of anything else.
_PIECE = re.compile(
    r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]+)|\s+"
)


def cut(text: str) -> tuple[str, ...]:
    """The pieces, in order; joined they are the text."""
    return tuple(_PIECE.findall(text))


def cut_in_two(text: str) -> tuple[str, ...]:
    """Two halves, or what there is: JSON text of arguments has no natural pieces."""
    middle = len(text) // 2
    return tuple(half for half in (text[:middle], text[middle:]) if half)


def arguments_of(call: ToolCall) -> Mapping[str, object]:
    """A call's arguments for a format that has an object for them; what is none is empty."""
    try:
        return as_map(loads(call.arguments.encode()))
    except JsonError:
        return {}


def with_stop_left_in(completion: ChatCompletion, request: ChatRequest) -> ChatCompletion:
    """The answer as a vendor gives it that stops behind the words of `stop`: a text that ended ends with the first."""
    if not request.stop:
        return completion
    return replace(completion, choices=tuple(_ended(choice, request.stop[0]) for choice in completion.choices))


def _ended(choice: Choice, stop: str) -> Choice:
    content = choice.message.content
    if choice.finish_reason != "stop" or not isinstance(content, str):
        return choice
    return replace(choice, message=replace(choice.message, content=content + stop))
