"""The part of a stream parser that all event-stream formats share: bytes -> JSON objects -> the assembler.

A format adds one function that reads one JSON object (`read_chunk`) and hands what it finds to the `Assembler`.
Error frames are the format's to recognise; framing, `[DONE]`, garbage, bounds and the end are handled here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.assembly import Assembler
from providers.chat import StreamEvent
from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, loads
from providers.sse import MAX_LINE_BYTES, ServerSentEvent, SseComment, SseItem, SseParser

__all__ = ["EventStreamParser", "ReadChunk", "ReadComment"]

ReadChunk = Callable[[Mapping[str, object], str], None]
"""Reads one event's JSON object, given the name of the event; must not raise on any JSON."""

ReadComment = Callable[[str], None]
"""Reads one comment, such as DashScope's status of the event around it; must not raise on any text."""


class EventStreamParser:
    """A `StreamParser` over server-sent events with one JSON object each."""

    def __init__(
        self,
        assembler: Assembler,
        read_chunk: ReadChunk,
        max_line_bytes: int = MAX_LINE_BYTES,
        read_comment: ReadComment | None = None,
    ) -> None:
        self._assembler = assembler
        self._read_chunk = read_chunk
        self._read_comment = read_comment
        self._sse = SseParser(max_line_bytes)

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._assembler.done:
            return ()
        self._take(self._sse.feed(data), at_end=False)
        return self._assembler.take()

    def feed_event(self, data: bytes) -> tuple[StreamEvent, ...]:
        """Like `feed` with one whole event of one `data:` line, by who has found its ends already."""
        if not self._assembler.done:
            self._take([ServerSentEvent(data)], at_end=False)
        return self._assembler.take()

    def close(self) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._assembler.done:
            return ()
        self._take(self._sse.close(), at_end=True)
        if not self._assembler.done and not self._assembler.whole:
            self._read_unframed(self._sse.unframed)
        self._assembler.complete()
        return self._assembler.take()

    def _take(self, items: list[SseItem], *, at_end: bool) -> None:
        assembler = self._assembler
        for item in items:
            if assembler.done:
                return
            if isinstance(item, SseComment):
                if self._read_comment is not None:
                    self._read_comment(item.text)
                assembler.heartbeat()
                continue
            data = item.data
            if not data.startswith(b"{"):
                if not data.strip():
                    assembler.heartbeat()
                    continue
                if data.startswith(b"[DONE]"):
                    assembler.complete()
                    continue
            try:
                chunk = loads(data)
            except JsonError:
                # What the end of the bytes left of an event is a cut, which `complete` judges: the answer may be whole.
                if not at_end:
                    self._fail_malformed("an event of the provider's stream is not valid JSON", data)
                continue
            if type(chunk) is dict or isinstance(chunk := _unwrapped(chunk), dict):
                self._read_chunk(chunk, item.event)
            else:
                self._fail_malformed("an event of the provider's stream is no JSON object", data)
        if self._sse.overflowed:
            self._assembler.fail(
                Failure(FailureKind.TOO_LARGE, "one event of the provider's stream is larger than is taken")
            )

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
