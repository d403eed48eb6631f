"""The headers of a response's head that the parser has found valid, read when they are asked for.

A provider sends twenty, of which an answer's reader wants three. That they are what the parser would make of them is
held by a property test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["ResponseHeaders", "joined"]


class ResponseHeaders(Mapping[str, str]):
    """By name in small letters, repeated ones joined with `, `."""

    __slots__ = ("_all", "_lower", "_text")

    def __init__(self, head: bytes) -> None:
        """`head`: from the status line on, each line with its end, without the empty one."""
        # Small letters are as long as the large ones of this alphabet.
        self._text = head.decode("latin-1")
        self._lower = self._text.lower()
        self._all: dict[str, str] | None = None

    def __contains__(self, name: object) -> bool:
        return f"\r\n{name}:" in self._lower

    def __getitem__(self, name: str) -> str:
        line = f"\r\n{name}:"
        parts = self._lower.split(line, 2)
        if len(parts) == 1:
            raise KeyError(name)
        if len(parts) == 3:
            return self._joined()[name]
        before, behind = parts
        start = len(before) + len(line)
        return self._text[start : start + behind.find("\r\n")].strip(" \t")

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined())

    def __len__(self) -> int:
        return len(self._joined())

    def _joined(self) -> dict[str, str]:
        if self._all is None:
            self._all = joined(self.pairs())
        return self._all

    def pairs(self) -> list[tuple[str, str]]:
        """All of them in their order."""
        lines = [line.partition(":") for line in self._text.split("\r\n")[1:-1]]
        return [(name.lower(), value.strip(" \t")) for name, _, value in lines]


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name, repeated ones joined with `, ` (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
