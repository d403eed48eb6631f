"""Lines for a log, gathered for a moment and written at once: a write for each request would cost more than the line.

What is gathered is written after 50 ms, after 256 lines, and at the end of the process; only a kill loses any.
"""

from __future__ import annotations

import asyncio
import atexit
from typing import TextIO

__all__ = ["LineWriter"]

_WAIT_S = 0.05
_MOST_LINES = 256


class LineWriter:
    """Writes to one stream. Outside an event loop each line is written at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = 0
        self._lines: list[str] = []
        atexit.register(self.flush)

    @property
    def dropped(self) -> int:
        """How many lines could not be written, by this or by the stream itself."""
        return self._dropped + getattr(self._stream, "dropped_lines", 0)

    def write(self, line: str) -> None:
        """Take one line, without its end."""
        lines = self._lines
        lines.append(line)
        if len(lines) == 1:
            try:
                asyncio.get_running_loop().call_later(_WAIT_S, self.flush)
            except RuntimeError:
                self.flush()
        elif len(lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads the log any more; requests must not suffer for that.
            self._dropped += len(lines)
