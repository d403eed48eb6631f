"""Keep the time of users in the state directory: `use.db`, one row for each user, which all workers share.

A commit writes to the log of the database and waits for no disk, so it survives the end of the process, and a power
failure may undo the last ones. `tidy` moves the log into the file, in a thread, because that waits for the disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.features.duties.model import UseKey, UseRecord
from gateway.operator_errors import StateError
from gateway.state.database import SqliteDatabase, describe_error, open_database, open_to_read, sqlite_error

_NAME = "use"
_LAYOUT = """
CREATE TABLE IF NOT EXISTS times (
  user TEXT NOT NULL,
  client TEXT NOT NULL,
  date TEXT NOT NULL,
  began INTEGER NOT NULL,
  seen INTEGER NOT NULL,
  day INTEGER NOT NULL,
  noticed INTEGER NOT NULL,
  PRIMARY KEY (user, client)
) STRICT, WITHOUT ROWID;
"""
_PAGE_BYTES = 512
"""A change of a record takes two thirds of the time that it takes with SQLite's pages of 4096 bytes."""
_OF_USER = "WHERE user = ? AND client = ?"
_READ = f"SELECT date, began, seen, day, noticed FROM times {_OF_USER}"  # noqa: S608  # of constants
_ADD = "INSERT INTO times VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_CHANGE = (
    f"UPDATE times SET date = ?, began = ?, seen = ?, day = ?, noticed = ? {_OF_USER} "  # noqa: S608  # of constants
    "AND date = ? AND began = ? AND seen = ? AND day = ? AND noticed = ?"
)
_OF_PERSON = "user IN (SELECT value FROM json_each(?)) AND coalesce(?, client) = client"


class UseStore:
    """The database of the time of users, opened when it is first used, for one thread. Methods raise StateError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database: sqlite3.Connection | None = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = _open(self._directory)
            self._database.execute("PRAGMA wal_autocheckpoint = 0")
        return self._database

    @property
    def exists(self) -> bool:
        """Whether any time was ever kept here."""
        return (self._directory / f"{_NAME}.db").exists()

    def read(self, key: UseKey) -> UseRecord | None:
        """Return the record of a user, or None."""
        try:
            row = (self._database or self._opened()).execute(_READ, key).fetchone()
        except sqlite3.Error as error:
            raise StateError(f"use.db can't be read: {describe_error(error)}") from error
        return UseRecord(*row) if row is not None else None

    def change(self, key: UseKey, before: UseRecord | None, after: UseRecord) -> bool:
        """Keep a record if the present one is still `before`. Return whether it was."""
        database = self._database or self._opened()
        try:
            if before is None:
                cursor = database.execute(_ADD, (*key, *after))
            else:
                cursor = database.execute(_CHANGE, (*after, *key, *before))
        except sqlite3.Error as error:
            raise StateError(f"use.db can't be written: {describe_error(error)}") from error
        return cursor.rowcount == 1

    def tidy(self, before_ms: int) -> None:
        """Delete the records whose user's time ended before this instant, and shorten the log. Runs in any thread."""
        problem = "use.db can't be written"
        with sqlite_error(problem), closing(_open(self._directory)) as database:
            # Found without a lock on the file, which requests would wait for.
            ended = database.execute("SELECT user, client, seen FROM times WHERE seen < ?", (before_ms,)).fetchall()
            database.executemany(f"DELETE FROM times {_OF_USER} AND seen = ?", ended)  # noqa: S608  # of constants
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
            self._database = None


def _open(directory: Path) -> sqlite3.Connection:
    return open_database(directory, _NAME, _LAYOUT, page_bytes=_PAGE_BYTES)


def use_records_of(directory: Path, pseudonyms: Sequence[str], client: str | None) -> list[tuple[UseKey, UseRecord]]:
    """Return the records of a person, as one client asserts it, or None: all. Raises StateError."""
    if not (directory / f"{_NAME}.db").exists():
        return []
    with sqlite_error("use.db can't be read"), closing(open_to_read(directory, _NAME)) as database:
        rows = database.execute(f"SELECT * FROM times WHERE {_OF_PERSON}", (json.dumps([*pseudonyms]), client))  # noqa: S608  # of constants
        return [(UseKey(user, by), UseRecord(*rest)) for user, by, *rest in rows]


def remove_use_records(directory: Path, pseudonyms: Sequence[str], client: str | None) -> int:
    """Delete these records, also from free space of the file, and return their number. Raises StateError."""
    if not (directory / f"{_NAME}.db").exists():
        return 0
    with closing(SqliteDatabase.open(directory, _NAME, _LAYOUT)) as database:
        with database.transaction() as statements:
            values = (json.dumps([*pseudonyms]), client)
            removed = statements.execute(f"DELETE FROM times WHERE {_OF_PERSON}", values).rowcount  # noqa: S608  # of constants
        if removed:
            database.compact()
    return removed
