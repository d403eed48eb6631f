"""Parts of longer texts that are sent by themselves. A part may cut a value, so a redaction needs its surroundings."""

from __future__ import annotations

AROUND = 400
"""How many characters around an excerpt are kept."""


class Excerpt(str):
    """A part of a longer text, with the end of the text before it, and the beginning of the text after it."""

    __slots__ = ("after", "before")
    before: str
    after: str


class Quoting(str):
    """A text of the gateway that quotes a part of another one, between the words `head` and `tail`."""

    __slots__ = ("head", "quoted", "tail")
    head: str
    quoted: str
    tail: str


def excerpt(text: str, start: int, end: int) -> str:
    """Return a part of a text with what stands around it."""
    if start <= 0 and end >= len(text):
        return text
    part = Excerpt(text[start:end])
    part.before, part.after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return part


def quoting(head: str, quoted: str, tail: str) -> Quoting:
    """Return a text that quotes a part."""
    text = Quoting(f"{head}{quoted}{tail}")
    text.head, text.quoted, text.tail = head, quoted, tail
    return text
