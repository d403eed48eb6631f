"""Relay the text chunks of a stream by a learned template, without reading each as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import repeat
from operator import itemgetter

from providers.chat import StreamEvent, TextRun
from providers.json_values import as_list, as_map, loads_strictly
from providers.reading.event_stream import EventStreamParser, ReadChunk, TextReader
from providers.reading.sse import MAX_LINE_BYTES
from providers.reading.stream_assembler import Assembler
from providers.value import Value

DATA = b"data: "


END = b"\n\n"


_QUOTE = b'"'


_CONTENT = re.compile(rb'"content": ?"')


_PADDING = re.compile(rb'"obfuscation": ?"([^"\\\x00-\x1f\x80-\xff]*)"')


# The inside of a JSON string. Escapes that may be halves of surrogate pairs are left to the ordinary way.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++')


_PADDING_STRING = re.compile(rb'[^"\\\x00-\x1f\x80-\xff]*')


class Template(Value, frozen=True):
    """The bytes before the text, and behind it to the event's end.

    seam: what stands between the texts of two chunks in a row. around: how many bytes a chunk has beside its text.
    """

    head: bytes
    tail: bytes
    seam: bytes
    around: int

    def only(self, data: bytes) -> bytes | None:
        """The text of a piece that is one chunk and nothing else, still escaped."""
        text = data.removeprefix(self.head).removesuffix(self.tail)
        return text if len(text) == len(data) - self.around and _is_text(text) else None

    def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """The texts of the chunks from `start` to the last one in the data, and where they end; none if what stands
        there is anything else, or if one of them is no valid string.

        All of it is told in C: events are cut at their ends, texts out of them by length, and then it is seen whether
        they make the same bytes again. (`bytes.split` prepares its search for a separator of the seam's length anew
        for each piece: 40 microseconds of a burst.)
        """
        head, tail = self.head, self.tail
        events = _events(data, start, data.rfind(tail, start) + len(tail), self.around, END)
        if not events:
            return [], start
        texts = list(map(itemgetter(slice(len(head) - len(DATA), len(END) - len(tail))), events))
        parts = texts.copy()
        # The ends go with the first and the last text: to put them around all of it would copy it twice.
        parts[0] = head + parts[0]
        parts[-1] += tail
        again = self.seam.join(parts)
        return (texts, start + len(again)) if data.startswith(again, start) and _are_texts(texts) else ([], start)

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        """The text of the chunk that begins at `start`, still escaped, and where the next one begins."""
        return _match(data, start, self.head, self.tail)


class PaddedTemplate(Value, frozen=True):
    """The same of padded chunks: the bytes before the text, between text and padding, and behind that.

    seam: what stands between the padding of a chunk and the text of the next one. between: the tail without the last
    quote, behind which the padding begins. around: how many bytes a chunk has beside text and padding.
    """

    head: bytes
    tail: bytes
    behind: bytes
    seam: bytes
    between: bytes
    around: int

    def only(self, data: bytes) -> bytes | None:
        """See `Template.only`."""
        front, _, padding = data.removeprefix(self.head).removesuffix(self.behind).rpartition(_QUOTE)
        text = front.removesuffix(self.between)
        if len(text) + len(padding) != len(data) - self.around or not _is_padding(padding):
            return None
        return text if _is_text(text) else None

    def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """See `Template.split`."""
        head, tail, behind = self.head, self.tail, self.behind
        last = data.rfind(tail, start, data.rfind(END))
        end = data.find(END, last) + len(END)
        events = _events(data, start, end, self.around, behind)
        if not events:
            return [], start
        # What stands before the last quote of an event is its text and what is around it.
        fronts, _, paddings = zip(*map(bytes.rpartition, events, repeat(_QUOTE)), strict=True)
        texts = list(map(itemgetter(slice(len(head) - len(DATA), len(_QUOTE) - len(tail))), fronts))
        parts = [b"", tail, b"", self.seam] * len(texts)
        parts[0::4], parts[2::4] = texts, paddings
        parts[0] = head + parts[0]
        parts[-1] = behind
        again = b"".join(parts)
        if not data.startswith(again, start) or not _is_padding(b"".join(paddings)) or not _are_texts(texts):
            return [], start
        return texts, start + len(again)

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        """See `Template.match`."""
        matched = _match(data, start, self.head, self.tail)
        if matched is None:
            return None
        text, end = matched
        padding = _PADDING_STRING.match(data, end)
        if padding is None or not data.startswith(self.behind, padding.end()):
            return None
        return text, padding.end() + len(self.behind)


def _match(data: bytes, start: int, head: bytes, tail: bytes) -> tuple[bytes, int] | None:
    """The text that stands between these two at `start`, and where they end."""
    if not data.startswith(head, start):
        return None
    matched = _STRING.match(data, start + len(head))
    if matched is None or not data.startswith(tail, matched.end()):
        return None
    text = matched.group()
    return (text, matched.end() + len(tail)) if text.isascii() or _is_utf8(text) else None


def _events(data: bytes, start: int, end: int, around: int, ending: bytes) -> list[bytes]:
    """What stands between these places, cut at the ends of events, each without that and its first word; nothing if
    it isn't two events or more, or if not all of them can have so many bytes around their text.

    Whoever puts those bytes around short ones in their place would make gigabytes of what a provider sends in a piece.
    """
    most = (end - start) // around
    if most < 2:
        return []
    events = data[start + len(DATA) : end - len(ending)].split(ending + DATA)
    return events if len(events) <= most else []


def _is_padding(padding: bytes) -> bool:
    """Whether this is the inside of a JSON string that is ASCII and has no escapes; OpenAI takes letters and digits."""
    return padding.isalnum() or _PADDING_STRING.fullmatch(padding) is not None


def _is_text(piece: bytes) -> bool:
    """Whether this is the inside of a JSON string without lone surrogates, and not empty."""
    try:
        return bool(loads_strictly(b'"' + piece + b'"'))
    except ValueError:
        return False


def _are_texts(pieces: list[bytes]) -> bool:
    """Whether each is a text.

    Asked of all of them at once: a comma is a character like any other, but no part of an escape, of a pair of
    surrogates or of another character, so that what is a string with commas between its pieces is one in each of them.
    """
    return all(pieces) and _is_text(b",".join(pieces))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def learn(body: bytes, chunk: Mapping[str, object]) -> Template | PaddedTemplate | None:
    """The template of the event with this data, which was read as this chunk; None if it is no plain text chunk.

    A string in JSON may be replaced by any other, and nothing else is changed. That the one which is found is the text
    is seen by there being no other `content`, nor an escape by which a name could be written in another way.
    """
    place = _CONTENT.search(body)
    if place is None or body.count(b'"content"') != 1 or not _is_plain(chunk):
        return None
    text = _STRING.match(body, place.end())
    if text is None or not body.startswith(b'"', text.end()):
        return None
    head, tail = DATA + body[: place.end()], body[text.end() :] + END
    if head.find(b"\\u") >= 0 or tail.find(b"\\u") >= 0:
        return None
    padding = _PADDING.search(tail)
    if padding is None:
        return Template(head, tail, tail + head, len(head) + len(tail))
    if tail.count(b'"obfuscation"') != 1:
        # No provider does so. What ends like no other part of it is searched for in linear time.
        return None
    behind = tail[padding.end(1) :]
    tail = tail[: padding.start(1)]
    around = len(head) + len(tail) + len(behind)
    return PaddedTemplate(head, tail, behind, behind + head, tail.removesuffix(_QUOTE), around)


def _is_plain(chunk: Mapping[str, object]) -> bool:
    """Whether a chunk is text of choice 0 and nothing else."""
    choices = as_list(chunk.get("choices"))
    choice = as_map(choices[0]) if len(choices) == 1 else {}
    return (
        as_map(choice.get("delta")).keys() == {"content"}
        and choice.get("index") == 0
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        and not choice.get("usage")
        and not chunk.get("usage")
        and not chunk.get("error")
    )


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
        """See `providers.reading.event_stream.StreamShortcuts`."""
        return self.lone_text

    def is_complete(self) -> bool:
        """See `providers.reading.event_stream.StreamShortcuts`."""
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
