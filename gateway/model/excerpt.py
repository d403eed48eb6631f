"""Parts of longer texts that are sent by themselves. A part may cut a value, so a redaction needs its surroundings.

All that quotes a part of an answer or of a prompt for a provider makes the part with `excerpt`.
"""

from __future__ import annotations

AROUND = 4000
"""How many characters around an excerpt are kept: those of a private key."""


class Excerpt(str):
    """A part of a longer text, with the end of the text before it, and the beginning of the text after it."""

    __slots__ = ("after", "before")
    before: str
    after: str


class Own(str):
    """Words of the gateway, which have no value of a person."""

    __slots__ = ()


class Quoting(str):
    """A text that quotes others: each of its parts is redacted by itself, but for those that are `Own`."""

    __slots__ = ("parts",)
    parts: tuple[str, ...]


def excerpt(text: str, start: int, end: int) -> str:
    """Return a part of a text with what stands around it."""
    if start <= 0 and end >= len(text):
        return text
    part = Excerpt(text[start:end])
    part.before, part.after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return part


def quoting(*parts: str) -> Quoting:
    """Return a text that consists of these parts."""
    text = Quoting("".join(parts))
    text.parts = parts
    return text
