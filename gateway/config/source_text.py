"""File digests and change detection, the source text that the history keeps, and plain-text secrets in it."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.config.problems import KeyPath, dotted
from gateway.files import open_file

Reading = Mapping[str, str]
"""What stands in each file, by its path: a digest of the content."""


MISSING = ""


_NOT_READ = "not read"
"""Of a file that this process can't open for want of its own: it says nothing of what stands there."""


_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE})


_MOST_PASSED_OVER = 240


MAX_BYTES = 4 * 1024 * 1024
"""What a config file may hold."""


def digest(data: bytes) -> str:
    """The digest of a file's content."""
    return hashlib.sha256(data).hexdigest()


def read_files(paths: Iterable[str]) -> dict[str, str]:
    """A reading of these files. Of one that is too large to be ours, size and time count instead of the content."""
    return {path: _read(path) for path in paths}


def _read(path: str) -> str:
    try:
        with open_file(path) as file:
            known = os.fstat(file.fileno())
            if known.st_size > MAX_BYTES:
                return f"{known.st_ino}:{known.st_size}:{known.st_mtime_ns}"
            return digest(file.read(MAX_BYTES + 1))
    except (OSError, ValueError) as error:  # no file can have a name with a NUL in it
        return _NOT_READ if isinstance(error, OSError) and error.errno in _NO_MORE_FILES else MISSING


def agree(one: Reading, other: Reading) -> bool:
    """Whether they say the same of every file that is in both."""
    return all(one[path] == other[path] for path in one.keys() & other.keys())


class Watch:
    """Compares readings with what was acted on last."""

    def __init__(self, known: Reading) -> None:
        self._known = known
        self._last: Reading | None = None
        # Of what could not be acted on: the reading, how many of its like to pass over, and how many after that.
        self._untried: Reading | None = None
        self._passing_over = 0
        self._next_time = 1
        self._is_owed = False
        self._has_failed = False

    @property
    def paths(self) -> tuple[str, ...]:
        """What is to be read."""
        return tuple(self._known)

    @property
    def known(self) -> Reading:
        """What was acted on last."""
        return self._known

    @property
    def is_waiting(self) -> bool:
        """Whether readings are passed over, before what could not be acted on is tried again."""
        return self._passing_over > 0

    @property
    def is_trying_again(self) -> bool:
        """Whether what stands there now is what could not be acted on."""
        return self._untried is not None

    @property
    def is_owed(self) -> bool:
        """Whether it counts as news, though nothing has changed since it was acted on last."""
        return self._is_owed

    def settled(self, reading: Reading) -> bool:
        """Whether to act on this reading: it is news, and equal to the one before."""
        last, self._last = self._last, reading
        if reading != self._untried:
            self._untried, self._passing_over, self._next_time = None, 0, 1
        elif self._passing_over:
            self._passing_over -= 1
            return False
        return self.is_news(reading) and reading == last

    def is_news(self, reading: Reading) -> bool:
        """Whether it is something else than what was acted on last, or is owed, or ends a change that failed."""
        is_news = self._is_owed or self._has_failed or reading != self._known
        return is_news and _NOT_READ not in reading.values()

    def acted_on(self, reading: Reading) -> None:
        """From now on this is what is known."""
        self._known = reading
        self._last = self._untried = None
        self._is_owed = self._has_failed = False

    def not_acted_on(self, *, owed: bool = False) -> None:
        """The last reading could not be acted on, for want of something of ours: it stays news, and counts again after
        one more reading that is equal, then after two, four, and at most a minute of them. owed: news or not."""
        self._is_owed = self._is_owed or owed
        # Also if it is taken back: until something is acted on, it counts as what failed last.
        self._has_failed = self._has_failed or (self._last is not None and self._last != self._known)
        self._untried, self._passing_over = self._last, self._next_time
        self._next_time = min(self._next_time * 2, _MOST_PASSED_OVER)


_SECRETS: tuple[KeyPath, ...] = (
    ("deployments", "*", "api_key"),
    ("deployments", "*", "headers", "*"),
    ("location", "edges", "*", "secret", "value"),
    ("location", "claim", "secret"),
    ("exporters", "*", "headers", "*"),
    ("secrets", "*"),
)


def secrets_in_clear(values: Mapping[str, object]) -> list[str]:
    """The keys of the config whose value is a secret, or may be one, and no `${…}`."""
    return sorted({dotted(path) for pattern in _SECRETS for path in _written((), values, pattern)})


def _written(path: KeyPath, value: object, rest: KeyPath) -> Iterator[KeyPath]:
    if not rest:
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "${" not in text for text in texts):
            yield path
        return
    name, below = rest[0], rest[1:]
    match value:
        case dict():
            for key, item in value.items():
                if name in ("*", key):
                    yield from _written((*path, key), item, below)
        case list() if name == "*":
            for index, item in enumerate(value):
                yield from _written((*path, index), item, below)


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
