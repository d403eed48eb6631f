"""OpenAI's stream, read as its repetitions allow: chunks that differ in nothing but their text are not parsed anew.

A provider writes every text chunk of an answer from one template. The template is learned from a chunk that was parsed
in full, where there is no doubt which of its strings is the text. A later chunk that has the same bytes around one
valid JSON string means the same, and only that string is taken out. Whatever differs by one byte goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.adapters._openai_template import DATA, END, PaddedTemplate, Template, learn
from providers.assembly import Assembler
from providers.chat import StreamEvent, TextRun
from providers.sse import MAX_LINE_BYTES
from providers.streaming import EventStreamParser, ReadChunk, TextReader

__all__ = ["RelayingParser"]

_CR, _LF = b"\r\n"
_LEAD_BYTES, _END_BYTES = len(DATA), len(END)
_MOST_LESSONS = 8
_MOST_HELD_BYTES = 64 * 1024


class RelayingParser:
    """A `StreamParser`: `EventStreamParser`, and a short cut past it for text chunks."""

    def __init__(self, assembler: Assembler, read_chunk: ReadChunk) -> None:
        self._assembler = assembler
        self._ordinary = EventStreamParser(assembler, read_chunk)
        self._template: Template | PaddedTemplate | None = None
        # The same while one more text would be nothing but that, which only `feed` and `close` change.
        self._awaited: Template | PaddedTemplate | None = None
        self._lessons = 0
        self._rest = b""
        self._relays = True
        self._begun = False
        self._splits = True

    def lone_text(self, data: bytes) -> bytes | None:
        """The text of a piece that is one more chunk of choice 0's text and nothing else, still escaped; else None.

        So a provider sends them while it thinks. Whoever has this text needn't feed the piece, and may: nothing changes
        here. (A piece of two chunks is none: a text holds no bare quote.)
        """
        return self._awaited.only(data) if self._awaited is not None else None

    def text_reader(self) -> TextReader | None:
        """See `providers.streaming.StreamShortcuts`."""
        return self.lone_text

    def is_complete(self) -> bool:
        """See `providers.streaming.StreamShortcuts`."""
        return self._assembler.whole

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        is_large = len(data) > MAX_LINE_BYTES
        if not is_large and (text := self.lone_text(data)) is not None:
            return (TextRun((text,)),)
        if not self._relays:
            return self._ordinary.feed(data)
        data = self._rest + data if self._rest else data
        if _CR in data or len(self._rest) > _MOST_HELD_BYTES or is_large:
            # Other line ends than LF have other ends of events, what is held is searched anew with each piece, and a
            # large piece may have a line that is none any more: all further bytes go the ordinary way.
            self._relays = False
            self._rest = b""
            self._template = self._awaited = None
            return self._ordinary.feed(data)
        assembler, ordinary, template = self._assembler, self._ordinary, self._template
        start = 0
        # What can't be split once is taken chunk by chunk, so that no byte is looked at again for each of them.
        self._splits = True
        while not assembler.done:
            if template is not None and data.startswith(template.head, start):
                start = self._relay(template, data, start)
            end = data.find(END, start)
            if end < 0:
                break
            if data.startswith(DATA, start) and data.find(_LF, start, end) < 0:
                if not self._begun:
                    ordinary.begin()
                body = data[start + _LEAD_BYTES : end]
                chunk = ordinary.read_event(body)
                if template is None and chunk is not None and assembler.is_saying_text():
                    template = self._learn(body, chunk)
            else:
                ordinary.read(data[start : end + _END_BYTES])
            self._begun = True
            start = end + _END_BYTES
        self._rest = data[start:]
        events = assembler.take()
        self._awaited = template if not self._rest and assembler.is_in_text() else None
        return events

    def _learn(self, body: bytes, chunk: Mapping[str, object]) -> Template | PaddedTemplate | None:
        if self._lessons < _MOST_LESSONS:
            self._lessons += 1
            self._template = learn(body, chunk)
        return self._template

    def _relay(self, template: Template | PaddedTemplate, data: bytes, start: int) -> int:
        """Take the run of text chunks at `start`; where it ends."""
        if not self._assembler.takes_runs():
            return start
        pieces: list[bytes] = []
        if self._splits:
            pieces, start = template.split(data, start)
            self._splits = bool(pieces)
        matched = template.match(data, start)
        while matched is not None:
            pieces.append(matched[0])
            start = matched[1]
            matched = template.match(data, start)
        if pieces:
            self._assembler.text_run(tuple(pieces))
        return start

    def close(self) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        rest, self._rest, self._awaited = self._rest, b"", None
        return (*self._ordinary.feed(rest), *self._ordinary.close())
