"""Small valid audio files of each format, without speech: the answers of a simulated provider."""

from __future__ import annotations

import math
import struct

_RATE = 24_000
_FRAMES = {"mp3": b"\xff\xfb\x90\xc4" + bytes(413), "aac": b"\xff\xf1\x50\x40\x01\xbf\xfc\x00\xc8\x00\x80\x23\x80"}
"""A silent frame: MPEG 1 layer 3 with 128 kbit/s at 44.1 kHz, and AAC-LC with 44.1 kHz in ADTS."""
_FRAMES_PER_S = {"mp3": 44_100 / 1152, "aac": 44_100 / 1024}
_OPUS_SILENCE = b"\xf8\xff\xfe"
_OPUS_PER_S = 50


def spoken_file(form: str, seconds: float) -> bytes:
    """Return an audio file of about this length: a tone as `wav` and `pcm`, and else silence."""
    match form:
        case "pcm":
            return _tone(seconds)
        case "wav":
            return wav_of(_tone(seconds), _RATE)
        case "opus":
            return _opus(max(1, round(seconds * _OPUS_PER_S)))
        case "flac":
            return _flac(max(1, round(seconds * 10)))
    return _FRAMES[form] * max(2, round(seconds * _FRAMES_PER_S[form]))


def wav_of(samples: bytes, rate: int) -> bytes:
    """Return mono samples of 16 bit as a file."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    data = struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + 8 + 16 + 4 + len(data)) + b"WAVEfmt " + form + b"data" + data


def _tone(seconds: float) -> bytes:
    count = round(seconds * _RATE)
    return struct.pack(f"<{count}h", *(round(8000 * math.sin(at * 440 * 2 * math.pi / _RATE)) for at in range(count)))


def _ogg_page(packets: list[bytes], sequence: int, granule: int, flags: int) -> bytes:
    """Return a page with whole packets (RFC 3533)."""
    lacing = b"".join([b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in packets])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, 1, sequence, 0) + bytes([len(lacing)]) + lacing
    page = head + b"".join(packets)
    return page[:22] + struct.pack("<I", crc_of(page, 0x04C11DB7, 32)) + page[26:]


def crc_of(data: bytes, polynomial: int, bits: int) -> int:
    """Return a cyclic redundancy check without reflection, from 0."""
    crc, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
    return crc


def _opus(packets: int) -> bytes:
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, _RATE, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 9) + b"simulated" + struct.pack("<I", 0)
    pages = [_ogg_page([head], 0, 0, 2), _ogg_page([tags], 1, 0, 0)]
    starts = range(0, packets, _OPUS_PER_S)
    for number, start in enumerate(starts, 2):
        count = min(_OPUS_PER_S, packets - start)
        is_last = start + count == packets
        pages.append(_ogg_page([_OPUS_SILENCE] * count, number, (start + count) * 960, 4 if is_last else 0))
    return b"".join(pages)


def _flac(blocks: int) -> bytes:
    """Return blocks of 4,800 silent samples at 48 kHz (RFC 9639): each frame has one constant subframe."""
    size, rate = 4_800, 48_000
    packed = rate << 44 | 0 << 41 | 15 << 36 | blocks * size
    info = struct.pack(">HH", size, size) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(blocks):
        head = b"\xff\xf8\x7a\x08" + _number(number) + struct.pack(">H", size - 1)
        frame = head + bytes([crc_of(head, 0x07, 8)]) + b"\x00\x00\x00"
        frames.append(frame + struct.pack(">H", crc_of(frame, 0x8005, 16)))
    return b"fLaC" + b"\x80\x00\x00\x22" + info + b"".join(frames)


def _number(number: int) -> bytes:
    """Return the number of a frame, which is coded as a character is."""
    return chr(number).encode()
