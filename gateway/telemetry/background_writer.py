"""Write whole lines to a pipe from a thread, with a bounded queue."""

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


_MOST_CHARACTERS = 8 * 1024 * 1024


_LAST_WAIT_S = 1.0


_MUCH, _REST_S = 16 * 1024, 0.05


_outlets: dict[int, BackgroundWriter] = {}


def flush_all() -> None:
    """Wait a moment for what has been written so far, such as before another way to the same reader is taken."""
    for outlet in _outlets.values():
        outlet.finish(_LAST_WAIT_S)


def background_writer_to(descriptor: int) -> BackgroundWriter:
    """The one outlet of this process to an open file descriptor, which stays open."""
    outlet = _outlets.get(descriptor)
    if outlet is None:
        outlet = _outlets[descriptor] = BackgroundWriter(whole_lines(descriptor))
    return outlet


atexit.register(flush_all)


class BackgroundWriter(io.TextIOBase):
    """Takes whole lines, from any thread, for a stream that may block.

    dropped_lines: how many found no room, or could not be written.
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
        """See the class."""
        return self._dropped + getattr(self._stream, "dropped_lines", 0)

    def isatty(self) -> bool:
        """Whether a person may be reading."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Take it, or drop it; never waits."""
        with self._changed:
            if self._characters + len(text) > self._most:
                self._dropped += text.count("\n")
                return len(text)
            self._characters += len(text)
            self._texts.append(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._pass_on, name="log", daemon=True)
                self._thread.start()
            if self._is_idle:
                self._changed.notify_all()
        return len(text)

    def finish(self, limit_s: float) -> None:
        """Wait until all has been passed on, but no longer than this."""
        with self._changed:
            self._awaited += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._characters, limit_s)
            self._awaited -= 1

    def _pass_on(self) -> None:
        passed_on = 0
        while True:
            with self._changed:
                self._characters -= passed_on
                if self._awaited:
                    self._changed.notify_all()
                if passed_on >= _MUCH:
                    self._changed.wait_for(lambda: self._awaited, _REST_S)
                self._is_idle = True
                self._changed.wait_for(lambda: self._texts)
                self._is_idle = False
                texts, self._texts = self._texts, []
            text = "".join(texts)
            passed_on = len(text)
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                with self._changed:
                    self._dropped += text.count("\n")
