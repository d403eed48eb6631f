"""A config as it stands in its file, for the history and to be compared. Light: it is kept while the gateway serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Written"]

_VERSION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Written:
    """A config as it stands in its file: for the history, and to be compared. A key may be written in it.

    content: the SHA-256 over the canonical JSON of the values, references not resolved; layout and comments are
    left out.
    """

    text: bytes = field(repr=False)
    content: str
    values: Mapping[str, object] = field(repr=False)

    @property
    def version(self) -> str:
        """By what name it is known: enough of the content hash for people."""
        return self.content[:_VERSION_DIGITS]
