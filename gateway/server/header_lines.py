"""The header lines of an answer as they are written, none of which may be two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

LINE = b": ".join
"""The line of a pair of name and value."""

# As numbers: Python looks for those at once, and for bytes only behind an exception of its own.
_CR, _LF, _NUL = b"\r\n\0"


def block_of(lines: Sequence[bytes]) -> bytes:
    """The lines as they are written; raises RuntimeError for one that would be two."""
    text = b"".join(lines)
    if _CR in text or _LF in text or _NUL in text:
        raise RuntimeError("a response header with a line break was stopped")
    return b"\r\n".join([*lines, b""])


@lru_cache(maxsize=4)
def shared_block(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The headers of every answer, which are the same for a second: the date is in them."""
    return block_of([*map(LINE, pairs)])
