"""Open a database of the state directory: SQLite, readable by its owner alone, shared by all processes of this cell.

Write-ahead logging lets the workers read while one of them writes. What a statement waits for is bounded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["StateError", "open_database"]

_BUSY_S = 5.0


class StateError(Exception):
    """The state directory, or a file in it, can't be used; the message says which and why."""


def open_database(directory: Path, name: str, layout: str, *, version: int = 1) -> sqlite3.Connection:
    """The database `name`.db of the directory, which is made if it isn't there; raises StateError.

    layout: `CREATE TABLE IF NOT EXISTS` statements. version: of that layout; a file of a later one is refused, so that
    a rollback of the gateway doesn't misread it. Any thread may use the connection, one at a time.
    """
    # Not at the top: who only has to know of a StateError is without the library, of which a worker has no use.
    import sqlite3

    path = directory / f"{name}.db"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > version:
                raise StateError(
                    f"{path} was written by a later version of the gateway (layout {found}, not {version})"
                )
            connection.executescript(layout)
            connection.execute(f"PRAGMA user_version = {version}")
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"{path} can't be used: {error}") from error
    return connection
