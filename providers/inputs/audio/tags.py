"""Write labels into the first bytes of an audio file, as its format has a place for them. Pure.

A `Tagger` passes a file on while it arrives. It waits for the place of the tags, at most `MOST_BYTES`; without a place
the file goes as it is. FLAC always has one, so it needs no waiting. No sample of the audio changes: what is decoded
afterwards is what the vendor sent.

Places: TC260-PG-202510A (2025-08-28) for `AIGC` in wav and mp3, read through two public programs and not its text
[unconfirmed]; ID3v2.3 and 2.4 (id3.org) `TXXX`; RFC 7845, section 5.2, and RFC 9639, section 8.6, for comments.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence

from providers.inputs.audio.kinds import SPEECH_FORMATS, wav_chunks
from providers.reading.errors import malformed

MOST_BYTES = 64 * 1024
PLACES = frozenset(form for form, one in SPEECH_FORMATS.items() if one.has_place)
"""The formats that have a place."""
_UNKNOWN = 0xFFFFFFFF
_HEADER = 10
_MIRRORED = bytes([int(f"{byte:08b}"[::-1], 2) for byte in range(256)])
_COMMENTS = 4
"""The type of a block with comments in FLAC."""


class Tagger:
    """Puts tags into one file. `has_written` is right as soon as `feed` has returned a part of the file.

    Each value of a tag is JSON text, and no name is there twice. Only ID3 has the names: a chunk and a comment are
    always `AIGC`.
    """

    def __init__(self, form: str, tags: Sequence[tuple[str, str]]) -> None:
        self._tags = tags
        self._find = {"wav": _wav, "mp3": _mp3, "opus": _opus}.get(form) if tags else None
        self._flac = _Flac(tags) if tags and form == "flac" else None
        self._begun = b""
        self.has_written = False

    def feed(self, data: bytes, *, at_end: bool = False) -> bytes:
        """Return more of the file, with the tags at their place. Raises ProviderFailed if the file is broken there."""
        if self._flac is not None:
            passed = self._flac.feed(data, at_end=at_end)
            self.has_written = self._flac.has_place
            return passed
        if self._find is None:
            return data
        self._begun += data
        tagged = self._find(self._begun, self._tags)
        if tagged is None and not at_end and len(self._begun) < MOST_BYTES:
            return b""
        whole, self._begun, self._find = self._begun if tagged is None else tagged, b"", None
        self.has_written = tagged is not None
        return whole


def _wav(head: bytes, tags: Sequence[tuple[str, str]]) -> bytes | None:
    """Return the file with a chunk for each tag after `fmt `, and corrected sizes; None if its place is not here."""
    for name, _, at in wav_chunks(head, MOST_BYTES):
        if name == b"data" or at > len(head):
            return None
        if name == b"fmt ":
            break
    else:
        return None
    chunks = b""
    for _, value in tags:
        data = value.encode()
        chunks += b"AIGC" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    (whole,) = struct.unpack_from("<I", head, 4)
    known = whole if whole == _UNKNOWN else min(whole + len(chunks), _UNKNOWN)
    return head[:4] + struct.pack("<I", known) + head[8:at] + chunks + head[at:]


def _mp3(head: bytes, tags: Sequence[tuple[str, str]]) -> bytes | None:
    """Return the file with a frame for each tag: in the vendor's own tag if that is plain, else in one before it."""
    if len(head) < _HEADER:
        return None
    version, flags = head[3], head[5]
    sizes = head[6:10]
    if head[:3] != b"ID3" or version not in (3, 4) or flags & 0xF0 or max(sizes) > 127:
        frames = b"".join([_frame(name, value, 4) for name, value in tags])
        return b"ID3\x04\0\0" + _synchsafe(len(frames)) + frames + head
    frames = b"".join([_frame(name, value, version) for name, value in tags])
    size = sizes[0] << 21 | sizes[1] << 14 | sizes[2] << 7 | sizes[3]
    return head[:6] + _synchsafe(size + len(frames)) + frames + head[_HEADER:]


def _frame(name: str, value: str, version: int) -> bytes:
    """Return a `TXXX` frame. Version 2.3 has no UTF-8, so that its JSON is written in ASCII."""
    if version == 3:
        content = b"\0" + name.encode() + b"\0" + _ascii(value)
        return b"TXXX" + struct.pack(">I", len(content)) + b"\0\0" + content
    content = b"\x03" + name.encode() + b"\0" + value.encode()
    return b"TXXX" + _synchsafe(len(content)) + b"\0\0" + content


def _ascii(value: str) -> bytes:
    units = value.encode("utf-16-be")
    found = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return b"".join([bytes([unit]) if unit < 128 else b"\\u%04x" % unit for unit in found])


def _synchsafe(size: int) -> bytes:
    return bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])


def _with_comments(block: bytes, tags: Sequence[tuple[str, str]]) -> bytes | None:
    """Return a block of Vorbis' comments with those of the tags before them, or None if it is cut off."""
    at = 4 + int.from_bytes(block[:4], "little")
    if at + 4 > len(block):
        return None
    (count,) = struct.unpack_from("<I", block, at)
    return block[:at] + struct.pack("<I", count + len(tags)) + _comments_of(tags) + block[at + 4 :]


def _comments_of(tags: Sequence[tuple[str, str]]) -> bytes:
    own = [f"AIGC={value}".encode() for _, value in tags]
    return b"".join([struct.pack("<I", len(one)) + one for one in own])


class _Flac:
    """Writes comments into the blocks of a FLAC file as they pass: into its own, else after all that precede the audio.

    `has_place`: it is such a file.
    """

    def __init__(self, tags: Sequence[tuple[str, str]]) -> None:
        self._count, self._added = len(tags), _comments_of(tags)
        self._held = b""
        # The bytes that pass before the next step.
        self._passing = 0
        self._step: Callable[[bytes], tuple[int, bytes] | None] | None = self._begin
        self._rest = 0
        self.has_place = False

    def feed(self, data: bytes, *, at_end: bool) -> bytes:
        """Return more of the file."""
        if self._step is None and not self._passing:
            return data
        self._held += data
        written = list[bytes]()
        while self._held:
            if self._passing:
                passed, self._held = self._held[: self._passing], self._held[self._passing :]
                self._passing -= len(passed)
                written.append(passed)
            elif self._step is None:
                written.append(self._held)
                self._held = b""
            elif (found := self._step(self._held)) is None:
                break
            else:
                self._held = self._held[found[0] :]
                written.append(found[1])
        if at_end and self._step is not None:
            if self.has_place:
                raise malformed("the file ends before its audio")
            written.append(self._held)
        return b"".join(written)

    # Each step returns how many of the held bytes it replaces, and by what; None if it needs more of them.

    def _begin(self, held: bytes) -> tuple[int, bytes] | None:
        if len(held) < 8:
            return None
        self.has_place = held[:4] == b"fLaC" and held[4] & 127 == 0
        self._step = self._block if self.has_place else None
        return 0, b""

    def _block(self, held: bytes) -> tuple[int, bytes] | None:
        at = 4 if held[:4] == b"fLaC" else 0
        kind, size = held[at] if len(held) > at else 0, int.from_bytes(held[at + 1 : at + 4], "big")
        if len(held) < at + 4 + 4 * (kind & 127 == _COMMENTS):
            return None
        if kind & 127 == _COMMENTS:
            vendor, longer = int.from_bytes(held[at + 4 : at + 8], "little"), size + len(self._added)
            if vendor + 8 > size or longer >= 1 << 24:
                raise malformed("the comments of the file have no room")
            self._passing, self._rest, self._step = vendor, size - vendor - 8, self._comments
            return 8, bytes([kind]) + longer.to_bytes(3, "big") + held[4:8]
        is_last = kind & 128
        self._passing, self._step = size, self._new if is_last else self._block
        return at + 4, held[:at] + bytes([kind & 127]) + held[at + 1 : at + 4]

    def _comments(self, held: bytes) -> tuple[int, bytes] | None:
        """Write the comments before those of the vendor, whose number is here."""
        if len(held) < 4:
            return None
        self._passing, self._step = self._rest, None
        number = int.from_bytes(held[:4], "little") + self._count
        return 4, (number & _UNKNOWN).to_bytes(4, "little") + self._added

    def _new(self, held: bytes) -> tuple[int, bytes] | None:
        """Write a block of comments as the last one."""
        own = bytes(4) + self._count.to_bytes(4, "little") + self._added
        self._step = None
        return 0, bytes([_COMMENTS | 128]) + len(own).to_bytes(3, "big") + own


def _opus(head: bytes, tags: Sequence[tuple[str, str]]) -> bytes | None:
    """Return the stream with comments in its second packet, which has a page of its own (RFC 3533, RFC 7845).

    Comments that need a second page have no place: the numbers of all pages after it would change.
    """
    pages = _pages(head)
    if len(pages) < 2 or b"OpusHead" not in pages[0][1][:64]:
        return None
    at, page = pages[1]
    lacing = page[27 : 27 + page[26]]
    packet = page[27 + len(lacing) :]
    if lacing[-1:] == b"\xff" or lacing[:-1].strip(b"\xff") or packet[:8] != b"OpusTags":
        return None
    own = _with_comments(packet[8:], tags)
    if own is None or len(own) + 8 >= 255 * 255:
        return None
    full, rest = divmod(len(own) + 8, 255)
    body = bytes([full + 1]) + b"\xff" * full + bytes([rest]) + packet[:8] + own
    return head[:at] + page[:22] + struct.pack("<I", _crc(page[:22] + bytes(4) + body)) + body + head[at + len(page) :]


def _pages(data: bytes) -> list[tuple[int, bytes]]:
    """Return the whole pages at the beginning of a stream, each with its place."""
    found, at = list[tuple[int, bytes]](), 0
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + data[at + 26] + sum(lacing)
        if len(lacing) < data[at + 26] or end > len(data):
            break
        found.append((at, data[at:end]))
        at = end
    return found


def _crc(data: bytes) -> int:
    """Return the checksum of a page: that of zlib from 0, over mirrored bytes, mirrored."""
    crc = zlib.crc32(data.translate(_MIRRORED), _UNKNOWN) ^ _UNKNOWN
    return int(f"{crc:032b}"[::-1], 2)


def tag_names(labels: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the name of the tag of each label: `AIGC` for the one of GB 45438, and `ai-label` for others."""
    names: list[str] = []
    for label in labels:
        base = "AIGC" if "AIGC" in label else "ai-label"
        names.append(base if base not in names else f"{base}:{label.get('name')}")
    return names
