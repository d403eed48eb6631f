"""A text stream that holds up nobody: what is written to it is passed on by a thread of its own.

Who reads the log may stop reading (a collector that hangs, a terminal that was told to wait), and a write to it then
lasts until somebody reads again. Requests, switches and the end of the process must not wait for that. So what waits
here is bounded, what comes beyond that is dropped and counted, and the end of the process waits for a moment only.

The thread takes the interpreter from the requests each time it wakes. While much is written it therefore rests between
two writes, and passes on what has come by then together.
"""

from __future__ import annotations

import atexit
import io
import threading
from typing import TextIO

from gateway.telemetry.whole_lines import whole_lines

__all__ = ["Outlet", "finish_all", "outlet_to"]

_MOST_CHARACTERS = 8 * 1024 * 1024
_LAST_WAIT_S = 1.0
_MUCH, _REST_S = 16 * 1024, 0.05
_outlets: dict[int, Outlet] = {}


def finish_all() -> None:
    """Wait a moment for what has been written so far, such as before another way to the same reader is taken."""
    for outlet in _outlets.values():
        outlet.finish(_LAST_WAIT_S)


def outlet_to(descriptor: int) -> Outlet:
    """The one outlet of this process to an open file descriptor, which stays open."""
    outlet = _outlets.get(descriptor)
    if outlet is None:
        outlet = _outlets[descriptor] = Outlet(whole_lines(descriptor))
    return outlet


atexit.register(finish_all)


class Outlet(io.TextIOBase):
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
