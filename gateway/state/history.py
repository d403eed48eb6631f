"""The history of config versions: the text of each, its activations, and their plans.

A text contains references (`${NAME}`) as they were written, and no secrets. A rollback compiles it again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from gateway.files import path_exists
from gateway.operator_errors import NotStored, StateError
from gateway.state.database import (
    OpenedFile,
    describe_damage,
    layout_of,
    open_database,
    open_to_read,
    sqlite_error,
    transaction,
)
from providers.value import Value, replace

_T = TypeVar("_T")
_NAME = "history"
_MOST_ROWS = 2**63 - 1
"""The largest integer of SQLite."""
_LAST_S = 253_402_300_800.0
"""The year 10,000, after which no date can be written."""
_VERSION = (str, str, (bytes, NoneType), str)
_VERSIONS = "SELECT version, content, text, why_not FROM version"
_ACTIVATION = (str, str, str, str, float, str)
_ACTIVATIONS = "SELECT version, previous, cause, who, at_s, summary, plan"
_LAYOUT = layout_of(__file__)


class TrailHead(Value, frozen=True):
    """The last line of the audit trail: its number (from 1) and its hash."""

    number: int
    hash: str


BEGINNING = TrailHead(0, "0" * 64)
"""The head of an empty trail. The first line is chained to it."""


@dataclass(frozen=True, slots=True)
class Version:
    """A config version that was active once."""

    version: str
    content: str
    """The complete SHA-256. `version` is the beginning of it."""
    text: bytes | None = field(repr=False)
    """The text as it was read. None if it is not stored."""
    why_not: str = ""
    catalogues: str = field(default="", repr=False)
    """Its other files, as `SourceText.catalogues` has them. The hash covers them too. Empty without any."""


class Activation(Value, frozen=True):
    """One activation. `at_s` is Unix time, `summary` the plan in one line, and `plan` the plan as JSON."""

    version: str
    previous: str
    cause: str
    who: str
    at_s: float
    summary: str
    plan: Mapping[str, object] = {}


class Pointer(Value, frozen=True):
    """The active version, and the digest of the config file that a rollback replaced, until its release."""

    version: str
    overrides: str = ""


def open_history(directory: Path, *, make: bool = True) -> History:
    """Open the history of a state directory. Raises StateError.

    Without `make`, it is opened for reading only, and must exist.
    """
    if make:
        # Durable, because the head of the audit trail is stored here.
        return History(open_database(directory, _NAME, _LAYOUT, durable=True), _path_of(directory))
    if not has_history(directory):
        raise StateError(f"{directory} has no history: no gateway has run with it as GATEWAY_STATE_DIR")
    return History(open_to_read(directory, _NAME))


def has_history(directory: Path) -> bool:
    """Return whether there is a history, readable or not."""
    return path_exists(_path_of(directory))


def _path_of(directory: Path) -> Path:
    return directory / f"{_NAME}.db"


class History:
    """The stored versions and activations. Any thread may call, one at a time.

    Reading only, it has no path to write at.
    """

    def __init__(self, connection: sqlite3.Connection, written_at: Path | None = None) -> None:
        self._connection = connection
        self._file = OpenedFile(written_at) if written_at is not None else None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def pointer(self) -> Pointer | None:
        """Return the active version, or None if there never was one."""
        row = self._one("SELECT version, overrides FROM pointer")
        return _made(Pointer, row, str, str) if row is not None else None

    def add(self, version: Version, activation: Activation, overrides: str = "") -> None:
        """Record that this version becomes active. For `overrides`, see `Pointer`. Raises StateError."""
        known = self.find_exactly(version.version)
        if known is not None and known.content != version.content:
            raise StateError(f"two configs have the same version {version.version}: change anything in the new one")
        plan = json.dumps(activation.plan, separators=(",", ":"), ensure_ascii=False)
        with self.transaction():
            self._run(
                "INSERT INTO version VALUES (?, ?, ?, ?) ON CONFLICT (version) DO UPDATE SET text = excluded.text, "
                "why_not = excluded.why_not",
                (version.version, version.content, version.text, version.why_not),
            )
            if version.catalogues:
                self._run("INSERT OR REPLACE INTO catalogue VALUES (?, ?)", (version.version, version.catalogues))
            self._run(
                "INSERT INTO activation (version, previous, cause, who, at_s, summary, plan) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    version.version,
                    activation.previous,
                    activation.cause,
                    activation.who,
                    activation.at_s,
                    activation.summary,
                    plan,
                ),
            )
            self._point(Pointer(version.version, overrides))

    def point(self, pointer: Pointer) -> None:
        """Set the pointer without an activation. Raises StateError."""
        with self.transaction():
            self._point(pointer)

    def _point(self, pointer: Pointer) -> None:
        self._run("INSERT OR REPLACE INTO pointer VALUES (1, ?, ?)", (pointer.version, pointer.overrides))

    def find(self, word: str) -> Version:
        """Return the version with this name, or with this prefix of four or more characters. Raises NotStored.

        A suffix after a plus names a state of the same config, such as the weight of a candidate. It is ignored.
        """
        word = word.partition("+")[0]
        rows = self._all("SELECT version FROM version WHERE substr(version, 1, ?) = ?", (len(word), word))
        if len(word) < 4 or len(rows) != 1:
            raise NotStored(why_not_found(word, len(rows)))
        return self._version(self._all(f"{_VERSIONS} WHERE version = ?", rows[0])[0])

    def find_exactly(self, version: str) -> Version | None:
        """Return the version with exactly this name, or None."""
        row = self._one(f"{_VERSIONS} WHERE version = ?", (version,))
        return self._version(row) if row is not None else None

    def versions(self) -> Iterator[Version]:
        """Yield all versions."""
        for (name,) in self._all("SELECT version FROM version ORDER BY rowid"):
            if (version := self.find_exactly(name)) is not None:
                yield version

    def keep(self, version: Version) -> None:
        """Store a version that another instance of the cell has activated. Raises StateError."""
        with self.transaction():
            self._run(
                "INSERT INTO version VALUES (?, ?, ?, ?) ON CONFLICT (version) DO NOTHING",
                (version.version, version.content, version.text, version.why_not),
            )
            if version.catalogues:
                self._run("INSERT OR IGNORE INTO catalogue VALUES (?, ?)", (version.version, version.catalogues))

    def activations_after(self, number: int, limit: int) -> list[tuple[int, Version, Activation]]:
        """Return the activations after a number with their versions, the oldest first."""
        rows = self._all(
            f"{_ACTIVATIONS}, number FROM activation WHERE number > ? ORDER BY number LIMIT ?", (number, limit)
        )
        found = []
        for *row, number in rows:
            version = self.find_exactly(row[0])
            if version is not None:
                found.append((number, version, _activation(tuple(row))))
        return found

    def _version(self, row: tuple[Any, ...]) -> Version:
        version = _made(Version, row, *_VERSION)
        found = self._one("SELECT content FROM catalogue WHERE version = ?", (version.version,))
        return replace(version, catalogues=_made(str, found, str)) if found is not None else version

    def before(self, version: str) -> str | None:
        """Return the version that this one replaced at its latest activation, or None."""
        row = self._one(
            "SELECT previous FROM activation WHERE version = ? AND previous NOT IN ('', version) "
            "ORDER BY number DESC LIMIT 1",
            (version,),
        )
        return _made(str, row, str) if row is not None else None

    def activations(self, limit: int = 50) -> list[Activation]:
        """Return the latest activations, the newest first."""
        rows = self._all(f"{_ACTIVATIONS} FROM activation ORDER BY number DESC LIMIT ?", (min(limit, _MOST_ROWS),))
        return [_activation(row) for row in rows]

    def last_activation(self, version: str) -> Activation | None:
        """Return the latest activation of the version, or None."""
        row = self._one(f"{_ACTIVATIONS} FROM activation WHERE version = ? ORDER BY number DESC LIMIT 1", (version,))
        return _activation(row) if row is not None else None

    def audit_head(self) -> TrailHead:
        """Return the last line of the audit trail that was confirmed."""
        row = self._one("SELECT number, hash FROM audit_head")
        return _made(TrailHead, row, int, str) if row is not None else BEGINNING

    def store_audit_head(self, head: TrailHead) -> None:
        """Store the head of the audit trail. Raises StateError."""
        self._run("INSERT OR REPLACE INTO audit_head VALUES (1, ?, ?)", (head.number, head.hash))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything that the block writes together, or nothing. Raises StateError."""
        if self._connection.in_transaction:
            yield
            return
        if self._file is not None:
            self._file.check_path()
        with sqlite_error("history.db can't be used"), transaction(self._connection):
            yield

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> None:
        with sqlite_error("history.db can't be used"):
            self._connection.execute(statement, values)

    def _one(self, statement: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        return next(iter(self._all(statement, values)), None)

    def _all(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with sqlite_error("history.db can't be used"):  # a damaged page may appear after the first row
            return self._connection.execute(statement, values).fetchall()


def why_not_found(word: str, count: int) -> str:
    """Return why a word names no version: that many versions begin with it."""
    shown = word[:16] if word[:16].isalnum() else "that"
    reason = f"{count} versions begin with it" if count else "no version has this name"
    if len(word) < 4:
        reason = "write at least four characters"
    return f"{shown!r} is not a version of the history: {reason} (`gateway history` lists the versions)"


def _plan_of(text: object, version: str) -> Mapping[str, object]:
    try:
        plan = json.loads(_made(str, (text,), str))
    except (ValueError, RecursionError):
        plan = None
    if not isinstance(plan, dict):
        raise StateError(f"history.db can't be used: {describe_damage(f'the plan of version {version} is not valid')}")
    return plan


def _activation(row: tuple[Any, ...]) -> Activation:
    *values, plan = row
    activation = _made(Activation, tuple(values), *_ACTIVATION)
    if not 0 <= activation.at_s < _LAST_S:
        raise StateError(f"history.db can't be used: {describe_damage('the time of an activation is not valid')}")
    return replace(activation, plan=_plan_of(plan, activation.version))


def _made(kind: Callable[..., _T], row: tuple[Any, ...], *types: type | tuple[type, ...]) -> _T:
    """Return the object of a row. Raises StateError if a type is wrong, because SQLite accepts any value."""
    if not all(map(isinstance, row, types)):
        raise StateError(f"history.db can't be used: {describe_damage('a row has a value of the wrong type')}")
    return kind(*row)
