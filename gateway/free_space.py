"""The free space of the state directory, and how much of it must stay free for usage rows.

Journal and ledger are the last that stop on a disk that becomes full: without a row, no call may be sent. So what may
wait or be left out (receipts, results of shadow traffic) is written only while `RESERVED_BYTES` stay free.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_MB = 1024**2
RESERVED_BYTES = 64 * _MB
_LITTLE_BYTES, _LITTLE_SHARE = 256 * _MB, 0.1
RESERVED = "fewer than 64 MB are free, which are kept for usage rows"


class FreeSpace(NamedTuple):
    """The space of a file system in bytes, as the user of this process can use it."""

    free: int
    total: int

    @property
    def is_reserved(self) -> bool:
        """Whether the rest is for usage rows alone."""
        return self.free < RESERVED_BYTES

    @property
    def is_little(self) -> bool:
        """Whether an operator should make room."""
        return self.free < _LITTLE_BYTES or self.free < self.total * _LITTLE_SHARE

    def __str__(self) -> str:
        return f"{_words(self.free)} of {_words(self.total)} free"


def _words(size: int) -> str:
    return f"{size / _MB:.0f} MB" if size < 1024 * _MB else f"{size / _MB / 1024:.1f} GB"


def free_space_of(directory: Path) -> FreeSpace | None:
    """Return the free space where a directory is, or None if that is not known."""
    try:
        found = shutil.disk_usage(directory)
    except OSError:
        return None
    return FreeSpace(found.free, found.total)


Measure = Callable[[Path], FreeSpace | None]
"""Returns the free space where a directory is: `free_space_of`, or that of a test."""


def is_reserved(directory: Path, measure: Measure = free_space_of) -> bool:
    """Return whether what is left is for usage rows alone."""
    space = measure(directory)
    return space is not None and space.is_reserved
