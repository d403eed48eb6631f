"""Parse server-sent events incrementally (WHATWG HTML, section 9.2, "Server-sent events").

This is the only parser of the format in the project. It works on bytes: lines end with LF, CRLF or CR only (raw U+2028
and U+0085 are allowed inside a line of JSON), and UTF-8 is decoded when a line is complete. It differs from the
standard in three ways that providers need: it returns comments (DashScope's status is one), data without a closing
blank line at the end of the body is returned as an event instead of being dropped, and a field `error` is an event of
this name (llama.cpp's server until 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from providers.value import Value

MAX_LINE_BYTES = 8 * 1024 * 1024
_USUAL_BYTES = 256 * 1024
_MOST_DATA_LINES = 16 * 1024
"""The limit of data lines of an event that are stored separately. A list of short lines takes 20 times their size."""
_BOM = b"\xef\xbb\xbf"
# As integers: `in` is faster for an integer than for bytes of length 1.
_CR, _LF = b"\r\n"


@dataclass(slots=True)
class ServerSentEvent:
    """One event: its type (`message` by default) and its data lines joined with LF, as raw bytes.

    Not frozen, because one is created for each event of a stream, and it is used by two functions only.
    """

    data: bytes
    event: str = "message"


class SseComment(Value, frozen=True):
    """A line that starts with a colon, without the colon: a keep-alive or a status."""

    text: str


SseItem = ServerSentEvent | SseComment


class SseParser:
    """An incremental parser. It stores at most one incomplete line and one incomplete event.

    If a line or the data of an event exceeds `max_line_bytes`, `overflowed` is set and nothing more is returned. After
    `close`, `unframed` has all lines that are not fields of the standard: Gemini ends a failed stream with bare JSON.
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
        """The lines that are not part of an event, in order, joined with LF."""
        return bytes(self._unframed[:-1])

    def feed(self, data: bytes) -> list[SseItem]:
        """Return the events and comments that these bytes complete, or none after a limit was exceeded."""
        return [ServerSentEvent(item) if type(item) is bytes else item for item in self.feed_plainly(data)]

    def begin(self) -> None:
        """Record that the stream has begun, so that no byte order mark is expected."""
        self._at_start = False

    def feed_plainly(self, data: bytes) -> list[Any]:
        """Return events like `feed`, but an event that is only one line of data as the `bytes` of its value."""
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
        """Return the values of the first events, if each of them is one line of data, and the remaining bytes.

        All are split in C at once. If one event has another form, no values are returned.
        """
        end = b"\r\n\r\n" if _CR in data else b"\n\n"
        last_end = data.rfind(end)
        if last_end < 0 or len(data) > _USUAL_BYTES:
            return [], data
        values = data[len(b"data: ") : last_end].split(end + b"data: ")
        joined = b"".join(values)
        if _LF in joined or _CR in joined or max(map(len, values)) > self._max_line_bytes - len(b"data: "):
            return [], data
        self._at_start = False
        return values, data[last_end + len(end) :]

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
                # A CR ends the line at once: waiting for a possible LF would delay the event.
                if start == len(buffer):
                    self._skip_line_feed = True
                elif start == line_feed:
                    start += 1
            if (item := self._take_line(line)) is not None:
                items.append(item)
            # Search again only for the line end that was used, so that no byte is searched once for each line.
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
        """Remove the complete lines from the buffer and return them, or return None for a large buffer."""
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
            # Shortcuts for the two lines of nearly every event. `_take_line` has the same effect.
            if not line and len(held) == 1 and not self._event:
                items.append(ServerSentEvent(held.pop()))
                self._data_bytes = 0
            elif not held and line.startswith(b"data: ") and len(line) <= self._max_line_bytes:
                held.append(line[6:])
                self._data_bytes = len(line) - 6
            elif not (line or held or self._event):
                # A repeated blank line. One kilobyte of gzip can contain a million of them.
                continue
            elif (item := self._take_line(line)) is not None:
                items.append(item)
            elif self.overflowed:
                self._buffer.clear()
                self._data.clear()
                break
        return items

    def close(self) -> list[SseItem]:
        """Return the last items at the end of the body.

        An incomplete line counts as a line, incomplete data as an event.
        """
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
        """Skip a byte order mark. Return False if more bytes are needed, because the mark may be cut in pieces."""
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
            value, event, whole = line[6:] if line.startswith(b" ", 5) else line[5:], self._event, None
            if self._data and value.startswith((b"{", b"[")) and self._data[-1].rstrip().endswith(b"}"):
                # No JSON goes on like this: some servers leave out the blank line between two events.
                whole, self._event = self._dispatch(), event
            self._data_bytes += len(value) + bool(self._data)
            self.overflowed = self._data_bytes > self._max_line_bytes
            self._data.append(value)
            if len(self._data) > _MOST_DATA_LINES:
                self._data[:] = [b"\n".join(self._data)]
            return whole
        name, _, value = line.partition(b":")
        if not name:
            return SseComment(value.decode("utf-8", "replace").removeprefix(" "))
        value = value.removeprefix(b" ")
        if name.lower() == b"error" and value:
            return ServerSentEvent(value, "error")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name not in (b"id", b"retry") and len(self._unframed) + len(line) <= self._max_line_bytes:
            # Stored as bytes: a list of short lines would take 20 times the memory.
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
    """Return the smaller of two indices, where -1 means that there is none."""
    return min(line_feed, carriage) if line_feed >= 0 and carriage >= 0 else max(line_feed, carriage)
