"""Relay the text chunks of a stream with a learned template, without parsing each as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import repeat
from operator import itemgetter

from providers.chat import StreamEvent, TextRun
from providers.json_values import loads_strictly
from providers.reading.assembler import Assembler
from providers.reading.event_stream import EventStreamParser, ReadChunk, TextReader
from providers.reading.sse import MAX_LINE_BYTES
from providers.value import Value

DATA = b"data: "
END = b"\n\n"
_QUOTE = b'"'
_CONTENT = re.compile(rb'"content": ?"')
_PADDING = re.compile(rb'"obfuscation": ?"([^"\\\x00-\x1f\x80-\xff]*)"')
# The contents of a JSON string. Escapes that may be halves of surrogate pairs are handled by the ordinary parser.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++')
_PADDING_STRING = re.compile(rb'[^"\\\x00-\x1f\x80-\xff]*')
_CHUNK_START = END + DATA
_MAX_TEMPLATE_ATTEMPTS = 8
_MOST_HELD_BYTES = 64 * 1024


class Template(Value, frozen=True):
    """The bytes of a text chunk before and after its text.

    Attributes:
        seam: The bytes between the texts of two consecutive chunks.
        around: The number of bytes of a chunk without its text.
        at_head, at_tail: Where head and tail of a chunk are.
        inside: Where the text of a chunk is, with its quotes.
    """

    head: bytes
    tail: bytes
    seam: bytes
    around: int
    at_head: slice
    at_tail: slice
    inside: slice

    def only(self, data: bytes) -> bytes | None:
        """Return the escaped text of a piece that is exactly one chunk, or None."""
        # Slices are compared, because `startswith` and `endswith` take three times as long.
        if data[self.at_head] != self.head or data[self.at_tail] != self.tail:
            return None
        quoted = data[self.inside]
        try:
            # Where head and tail overlap, these are fewer than two quotes, and no text.
            return quoted[1:-1] if loads_strictly(quoted) else None
        except ValueError:
            return None

    def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """Return the texts of all chunks from `start` to the last one in the data, and their end.

        Returns no texts if the data has anything else, or if a text is not a valid string.

        All of it runs in C: events are split at their ends, texts are sliced by length, and the joined result is
        compared with the data. (`bytes.split` prepares its search for a separator of the seam's length anew for each
        piece, which takes 40 microseconds in a burst.)
        """
        head, tail = self.head, self.tail
        events = _events(data, start, data.rfind(tail, start) + len(tail), self.around, END)
        if not events:
            return [], start
        texts = list(map(itemgetter(slice(len(head) - len(DATA), len(END) - len(tail))), events))
        parts = texts.copy()
        # Head and tail are added to the first and the last text, because adding them to the result would copy it twice.
        parts[0] = head + parts[0]
        parts[-1] += tail
        again = self.seam.join(parts)
        return (texts, start + len(again)) if data.startswith(again, start) and _are_texts(texts) else ([], start)

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        """Return the escaped text of the chunk at `start` and the start of the next one, or None."""
        return _match(data, start, self.head, self.tail)


class PaddedTemplate(Value, frozen=True):
    """The bytes of a padded text chunk: before its text, between text and padding, and after the padding (`rest`).

    Attributes:
        seam: The bytes between the padding of a chunk and the text of the next one.
        between: The tail without its last quote, after which the padding begins.
        around: The number of bytes of a chunk without text and padding.
        at_head, at_rest: Where head and rest of a chunk are.
        inside: Where text and padding of a chunk are, with the quote before the text.
    """

    head: bytes
    tail: bytes
    rest: bytes
    seam: bytes
    between: bytes
    around: int
    at_head: slice
    at_rest: slice
    inside: slice

    def only(self, data: bytes) -> bytes | None:
        if data[self.at_head] != self.head or data[self.at_rest] != self.rest:
            return None
        front, _, padding = data[self.inside].rpartition(_QUOTE)
        end = -len(self.between)
        if front[end:] != self.between or not (padding.isalnum() or _is_padding(padding)):
            return None
        try:
            # Of the bytes between text and padding, the first is the quote that ends the text.
            return front[1:end] if loads_strictly(front[: end + 1]) else None
        except ValueError:
            return None

    def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        head, tail, rest = self.head, self.tail, self.rest
        last = data.rfind(tail, start, data.rfind(END))
        end = data.find(END, last) + len(END)
        events = _events(data, start, end, self.around, rest)
        if not events:
            return [], start
        # The part before the last quote of an event is its text with the bytes around it.
        fronts, _, paddings = zip(*map(bytes.rpartition, events, repeat(_QUOTE)), strict=True)
        texts = list(map(itemgetter(slice(len(head) - len(DATA), len(_QUOTE) - len(tail))), fronts))
        parts = [b"", tail, b"", self.seam] * len(texts)
        parts[0::4], parts[2::4] = texts, paddings
        parts[0] = head + parts[0]
        parts[-1] = rest
        again = b"".join(parts)
        if not data.startswith(again, start) or not _is_padding(b"".join(paddings)) or not _are_texts(texts):
            return [], start
        return texts, start + len(again)

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        matched = _match(data, start, self.head, self.tail)
        if matched is None:
            return None
        text, end = matched
        padding = _PADDING_STRING.match(data, end)
        if padding is None or not data.startswith(self.rest, padding.end()):
            return None
        return text, padding.end() + len(self.rest)


def _match(data: bytes, start: int, head: bytes, tail: bytes) -> tuple[bytes, int] | None:
    """Return the text between head and tail at `start`, and the end of the tail, or None."""
    if not data.startswith(head, start):
        return None
    matched = _STRING.match(data, start + len(head))
    if matched is None or not data.startswith(tail, matched.end()):
        return None
    text = matched.group()
    return (text, matched.end() + len(tail)) if text.isascii() or _is_utf8(text) else None


def _events(data: bytes, start: int, end: int, around: int, ending: bytes) -> list[bytes]:
    """Split the data between `start` and `end` into events, each without `data: ` and its end.

    Returns none if there are fewer than two events, or more than fit with `around` bytes each: adding these bytes to
    many short events would turn one piece of a provider into gigabytes.
    """
    most = (end - start) // around
    if most < 2:
        return []
    events = data[start + len(DATA) : end - len(ending)].split(ending + DATA)
    return events if len(events) <= most else []


def _is_padding(padding: bytes) -> bool:
    """Return whether these are contents of an ASCII JSON string without escapes. OpenAI uses letters and digits."""
    return padding.isalnum() or _PADDING_STRING.fullmatch(padding) is not None


def _is_text(piece: bytes) -> bool:
    """Return whether these are contents of a JSON string without lone surrogates, and not empty."""
    try:
        return bool(loads_strictly(b'"' + piece + b'"'))
    except ValueError:
        return False


def _are_texts(pieces: list[bytes]) -> bool:
    """Return whether each piece is a text.

    All are checked at once, joined with commas: a comma is never part of an escape, of a surrogate pair or of another
    character. So if the joined pieces are a valid string, each piece is.
    """
    return all(pieces) and _is_text(b",".join(pieces))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def find_template(body: bytes, chunk: Mapping[str, object]) -> Template | PaddedTemplate | None:
    """Return the template of an event with this data, which was parsed as this chunk, or None if it is not plain text.

    A string in JSON can be replaced by another one without other changes. The string that is found is the text, because
    there is no other `content`, and no escape by which a name could be written in another way.
    """
    content = _CONTENT.search(body)
    if content is None or body.count(b'"content"') != 1 or not _is_plain(chunk):
        return None
    text = _STRING.match(body, content.end())
    if text is None or not body.startswith(b'"', text.end()):
        return None
    head, tail = DATA + body[: content.end()], body[text.end() :] + END
    if head.find(b"\\u") >= 0 or tail.find(b"\\u") >= 0:
        return None
    padding = _PADDING.search(tail)
    if padding is None:
        around = len(head) + len(tail)
        inside = slice(len(head) - 1, 1 - len(tail))
        return Template(head, tail, tail + head, around, slice(len(head)), slice(-len(tail), None), inside)
    if tail.count(b'"obfuscation"') != 1:
        # No known provider does this.
        return None
    rest = tail[padding.end(1) :]
    tail = tail[: padding.start(1)]
    around = len(head) + len(tail) + len(rest)
    at_head, at_rest, inside = slice(len(head)), slice(-len(rest), None), slice(len(head) - 1, -len(rest))
    between = tail.removesuffix(_QUOTE)
    return PaddedTemplate(head, tail, rest, rest + head, between, around, at_head, at_rest, inside)


def _is_plain(chunk: Mapping[str, object]) -> bool:
    """Return whether a chunk contains text of choice 0 and nothing else."""
    choices = chunk.get("choices")
    choice = choices[0] if type(choices) is list and len(choices) == 1 else None
    if type(choice) is not dict or type(delta := choice.get("delta")) is not dict:
        return False
    return (
        delta.keys() == {"content"}
        and choice.get("index") == 0
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        and not choice.get("usage")
        and not chunk.get("usage")
        and not chunk.get("error")
    )


_CR, _LF = b"\r\n"


_LEAD_BYTES, _END_BYTES = len(DATA), len(END)


class RelayingParser:
    """A `StreamParser` that uses `EventStreamParser`, with a shortcut for text chunks."""

    def __init__(self, assembler: Assembler, read_chunk: ReadChunk, end: Callable[[], None] | None = None) -> None:
        self._assembler = assembler
        self._general_parser = EventStreamParser(assembler, read_chunk, end=end)
        self._template: Template | PaddedTemplate | None = None
        # The template while one more text would change no other state. Only `feed` and `close` set it.
        self._awaited: Template | PaddedTemplate | None = None
        self._template_attempts = 0
        self._rest = b""
        self._relays = True
        self._has_started = False
        self._splits = True

    def text_reader(self) -> TextReader | None:
        """See `providers.reading.event_stream.StreamShortcuts`.

        A provider sends pieces of one more text while it generates. A piece with two chunks does not match the
        template, because a text contains no bare quote.
        """
        return self._awaited.only if self._awaited is not None else None

    def is_complete(self) -> bool:
        return self._assembler.certain

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        is_large = len(data) > MAX_LINE_BYTES
        if not is_large and self._awaited is not None and (text := self._awaited.only(data)) is not None:
            return (TextRun((text,)),)
        if not self._relays:
            return self._general_parser.feed(data)
        data = self._rest + data if self._rest else data
        if _CR in data or len(self._rest) > _MOST_HELD_BYTES or is_large:
            # Line ends other than LF end events differently, held data is searched again with each piece, and a large
            # piece may have a line above the limit: the ordinary parser reads all further bytes.
            self._relays = False
            self._rest = b""
            self._template = self._awaited = None
            return self._general_parser.feed(data)
        assembler, general_parser, template = self._assembler, self._general_parser, self._template
        start = 0
        # After a failed split, chunks are matched one by one, so that no byte is searched once for each chunk.
        self._splits = True
        while not assembler.done:
            if template is not None and data.startswith(template.head, start):
                start = self._relay(template, data, start)
            end = data.find(END, start)
            if end < 0:
                break
            if data.startswith(DATA, start) and data.find(_LF, start, end) < 0:
                if not self._has_started:
                    general_parser.begin()
                body = data[start + _LEAD_BYTES : end]
                chunk = general_parser.read_event(body)
                if template is None and chunk is not None and assembler.is_saying_text():
                    template = self._update_template(body, chunk)
            else:
                # Up to the next chunk at once: all of the data may be blank lines or comments.
                chunk_at = data.find(_CHUNK_START, end)
                end = chunk_at if chunk_at >= 0 else data.rfind(END, end)
                general_parser.read(data[start : end + _END_BYTES])
            self._has_started = True
            start = end + _END_BYTES
        self._rest = data[start:]
        events = assembler.take()
        self._awaited = template if not self._rest and assembler.is_in_text() else None
        return events

    def _update_template(self, body: bytes, chunk: Mapping[str, object]) -> Template | PaddedTemplate | None:
        if self._template_attempts < _MAX_TEMPLATE_ATTEMPTS:
            self._template_attempts += 1
            self._template = find_template(body, chunk)
        return self._template

    def _relay(self, template: Template | PaddedTemplate, data: bytes, start: int) -> int:
        """Pass the run of text chunks at `start` to the assembler, and return its end."""
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
        rest, self._rest, self._awaited = self._rest, b"", None
        return (*self._general_parser.feed(rest), *self._general_parser.close())
