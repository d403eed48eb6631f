"""The digests by which a store finds counters, from the words that name them. Pure."""

from __future__ import annotations

import hashlib
import struct

Tag = tuple[int, int]
"""A digest of a counter's name, as two signed 64-bit integers. The first is not 0."""

_PAIR = struct.Struct("<2q")


def tag_of(*words: str) -> Tag:
    """Return the digest of these words."""
    digest = hashlib.blake2b("\0".join(words).encode(), digest_size=16).digest()
    high, low = (int.from_bytes(half, "little", signed=True) for half in (digest[:8], digest[8:]))
    return high | 1, low


def key_of(tag: Tag) -> bytes:
    """Return the key of a counter in the journal."""
    return b"c" + _PAIR.pack(*tag)
