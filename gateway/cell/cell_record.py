"""The record of a cell in PostgreSQL: the versions, activations and audit lines of all its instances.

An instance ships what it has recorded in its own state directory, which stays the master. A shipped line is
never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.cell.cell_database import LAST
from gateway.operator_errors import NotStored, StateError
from gateway.state.audit import AuditLine
from gateway.state.history import Activation, Version, why_not_found
from providers.value import replace

if TYPE_CHECKING:
    from gateway.cell.cell_database import CellDatabase
    from gateway.cell.postgres import PostgresConnection

_PAGE_LINES = 500
_ACTIVATION = "version, previous, cause, who, at_s, summary, plan"
_VERSION = "version, content, text, why_not, catalogues"


class CellRecord:
    """The shared record, as one process of an instance uses it. Methods raise StateError."""

    def __init__(self, database: CellDatabase) -> None:
        self.database = database

    def shipped(self) -> tuple[int, int, str]:
        """Return the last shipped activation and audit line of this instance, by number, and the hash of the line."""
        instance = self.database.instance
        newest = "SELECT coalesce(max(source), 0) FROM cell_activation WHERE instance = $1"
        activation = self.database.fetch(newest, instance)
        line = self.database.fetch(
            "SELECT number, hash FROM cell_audit_line WHERE instance = $1 ORDER BY number DESC LIMIT 1", instance
        )
        return (int(activation[0][0]), *((int(line[0][0]), str(line[0][1])) if line else (0, "")))

    def ship(self, activations: Sequence[tuple[int, Version, Activation]], lines: Sequence[AuditLine]) -> None:
        """Store activations, each with its number, and audit lines. Those that are stored already stay as they are."""

        async def store(connection: PostgresConnection) -> None:
            instance = self.database.instance
            async with connection.transaction():
                for number, version, item in activations:
                    await connection.execute(
                        f"INSERT INTO cell_version ({_VERSION}) VALUES ($1, $2, $3, $4, $5) "  # noqa: S608
                        "ON CONFLICT (version) DO NOTHING",
                        version.version, version.content, version.text, version.why_not, version.catalogues,
                    )  # fmt: skip
                    await connection.execute(
                        f"INSERT INTO cell_activation (instance, source, {_ACTIVATION}, received_at) VALUES "  # noqa: S608
                        "($1, $2, $3, $4, $5, $6, $7, $8, $9, extract(epoch FROM clock_timestamp())) "
                        "ON CONFLICT (instance, source) DO NOTHING",
                        instance, number, item.version, item.previous, item.cause, _clean(item.who), item.at_s,
                        _clean(item.summary), json.dumps(item.plan),
                    )  # fmt: skip
                last = "SELECT coalesce(max(number), 0) FROM cell_audit_line WHERE instance = $1"
                if lines and await connection.fetchval(last, instance) < lines[0].number - 1:
                    raise StateError("the database has lost lines of the audit trail; they are stored again")
                await connection.executemany(
                    "INSERT INTO cell_audit_line (instance, number, hash, line) VALUES ($1, $2, $3, $4) "
                    "ON CONFLICT (instance, number) DO NOTHING",
                    [(instance, line.number, line.hash, line.data) for line in lines],
                )

        self.database.run(store)

    def last_version(self) -> Version | None:
        """Return the version that an instance of the cell activated last, or None."""
        rows = self.database.fetch(
            f"SELECT {_VERSION} FROM cell_version WHERE version = "  # noqa: S608
            f"(SELECT version FROM cell_activation ORDER BY {LAST} LIMIT 1)"
        )
        return Version(*rows[0]) if rows else None

    def find(self, word: str) -> Version:
        """Return the version with this name, or with this prefix of four or more characters. Raises NotStored."""
        word = word.partition("+")[0]
        sql = f"SELECT {_VERSION} FROM cell_version WHERE starts_with(version, $1) LIMIT 2"  # noqa: S608
        rows = self.database.fetch(sql, word)
        if len(word) < 4 or len(rows) != 1:
            raise NotStored(why_not_found(word, len(rows)))
        return Version(*rows[0])

    def before(self, version: str) -> str | None:
        """Return the version that this one replaced when the cell activated it last, or None."""
        rows = self.database.fetch(
            "SELECT previous FROM cell_activation WHERE version = $1 AND previous NOT IN ('', version) "  # noqa: S608
            f"ORDER BY {LAST} LIMIT 1",
            version,
        )
        return str(rows[0][0]) if rows else None

    def activations(self, limit: int) -> list[tuple[str, Activation]]:
        """Return the latest activations with the ids of their instances, the newest first."""
        sql = f"SELECT instance, {_ACTIVATION} FROM cell_activation ORDER BY {LAST} LIMIT $1"  # noqa: S608
        rows = self.database.fetch(sql, min(limit, 2**31))
        return [(row[0], _activation(row[1:])) for row in rows]

    def last_activation(self, version: str) -> Activation | None:
        """Return the latest activation of the version, or None."""
        sql = f"SELECT {_ACTIVATION} FROM cell_activation WHERE version = $1 ORDER BY {LAST} LIMIT 1"  # noqa: S608
        rows = self.database.fetch(sql, version)
        return _activation(rows[0]) if rows else None

    def versions(self) -> list[Version]:
        """Return all versions."""
        rows = self.database.fetch(f"SELECT {_VERSION} FROM cell_version ORDER BY version")  # noqa: S608
        return [Version(*row) for row in rows]

    def trails(self) -> Mapping[str, int]:
        """Return the number of the last audit line of each instance."""
        rows = self.database.fetch("SELECT instance, max(number) FROM cell_audit_line GROUP BY 1 ORDER BY 1")
        return {row[0]: int(row[1]) for row in rows}

    def lines(self, instance: str) -> Iterator[bytes]:
        """Yield the lines of an instance's audit trail, a page at a time."""
        after = 0
        while True:
            page = self.database.fetch(
                "SELECT number, line FROM cell_audit_line WHERE instance = $1 AND number > $2 ORDER BY number LIMIT $3",
                instance, after, _PAGE_LINES,
            )  # fmt: skip
            yield from (row[1] for row in page)
            if len(page) < _PAGE_LINES:
                return
            after = page[-1][0]


def _activation(row: Sequence[Any]) -> Activation:
    *values, text = row
    plan = json.loads(text)
    if not isinstance(plan, dict):
        raise StateError(f"the plan of version {values[0]} in the shared database is not valid")
    return replace(Activation(*values), plan=plan)


def _clean(text: str) -> str:
    """Return the text without what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
