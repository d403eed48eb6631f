"""Detect changes of files by their digests, keep the source text for the history, and find plain-text secrets in it."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.files import open_file

Reading = Mapping[str, str]
"""The digest of each file by its path."""

MISSING = ""

_NOT_READ = "not read"
"""The reading of a file that could not be opened because this process has no file descriptor left.

The content of the file is unknown.
"""

_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

_MAX_SKIPPED_READINGS = 240

MAX_BYTES = 4 * 1024 * 1024
"""The maximum size of a configuration file."""
VERSION_DIGITS = 12


def digest(data: bytes) -> str:
    """Return the digest of the content of a file."""
    return hashlib.sha256(data).hexdigest()


def read_files(paths: Iterable[str]) -> dict[str, str]:
    """Return the digests of the files. For a file above the maximum size, inode, size and time replace the digest."""
    return {path: _read(path) for path in paths}


def _read(path: str) -> str:
    try:
        with open_file(path) as file:
            known = os.fstat(file.fileno())
            if known.st_size > MAX_BYTES:
                return f"{known.st_ino}:{known.st_size}:{known.st_mtime_ns}"
            return digest(file.read(MAX_BYTES + 1))
    except (OSError, ValueError) as error:  # no file can have a name with a NUL in it
        return _NOT_READ if isinstance(error, OSError) and error.errno in _OUT_OF_DESCRIPTORS else MISSING


def agree(one: Reading, other: Reading) -> bool:
    """Return whether the digests of every file that is in both readings are equal."""
    return all(one[path] == other[path] for path in one.keys() & other.keys())


class Watch:
    """Compare readings of files with the one that was applied last, to decide when to reload.

    A reading that could not be applied, for example for lack of memory, is tried again after 1, 2, 4, … and at most 240
    equal readings. With `must_apply`, the next reading is applied even if it has not changed.
    """

    def __init__(self, known: Reading) -> None:
        self.known = known
        self._last: Reading | None = None
        # The reading that could not be applied, how many equal readings to skip now, and how many the next time.
        self._postponed: Reading | None = None
        self._to_skip = 0
        self._next_skip = 1
        self.must_apply = False
        self._has_failed = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The files to read."""
        return tuple(self.known)

    @property
    def is_waiting(self) -> bool:
        """Whether equal readings are being skipped before a postponed reading is tried again."""
        return self._to_skip > 0

    @property
    def is_trying_again(self) -> bool:
        """Whether the last reading is one that could not be applied."""
        return self._postponed is not None

    def settled(self, reading: Reading) -> bool:
        """Return whether to apply this reading: it has changed, and no longer changes, so the file is written."""
        last, self._last = self._last, reading
        if reading != self._postponed:
            self._postponed, self._to_skip, self._next_skip = None, 0, 1
        elif self._to_skip:
            self._to_skip -= 1
            return False
        return self.is_news(reading) and reading == last

    def is_news(self, reading: Reading) -> bool:
        """Return whether the reading differs from the applied one, or must be applied, or follows a failed change."""
        is_news = self.must_apply or self._has_failed or reading != self.known
        return is_news and _NOT_READ not in reading.values()

    def mark_applied(self, reading: Reading) -> None:
        """Record that this reading was applied."""
        self.known = reading
        self._last = self._postponed = None
        self.must_apply = self._has_failed = False

    def note_file(self, path: str, digest: str) -> None:
        """Record that this content of one file was handled without a change of the config."""
        self.known = {**self.known, path: digest}

    def postpone(self, *, must_apply: bool = False) -> None:
        """Record that the last reading could not be applied for lack of a resource of this process.

        With `must_apply`, it is applied later even if the files have not changed.
        """
        self.must_apply = self.must_apply or must_apply
        # If the change is reverted before it was applied, the reverted files must be applied too.
        self._has_failed = self._has_failed or (self._last is not None and self._last != self.known)
        self._postponed, self._to_skip = self._last, self._next_skip
        self._next_skip = min(self._next_skip * 2, _MAX_SKIPPED_READINGS)


@dataclass(frozen=True, slots=True)
class SourceText:
    """The source text of a configuration, for the history and for comparisons. It may contain a plain-text secret."""

    text: bytes = field(repr=False)
    content: str
    """The SHA-256 of the canonical JSON of the values, with unresolved references. Layout and comments do not count."""
    values: Mapping[str, object] = field(repr=False)
    catalogues: str = field(default="", repr=False)
    """The values of the catalogue files and the digests of the files of terms as JSON, which are a part of the content
    (`stored_files` of `gateway.config.loading` reads it). Empty without them."""

    @property
    def version(self) -> str:
        """The version: the first digits of the content hash."""
        return self.content[:VERSION_DIGITS]
