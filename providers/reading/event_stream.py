"""The part of a stream parser that all event-stream formats share: bytes -> JSON objects -> the assembler.

A format adds one function that reads one JSON object (`read_chunk`) and hands what it finds to the `Assembler`.
Error frames are the format's to recognise; framing, `[DONE]`, garbage, bounds and the end are handled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeGuard, runtime_checkable

from providers.adapter import StreamParser
from providers.chat import StreamEvent
from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, loads
from providers.reading.sse import MAX_LINE_BYTES, SseComment, SseParser
from providers.reading.stream_assembler import Assembler

__all__ = ["EventStreamParser", "ReadChunk", "ReadComment", "ReadRun", "StreamShortcuts", "TextReader", "has_shortcuts"]

_MOST_AT_ONCE = 256 * 1024
"""Bytes that are cut into items together. A whole body may be fed in one piece, and each of its lines be a comment."""

ReadChunk = Callable[[Mapping[str, object], str], None]
"""Reads one event's JSON object, given the name of the event; must not raise on any JSON."""

ReadComment = Callable[[str], None]
"""Reads one comment, such as DashScope's status of the event around it; must not raise on any text."""

ReadRun = Callable[[list[Any], int], int]
"""Reads those of a burst's events, from a place on, that are plain text, and tells the place of the first that isn't.

What is no `bytes` among them is none; must not raise on any bytes.
"""

TextReader = Callable[[bytes], bytes | None]
"""Returns the text of a piece that is one more chunk of choice 0's text and nothing else, still escaped; else None.

A piece whose text is used must not be fed to the parser, whose state it does not change.
"""


@runtime_checkable
class StreamShortcuts(Protocol):
    """Optional methods of a `StreamParser` that save its caller work. A parser without them gets every piece."""

    def text_reader(self) -> TextReader | None:
        """Return what recognises a piece with one text; None if this stream must be fed piece by piece."""
        ...

    def is_complete(self) -> bool:
        """Whether every choice has had its finish, so that only the usage and the end mark are missing."""
        ...


def has_shortcuts(parser: StreamParser | None) -> TypeGuard[StreamShortcuts]:
    """Whether the parser has both methods. Its class is asked, because that answer is cached."""
    return issubclass(type(parser), StreamShortcuts)


class EventStreamParser:
    """A `StreamParser` over server-sent events with one JSON object each."""

    def __init__(
        self,
        assembler: Assembler,
        read_chunk: ReadChunk,
        max_line_bytes: int = MAX_LINE_BYTES,
        read_comment: ReadComment | None = None,
        read_run: ReadRun | None = None,
    ) -> None:
        self._assembler = assembler
        self._read_chunk = read_chunk
        self._read_comment = read_comment
        self._read_run = read_run
        self._sse = SseParser(max_line_bytes)

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        self.read(data)
        return self._assembler.take()

    def read(self, data: bytes) -> None:
        """Like `feed`; what it gives is left with the assembler."""
        if len(data) > _MOST_AT_ONCE:
            for start in range(0, len(data), _MOST_AT_ONCE):
                self.read(data[start : start + _MOST_AT_ONCE])
        elif not self._assembler.done:
            self._take(self._sse.feed_plainly(data), at_end=False)

    def text_reader(self) -> TextReader | None:
        """See StreamShortcuts: an event of any format may be more than one text."""
        return None

    def is_complete(self) -> bool:
        """See StreamShortcuts."""
        return self._assembler.whole

    def begin(self) -> None:
        """The stream has begun, by who has seen its first bytes: what looks like a byte order mark is none any more."""
        self._sse.begin()

    def read_event(self, data: bytes, event: str = "message", at_end: bool = False) -> Mapping[str, object] | None:
        """Read the data of one whole event, whose ends are found, and leave what it gives with the assembler; its JSON
        object, if it had one. at_end: whether it may have been cut there."""
        if not data.startswith(b"{"):
            if not data.strip() or event == "ping":
                self._assembler.heartbeat()
                return None
            if data.startswith(b"[DONE]"):
                self._assembler.complete()
                return None
        try:
            chunk = loads(data)
        except JsonError:
            # What the end of the bytes left of an event is a cut, which `complete` judges: the answer may be whole.
            if not at_end:
                self._fail_malformed("an event of the provider's stream is not valid JSON", data)
            return None
        if type(chunk) is dict or isinstance(chunk := _unwrapped(chunk), dict):
            self._read_chunk(chunk, event)
            return chunk
        self._fail_malformed("an event of the provider's stream is no JSON object", data)
        return None

    def close(self) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._assembler.done:
            return ()
        self._take(self._sse.close(), at_end=True)
        if not self._assembler.done and not self._assembler.whole:
            self._read_unframed(self._sse.unframed)
        self._assembler.complete()
        return self._assembler.take()

    def _take(self, items: list[Any], *, at_end: bool) -> None:
        assembler, read_run = self._assembler, self._read_run
        place, count = 0, len(items)
        while place < count and not assembler.done:
            item = items[place]
            place += 1
            if type(item) is bytes:
                self.read_event(item, at_end=at_end)
                if read_run is not None and place < count and assembler.is_saying_text():
                    place = read_run(items, place)
            elif isinstance(item, SseComment):
                if self._read_comment is not None:
                    self._read_comment(item.text)
                assembler.heartbeat()
            else:
                self.read_event(item.data, item.event, at_end)
        if self._sse.overflowed and not assembler.done:
            assembler.fail(Failure(FailureKind.TOO_LARGE, "one event of the provider's stream is larger than accepted"))

    def _fail_malformed(self, message: str, data: bytes) -> None:
        if self._assembler.whole:
            self._assembler.complete()
            return
        self._assembler.fail(Failure(FailureKind.INTERRUPTED, message, detail=f"{len(data)} bytes"))

    def _read_unframed(self, rest: bytes) -> None:
        """Bare JSON outside the framing: an error that was written past the stream's end, or the whole answer."""
        if not rest.strip():
            return
        try:
            value = _unwrapped(loads(rest))
        except JsonError:
            return
        if isinstance(value, dict):
            self._read_chunk(value, "message")


def _unwrapped(value: object) -> object:
    """The one element of an array: Gemini wraps some of its errors so."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
