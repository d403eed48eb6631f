"""Reports from the shared ledger in PostgreSQL, with the same queries and results as from the SQLite ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

import asyncpg  # type: ignore[import-untyped]

from gateway.model.budget import StoreServer
from gateway.undo import undone_on_failure
from gateway.usage.ledger import DELETED_THROUGH, MEASURES, TIMEZONE
from gateway.usage.ledger_reader import PAGE_ROWS, READ, LedgerLine, read_row
from gateway.usage.postgres import Postgres, PostgresConnection
from gateway.usage.postgres_ledger import fact
from gateway.usage.reports import DIMENSIONS, GroupedUsage, UsageQuery, group_lines, month_of, zone_of
from gateway.usage.usage_row import UsageRow


class PostgresUsageReader:
    """The usage of a whole cell. A context manager. Methods raise StateError. See `UsageReader`.

    Attributes:
        zone: The time zone of hours and days, as the ledger was last written.
        deleted_through: The last day of which rows were deleted, or None.
    """

    def __init__(self, server: StoreServer) -> None:
        self._database = Postgres(server, command_s=120.0)

        async def facts(connection: PostgresConnection) -> tuple[str | None, str | None]:
            return await fact(connection, TIMEZONE), await fact(connection, DELETED_THROUGH)

        with undone_on_failure(self._database.close):
            zone, self.deleted_through = self._database.run(facts)
            self.zone = zone_of(zone or "UTC")

    def __enter__(self) -> PostgresUsageReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def month(self, now_s: float) -> str:
        """Return the month of a Unix time, in the time zone of the ledger: `2026-11`."""
        return month_of(now_s, self.zone)

    def report(self, query: UsageQuery) -> GroupedUsage:
        """Return the report of a query."""
        columns = [*(DIMENSIONS[name] for name in query.by), "usage_source", "currency", "vendor_currency"]
        table = "total_user_day" if "user" in query.by else "total_hour" if "hour" in query.by else "total_day"
        sums = ", ".join(f"SUM({name})::bigint" for name in MEASURES)
        numbers = ", ".join(map(str, range(1, len(columns) + 1)))
        where, values = _where(query)

        async def read(connection: PostgresConnection) -> list[LedgerLine]:
            found = await connection.fetch(
                f"SELECT {', '.join(columns)}, {sums} FROM {table} "  # noqa: S608
                f"JOIN series ON series.number = {table}.series WHERE {where} GROUP BY {numbers}",
                *values,
            )
            return [_line(tuple(line), len(columns)) for line in found]

        return group_lines(query.by, self._database.run(read))

    def rows(self, query: UsageQuery) -> Iterator[UsageRow]:
        """Yield all rows of the days of a query, oldest first, a page at a time."""
        where, values = _where(query)
        after = (-1, 0)
        while True:
            page = self._database.run(lambda connection, after=after: _page(connection, where, values, after))  # type: ignore[misc]
            yield from map(read_row, page)
            if len(page) < PAGE_ROWS:
                return
            after = page[-1][2], page[-1][0]


async def _page(
    connection: PostgresConnection, where: str, values: Sequence[object], after: tuple[int, int]
) -> list[asyncpg.Record]:
    count = len(values)
    found: list[asyncpg.Record] = await connection.fetch(
        f"SELECT usage_row.number, {READ} FROM usage_row JOIN series ON series.number = usage_row.series "  # noqa: S608
        f"WHERE (time_ns, usage_row.number) > (${count + 1}, ${count + 2}) AND {where} "
        f"ORDER BY time_ns, usage_row.number LIMIT {PAGE_ROWS}",
        *values,
        *after,
    )
    return found


def _where(query: UsageQuery) -> tuple[str, list[object]]:
    if query.client is None:
        return "day BETWEEN $1 AND $2", [*query.days]
    return "day BETWEEN $1 AND $2 AND client = $3", [*query.days, query.client]


def _line(values: Sequence[object], columns: int) -> LedgerLine:
    key = [str(text) if text else None for text in values[:columns]]
    return LedgerLine(tuple(key[:-3]), key[-3], key[-2], key[-1], values[columns:])  # type: ignore[arg-type]
