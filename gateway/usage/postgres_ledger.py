"""The ledger of a cell of many instances: usage rows and their totals in PostgreSQL.

It does what `ledger.Ledger` does, with the same columns and the same sums. Each instance moves the rows of its own
spools. A row is inserted once by the id of its call, and one statement adds the inserted rows to the totals.

A call whose process was silent has a row with the outcome `lost`, which another instance wrote. If the row that the
process itself wrote arrives later, it takes the place of that row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

from gateway.model.budget import StoreServer
from gateway.usage.counter_sums import CounterSums
from gateway.usage.ledger import (
    CONDITIONS,
    DELETED_THROUGH,
    FIND_FACT,
    FIND_SERIES,
    INSERT_SERIES,
    MEASURES,
    ROW,
    STORE_FACT,
    SUMS,
    TIMEZONE,
    TOTALS,
    WITHOUT_CALLERS,
    LocalTime,
    remove_callers,
    row_values,
    series_values,
)
from gateway.usage.postgres import LEDGER_LOCK, Postgres, PostgresConnection, locked
from gateway.usage.postgres_schema import NUMBERS
from gateway.usage.usage_row import CallOutcome, UsageRow

_DELETED_AT_ONCE = 5_000
_REBUILD_S = 600.0
_MOST_KNOWN_SERIES = 100_000
_REPORTED = "kind IN ('usage', 'unattributed')"


def _add_totals(table: str, rows: str, condition: str = "TRUE", sign: str = "") -> str:
    """Return the statement that adds rows to a table of totals, or subtracts them."""
    key = ", ".join(TOTALS[table])
    groups = key.replace("end_user", "COALESCE(end_user, '')")
    sums = ", ".join(f"{sign}{SUMS[name]} AS {name}" for name in MEASURES)
    updates = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in MEASURES)
    numbers = ", ".join(map(str, range(1, len(TOTALS[table]) + 1)))
    return (
        f"INSERT INTO {table} ({key}, {', '.join(MEASURES)}) SELECT {groups}, {sums} FROM {rows} "  # noqa: S608
        f"WHERE {_REPORTED} AND {CONDITIONS.get(table, 'TRUE')} AND {condition} GROUP BY {numbers} "
        f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
    )


_ARRAYS = ", ".join(f"${number}::{'bigint' if name in NUMBERS else 'text'}[]" for number, name in enumerate(ROW, 1))
_INSERT = (
    f"WITH inserted AS (INSERT INTO usage_row ({', '.join(ROW)}) SELECT * FROM unnest({_ARRAYS}) "  # noqa: S608
    "ON CONFLICT (call_id) DO NOTHING RETURNING *), "
    + ", ".join(f"add_{table} AS ({_add_totals(table, 'inserted')})" for table in TOTALS)
    + " SELECT count(*) FROM inserted"
)
_LOST = "SELECT number FROM usage_row WHERE call_id = ANY($1) AND outcome = 'lost'"

_REMOVE_CALLERS = remove_callers("series IN (SELECT number FROM series WHERE region = ANY($1))")


class PostgresLedger:
    """The ledger, open for the rows of one instance. Methods raise StateError. It connects when it is first used.

    Args:
        server: The database.
        instance: The name of this instance, which owns its spool files.
        zone: Returns the time zone of hours and days (`usage.timezone`).
    """

    def __init__(self, server: StoreServer, instance: str, zone: Callable[[], tzinfo]) -> None:
        self._database = Postgres(server)
        self._instance = instance
        self._zone = zone
        self._local_time = LocalTime(zone())
        self._series: dict[tuple[str, ...], int] = {}
        self._zone_is_stored = False

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def check(self) -> None:
        """Do nothing: a database cannot be moved away while it is used, as a file can."""

    def positions(self) -> dict[str, int]:
        """Return how far each spool file of this instance was read."""

        async def read(connection: PostgresConnection) -> dict[str, int]:
            found = await connection.fetch(
                "SELECT file, position FROM spool_position WHERE instance = $1", self._instance
            )
            return {row[0]: row[1] for row in found}

        return self._database.run(read)

    def insert(self, rows: Sequence[UsageRow], positions: Mapping[str, int] | None = None) -> int:
        """Insert the rows whose calls have none yet, add them to the totals, and store positions of spool files.

        Returns:
            The number of inserted rows. The others were in the ledger already.
        """
        try:
            return self._database.run(lambda connection: self._insert(connection, rows, positions or {}))
        except BaseException:
            self._series.clear()  # numbers that were not committed
            self._zone_is_stored = False
            raise

    def forget_positions(self, names: Iterable[str]) -> None:
        """Delete the positions of spool files that were deleted."""
        gone = list(names)

        async def forget(connection: PostgresConnection) -> None:
            await connection.execute(
                "DELETE FROM spool_position WHERE instance = $1 AND file = ANY($2)", self._instance, gone
            )

        self._database.run(forget)

    def delete_rows(self, before_ns: int) -> int:
        """Delete rows of earlier calls, a limited number at a time. Their totals stay, and so do changes of budgets.

        Returns:
            The number of deleted rows. Call it again until it is 0.
        """

        async def delete(connection: PostgresConnection) -> int:
            async with locked(connection, LEDGER_LOCK):
                days = await connection.fetch(
                    "DELETE FROM usage_row WHERE number IN (SELECT number FROM usage_row "  # noqa: S608
                    f"WHERE time_ns < $1 AND {_REPORTED} ORDER BY time_ns LIMIT $2) RETURNING day",
                    before_ns,
                    _DELETED_AT_ONCE,
                )
                if days:
                    last = max(row[0] for row in days)
                    last = max(last, await fact(connection, DELETED_THROUGH) or "")
                    await _store_fact(connection, DELETED_THROUGH, last)
                return len(days)

        return self._database.run(delete)

    def sum_up(self, sums: CounterSums) -> None:
        """Sum up what the counters of open windows must show."""
        self._database.run(lambda connection: sum_up(connection, sums))

    def remove_callers(self, regions: frozenset[str]) -> None:
        """Remove territory and end user from the rows and totals of these regions, once for each region and instance.

        Other instances may still run an earlier release that writes them, so each instance does this at its start.
        """
        cleaned, name = json.dumps(sorted(regions)), f"{WITHOUT_CALLERS} {self._instance}"

        async def remove(connection: PostgresConnection) -> None:
            async with locked(connection, LEDGER_LOCK):
                stored = await fact(connection, name) or "[]"
                if regions - set(json.loads(stored)):
                    for statement in _REMOVE_CALLERS:
                        await connection.execute(statement, sorted(regions))
                if stored != cleaned:
                    await _store_fact(connection, name, cleaned)

        self._database.run(remove)

    def rebuild_totals(self) -> None:
        """Compute the totals again from the rows, for the days of which no row was deleted."""

        self._database.run(_rebuild)

    async def _insert(
        self, connection: PostgresConnection, rows: Sequence[UsageRow], positions: Mapping[str, int]
    ) -> int:
        async with locked(connection, LEDGER_LOCK):
            zone = self._zone()
            if zone is not self._local_time.zone or not self._zone_is_stored:
                self._local_time = LocalTime(zone)
                await _store_fact(connection, TIMEZONE, str(zone))
                self._zone_is_stored = True
            inserted = 0
            if rows:
                own = [_clean(row.call) for row in rows if row.outcome is not CallOutcome.LOST]
                if lost := [found[0] for found in await connection.fetch(_LOST, own)]:
                    await _remove(connection, lost)
                values = [await self._values(connection, row) for row in rows]
                inserted = await connection.fetchval(_INSERT, *map(list, zip(*values, strict=True)))
            if positions:
                await connection.execute(
                    "INSERT INTO spool_position (instance, file, position) "
                    "SELECT $1, * FROM unnest($2::text[], $3::bigint[]) "
                    "ON CONFLICT (instance, file) DO UPDATE SET position = excluded.position",
                    self._instance,
                    list(positions),
                    list(positions.values()),
                )
        return inserted

    async def _values(self, connection: PostgresConnection, row: UsageRow) -> tuple[object, ...]:
        values = row_values(row, self._local_time, await self._series_of(connection, row))
        return tuple(_clean(value) if isinstance(value, str) else value for value in values)

    async def _series_of(self, connection: PostgresConnection, row: UsageRow) -> int:
        """Return the number of the row's series, which is inserted if it is new."""
        values = tuple(map(_clean, series_values(row)))
        number = self._series.get(values)
        if number is None:
            if len(self._series) >= _MOST_KNOWN_SERIES:
                self._series.clear()
            number = await connection.fetchval(FIND_SERIES, *values)
            if number is None:
                await connection.execute(INSERT_SERIES, *values)
                number = await connection.fetchval(FIND_SERIES, *values)
            self._series[values] = number
        return int(number)


async def sum_up(connection: PostgresConnection, sums: CounterSums) -> None:
    """Sum up what the counters of open windows must show."""
    for statement in sums.statements():
        statement.add(await connection.fetch(statement.text, *statement.values))


def rebuild_totals(server: StoreServer) -> str | None:
    """Compute the totals again from the rows. Raises StateError.

    Returns:
        The last day whose totals were kept, because rows of it were deleted. None: there is no such day.
    """
    database = Postgres(server, command_s=_REBUILD_S)
    try:
        return database.run(_rebuild)
    finally:
        database.close()


async def _rebuild(connection: PostgresConnection) -> str | None:
    async with locked(connection, LEDGER_LOCK):
        since = await fact(connection, DELETED_THROUGH)
        for table in TOTALS:
            await connection.execute(f"DELETE FROM {table} WHERE day > $1", since or "")  # noqa: S608
            await connection.execute(_add_totals(table, "usage_row", "day > $1"), since or "")
    return since


def _clean(text: str) -> str:
    """PostgreSQL has no NUL in texts."""
    return text.replace("\0", "\ufffd")


async def _remove(connection: PostgresConnection, numbers: list[int]) -> None:
    """Delete rows, and subtract them from the totals."""
    for table in TOTALS:
        await connection.execute(_add_totals(table, "usage_row", "number = ANY($1)", "-"), numbers)
    await connection.execute("DELETE FROM usage_row WHERE number = ANY($1)", numbers)


async def fact(connection: PostgresConnection, name: str) -> str | None:
    """Return a fact about the ledger."""
    found: Any = await connection.fetchval(FIND_FACT, name)
    return None if found is None else str(found)


async def _store_fact(connection: PostgresConnection, name: str, value: str) -> None:
    await connection.execute(STORE_FACT, name, value)
