"""A response's headers: names in small letters, and values as they came, looked at all at once rather than one by one.

A provider sends twenty, of which few are read.
"""

from __future__ import annotations

from collections.abc import Iterable

from providers.transport.errors import BadResponse

__all__ = ["check_encoding", "is_framed", "joined", "pairs", "split", "texts"]

_BLANKS = b" \t"


def split(fields: list[bytes]) -> tuple[list[str], list[bytes]]:
    """Names and values, of fields in which they take turns."""
    if not fields:
        return [], []
    return b"\n".join(fields[::2]).decode("latin-1").lower().split("\n"), fields[1::2]


def check_encoding(names: list[str], values: list[bytes]) -> None:
    """Raise BadResponse for a transfer-encoding other than chunked."""
    if "transfer-encoding" in names:
        # Two lengths, or a length beside an encoding, llhttp refuses by itself.
        encoding = values[names.index("transfer-encoding")].rstrip(_BLANKS)
        if encoding.lower() != b"chunked" or names.count("transfer-encoding") > 1:
            raise BadResponse("the response has a transfer-encoding other than chunked")


def is_framed(names: list[str]) -> bool:
    """Whether the body has an end of its own, rather than the connection's."""
    return "content-length" in names or "transfer-encoding" in names


def pairs(names: list[str], values: list[bytes]) -> list[tuple[bytes, bytes]]:
    """All of them in their order."""
    # llhttp takes off the blanks before a value, and leaves those behind it.
    return [(name.encode("latin-1"), value.rstrip(_BLANKS)) for name, value in zip(names, values, strict=True)]


def texts(names: list[str], values: list[bytes]) -> dict[str, str]:
    """By name, repeated ones joined with `, `."""
    if not names:
        return {}
    # No value holds a line break.
    lines = b"\n".join([*values, b""])
    if b" \n" in lines or b"\t\n" in lines:
        lines = b"\n".join([value.rstrip(_BLANKS) for value in values])
    words = lines.decode("latin-1").split("\n")
    headers = dict(zip(names, words, strict=False))
    # Almost no answer has a header twice.
    return headers if len(headers) == len(names) else joined(zip(names, words, strict=False))


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By name, repeated ones joined with `, ` (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
