"""Find where a JSON object ends in a text that arrives in pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass

from providers.json_values import dumps_text

_IN_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARKS = re.compile(r'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
"""The marks of JSON that show where an object ends, and whole strings, which hide them."""
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ESCAPE_OR_CONTROL = re.compile(r"\\.|[\x00-\x1f]", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class ObjectScanner:
    """The place in an object at which its next piece begins. With `is_whole`, the object has ended."""

    is_whole: bool = False
    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False

    def end_in(self, piece: str) -> int:
        """Return where the object ends in the next piece: after its last brace, or the length of the piece."""
        start, length = 0, len(piece)
        if self.in_string and piece:
            if '"' not in piece and "\\" not in piece and not self.is_escaped:
                return length  # most pieces
            start = self._skip(piece, 1 if self.is_escaped else 0)
        for mark in _MARKS.finditer(piece, start):
            match mark[0]:
                case '"':
                    self._skip(piece, mark.end())
                    break
                case "{" | "[":
                    self.depth += 1
                case "}" | "]":
                    self.depth -= 1
                    if self.depth <= 0:
                        self.is_whole = True
                        return mark.end()
        return length

    def with_escapes(self, piece: str) -> str:
        """Return the next piece with control characters escaped in its strings, where JSON allows none as they are."""
        start = 1 if self.is_escaped else 0
        rest = _IN_STRING.match(piece, start) if self.in_string else None
        end = rest.end() + 1 if rest is not None else start
        written = _STRINGS.sub(lambda string: _escape_controls(string[0]), piece[end:])
        return piece[:start] + _escape_controls(piece[start:end]) + written

    def _skip(self, piece: str, start: int) -> int:
        """Skip the rest of a string from `start` on, which may go on in the next piece. Return where it ends."""
        rest = _IN_STRING.match(piece, start)
        end = rest.end() if rest is not None else start
        self.in_string = end == len(piece) or piece[end] != '"'
        self.is_escaped = self.in_string and piece[end:] == "\\"
        return len(piece) if self.in_string else end + 1


def _escape_controls(text: str) -> str:
    return _ESCAPE_OR_CONTROL.sub(lambda mark: mark[0] if len(mark[0]) > 1 else dumps_text(mark[0])[1:-1], text)
