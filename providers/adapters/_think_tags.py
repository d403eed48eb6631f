"""Take thoughts out of a text that holds them within `<think>` tags, whatever way the text is cut."""

from __future__ import annotations

__all__ = ["ThinkTags"]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkTags:
    """One text in the making. Thoughts stand at its beginning only; a tag further behind is text like any other."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "before"
        self._held = ""

    def split(self, piece: str, last: bool) -> tuple[str, str]:
        """The thoughts and the text that are certain after this piece; `last`: nothing more comes."""
        thoughts = text = ""
        rest, self._held = self._held + piece, ""
        if self._state == "before":
            begun = rest.lstrip()
            if begun.startswith(_OPEN):
                self._state, rest = "within", begun[len(_OPEN) :]
            elif not last and _OPEN.startswith(begun):
                self._held = rest
                return "", ""
            else:
                self._state = "behind"
        if self._state == "within":
            thoughts, closed, rest = rest.partition(_CLOSE)
            if closed:
                self._state = "after"
            elif not last:
                kept = _tail(thoughts)
                self._held = thoughts[len(thoughts) - kept :]
                thoughts = thoughts[: len(thoughts) - kept]
        if self._state == "after":
            # The blank line between thoughts and answer belongs to neither.
            rest = rest.lstrip()
            if rest:
                self._state = "behind"
        if self._state == "behind":
            text = rest
        return thoughts, text


def _tail(text: str) -> int:
    """How many characters at the end may be the beginning of the closing tag."""
    return next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)
