"""Split the answers of a simulated model into pieces: text into tokens, and tool call arguments into halves."""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.chat import ToolCall
from providers.json_values import JsonError, as_map, loads

# A word with the space before it, one ideograph or kana, or a run of anything else.
_PIECE = re.compile(
    r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]+)|\s+"
)


def cut(text: str) -> tuple[str, ...]:
    """Split a text into tokens, each a word with the space before it, an ideograph, or punctuation.

    Joined they are the text.

    Examples:
        >>> from providers.testkit import cut
        >>> cut("Hello there!")
        ('Hello', ' there', '!')
    """
    return tuple(_PIECE.findall(text))


def cut_in_two(text: str) -> tuple[str, ...]:
    """Split a text, such as the JSON text of arguments, into its halves that are not empty."""
    middle = len(text) // 2
    return tuple(half for half in (text[:middle], text[middle:]) if half)


def arguments_of(call: ToolCall) -> Mapping[str, object]:
    """Return the arguments of a tool call as an object, for wire formats that do not send them as text.

    It is empty if they are not a JSON object.
    """
    try:
        return as_map(loads(call.arguments.encode()))
    except JsonError:
        return {}
