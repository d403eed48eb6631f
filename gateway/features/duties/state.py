"""Keep the time of users in the state directory: `use.db`, one row of `used` for each user, which all processes share.

Theory of operation:

- Each process that reads or writes the file holds `use.lock`, shared. One that gets it exclusively is the only one. It
  keeps the records that it writes in memory too, and from then on writes their changes twice a second, in a thread.
  `kill -9` loses the changes of this time.
- Another process that begins, an export and an erasure write a new mark into the lock, which the only one compares
  before each operation, and twice a second. It then writes all, forgets its memory, and shares the lock.
- A commit writes to the log of the database and waits for no disk, so it survives the end of the process, and a power
  failure may undo the last ones. `tidy` moves the log into the file, in a thread, because that waits for the disk.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec

from gateway.features.duties.model import UsedDay, UseKey, UseRecord
from gateway.features.duties.policy import used_day
from gateway.operator_errors import StateError
from gateway.state.database import (
    SqliteDatabase,
    describe_error,
    has_table,
    layout_of,
    open_database,
    open_to_read,
    sqlite_error,
    transaction,
)
from gateway.undo import undone_on_failure

_NAME = "use"
_LAYOUT = layout_of(__file__)
_PAGE_BYTES = 512
"""A change of a record takes two thirds of the time that it takes with SQLite's pages of 4096 bytes."""
_OF_USER = "WHERE user = ? AND client = ?"
_READ = f"SELECT record FROM used {_OF_USER}"  # noqa: S608  # of constants
_ADD = "INSERT INTO used VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WRITE = f"UPDATE used SET seen = ?, record = ? {_OF_USER}"  # noqa: S608  # of constants
_CHANGE = f"{_WRITE} AND record = ?"
_OF_PERSON = "user IN (SELECT value FROM json_each(?)) AND coalesce(?, client) = client"

_LOCK = "use.lock"
_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(UseRecord).decode
_MARK_BYTES = 8
_WAIT_S, _PAUSE_S = 5.0, 0.01
_MOST = 20_000
"""The records in memory, some 10 MB. Those of further users are read and written in the file."""


class _Presence:
    """One of the processes that use the file. It waits until none of them has records only in memory.

    The mark changes when another process waits.
    """

    def __init__(self, directory: Path) -> None:
        """Raise StateError if it cannot be used, or a process does not make way."""
        path = directory / _LOCK
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            with undone_on_failure(lambda: os.close(self._file)):
                until_s = time.monotonic() + _WAIT_S
                while not os.fstat(self._file).st_size or not self.take(fcntl.LOCK_SH):
                    if time.monotonic() > until_s:
                        raise StateError(f"{path} is locked by a process that does not answer; it may be stopped")
                    os.pwrite(self._file, os.urandom(_MARK_BYTES), 0)
                    time.sleep(_PAUSE_S)
                self.mark = mmap.mmap(self._file, _MARK_BYTES, prot=mmap.PROT_READ)
        except OSError as error:
            raise StateError(f"{path} can't be used: {error.strerror}") from error

    def take(self, kind: int) -> bool:
        """Take the lock shared or exclusively, and return whether it is taken. If not, nothing is held."""
        with suppress(BlockingIOError):
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            return True
        return False

    def close(self) -> None:
        """Leave the file to others."""
        fcntl.flock(self._file, fcntl.LOCK_UN)  # the memory map has a copy of the descriptor
        os.close(self._file)


class UseStore:
    """The database of the time of users, for one thread. Methods raise StateError.

    While it `is_open`, it can be used without a wait; `open` opens it.
    """

    def __init__(self, directory: Path) -> None:
        self.is_open = False
        self._directory = directory
        self._database: sqlite3.Connection | None = None
        # The only process writes with a connection of its own, because a transaction belongs to its connection.
        self._writer: sqlite3.Connection | None = None
        self._presence: _Presence | None = None
        # The mark when this process became the only one. None: it is not.
        self._mark: bytes | None = None
        self._records: dict[UseKey, UseRecord] = {}
        # Those of them that the file does not have.
        self._changed: dict[UseKey, UseRecord] = {}
        self._problem = ""
        self._one_opens, self._one_writes = threading.Lock(), threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether any time was ever kept here."""
        return (self._directory / f"{_NAME}.db").exists()

    def open(self) -> None:
        """Open it, when no other process has records in memory only. Runs in any thread."""
        self._opened()

    def _opened(self) -> sqlite3.Connection:
        with self._one_opens:
            if self._database is None:
                presence = _Presence(self._directory)
                with undone_on_failure(presence.close):
                    self._writer = _open(self._directory)
                    self._database = _open(self._directory)
                self._presence, self.is_open = presence, True
            return self._database

    def read(self, key: UseKey) -> UseRecord | None:
        if self._is_only() and (known := self._records.get(key)) is not None:
            return known
        database = self._database or self._opened()
        try:
            row = database.execute(_READ, key).fetchone()
        except sqlite3.Error as error:
            raise StateError(f"use.db can't be read: {describe_error(error)}") from error
        return _unpack(row[0]) if row is not None else None

    def change(self, key: UseKey, before: UseRecord | None, after: UseRecord) -> bool:
        """Keep a record if the present one is still `before`. Return whether it was."""
        is_only = self._is_only()
        if is_only and (known := self._records.get(key)) is not None:
            if known != before:
                return False
            self._records[key] = self._changed[key] = after
            if self._problem:
                raise StateError(self._problem)
            return True
        database = self._database or self._opened()
        try:
            if before is None:
                cursor = database.execute(_ADD, (*key, after.seen_ms, _pack(after)))
            else:
                cursor = database.execute(_CHANGE, (after.seen_ms, _pack(after), *key, _pack(before)))
        except sqlite3.Error as error:
            raise StateError(f"use.db can't be written: {describe_error(error)}") from error
        is_kept = cursor.rowcount == 1
        if is_kept and is_only and len(self._records) < _MOST:
            self._records[key] = after
        return is_kept

    def _is_only(self) -> bool:
        presence = self._presence
        if self._mark is None or presence is None:
            return False
        if presence.mark[:] == self._mark:
            return True
        # Another process waits.
        self.write()
        self._records.clear()
        self._mark = None
        self._share(presence)
        return False

    def _share(self, presence: _Presence) -> None:
        if not presence.take(fcntl.LOCK_SH):
            # The kernel gives up one lock before it takes the other, and a process became the only one in between.
            self.close()

    def look(self) -> bool:
        """Become the only process, or make way for another one. Return whether there is something to write."""
        presence = self._presence
        if presence is not None and self._mark is None:
            mark = presence.mark[:]
            if presence.take(fcntl.LOCK_EX):
                self._mark = mark
            else:
                self._share(presence)
        return self._is_only() and bool(self._changed)

    def write(self) -> None:
        """Write the changes that are only in memory. Runs in any thread."""
        with self._one_writes:
            if self._writer is None:
                return
            # One at a time, because the event loop adds more meanwhile.
            rows = [self._changed.popitem() for _ in range(len(self._changed))]
            try:
                with sqlite_error("use.db can't be written"), transaction(self._writer):
                    self._writer.executemany(_WRITE, [(it.seen_ms, _pack(it), *key) for key, it in rows])
            except StateError as error:
                for key, record in rows:
                    self._changed.setdefault(key, record)
                self._problem = str(error)
                raise
            self._problem = ""

    def forget(self, before_ms: int) -> None:
        """Leave records in the file only, whose user's time ended before this instant. Not while `write` runs."""
        for key, record in [*self._records.items()]:
            if record.seen_ms < before_ms and key not in self._changed:
                del self._records[key]

    def tidy(self, before_ms: int) -> None:
        """Delete the records whose user's time ended before this instant, and shorten the log. Runs in any thread."""
        problem = "use.db can't be written"
        with sqlite_error(problem), closing(_open(self._directory)) as database:
            # Found without a lock on the file, which requests would wait for.
            found = database.execute("SELECT user, client, seen FROM used WHERE seen < ?", (before_ms,))
            database.executemany(f"DELETE FROM used {_OF_USER} AND seen = ?", found.fetchall())  # noqa: S608  # of constants
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Write all, and leave the file to others."""
        if self._database is None or self._writer is None or self._presence is None:
            return
        try:
            self.write()
        finally:
            with self._one_writes:
                self.is_open = False
                self._records.clear()
                self._mark = None
                self._database.close()
                self._writer.close()
                self._presence.close()
                self._database = self._writer = self._presence = None


def _open(directory: Path) -> sqlite3.Connection:
    database = open_database(directory, _NAME, _LAYOUT, page_bytes=_PAGE_BYTES)
    database.execute("PRAGMA wal_autocheckpoint = 0")
    return database


def use_records_of(directory: Path, pseudonyms: Sequence[str], client: str | None) -> list[tuple[UseKey, UsedDay]]:
    """Return the records of a person, as one client asserts it, or None: all. Raises StateError.

    Without permission to write, those that a running gateway has written up to a second ago.
    """
    if not (directory / f"{_NAME}.db").exists():
        return []
    with ExitStack() as stack:
        stack.enter_context(sqlite_error("use.db can't be read"))
        if os.access(directory / _LOCK, os.R_OK | os.W_OK):
            stack.enter_context(closing(_Presence(directory)))
        database = stack.enter_context(closing(open_to_read(directory, _NAME)))
        if not has_table(database, "used"):
            return []
        values = (json.dumps([*pseudonyms]), client)
        rows = database.execute(f"SELECT user, client, record FROM used WHERE {_OF_PERSON}", values).fetchall()  # noqa: S608  # of constants
        return [(UseKey(user, by), used_day(_unpack(raw))) for user, by, raw in rows]


def remove_use_records(directory: Path, pseudonyms: Sequence[str], client: str | None) -> int:
    """Delete these records, also from free space of the file, and return their number. Raises StateError."""
    if not (directory / f"{_NAME}.db").exists():
        return 0
    with closing(_Presence(directory)), closing(SqliteDatabase.open(directory, _NAME, _LAYOUT)) as database:
        with database.transaction() as statements:
            values = (json.dumps([*pseudonyms]), client)
            removed = statements.execute(f"DELETE FROM used WHERE {_OF_PERSON}", values).rowcount  # noqa: S608  # of constants
        if removed:
            database.compact()
    return removed
