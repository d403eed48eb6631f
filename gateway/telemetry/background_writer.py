"""Write whole lines to a stream from a thread, with a bounded queue."""

from __future__ import annotations

import atexit
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

# Systems without this constant (Windows) run one process, so their writes do not mix.
_PIPE_BUF: int = getattr(select, "PIPE_BUF", 4096)
_MOST_CHARACTERS = 8 * 1024 * 1024
_LAST_WAIT_S = 1.0


def whole_lines(descriptor: int) -> TextIO:
    """Return a stream to an open file descriptor that writes only whole lines.

    Lines that cannot be written, because there is no reader, are counted in its `dropped_lines`.
    """
    return _Text(_WholeLines(descriptor))


def pieces(lines: bytes, limit_bytes: int = _PIPE_BUF) -> Iterator[bytes]:
    """Yield whole lines, as many at a time as fit the limit. A longer line is yielded alone."""
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
        """The number of lines that could not be written."""
        return self._whole.dropped_lines


class _WholeLines(io.BufferedIOBase):
    """Buffers the beginning of a line until its end arrives."""

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
            # The descriptor is non-blocking if another process that shares it, such as the parent, made it so.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


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
        writer = _writers[descriptor] = BackgroundWriter(whole_lines(descriptor))
    return writer


atexit.register(flush_all)


class BackgroundWriter(io.TextIOBase):
    """Takes whole lines from any thread and writes them to a stream that may block.

    Attributes:
        dropped_lines: The number of lines that did not fit the queue or could not be written.
    """

    def __init__(self, stream: TextIO, most_characters: int = _MOST_CHARACTERS) -> None:
        self._stream = stream
        self._most = most_characters
        self._texts: list[str] = []
        self._characters = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._is_idle = False
        self._awaited = 0
        self._thread: threading.Thread | None = None

    @property
    def dropped_lines(self) -> int:
        """The number of lines that were dropped."""
        return self._dropped + getattr(self._stream, "dropped_lines", 0)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Queue the text, or drop it if the queue is full. Never waits."""
        with self._changed:
            if self._characters + len(text) > self._most:
                self._dropped += text.count("\n")
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
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                with self._changed:
                    self._dropped += text.count("\n")
