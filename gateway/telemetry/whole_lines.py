"""A text stream that passes on whole lines only, so that the lines of several processes on one pipe don't mix.

POSIX keeps a write to a pipe in one piece up to PIPE_BUF bytes (4,096 on Linux; pipe(7), read 2026-11-20). Only a line
that is longer may have another process's in its middle, and only when its reader is slow. A write to a regular file is
one piece however long it is (IEEE Std 1003.1-2017, volume 2, section 2.9.7).
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["pieces", "whole_lines"]

# A system that promises nothing (Windows) has one process.
_PIPE_BUF: int = getattr(select, "PIPE_BUF", 4096)


def whole_lines(descriptor: int) -> TextIO:
    """A stream to an open file descriptor. What can't be written is lost, because nobody reads it any more; its
    `dropped_lines` says how much that was."""
    return _Text(_WholeLines(descriptor))


def pieces(lines: bytes, limit_bytes: int = _PIPE_BUF) -> Iterator[bytes]:
    """Whole lines, as many at a time as fit the limit; a line that is longer comes alone."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + limit_bytes) + 1 or lines.find(b"\n", start) + 1
        yield lines[start:end]
        start = end


class _Text(io.TextIOWrapper):
    def __init__(self, lines: _WholeLines) -> None:
        super().__init__(lines, "utf-8", "backslashreplace", write_through=True)
        self._whole = lines

    @property
    def dropped_lines(self) -> int:
        """Lines that could not be written."""
        return self._whole.dropped_lines


class _WholeLines(io.BufferedIOBase):
    """Keeps what has no line's end yet."""

    name = "whole lines"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._most = sys.maxsize if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIPE_BUF
        self._rest = b""
        self.dropped_lines = 0

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: bytes) -> int:  # type: ignore[override]  # only ever called by the text layer
        whole, end, self._rest = (self._rest + data).rpartition(b"\n")
        for piece in pieces(whole + end, self._most):
            try:
                _write(self._descriptor, piece)
            except OSError:
                self.dropped_lines += piece.count(b"\n")
        return len(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # Whoever has it open too, such as the program that started us, decides whether a write waits by itself.
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()
