"""OpenAI's stream, read as its repetitions allow: chunks that differ in nothing but their text are not parsed anew.

A provider writes every text chunk of an answer from one template. The template is learned from a chunk that was parsed
in full, and proved by putting another text into it. A later chunk that has the same bytes around one valid JSON string
means the same, and only that string is taken out. Whatever differs by one byte goes the ordinary way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter

from providers.assembly import Assembler
from providers.chat import StreamEvent, TextRun
from providers.json_values import JsonError, as_list, as_map, loads
from providers.streaming import EventStreamParser, ReadChunk

__all__ = ["RelayingParser"]

_END = b"\n\n"
_DATA = b"data: "
_CR, _LF = b"\r\n"
_CONTENT = re.compile(rb'"content": ?"')
_PADDING = re.compile(rb'"obfuscation": ?"([^"\\\x00-\x1f]*)"')
# The inside of a JSON string. Escapes that may be halves of surrogate pairs are left to the ordinary way.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++')
_NOT_PLAIN = re.compile(rb'["\\\x00-\x1f]')
_PADDING_STRING = re.compile(rb'[^"\\\x00-\x1f]*')
_MOST_LESSONS = 8
_MOST_HELD_BYTES = 64 * 1024


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
            return matched[0] if matched and matched[1] == len(data) and _is_utf8(matched[0]) else None
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
        tail, width = self.tail, len(self.head)
        end = data.rfind(tail, start) + len(tail)
        if self.behind_padding is not None or end - start < 2 * (width + len(tail)):
            return [], start
        events = data[start + len(_DATA) : end - len(_END)].split(_END + _DATA)
        pieces = list(map(itemgetter(slice(width - len(_DATA), len(_END) - len(tail))), events))
        if b"" in pieces or not data.startswith(self.head + self.seam.join(pieces) + tail, start):
            return [], start
        if _NOT_PLAIN.search(b"".join(pieces)) and not all(map(_STRING.fullmatch, pieces)):
            return [], start
        return pieces, end

    def match(self, data: bytes, start: int) -> tuple[bytes, int] | None:
        """The text of the chunk that begins at `start`, still escaped, and where the next one begins."""
        if not data.startswith(self.head, start):
            return None
        text = _STRING.match(data, start + len(self.head))
        if text is None or not data.startswith(self.tail, text.end()):
            return None
        end = text.end() + len(self.tail)
        if self.behind_padding is not None:
            padding = _PADDING_STRING.match(data, end)
            if padding is None or not data.startswith(self.behind_padding, padding.end()):
                return None
            end = padding.end() + len(self.behind_padding)
        return text.group(), end


def _learn(block: bytes) -> _Template | None:
    """The template of a whole event, None if it is no plain text chunk."""
    body = block.removeprefix(b"data: ").removesuffix(_END)
    if len(body) + len(b"data: ") + len(_END) != len(block) or _LF in body:
        return None
    place = _CONTENT.search(block)
    text = _STRING.match(block, place.end()) if place else None
    if place is None or text is None:
        return None
    head, tail, behind = block[: place.end()], block[text.end() :], None
    if padding := _PADDING.search(tail):
        tail, behind = tail[: padding.start(1)], tail[padding.end(1) :]
    template = _Template(head, tail, behind, tail + head)
    return template if _is_proved(template, body) else None


def _is_proved(template: _Template, body: bytes) -> bool:
    """Whether the chunk is plain text of choice 0, and another text in its place changes that text and nothing else."""
    probe = template.head.removeprefix(b"data: ") + b"PROBE" + template.tail
    probe += b"" if template.behind_padding is None else b"PAD" + template.behind_padding
    try:
        real, probed = as_map(loads(body)), dict(as_map(loads(probe)))
    except JsonError:
        return False
    choices = as_list(real.get("choices"))
    choice = as_map(choices[0]) if len(choices) == 1 else {}
    delta = as_map(choice.get("delta"))
    plain = (
        delta.keys() == {"content"}
        and choice.get("index") == 0
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        and not real.get("usage")
        and not real.get("error")
    )
    if not plain:
        return False
    expected = {**real, "choices": [{**choice, "delta": {"content": "PROBE"}}]}
    if template.behind_padding is not None:
        expected["obfuscation"] = "PAD"
    return probed == expected


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
        events: list[StreamEvent] = []
        start = 0
        # What can't be split once is taken chunk by chunk, so that no byte is looked at again for each of them.
        self._splits = True
        while not self._assembler.done:
            start = self._relay(data, start, events)
            end = data.find(_END, start)
            if end < 0:
                break
            end += len(_END)
            block = data[start:end]
            start = end
            if block.startswith(_DATA) and block.find(b"\n") == len(block) - len(_END):
                if not self._begun:
                    self._begun = True
                    self._ordinary.begin()
                events += self._ordinary.feed_event(block[len(_DATA) : -len(_END)])
            else:
                self._begun = True
                events += self._ordinary.feed(block)
            if self._template is None and self._lessons < _MOST_LESSONS and self._assembler.is_in_text():
                self._lessons += 1
                self._template = _learn(block)
        self._rest = data[start:]
        return tuple(events)

    def _relay(self, data: bytes, start: int, events: list[StreamEvent]) -> int:
        """Take the run of text chunks at `start`; where it ends."""
        template = self._template
        if template is None or not data.startswith(template.head, start) or not self._assembler.takes_runs():
            return start
        first = start
        pieces: list[bytes] = []
        if self._splits:
            pieces, start = template.split(data, start)
            self._splits = bool(pieces)
        matched = template.match(data, start)
        while matched is not None:
            pieces.append(matched[0])
            start = matched[1]
            matched = template.match(data, start)
        if not pieces:
            return start
        run = tuple(pieces)
        if not data.isascii() and not _is_utf8(b'"'.join(run)):
            events += self._ordinary.feed(data[first:start])
            return start
        self._assembler.text_run(run)
        events += self._assembler.take()
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
