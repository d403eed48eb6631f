"""Decode and encode Amazon's binary event stream (`application/vnd.amazon.eventstream`).

A message consists of its length, the length of its headers, a checksum of these two, the headers, the payload, and a
checksum of all. Numbers are big-endian; checksums are CRC-32.

Source: botocore 1.44.5 (eventstream.py), AWS "Event stream encoding", read 2026-11-20.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from providers.value import Value

CONTENT_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">III")
_CHECKSUM_BYTES = 4
_MIN_BYTES = _PRELUDE.size + _CHECKSUM_BYTES
_MAX_BYTES = 8 * 1024 * 1024
_MAX_HEADER_BYTES = 128 * 1024
_STRING = 7
# The size of the header values of each type. Types 6 (bytes) and 7 (text) contain their own length.
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class EventMessage(Value, frozen=True):
    """A message with its text headers (such as `:event-type`) and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class EventStreamDecoder:
    """Decode a stream that arrives in pieces of any size. At most one incomplete message is held in memory.

    After bytes that are not a valid stream it is `broken`, and no messages follow.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.broken = False

    def feed(self, data: bytes) -> list[EventMessage]:
        """Return the messages that the bytes complete."""
        messages: list[EventMessage] = []
        if self.broken:
            return messages
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _PRELUDE.size:
            total, header_bytes, checksum = _PRELUDE.unpack_from(self._buffer, start)
            if (
                not _MIN_BYTES <= total <= _MAX_BYTES
                or header_bytes > min(total - _MIN_BYTES, _MAX_HEADER_BYTES)
                or zlib.crc32(self._buffer[start : start + 8]) != checksum
            ):
                return self._break(messages)
            if len(self._buffer) - start < total:
                break
            message = bytes(self._buffer[start : start + total])
            start += total
            if zlib.crc32(message[:-_CHECKSUM_BYTES]) != int.from_bytes(message[-_CHECKSUM_BYTES:], "big"):
                return self._break(messages)
            payload_at = _PRELUDE.size + header_bytes
            headers = _headers(message[_PRELUDE.size : payload_at])
            if headers is None:
                return self._break(messages)
            messages.append(EventMessage(headers, message[payload_at:-_CHECKSUM_BYTES]))
        del self._buffer[:start]
        return messages

    def _break(self, messages: list[EventMessage]) -> list[EventMessage]:
        self.broken = True
        self._buffer.clear()
        return messages


def _headers(data: bytes) -> dict[str, str] | None:
    """Return the text headers, or None if the bytes are not valid headers."""
    headers: dict[str, str] = {}
    position = 0
    try:
        while position < len(data):
            name_end = position + 1 + data[position]
            name, kind = data[position + 1 : name_end], data[name_end]
            value_at = name_end + 1
            if kind in (6, _STRING):
                length = int.from_bytes(data[value_at : value_at + 2], "big")
                value_at += 2
            else:
                length = _FIXED_BYTES[kind]
            position = value_at + length
            if position > len(data):
                return None
            if kind == _STRING:
                headers[name.decode("utf-8")] = data[value_at:position].decode("utf-8")
    except (IndexError, KeyError, UnicodeDecodeError):
        return None
    return headers


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return the bytes of a message with text headers."""
    encoded = b"".join(
        bytes([len(name.encode())])
        + name.encode()
        + bytes([_STRING])
        + struct.pack(">H", len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack(">II", _MIN_BYTES + len(encoded) + len(payload), len(encoded))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))
