"""Server-sent events, incrementally: bytes in, events out (WHATWG HTML, section 9.2, "Server-sent events").

The only parser of this format in the project. It works on bytes: lines end with LF, CRLF or CR only (raw
U+2028 and U+0085 are legal inside a line of JSON), and UTF-8 is decoded once a line is complete. Two things go
beyond the standard, because providers need them: comments are shown (DashScope's status is one), and what is
left at the end of the bytes without a closing blank line is given out as an event rather than dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_LINE_BYTES = 8 * 1024 * 1024
_USUAL_BYTES = 256 * 1024
_MOST_DATA_LINES = 16 * 1024
"""Of one event, that are held one by one: a list of short lines is twenty times as large as what stands in them."""
_BOM = b"\xef\xbb\xbf"
# As numbers: Python looks for those at once, and for bytes only behind an exception of its own.
_CR, _LF = b"\r\n"


@dataclass(slots=True)
class ServerSentEvent:
    """One event: its type (`message` where none was named) and its data lines joined with LF, as raw bytes.

    Not frozen: it lives between two functions, and a stream makes one for each of its events.
    """

    data: bytes
    event: str = "message"


@dataclass(frozen=True, slots=True)
class SseComment:
    """A line that starts with a colon, without that colon: a keep-alive or a status."""

    text: str


SseItem = ServerSentEvent | SseComment


class SseParser:
    """Feed it bytes in any cut; it holds at most one unfinished line and one unfinished event.

    A line, or the data of one event, beyond `max_line_bytes` sets `overflowed`, and nothing comes after it. After
    `close`, `unframed` holds every line that was no field of the standard: Gemini ends a failed stream with bare
    JSON.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self.overflowed = False
        self._at_start = True
        self._skip_line_feed = False
        self._unframed = bytearray()

    @property
    def unframed(self) -> bytes:
        """The lines that are no event, in order, joined with LF."""
        return bytes(self._unframed[:-1])

    def feed(self, data: bytes) -> list[SseItem]:
        """The events and comments that these bytes complete; none once a bound is passed."""
        return [ServerSentEvent(item) if type(item) is bytes else item for item in self.feed_plainly(data)]

    def begin(self) -> None:
        """The stream has begun: no byte order mark comes any more."""
        self._at_start = False

    def feed_plainly(self, data: bytes) -> list[Any]:
        """Like `feed`, but of events that are one line of data and nothing else the values alone, as `bytes`."""
        if self.overflowed:
            return []
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            data = data.removeprefix(b"\n")
        values: list[Any] = []
        if not (self._buffer or self._data or self._event) and data.startswith(b"data: "):
            values, rest = self._values(data)
            if not rest and values:
                return values
            data = rest
        return values + self._feed(data)

    def _values(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The values of the events at the beginning if each is one line of data, and the bytes behind them; told in C
        for all of them at once, for events of another form make it all or nothing."""
        end = b"\r\n\r\n" if _CR in data else b"\n\n"
        place = data.rfind(end)
        if place < 0 or len(data) > _USUAL_BYTES:
            return [], data
        values = data[len(b"data: ") : place].split(end + b"data: ")
        joined = b"".join(values)
        if _LF in joined or _CR in joined or max(map(len, values)) > self._max_line_bytes - len(b"data: "):
            return [], data
        self._at_start = False
        return values, data[place + len(end) :]

    def _feed(self, data: bytes) -> list[SseItem]:
        buffer = self._buffer
        buffer += data
        if self._at_start and not self._skip_bom():
            return []
        if (lines := self._usual_lines()) is not None:
            return self._take_lines(lines)
        items: list[SseItem] = []
        start = 0
        line_feed, carriage = buffer.find(b"\n", self._searched), buffer.find(b"\r", self._searched)
        while not self.overflowed and (end := _nearest(line_feed, carriage)) >= 0:
            line = bytes(buffer[start:end])
            start = end + 1
            if end == carriage:
                # A line ends at its CR at once: waiting to see whether an LF follows would hold an event back.
                if start == len(buffer):
                    self._skip_line_feed = True
                elif start == line_feed:
                    start += 1
            if (item := self._take_line(line)) is not None:
                items.append(item)
            # Only the one that is used up is looked for again, so that no byte is searched once a line.
            if 0 <= line_feed < start:
                line_feed = buffer.find(b"\n", start)
            if 0 <= carriage < start:
                carriage = buffer.find(b"\r", start)
        del buffer[:start]
        if self.overflowed or len(buffer) > self._max_line_bytes:
            self.overflowed = True
            buffer.clear()
            self._data.clear()
        self._searched = len(buffer)
        return items

    def _usual_lines(self) -> list[bytes] | None:
        """The whole lines of the buffer, taken out of it; None where it is a large one."""
        buffer = self._buffer
        if len(buffer) > _USUAL_BYTES:
            return None
        end = buffer.rfind(b"\n", self._searched) + 1
        has_returns = _CR in buffer
        if has_returns:
            end = max(end, buffer.rfind(b"\r", self._searched) + 1)
            self._skip_line_feed = buffer[-1] == _CR
        whole = bytes(buffer[:end])
        del buffer[:end]
        self._searched = len(buffer)
        if has_returns:
            whole = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return whole[:-1].split(b"\n") if whole else []

    def _take_lines(self, lines: list[bytes]) -> list[SseItem]:
        items: list[SseItem] = []
        held = self._data
        for line in lines:
            # The two lines that nearly every event is made of; `_take_line` would do the same with them.
            if not line and len(held) == 1 and not self._event:
                items.append(ServerSentEvent(held.pop()))
                self._data_bytes = 0
            elif not held and line.startswith(b"data: ") and len(line) <= self._max_line_bytes:
                held.append(line[6:])
                self._data_bytes = len(line) - 6
            elif not (line or held or self._event):
                # A blank line behind another: a kilobyte of gzip is a million of them.
                continue
            elif (item := self._take_line(line)) is not None:
                items.append(item)
            elif self.overflowed:
                self._buffer.clear()
                self._data.clear()
                break
        return items

    def close(self) -> list[SseItem]:
        """What the end of the bytes completes: an unfinished line counts as a line, unfinished data as an event."""
        items: list[SseItem] = []
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        if rest and rest != _BOM[: len(rest)] and (item := self._take_line(rest)) is not None:
            items.append(item)
        if not self.overflowed and (item := self._dispatch()) is not None:
            items.append(item)
        return items

    def _skip_bom(self) -> bool:
        """Whether the start of the stream is known: a byte order mark may itself be cut in pieces."""
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True

    def _take_line(self, line: bytes) -> SseItem | None:
        if not line:
            return self._dispatch()
        if len(line) > self._max_line_bytes:
            self.overflowed = True
            return None
        if line.startswith(b"data:") or line == b"data":
            value = line[6:] if line.startswith(b" ", 5) else line[5:]
            self._data_bytes += len(value) + bool(self._data)
            self.overflowed = self._data_bytes > self._max_line_bytes
            self._data.append(value)
            if len(self._data) > _MOST_DATA_LINES:
                self._data[:] = [b"\n".join(self._data)]
            return None
        name, _, value = line.partition(b":")
        if not name:
            return SseComment(value.decode("utf-8", "replace").removeprefix(" "))
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name not in (b"id", b"retry") and len(self._unframed) + len(line) <= self._max_line_bytes:
            # As bytes: a list of short lines would be twenty times as large.
            self._unframed += line
            self._unframed += b"\n"
        return None

    def _dispatch(self) -> SseItem | None:
        event, self._event = self._event, ""
        if not self._data:
            return None
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        return ServerSentEvent(data, event or "message")


def _nearest(line_feed: int, carriage: int) -> int:
    """The first line end of the two, -1 if there is none."""
    return min(line_feed, carriage) if line_feed >= 0 and carriage >= 0 else max(line_feed, carriage)
