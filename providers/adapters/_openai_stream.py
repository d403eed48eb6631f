"""OpenAI's stream, read as its repetitions allow: chunks that differ in nothing but their text are not parsed anew.

A provider writes every text chunk of an answer from one template. The template is learned from a chunk that was parsed
in full, where there is no doubt which of its strings is the text. A later chunk that has the same bytes around one
valid JSON string means the same, and only that string is taken out. Whatever differs by one byte goes the ordinary way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter

from providers.assembly import Assembler
from providers.chat import StreamEvent, TextRun
from providers.json_values import as_list, as_map, loads_strictly
from providers.streaming import EventStreamParser, ReadChunk
from providers.values import quick

__all__ = ["RelayingParser"]

_END = b"\n\n"
_DATA = b"data: "
_BEFORE = len(_DATA)
_CR, _LF = b"\r\n"
_CONTENT = re.compile(rb'"content": ?"')
_PADDING = re.compile(rb'"obfuscation": ?"([^"\\\x00-\x1f\x80-\xff]*)"')
# The inside of a JSON string. Escapes that may be halves of surrogate pairs are left to the ordinary way.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++')
_PADDING_STRING = re.compile(rb'[^"\\\x00-\x1f\x80-\xff]*')
_MOST_LESSONS = 8
_MOST_HELD_BYTES = 64 * 1024


@quick
@dataclass(frozen=True, slots=True)
class _Template:
    """The bytes before the text, behind it, and, where chunks are padded with a random string, behind that padding.

    seam: what stands between the texts of two chunks in a row.
    """

    head: bytes
    tail: bytes
    behind_padding: bytes | None = None
    seam: bytes = b""

    def only(self, data: bytes) -> bytes | None:
        """The text of a piece that is one chunk and nothing else, still escaped."""
        if self.behind_padding is not None:
            matched = self.match(data, 0)
            return matched[0] if matched and matched[1] == len(data) else None
        head, tail = self.head, self.tail
        if not data.startswith(head) or not data.endswith(tail):
            return None
        text = data[len(head) : -len(tail)]
        return text if _STRING.fullmatch(text) and (text.isascii() or _is_utf8(text)) else None

    def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """The texts of the chunks from `start` to the last one in the data, and where they end; none if what stands
        there is anything else, or if one of them is no valid string.

        All of it is told in C: events are cut at their ends, texts out of them by length, and then it is seen whether
        they make the same bytes again. (`bytes.split` prepares its search for a separator of the seam's length anew
        for each piece: 40 microseconds of a burst.)
        """
        head, tail = self.head, self.tail
        end = data.rfind(tail, start) + len(tail)
        if self.behind_padding is not None or end - start < 2 * (len(head) + len(tail)):
            return [], start
        events = data[start + len(_DATA) : end - len(_END)].split(_END + _DATA)
        pieces = list(map(itemgetter(slice(len(head) - len(_DATA), len(_END) - len(tail))), events))
        # The ends go with the first and the last text: to put them around all of it would copy it twice.
        parts = pieces.copy()
        parts[0] = head + parts[0]
        parts[-1] += tail
        if not data.startswith(self.seam.join(parts), start):
            return [], start
        return (pieces, end) if _are_texts(pieces) else ([], start)

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        """The text of the chunk that begins at `start`, still escaped, and where the next one begins."""
        if not data.startswith(self.head, start):
            return None
        matched = _STRING.match(data, start + len(self.head))
        if matched is None or not data.startswith(self.tail, matched.end()):
            return None
        end = matched.end() + len(self.tail)
        if self.behind_padding is not None:
            padding = _PADDING_STRING.match(data, end)
            if padding is None or not data.startswith(self.behind_padding, padding.end()):
                return None
            end = padding.end() + len(self.behind_padding)
        text = matched.group()
        return (text, end) if text.isascii() or _is_utf8(text) else None


def _are_texts(pieces: list[bytes]) -> bool:
    """Whether each is the inside of a JSON string without lone surrogates, and not empty.

    Asked of all of them at once: a comma is a character like any other, but no part of an escape, of a pair of
    surrogates or of another character, so that what is a string with commas between its pieces is one in each of them.
    """
    try:
        loads_strictly(b'"%b"' % b",".join(pieces))
    except ValueError:
        return False
    return all(pieces)


def _learn(body: bytes, chunk: Mapping[str, object]) -> _Template | None:
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
    head, tail, behind = _DATA + body[: place.end()], body[text.end() :] + _END, None
    if head.find(b"\\u") >= 0 or tail.find(b"\\u") >= 0:
        return None
    if padding := _PADDING.search(tail):
        tail, behind = tail[: padding.start(1)], tail[padding.end(1) :]
    return _Template(head, tail, behind, tail + head)


def _is_plain(chunk: Mapping[str, object]) -> bool:
    """Whether a chunk is text of choice 0 and nothing else."""
    choices = as_list(chunk.get("choices"))
    choice = as_map(choices[0]) if len(choices) == 1 else {}
    return (
        as_map(choice.get("delta")).keys() == {"content"}
        and choice.get("index") == 0
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        and not chunk.get("usage")
        and not chunk.get("error")
    )


class RelayingParser:
    """A `StreamParser`: `EventStreamParser`, and a short cut past it for text chunks."""

    def __init__(self, assembler: Assembler, read_chunk: ReadChunk) -> None:
        self._assembler = assembler
        self._ordinary = EventStreamParser(assembler, read_chunk)
        self._template: _Template | None = None
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
        template = self._template
        if template is None or self._rest or not self._assembler.is_in_text():
            return None
        return template.only(data)

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if (text := self.lone_text(data)) is not None:
            return (TextRun((text,)),)
        if not self._relays:
            return self._ordinary.feed(data)
        data = self._rest + data if self._rest else data
        if _CR in data or len(self._rest) > _MOST_HELD_BYTES:
            # Other line ends than LF have other ends of events, and what is held is searched anew with each piece: all
            # further bytes go the ordinary way.
            self._relays = False
            self._rest = b""
            self._template = None
            return self._ordinary.feed(data)
        assembler, ordinary = self._assembler, self._ordinary
        start = 0
        # What can't be split once is taken chunk by chunk, so that no byte is looked at again for each of them.
        self._splits = True
        while not assembler.done:
            if self._template is not None and data.startswith(self._template.head, start):
                start = self._relay(self._template, data, start)
            end = data.find(_END, start)
            if end < 0:
                break
            body = data[start + _BEFORE : end] if data.startswith(_DATA, start) else None
            if body is not None and _LF not in body:
                if not self._begun:
                    ordinary.begin()
                chunk = ordinary.read_event(body)
                if (
                    chunk is not None
                    and self._template is None
                    and self._lessons < _MOST_LESSONS
                    and assembler.is_saying_text()
                ):
                    self._lessons += 1
                    self._template = _learn(body, chunk)
            else:
                ordinary.read(data[start : end + len(_END)])
            self._begun = True
            start = end + len(_END)
        self._rest = data[start:]
        return assembler.take()

    def _relay(self, template: _Template, data: bytes, start: int) -> int:
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
        rest, self._rest = self._rest, b""
        return (*self._ordinary.feed(rest), *self._ordinary.close())


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
