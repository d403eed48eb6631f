"""Every table that was ever active: the text it was compiled from, when, by whom, and the plan that led to it.

A text has its references (`${NAME}`) as they were written, and no secret. It is what a rollback compiles again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from gateway.files import is_there
from gateway.operator_errors import NotKept, StateError
from gateway.state.audit import BEGINNING, TrailHead
from gateway.state.database import InPlace, damaged, explained, open_database, open_to_read, transaction

_T = TypeVar("_T")
_NAME = "history"
_MOST_ROWS = 2**63 - 1
"""The largest number that SQLite knows."""
_LAST_S = 253_402_300_800.0
"""Year 10,000, which no date is written for."""
_VERSION = (str, str, (bytes, NoneType), str)
_ACTIVATION = (str, str, str, str, float, str)
_LAYOUT = """
CREATE TABLE IF NOT EXISTS version (
    version TEXT PRIMARY KEY, content TEXT NOT NULL, text BLOB, why_not TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS activation (
    number INTEGER PRIMARY KEY, version TEXT NOT NULL REFERENCES version, previous TEXT NOT NULL, cause TEXT NOT NULL,
    who TEXT NOT NULL, at_s REAL NOT NULL, summary TEXT NOT NULL, plan TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS pointer (
    one INTEGER PRIMARY KEY CHECK (one = 1), version TEXT NOT NULL, overrides TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL, hash TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Version:
    """A config that was active once. content: the whole SHA-256 that `version` is the beginning of.

    text: as it was read; None where it is not kept, and `why_not` says why.
    """

    version: str
    content: str
    text: bytes | None = field(repr=False)
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Activation:
    """One switch. at_s: Unix time. summary: its plan in a line; plan: as JSON."""

    version: str
    previous: str
    cause: str
    who: str
    at_s: float
    summary: str
    plan: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is active. overrides: the digest of the config file that it was put in the place of by a rollback;
    empty where the file is what is active."""

    version: str
    overrides: str = ""


def open_history(directory: Path, *, make: bool = True) -> History:
    """The history of a state directory; raises StateError. Without `make`, it is to be read alone, and one that isn't
    there is an error too."""
    if make:
        # The audit trail is held to what is committed here.
        return History(open_database(directory, _NAME, _LAYOUT, durable=True), _path_of(directory))
    if not has_history(directory):
        raise StateError(f"{directory} has no history: nothing was ever served with it as GATEWAY_STATE_DIR")
    return History(open_to_read(directory, _NAME))


def has_history(directory: Path) -> bool:
    """Whether there is one to be read, be it a good one or not."""
    return is_there(_path_of(directory))


def _path_of(directory: Path) -> Path:
    return directory / f"{_NAME}.db"


class History:
    """See the module. Any thread may call, one at a time. written_at: the file, unless it is to be read alone."""

    def __init__(self, connection: sqlite3.Connection, written_at: Path | None = None) -> None:
        self._connection = connection
        self._file = InPlace(written_at) if written_at is not None else None

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def pointer(self) -> Pointer | None:
        """Which version is active; None where none ever was."""
        row = self._one("SELECT version, overrides FROM pointer")
        return _made(Pointer, row, str, str) if row is not None else None

    def add(self, version: Version, activation: Activation, overrides: str = "") -> None:
        """Record that this version becomes active; raises StateError. overrides: see `Pointer`."""
        known = self.find_exactly(version.version)
        if known is not None and known.content != version.content:
            raise StateError(f"two configs have the version {version.version}: change anything in the new one")
        plan = json.dumps(activation.plan, separators=(",", ":"), ensure_ascii=False)
        with self.at_once():
            self._run(
                "INSERT INTO version VALUES (?, ?, ?, ?) ON CONFLICT (version) DO UPDATE SET text = excluded.text, "
                "why_not = excluded.why_not",
                (version.version, version.content, version.text, version.why_not),
            )
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
        """Move the pointer alone; raises StateError."""
        with self.at_once():
            self._point(pointer)

    def _point(self, pointer: Pointer) -> None:
        self._run("INSERT OR REPLACE INTO pointer VALUES (1, ?, ?)", (pointer.version, pointer.overrides))

    def find(self, word: str) -> Version:
        """The version that this is, or is the beginning of (four digits or more); raises NotKept.

        What stands after a plus names a state of the same config, such as the share that a candidate has come to.
        """
        word = word.partition("+")[0]
        rows = self._all("SELECT version FROM version WHERE substr(version, 1, ?) = ?", (len(word), word))
        if len(word) < 4 or len(rows) != 1:
            shown = word[:16] if word[:16].isalnum() else "that"
            reason = f"{len(rows)} begin so" if rows else "there is none called so"
            if len(word) < 4:
                reason = "write four characters of it, or more"
            raise NotKept(f"{shown!r} is no version of the history: {reason} (`gateway history` lists them)")
        found = self._all("SELECT version, content, text, why_not FROM version WHERE version = ?", rows[0])[0]
        return _made(Version, found, *_VERSION)

    def find_exactly(self, version: str) -> Version | None:
        """The version of this whole name."""
        row = self._one("SELECT version, content, text, why_not FROM version WHERE version = ?", (version,))
        return _made(Version, row, *_VERSION) if row is not None else None

    def before(self, version: str) -> str | None:
        """The one that the version took the place of when it was made active last; None if there was none."""
        row = self._one(
            "SELECT previous FROM activation WHERE version = ? AND previous NOT IN ('', version) "
            "ORDER BY number DESC LIMIT 1",
            (version,),
        )
        return _made(str, row, str) if row is not None else None

    def activations(self, limit: int = 50) -> list[Activation]:
        """The newest first, without their plans."""
        rows = self._all(
            "SELECT version, previous, cause, who, at_s, summary FROM activation ORDER BY number DESC LIMIT ?",
            (min(limit, _MOST_ROWS),),
        )
        return [_activation(row) for row in rows]

    def last_activation(self, version: str) -> Activation | None:
        """How the version became active last, with the plan of it."""
        row = self._one(
            "SELECT version, previous, cause, who, at_s, summary, plan FROM activation WHERE version = ? "
            "ORDER BY number DESC LIMIT 1",
            (version,),
        )
        if row is None:
            return None
        try:
            plan = json.loads(_made(str, row[6:], str))
        except (ValueError, RecursionError):
            plan = None
        if not isinstance(plan, dict):
            raise StateError(f"history.db can't be used: {damaged(f'the plan of version {version} is no plan')}")
        return replace(_activation(row[:6]), plan=plan)

    def audit_head(self) -> TrailHead:
        """The last line of the audit trail that is known to have been written."""
        row = self._one("SELECT number, hash FROM audit_head")
        return _made(TrailHead, row, int, str) if row is not None else BEGINNING

    def keep_audit_head(self, head: TrailHead) -> None:
        """Know it from now on; raises StateError."""
        self._run("INSERT OR REPLACE INTO audit_head VALUES (1, ?, ?)", (head.number, head.hash))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is written in this block is kept together, when it ends, or not at all; raises StateError."""
        if self._connection.in_transaction:
            yield
            return
        if self._file is not None:
            self._file.expect()
        try:
            with transaction(self._connection):
                yield
        except sqlite3.Error as error:
            raise StateError(f"history.db can't be used: {explained(error)}") from error

    def _run(self, statement: str, values: tuple[object, ...] = ()) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StateError(f"history.db can't be used: {explained(error)}") from error

    def _one(self, statement: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        return next(iter(self._all(statement, values)), None)

    def _all(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:  # a damaged page may be come upon after the first row
            raise StateError(f"history.db can't be used: {explained(error)}") from error


def _activation(row: tuple[Any, ...]) -> Activation:
    found = _made(Activation, row, *_ACTIVATION)
    if not 0 <= found.at_s < _LAST_S:
        raise StateError(f"history.db can't be used: {damaged('the time of a switch is none')}")
    return found


def _made(kind: Callable[..., _T], row: tuple[Any, ...], *types: type | tuple[type, ...]) -> _T:
    """What this row says; raises StateError where it holds what we never write: SQLite takes anything."""
    if not all(map(isinstance, row, types)):
        raise StateError(f"history.db can't be used: {damaged('a row of it is not as it was written')}")
    return kind(*row)
