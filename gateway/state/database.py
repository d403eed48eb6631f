"""Open databases of the state directory: SQLite files that only their owner can read, shared by all processes.

Write-ahead logging lets workers read while one of them writes. Each statement waits for a limited time.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from gateway.files import is_file_at
from gateway.operator_errors import StateError, moved_error
from gateway.state.lock import STOP_AND_START, are_upgrades_refused
from gateway.undo import undone_on_failure

_BUSY_S = 5.0
_PAUSE_S = 0.01
_MEMORY = "/dev/shm"  # noqa: S108  # a private directory is created in it
_OF_DAMAGE = ("malformed", "not a database", "Could not decode")
_one_creates = threading.Lock()


def layout_of(module: str) -> str:
    """Return the SQL that makes the tables of a store. It is next to the file of the module."""
    return Path(module).with_suffix(".sql").read_text("utf-8")


def open_database(
    directory: Path, name: str, layout: str, *, version: int = 1, durable: bool = False, page_bytes: int | None = None
) -> sqlite3.Connection:
    """Open the database `name`.db of the directory, and create it if it does not exist. Raises StateError.

    Any thread may use the connection, one at a time.

    Args:
        layout: `CREATE TABLE IF NOT EXISTS` statements.
        version: The version of the layout. A file with a later version is refused, so that an older gateway does not
            misread it.
        durable: Whether a commit survives a power failure, and not only the end of the process.
        page_bytes: The size of the pages of a new file, or None for that of SQLite. Each change writes whole pages.
    """
    path = directory / f"{name}.db"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path)
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        with undone_on_failure(connection.close):
            if page_bytes is not None:
                connection.execute(f"PRAGMA page_size = {page_bytes}")
            _set_up(connection, path, layout, version)
            if durable:
                connection.execute("PRAGMA synchronous = FULL")
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be used: {describe_error(error)}") from error
    return connection


def _create(path: Path) -> None:
    """Create an empty file that only its owner can read, if there is none. Raises OSError if it cannot be written.

    An existing file must not be opened and closed here: closing a file ends all locks of this process on it (POSIX),
    also the locks of another connection. A command in another process would then take itself for the last user of the
    database and delete its log, so that this process would read old data and damage the file.
    """
    with _one_creates:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            _check_access(path, os.R_OK | os.W_OK)


def _check_access(path: Path, mode: int) -> None:
    """Raise OSError if the path is not a file with these permissions. It is not opened: see `_create`."""
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _set_up(connection: sqlite3.Connection, path: Path, layout: str, version: int) -> None:
    """Turn on write-ahead logging and create the layout.

    If several processes create a file at the same time, SQLite rejects some of these statements in spite of its
    timeout. They are repeated.
    """
    until = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # Deleted data is overwritten in the file too.
            connection.execute("PRAGMA secure_delete = ON")
            layout_version = _layout_of(connection, path, version)
            if 0 < layout_version < version and are_upgrades_refused():
                raise StateError(f"{path} has layout {layout_version} and would get {version}; {STOP_AND_START}")
            connection.executescript(layout)
            if layout_version != version:
                connection.execute(f"PRAGMA user_version = {version}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


class Result(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """The number of changed rows."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return all rows."""


class Statements(Protocol):
    """A transaction, which runs statements with a `?` for each value."""

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Result:
        """Run a statement."""

    def executemany(self, sql: str, values: Sequence[Sequence[object]], /) -> object:
        """Run a statement for each of several lists of values."""


class Database(Protocol):
    """A database of SQLite or PostgreSQL. Methods raise StateError."""

    is_shared: bool
    """Whether other machines use it too."""

    def transaction(self, *, lock: int = 0, reads_only: bool = False) -> AbstractContextManager[Statements]:
        """Run statements in one transaction, which excludes others with the same lock.

        If it only reads, all statements see the same state.
        """

    def close(self) -> None:
        """Close it."""


class SqliteDatabase:
    """An open SQLite file as a `Database`. Any thread may use it, one at a time."""

    is_shared = False

    def __init__(self, connection: sqlite3.Connection, name: str, file: OpenedFile | None = None) -> None:
        self.connection = connection
        self._name = name
        self._file = file

    @classmethod
    def open(
        cls, directory: Path, name: str, layout: str, *, version: int = 1, durable: bool = False
    ) -> SqliteDatabase:
        """Open a database for writing. See `open_database`. It must stay at its path."""
        connection = open_database(directory, name, layout, version=version, durable=durable)
        with undone_on_failure(connection.close):
            return cls(connection, name, OpenedFile(directory / f"{name}.db"))

    @contextmanager
    def transaction(self, *, lock: int = 0, reads_only: bool = False) -> Iterator[Statements]:
        if self._file is not None and not reads_only:
            self._file.check_path()
        done = "read" if reads_only else "written"
        with sqlite_error(f"{self._name}.db can't be {done}"), transaction(self.connection, reads_only=reads_only):
            yield self.connection

    def compact(self) -> None:
        """Remove deleted data from free space of the file. Raises StateError."""
        with sqlite_error(f"{self._name}.db can't be written"):
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def has_table(statements: Statements, name: str) -> bool:
    """Return whether a SQLite file has a table."""
    return statements.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


class OpenedFile:
    """A file that must stay at its path.

    SQLite continues to write to a file that was moved or removed, and a later process would not find that data.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._opened = os.stat(path)
        except OSError as error:
            raise StateError(f"{path} can't be used: {error.strerror}") from error

    def check_path(self) -> None:
        """Raise StateError if the opened file is not at its path any more."""
        try:
            is_in_place = is_file_at(self._path, self._opened)
        except OSError as error:
            raise StateError(f"{self._path} can't be used: {error.strerror}") from error
        if not is_in_place:
            raise moved_error(self._path)


def describe_error(error: Exception) -> str:
    """Return the error as a sentence. If the file is damaged, add how to fix it."""
    is_damaged = isinstance(error, sqlite3.DatabaseError) and any(sign in str(error) for sign in _OF_DAMAGE)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return describe_damage(str(error)) if is_damaged else str(error)


@contextmanager
def sqlite_error(problem: str) -> Iterator[None]:
    """Raise StateError with the problem and its cause if SQLite fails in the block."""
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(f"{problem}: {describe_error(error)}") from error


def describe_damage(what: str) -> str:
    """Return the text for a file whose content the gateway cannot have written, with how to fix it."""
    return f"{what}; move it away together with its -wal and -shm, or restore it: the next start creates a new one"


def open_to_read(directory: Path, name: str, *, version: int = 1) -> sqlite3.Connection:
    """Open the existing database `name`.db for reading only. Raises StateError.

    It also works without permission to write, on a full disk, and on a read-only file system.
    """
    path = directory / f"{name}.db"
    try:
        _check_access(path, os.R_OK)
        # SQLite creates files next to the database. It may lack the permission, and it should not leave any there.
        if Path(f"{path}-shm").exists():
            with suppress(sqlite3.OperationalError):
                return _for_reading(path, path, version)
        return _copy(path, version)
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be read: {describe_error(error)}") from error


def open_large_to_read(directory: Path, name: str, *, version: int = 1) -> sqlite3.Connection:
    """Open the existing database `name`.db for reading, without a copy of it. Raises StateError.

    A running writer is never blocked. SQLite may create its files next to the database, and deletes them when the
    connection is closed. Without permission to write it also works, unless a writer ended without closing the file.
    """
    path = directory / f"{name}.db"
    try:
        _check_access(path, os.R_OK)
        if Path(f"{path}-shm").exists():
            return _for_reading(path, path, version)
        with suppress(sqlite3.OperationalError):
            return _for_reading(path, path, version, "mode=rw")
        # There is no permission to write, and no process has the file open, so nothing changes it.
        return _for_reading(path, path, version, "immutable=1")
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be read: {describe_error(error)}") from error


def _copy(path: Path, version: int) -> sqlite3.Connection:
    try:
        return _copied_in(None, path, version)
    except OSError:
        # A container with a read-only or full file system can still write to its shared memory.
        if not os.access(_MEMORY, os.W_OK):
            raise
        return _copied_in(_MEMORY, path, version)


def _copied_in(parent: str | None, path: Path, version: int) -> sqlite3.Connection:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        for end in ("", "-wal"):
            if Path(f"{path}{end}").exists():
                shutil.copyfile(f"{path}{end}", Path(folder, f"copy.db{end}"))
        with closing(_for_reading(Path(folder, "copy.db"), path, version)) as copied:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            copied.backup(memory)
            memory.execute("PRAGMA query_only = TRUE")
            return memory


def _for_reading(path: Path, known_as: Path, version: int, mode: str = "mode=ro") -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(address, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=True)
    with undone_on_failure(connection.close):
        connection.execute("PRAGMA query_only = TRUE")
        _layout_of(connection, known_as, version)
    return connection


def _layout_of(connection: sqlite3.Connection, path: Path, version: int) -> int:
    layout_version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if layout_version > version:
        raise StateError(
            f"{path} was written by a later version of the gateway (layout {layout_version}, not {version})"
        )
    return layout_version


@contextmanager
def transaction(connection: sqlite3.Connection, *, reads_only: bool = False) -> Iterator[None]:
    """Commit all statements of the block or none, also if the commit itself fails. Raises sqlite3.Error."""
    connection.execute("BEGIN" if reads_only else "BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()  # it does nothing on a full disk, where SQLite has already rolled back
        raise
