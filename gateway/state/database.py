"""Open a database of the state directory: SQLite, readable by its owner alone, shared by all processes of this cell.

Write-ahead logging lets the workers read while one of them writes. What a statement waits for is bounded.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gateway.files import open_file, stands_at
from gateway.operator_errors import StateError, moved

_BUSY_S = 5.0
_PAUSE_S = 0.01
_MEMORY = "/dev/shm"  # noqa: S108  # a directory of our own is made in it
_OF_DAMAGE = ("malformed", "not a database", "Could not decode")


def open_database(
    directory: Path, name: str, layout: str, *, version: int = 1, durable: bool = False
) -> sqlite3.Connection:
    """The database `name`.db of the directory, which is made if it isn't there; raises StateError.

    layout: `CREATE TABLE IF NOT EXISTS` statements. version: of that layout; a file of a later one is refused, so that
    a rollback of the gateway doesn't misread it. durable: what is committed outlives a loss of power too, not only the
    end of the process. Any thread may use the connection, one at a time.
    """
    path = directory / f"{name}.db"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _set_up(connection, path, layout, version)
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be used: {explained(error)}") from error
    return connection


def _set_up(connection: sqlite3.Connection, path: Path, layout: str, version: int) -> None:
    """Write ahead, by this layout. Where several begin a file at once, SQLite gives up on some of these statements
    whatever its timeout; each may be made again."""
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            found = _layout_of(connection, path, version)
            connection.executescript(layout)
            if found != version:
                connection.execute(f"PRAGMA user_version = {version}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


class InPlace:
    """The file that stood here when it was opened: SQLite goes on writing to one that was moved or removed since, which
    nobody who starts later finds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._opened = os.stat(path)
        except OSError as error:
            raise StateError(f"{path} can't be used: {error.strerror}") from error

    def expect(self) -> None:
        """Raises StateError where it stands there no more."""
        try:
            is_in_place = stands_at(self._path, self._opened)
        except OSError as error:
            raise StateError(f"{self._path} can't be used: {error.strerror}") from error
        if not is_in_place:
            raise moved(self._path)


def explained(error: Exception) -> str:
    """What SQLite or the system says, and how to mend it where the file itself is damaged."""
    is_damaged = isinstance(error, sqlite3.DatabaseError) and any(sign in str(error) for sign in _OF_DAMAGE)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return damaged(str(error)) if is_damaged else str(error)


def damaged(what: str) -> str:
    """What is wrong with a file whose content can't be what we wrote, and how to mend it."""
    return f"{what}; move it away with the -wal and -shm beside it, or restore it: a new one is begun at the next start"


def open_to_read(directory: Path, name: str, *, version: int = 1) -> sqlite3.Connection:
    """The database `name`.db, which must be there, for who may not write to it, or can't: an auditor, or on a disk that
    is full, or for reading alone. Raises StateError."""
    path = directory / f"{name}.db"
    try:
        open_file(path).close()
        # SQLite keeps files of its own beside it. It may not be able to make them, and is not to leave any behind.
        if Path(f"{path}-shm").exists():
            with suppress(sqlite3.OperationalError):
                return _for_reading(path, path, version)
        return _copy(path, version)
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be read: {explained(error)}") from error


def _copy(path: Path, version: int) -> sqlite3.Connection:
    try:
        return _copied_in(None, path, version)
    except OSError:
        # A container whose file system is read-only, or full, still has its memory to write to.
        if not os.access(_MEMORY, os.W_OK):
            raise
        return _copied_in(_MEMORY, path, version)


def _copied_in(place: str | None, path: Path, version: int) -> sqlite3.Connection:
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for end in ("", "-wal"):
            if Path(f"{path}{end}").exists():
                shutil.copyfile(f"{path}{end}", Path(folder, f"copy.db{end}"))
        with closing(_for_reading(Path(folder, "copy.db"), path, version)) as copied:
            memory = sqlite3.connect(":memory:", isolation_level=None)
            copied.backup(memory)
            return memory


def _for_reading(path: Path, known_as: Path, version: int) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_BUSY_S, isolation_level=None, uri=True)
    try:
        _layout_of(connection, known_as, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _layout_of(connection: sqlite3.Connection, path: Path, version: int) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > version:
        raise StateError(f"{path} was written by a later version of the gateway (layout {found}, not {version})")
    return found


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, also where it is the end of it that fails; raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # On a full disk SQLite has gone back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
