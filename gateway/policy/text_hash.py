"""The hash of a text that passes in pieces. Of the text, only the states of SHA-256 are kept. Pure."""

from __future__ import annotations

import hashlib
import re

# The Unicode property White_Space (PropList.txt of Unicode 17): its ASCII characters, and the others in UTF-8.
_ASCII_SPACE = b"\t\n\v\f\r "
_WIDE_SPACE = re.compile(rb"\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80")


def _folded(data: bytes) -> bytes:
    """Return a text in UTF-8 without white space. Most texts have none of the first bytes of the wide ones."""
    data = data.translate(None, _ASCII_SPACE)
    if data.isascii() or not (b"\xc2" in data or b"\xe2" in data or b"\xe3\x80\x80" in data or b"\xe1\x9a" in data):
        return data
    return _WIDE_SPACE.sub(b"", data)


class TextHash:
    """The SHA-256 of a text that passes in pieces, and of the same without white space if `folds`."""

    __slots__ = ("_exact", "_folded")

    def __init__(self, *, folds: bool) -> None:
        self._exact = hashlib.sha256()
        self._folded = hashlib.sha256() if folds else None

    def add(self, text: str) -> None:
        """Add the next piece. Only whole characters are in a piece, so its borders change nothing."""
        data = text.encode("utf-8", "surrogatepass")
        self._exact.update(data)
        if self._folded is not None:
            self._folded.update(_folded(data))

    @property
    def exact(self) -> str:
        """The hash of the text, in hex."""
        return self._exact.hexdigest()

    @property
    def folded(self) -> str:
        """The hash without any character of the Unicode property White_Space, in hex. Empty if it is not computed."""
        return self._folded.hexdigest() if self._folded is not None else ""
