"""Text in the pieces that a model would make it of: what is counted as tokens, and sent one by one in a stream."""

from __future__ import annotations

import re

__all__ = ["cut", "cut_in_two"]

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
