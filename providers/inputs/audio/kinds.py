"""The kinds of audio files, by their first bytes, and how many seconds a file can have, which a hold must cover.

No header decides about money alone: it claims a length, and only real bytes bound it. Pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

from providers.value import Value

Kind: TypeAlias = Literal["wav", "mp3", "flac", "ogg", "webm", "mp4", "aac", "amr"]
_USUAL_RATE = 16_000
_MOST_RATE = 48_000
"""The bytes a second of a file whose claim is too short to be true: no compressed speech has more."""
_RATES = range(8_000, 192_001)
_BITS = (8, 16, 24, 32)
_MOST_CHANNELS = 8
_LARGEST = 2**62
_MP3_BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HEAD_BYTES = 4096


class AudioKind(Value, frozen=True):
    """A kind of audio files.

    Attributes:
        media: Its content type.
        least_rate: The least bytes a second of real speech. Silence in `flac`, `ogg` and `webm` can have fewer.
        begins: Returns whether a file with these first bytes is one. No name or type counts.
    """

    media: str
    least_rate: int
    begins: Callable[[bytes], bool]


def _is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def _is_mp3(head: bytes) -> bool:
    if head[:3] == b"ID3":
        return True
    if len(head) < 3 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    return bool(head[1] & 0x06) and head[1] & 0x18 != 0x08 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C


def _is_aac(head: bytes) -> bool:
    return head[:4] == b"ADIF" or (len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0)


KINDS: Mapping[Kind, AudioKind] = {
    "wav": AudioKind("audio/wav", 500, _is_wav),
    "mp3": AudioKind("audio/mpeg", 1000, _is_mp3),
    "flac": AudioKind("audio/flac", 500, lambda head: head[:4] == b"fLaC"),
    "ogg": AudioKind("audio/ogg", 500, lambda head: head[:4] == b"OggS"),
    "webm": AudioKind("audio/webm", 500, lambda head: head[:4] == b"\x1aE\xdf\xa3"),
    "mp4": AudioKind("audio/mp4", 1000, lambda head: head[4:8] == b"ftyp"),
    "aac": AudioKind("audio/aac", 1000, _is_aac),
    "amr": AudioKind("audio/amr", 590, lambda head: head[:5] == b"#!AMR"),
}
"""The kinds of audio files that are written down."""


class SpokenKind(Value, frozen=True):
    """A format of speech: its content type, the kind of its file, if it has one, and whether that can have tags."""

    media: str
    kind: Kind | None
    has_place: bool = False


SPEECH_FORMATS: Mapping[str, SpokenKind] = {
    "mp3": SpokenKind("audio/mpeg", "mp3", has_place=True),
    "opus": SpokenKind("audio/opus", "ogg", has_place=True),
    "aac": SpokenKind("audio/aac", "aac"),
    "flac": SpokenKind("audio/flac", "flac", has_place=True),
    "wav": SpokenKind("audio/wav", "wav", has_place=True),
    "pcm": SpokenKind("audio/pcm", None),
}
"""The formats of speech."""


def kind_of(data: bytes | memoryview) -> Kind | None:
    """Return the kind of a file by its first bytes, or None if it is not one of `KINDS`."""
    head = bytes(data[:64])
    return next((kind for kind, one in KINDS.items() if one.begins(head)), None)


class Lengths(Value, frozen=True):
    """How long the audio of a file is, in milliseconds.

    Attributes:
        most: The length that is held: no vendor can count more, but for silence that is compressed to nothing.
        usual: The length that is expected.
        own: The length that counts if the vendor states none that can be true.
    """

    most: int
    usual: int
    own: int


def lengths_of(kind: Kind, data: bytes | memoryview, longest_s: int | None = None) -> Lengths:
    """Return the lengths of a file. `longest_s` is the longest that the vendor takes, or None for any length."""
    if kind == "wav" and (exact := _pcm_ms(data)) is not None:
        return Lengths(exact, exact, exact)
    size, longest = len(data), _LARGEST if longest_s is None else longest_s * 1000
    most = min(-(-size * 1000 // KINDS[kind].least_rate), longest)
    claim = _claimed_ms(kind, data)
    usual = min(-(-size * 1000 // _USUAL_RATE) if claim is None else claim, most)
    can_be_true = claim is not None and size * 1000 // _MOST_RATE <= claim <= most
    return Lengths(most, usual, claim if claim is not None and can_be_true else most)


def wav_chunks(data: bytes | memoryview, most_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk that begins in the first bytes of a `wav`, and where its content begins and ends."""
    at = 12
    while at + 8 <= min(len(data), most_bytes):
        name, (size,) = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)
        begin, at = at + 8, at + 8 + size + size % 2
        yield name, begin, at


def _pcm_ms(data: bytes | memoryview) -> int | None:
    """Return the length of PCM by its real bytes, or None for other audio in a `wav`."""
    form: bytes | None = None
    for name, at, end in wav_chunks(data, 1 << 20):
        if name == b"data":
            break
        if name == b"fmt ":
            if form is not None:
                return None
            form = bytes(data[at : min(end, at + 40)])
    else:
        return None
    if form is None or len(form) < 16:
        return None
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    is_pcm = tag == 1 or (tag == 0xFFFE and len(form) >= 26 and form[24:26] == b"\x01\x00")
    if not is_pcm or rate not in _RATES or bits not in _BITS or not 1 <= channels <= _MOST_CHANNELS:
        return None
    length: int = -(-(len(data) - at) * 8000 // (channels * bits * rate))
    return length


def _claimed_ms(kind: Kind, data: bytes | memoryview) -> int | None:
    """Return the length that a file claims, or None if it claims none that is a number."""
    head = bytes(data[:_HEAD_BYTES])
    try:
        match kind:
            case "flac":
                packed = int.from_bytes(head[18:26], "big")
                return _ms(packed & (2**36 - 1), packed >> 44)
            case "ogg":
                tail = bytes(data[-65_536:])
                (granule,) = struct.unpack_from("<q", tail, tail.rindex(b"OggS") + 6)
                if (vorbis := head.find(b"\x01vorbis")) >= 0:
                    (rate,) = struct.unpack_from("<I", head, vorbis + 12)
                    return _ms(granule, rate)
                return _ms(granule, 48_000)
            case "mp4":
                return _mp4_ms(data)
            case "mp3":
                return _mp3_ms(data)
            case "webm":
                if (found := re.search(rb"\x44\x89([\x84\x88])", head)) is None:
                    return None
                form = ">f" if found[1] == b"\x84" else ">d"
                (duration,) = struct.unpack_from(form, head, found.end())
                return int(duration) if 0 < duration < _LARGEST else None  # in ticks of a millisecond, as is usual
            case _:
                return None
    except (struct.error, ValueError, OverflowError, IndexError):
        return None


def _ms(samples: int, rate: int) -> int | None:
    """Return the length of so many samples, or None if one of the numbers is not positive."""
    return samples * 1000 // rate if samples > 0 and rate > 0 else None


def _mp4_ms(data: bytes | memoryview) -> int | None:
    for part in (bytes(data[:65_536]), bytes(data[-262_144:])):
        if (at := part.find(b"mvhd")) >= 0:
            form, start = (">IQ", at + 24) if part[at + 4 : at + 5] == b"\x01" else (">II", at + 16)
            scale, duration = struct.unpack_from(form, part, start)
            return _ms(duration, scale)
    return None


def _mp3_ms(data: bytes | memoryview) -> int | None:
    """Return the length of a file with a constant rate, or that of its Xing header."""
    at = 0
    if bytes(data[:3]) == b"ID3":
        size = bytes(data[6:10])
        at = 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    head = bytes(data[at : at + 256])
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, index, rate = head[1] >> 3 & 3, head[2] >> 4, (44_100, 48_000, 32_000, 0)[head[2] >> 2 & 3]
    rate >>= {3: 0, 2: 1}.get(version, 2)
    for name in (b"Xing", b"Info"):
        if (found := head.find(name)) >= 0 and head[found + 7] & 1:
            return _ms(struct.unpack_from(">I", head, found + 8)[0] * (1152 if version == 3 else 576), rate)
    kilobits = _MP3_BITRATES[version != 3][index] if index < 15 else 0
    return (len(data) - at) * 8 // kilobits if kilobits else None
