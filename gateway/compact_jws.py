"""Read a JWS in its compact form (RFC 7515), before anything of it is verified.

Claims, tokens, marks, receipts and signed plans are read here, so that they all refuse the same texts. One content has
one text, except for the second signature that ECDSA has: base64url has no unused bits and no padding, no member occurs
twice, and no extension (`crit`, `b64`) is accepted. The header chooses neither the key nor the algorithm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from providers.json_values import refuse_constant, unique_members

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_KID = 256
# The orders of the curves, by the algorithm (NIST SP 800-186, section 3.2.1).
_ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
    "ES512": int("1" + "f" * 64 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
}


class JwsRefused(ValueError):
    """A text that is not a JWS that can be accepted. The message is its reason, and has no part of the text."""

    def __init__(self, reason: Literal["size", "form", "algorithm"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class CompactJws:
    """A text in the form of a JWS. Nothing of it is verified, and each part is read when it is asked for."""

    text: str = field(repr=False)

    @property
    def header(self) -> Mapping[str, object]:
        """The members of the header. Raises JwsRefused."""
        return _header(self.text.partition(".")[0])

    @cached_property
    def members(self) -> dict[str, object]:
        """The members of the payload. Raises JwsRefused if it is not an object."""
        return _members(self.text.split(".")[1])

    @property
    def signed(self) -> bytes:
        """The bytes that are signed."""
        return self.text.rpartition(".")[0].encode("ascii")

    @property
    def signature(self) -> bytes:
        """The signature. Raises JwsRefused."""
        return decode_part(self.text.rpartition(".")[2])

    @property
    def kid(self) -> str | None:
        """The name of the key, or None. Raises JwsRefused."""
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else None

    def algorithm_of(self, accepted: Collection[str]) -> str:
        """Return the algorithm, if it is one of these. Raises JwsRefused."""
        algorithm = self.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in accepted:
            raise JwsRefused("algorithm")
        return algorithm

    def digests(self) -> tuple[str, ...]:
        """Return the SHA-256 (hex) of each text with this content and a signature of the same key: first of this one.

        A holder of an ECDSA signature (r, s) can write the other valid one, (r, n - s), without the key. Half of the
        tokens that issuers sign have a high s, so both forms are accepted, and a block of one must hold for the other.
        """
        texts = [self.text]
        order, signature = _ORDERS.get(str(self.header.get("alg"))), self.signature
        half = len(signature) // 2
        if order is not None and 0 < (s := int.from_bytes(signature[half:])) < order:
            other = base64.urlsafe_b64encode(signature[:half] + (order - s).to_bytes(half)).rstrip(b"=").decode()
            texts.append(f"{self.text.rpartition('.')[0]}.{other}")
        return tuple(hashlib.sha256(text.encode()).hexdigest() for text in texts)


def read_jws(text: str, most_bytes: int) -> CompactJws:
    """Read a JWS of at most this size. Raises JwsRefused."""
    if len(text) > most_bytes:
        raise JwsRefused("size")
    if _FORM.fullmatch(text) is None:
        raise JwsRefused("form")
    return CompactJws(text)


@lru_cache(maxsize=64)
def _header(part: str) -> Mapping[str, object]:
    """Return the members of the first part. All texts of a key have the same."""
    header = _members(part)
    kid = header.get("kid")
    if "crit" in header or "b64" in header or not isinstance(kid, str | None) or len(kid or "") > _MAX_KID:
        raise JwsRefused("form")
    return header


def decode_part(part: str) -> bytes:
    """Return the bytes of a part in base64url. Raises JwsRefused if another text would be the same bytes."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise JwsRefused("form") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode("ascii"):
        raise JwsRefused("form")
    return data


def _members(part: str) -> dict[str, object]:
    try:
        # `json.loads` would also accept bytes in UTF-16 or UTF-32, which RFC 7519 does not allow.
        text = decode_part(part).decode("utf-8")
        # RFC 7519, section 4, forbids a member that occurs twice.
        members = json.loads(text, object_pairs_hook=unique_members, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise JwsRefused("form") from None
    if not isinstance(members, dict):
        raise JwsRefused("form")
    return members
