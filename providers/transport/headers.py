"""A response's headers: names in small letters, and values as they came, looked at all at once rather than one by one.

A provider sends twenty, of which few are read.
"""

from __future__ import annotations

from collections.abc import Iterable

from providers.transport.errors import BadResponse

__all__ = ["check_encoding", "is_framed", "joined", "pairs", "texts"]

# Below, `names` are all names in small letters, a line for each; `values` may have blanks behind them, which llhttp
# leaves there. Neither holds a line break.
_BLANKS = b" \t"
_ENCODING = b"transfer-encoding"


def check_encoding(names: bytes, values: list[bytes]) -> None:
    """Raise BadResponse for a transfer-encoding other than chunked."""
    encodings = [value.lower() for name, value in pairs(names, values) if name == _ENCODING]
    # Two lengths, or a length beside an encoding, llhttp refuses by itself.
    if encodings not in ([], [b"chunked"]):
        raise BadResponse("the response has a transfer-encoding other than chunked")


def is_framed(names: bytes) -> bool:
    """Whether the body has an end of its own, rather than the connection's."""
    listed = names.split(b"\n")
    return b"content-length" in listed or _ENCODING in listed


def pairs(names: bytes, values: list[bytes]) -> list[tuple[bytes, bytes]]:
    """All of them in their order."""
    return [(name, value.rstrip(_BLANKS)) for name, value in zip(names.split(b"\n"), values, strict=False)]


def texts(names: bytes, values: list[bytes]) -> dict[str, str]:
    """By name, repeated ones joined with `, `."""
    if not values:
        return {}
    lines = b"\n".join((*values, names))
    if b" \n" in lines or b"\t\n" in lines:
        lines = b"\n".join((*[value.rstrip(_BLANKS) for value in values], names))
    words = lines.decode("latin-1").split("\n")
    listed = words[len(values) :]
    headers = dict(zip(listed, words, strict=False))
    # Almost no answer has a header twice.
    return headers if len(headers) == len(listed) else joined(zip(listed, words, strict=False))


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By name, repeated ones joined with `, ` (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
