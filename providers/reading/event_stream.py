"""A stream parser for server-sent events with JSON: it splits bytes into JSON objects.

A wire format adds one function, `read_chunk`, that reads a JSON object and passes its contents to the `Assembler`. The
function also recognises errors. This module handles framing, `[DONE]`, invalid JSON, size limits and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeGuard, runtime_checkable

from providers.adapter import StreamParser
from providers.chat import StreamEvent
from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, loads
from providers.reading.assembler import Assembler
from providers.reading.errors import holds_error, shared_rules
from providers.reading.sse import MAX_LINE_BYTES, SseComment, SseParser

_MOST_AT_ONCE = 256 * 1024
"""The number of bytes that are split into items at once. A whole body of comments may arrive in one piece."""

ReadChunk = Callable[[Mapping[str, object], str], None]
"""Reads one event's JSON object, given the name of the event; must not raise on any JSON.

The name `error` states that the object is one, also outside of an event.
"""

ReadComment = Callable[[str], None]
"""Reads one comment, such as DashScope's status of the current event; must not raise on any text."""

ReadRun = Callable[[list[Any], int], int]
"""Reads events that are plain text from an index on, and returns the index of the first that is not.

An item that is not `bytes` is not plain text; must not raise on any bytes.
"""

TextReader = Callable[[bytes], bytes | None]
"""Returns the escaped text of a piece that contains only one more text of choice 0, or None for any other piece.

A piece whose text is used must not be fed to the parser. It would not change the parser's state. The function is valid
until the parser is fed or closed.
"""


@runtime_checkable
class StreamShortcuts(StreamParser, Protocol):
    """Optional methods of a `StreamParser` that save its caller work. A parser without them gets every piece."""

    def text_reader(self) -> TextReader | None:
        """Return the function that reads a piece with one text, or None if every piece must be fed."""

    def is_complete(self) -> bool:
        """Return whether every choice has finished, so that only the usage and the end mark are missing."""


class EndsWithBody:
    """Base of a parser of an answer without an end of its own: it is whole only if its body is."""

    __slots__ = ()


def has_shortcuts(parser: StreamParser | None) -> TypeGuard[StreamShortcuts]:
    """Return whether the parser has both methods. The class is checked, because that result is cached."""
    return issubclass(type(parser), StreamShortcuts)


class EventStreamParser:
    """A `StreamParser` for server-sent events with one JSON object each.

    Args:
        assembler: Receives the contents of the events.
        read_chunk: Reads the JSON object of an event, given the name of the event. It must not raise on any JSON.
        max_line_bytes: The limit of a line, and of the data of an event.
        read_comment: Reads a comment. It must not raise on any text.
        read_run: Reads consecutive events that are plain text. Only for speed.
        end: Ends the answer at `[DONE]`. Without it, an answer without a finish was cut off there.

    Examples:
        >>> from providers.contract import Assembler, EventStreamParser, read_str
        >>> assembler = Assembler("parrot-2")
        >>> parser = EventStreamParser(assembler, lambda chunk, event: assembler.text(read_str(chunk, "says") or ""))
        >>> [event.text for event in parser.feed(b'data: {"says": "Hello"}\\n\\n')[1:]]
        ['Hello']
    """

    def __init__(
        self,
        assembler: Assembler,
        read_chunk: ReadChunk,
        max_line_bytes: int = MAX_LINE_BYTES,
        read_comment: ReadComment | None = None,
        read_run: ReadRun | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        self._assembler = assembler
        self._end = end or assembler.complete
        self._read_chunk = read_chunk
        self._read_comment = read_comment
        self._read_run = read_run
        self._sse = SseParser(max_line_bytes)

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """Return the events that the next bytes of the body complete. See `StreamParser`."""
        self.read(data)
        return self._assembler.take()

    def read(self, data: bytes) -> None:
        """Read bytes like `feed`, but leave the events in the assembler."""
        if len(data) > _MOST_AT_ONCE:
            for start in range(0, len(data), _MOST_AT_ONCE):
                self.read(data[start : start + _MOST_AT_ONCE])
        elif not self._assembler.done:
            self._take(self._sse.feed_plainly(data), at_end=False)

    def text_reader(self) -> TextReader | None:
        """Return None: an event of a format may contain more than one text. A subclass may return a reader.

        See `StreamShortcuts`.
        """
        return None

    def is_complete(self) -> bool:
        """Return whether every choice has finished, so that only the usage and the end mark are missing.

        See `StreamShortcuts`.
        """
        return self._assembler.certain

    def begin(self) -> None:
        """Record that the caller has read the first bytes of the stream, so that no byte order mark is expected."""
        self._sse.begin()

    def read_event(self, data: bytes, event: str = "message", at_end: bool = False) -> Mapping[str, object] | None:
        """Read the data of one complete event with this name, and leave its events in the assembler.

        Returns its JSON object, or None. `at_end`: the body ended here, so that the data may be truncated.
        """
        if not data.startswith(b"{"):
            if data.startswith(b"[DONE]") and event != "ping":
                self._read_unframed(self._sse.unframed)
                self._end()
                return None
            # Text with a name of its own is an event that no format has, such as `keepalive`.
            is_text = not data.lstrip().startswith((b"{", b"["))
            if not data.strip() or event == "ping" or (event not in ("message", "error") and is_text):
                self._assembler.heartbeat()
                return None
            if event == "error" and is_text:
                self._read_chunk({"error": {"message": data.decode("utf-8", "replace")}}, event)
                return None
        try:
            chunk = self._parsed(data)
        except JsonError:
            # At the end of the body the event may be truncated. `complete` decides whether the answer is whole.
            if not at_end:
                self._fail_malformed("an event of the provider's stream is not valid JSON", data)
            return None
        if type(chunk) is dict or isinstance(chunk := _unwrapped(chunk), dict):
            self._read_chunk(chunk, event)
            return chunk
        self._fail_malformed("an event of the provider's stream is not a JSON object", data)
        return None

    def _parsed(self, data: bytes) -> object:
        """Return the JSON value of an event. Raises JsonError. A format with calls in its JSON keeps exact integers."""
        return loads(data)

    def close(self) -> tuple[StreamEvent, ...]:
        """Return the remaining events at the end of the body. See `StreamParser`."""
        if self._assembler.done:
            return ()
        self._take(self._sse.close(), at_end=True)
        was_opened = self._assembler.opened
        is_body = not self._assembler.done and self._read_unframed(self._sse.unframed)
        self._assembler.complete(is_whole=is_body and not was_opened)
        return self._assembler.take()

    def _take(self, items: list[Any], *, at_end: bool) -> None:
        assembler, read_run = self._assembler, self._read_run
        index, count = 0, len(items)
        while index < count and not assembler.done:
            item = items[index]
            index += 1
            if type(item) is bytes:
                self.read_event(item, at_end=at_end)
                if read_run is not None and index < count and assembler.is_saying_text():
                    index = read_run(items, index)
            elif isinstance(item, SseComment):
                self._take_comment(item.text)
            else:
                self.read_event(item.data, item.event, at_end)
        if self._sse.overflowed and not assembler.done:
            assembler.fail(Failure(FailureKind.TOO_LARGE, "one event of the provider's stream is larger than accepted"))

    def _fail_malformed(self, message: str, data: bytes) -> None:
        if self._assembler.whole:
            self._assembler.complete()
            return
        self._assembler.fail(Failure(FailureKind.INTERRUPTED, message, detail=f"{len(data)} bytes"))

    def _take_comment(self, text: str) -> None:
        if self._read_comment is not None:
            self._read_comment(text)
        name, brace, rest = text.partition("{")
        if brace and name.strip(": ").lower() in ("", "error"):
            self._read_object((brace + rest).encode(), only_error=True)
        self._assembler.heartbeat()

    def _read_unframed(self, rest: bytes) -> bool:
        """Read an error or the whole answer outside the framing. Return whether all of it is one object."""
        if not rest.strip():
            return False
        if self._read_object(rest):
            return True
        for line in rest.splitlines():
            if line.lstrip().startswith((b"{", b"[")) and self._read_object(line) and self._assembler.done:
                break
        return False

    def _read_object(self, data: bytes, *, only_error: bool = False) -> bool:
        """Read a JSON object outside of an event. Return whether it is one."""
        try:
            value = _unwrapped(loads(data))
        except JsonError:
            return False
        if not isinstance(value, dict):
            return False
        is_error = holds_error(value, shared_rules())
        if is_error or not only_error:
            self._read_chunk(value, "error" if is_error else "message")
        return True


def _unwrapped(value: object) -> object:
    """Return the only element of an array, or the value itself. Gemini wraps some of its errors in an array."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
