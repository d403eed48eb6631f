"""Refuse what release 0.2 left: release 1.0 reads it once, and writes what this release reads."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.files import path_exists
from gateway.operator_errors import StateError

if TYPE_CHECKING:
    from gateway.state.database import Statements

_SPOOL_FILES = ("*.rows", "*.recovered")


def refuse_former_state(directory: Path, ledger: str, *, counts_here: bool) -> None:
    """Raise StateError if release 0.2 was the last one that wrote usage rows or counts into a state directory.

    Its rows are in the ledger (the name of its database), and those that it has not moved in a spool. With
    `counts_here`, this directory has the counts of budgets, which that release kept in the folder `gate`.
    """
    for pattern in _SPOOL_FILES:
        for path in (directory / "spool").glob(pattern):
            raise _refused(path)
    if counts_here and path_exists(counts := directory / "gate"):
        raise _refused(counts)
    if path_exists(directory / f"{ledger}.db"):
        import sqlite3  # with a ledger, it is needed in any case

        from gateway.state.database import open_large_to_read

        # The one that uses a damaged file reports it.
        with suppress(sqlite3.Error), closing(open_large_to_read(directory, ledger)) as database:
            refuse_former_rows(database, directory / f"{ledger}.db")


def refuse_former_rows(statements: Statements, path: Path) -> None:
    """Raise StateError if the ledger at this path lacks a column that release 1.0 adds."""
    columns = statements.execute("SELECT name FROM pragma_table_info('usage_row')").fetchall()
    if columns and ("processes",) not in columns:
        raise _refused(path)


def _refused(path: Path) -> StateError:
    return StateError(f"{path} is of release 0.2: start release 1.0 with its state directory first, or move it away")
