"""Write whole lines to a file descriptor from a thread, with a bounded queue."""

from __future__ import annotations

import atexit
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator

_PIPE_BUF: int = getattr(select, "PIPE_BUF", 4096)
"""The bytes that a pipe takes at once. Systems without this constant (Windows) run one process."""
_MOST_CHARACTERS = 8 * 1024 * 1024
_LAST_WAIT_S = 1.0
_MUCH, _REST_S = 16 * 1024, 0.05

_writers: dict[int, BackgroundWriter] = {}


def flush_all() -> None:
    """Wait a moment until all queued lines are written, for example before writing to the same target directly."""
    for writer in _writers.values():
        writer.finish(_LAST_WAIT_S)


def background_writer_to(descriptor: int) -> BackgroundWriter:
    """Return this process's one writer to an open file descriptor, which stays open."""
    writer = _writers.get(descriptor)
    if writer is None:
        writer = _writers[descriptor] = BackgroundWriter(descriptor)
    return writer


atexit.register(flush_all)


class BackgroundWriter(io.TextIOBase):
    """Takes whole lines from any thread and writes them to an open file descriptor, which may block.

    A pipe, which other processes may write to, gets as many lines at a time as it takes at once. Lines that did not fit
    the queue or could not be written are counted.
    """

    def __init__(self, descriptor: int, most_characters: int = _MOST_CHARACTERS) -> None:
        self._descriptor = descriptor
        self._most_bytes = sys.maxsize if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIPE_BUF
        self._most = most_characters
        self._texts: list[str] = []
        self._characters = 0
        self.dropped_lines = 0
        self._changed = threading.Condition()
        self._is_idle = False
        self._awaited = 0
        self._thread: threading.Thread | None = None

    def isatty(self) -> bool:
        """Return whether the lines go to a terminal."""
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Queue the text, or drop it if the queue is full. Never waits."""
        with self._changed:
            if self._characters + len(text) > self._most:
                self.dropped_lines += text.count("\n")
                return len(text)
            self._characters += len(text)
            self._texts.append(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_queued, name="log", daemon=True)
                self._thread.start()
            if self._is_idle:
                self._changed.notify_all()
        return len(text)

    def finish(self, limit_s: float) -> None:
        """Wait until all queued text is written, at most for this time."""
        with self._changed:
            self._awaited += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._characters, limit_s)
            self._awaited -= 1

    def _write_queued(self) -> None:
        written = 0
        while True:
            with self._changed:
                self._characters -= written
                if self._awaited:
                    self._changed.notify_all()
                if written >= _MUCH:
                    self._changed.wait_for(lambda: self._awaited, _REST_S)
                self._is_idle = True
                self._changed.wait_for(lambda: self._texts)
                self._is_idle = False
                texts, self._texts = self._texts, []
            text = "".join(texts)
            written = len(text)
            for piece in pieces(text.encode("utf-8", "backslashreplace"), self._most_bytes):
                try:
                    _write(self._descriptor, piece)
                except OSError:
                    with self._changed:
                        self.dropped_lines += piece.count(b"\n")


def pieces(lines: bytes, limit_bytes: int = _PIPE_BUF) -> Iterator[bytes]:
    """Yield whole lines, as many at a time as fit the limit. A longer line is yielded alone."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + limit_bytes) + 1 or lines.find(b"\n", start) + 1
        yield lines[start:end]
        start = end


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            # The descriptor is non-blocking if another process that shares it, such as the parent, made it so.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
