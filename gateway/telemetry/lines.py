"""Lines for a log, many in one write: a write for each request would cost more than the line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

__all__ = ["LineWriter"]


class LineWriter:
    """Writes to one stream, whoever reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many lines could not be written, by this or by the stream itself."""
        return self._dropped + getattr(self._stream, "dropped_lines", 0)

    def write(self, lines: Sequence[bytes]) -> None:
        """Write these lines, which come without their ends."""
        try:
            self._stream.write((b"\n".join(lines) + b"\n").decode())
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads the log any more; requests must not suffer for that.
            self._dropped += len(lines)
