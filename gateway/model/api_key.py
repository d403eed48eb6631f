"""The form of the API keys of a cell, `agw_<cell>_<id>_<secret>_<checksum>`, and the digest that is stored.

The checksum detects typing errors and cut keys without a lookup. It protects nothing.
"""

from __future__ import annotations

import hmac
import zlib
from dataclasses import dataclass, field

from providers.auth import Secret

PREFIX = "agw"
KEY_START = b"agw_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
"""Without letters and digits that look alike."""
ID_LENGTH, SECRET_LENGTH, _CHECKSUM_LENGTH = 10, 43, 6
"""The secret has 256 bits."""

NO_CELL = "local"
"""The name in the keys of a gateway without `cell`."""


@dataclass(frozen=True, slots=True)
class CellKey:
    """A key that has the form of a cell's key, with its checksum. Its id is not secret."""

    cell: str
    id: str
    text: str = field(repr=False)


def compose_key(cell: str, key_id: str, secret: str) -> CellKey:
    """Return the key of these parts."""
    start = f"{PREFIX}_{cell}_{key_id}_{secret}"
    return CellKey(cell, key_id, f"{start}_{_checksum(start)}")


def read_key(text: str) -> CellKey | None:
    """Return the key, or None if the text is not a complete key of a cell."""
    start, _, checksum = text.rpartition("_")
    parts = start.split("_")
    if len(parts) != 4 or parts[0] != PREFIX or not text.isascii() or checksum != _checksum(start):
        return None
    return CellKey(parts[1], parts[2], text)


def digest_of(pepper: Secret, key: bytes) -> str:
    """Return the HMAC-SHA-256 (hex) of a key, which is all that is stored of it."""
    return hmac.digest(pepper.reveal().encode(), key, "sha256").hex()


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode("utf-8", "surrogatepass")), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
