"""Reports from the shared ledger in PostgreSQL, with the same queries and results as from the SQLite ledger."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from gateway.model.budget import StoreServer
from gateway.undo import undone_on_failure
from gateway.usage.ledger import DELETED_THROUGH, TIMEZONE
from gateway.usage.ledger_reader import PAGE_ROWS, lines_of, read_row
from gateway.usage.postgres import Postgres, PostgresConnection
from gateway.usage.postgres_ledger import fact
from gateway.usage.reports import GroupedUsage, UsageQuery, group_lines, month_of, zone_of
from gateway.usage.usage_row import UsageRow

_ANY_NUMBER = 2**63 - 1


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
        return group_lines(query.by, lines_of(self._fetch(*query.sums())))

    def rows(self, query: UsageQuery) -> Iterator[UsageRow]:
        """Yield all rows of the days of a query, oldest first, a page at a time."""
        after = (-1, 0)
        while True:
            page = self._fetch(*query.page(after, _ANY_NUMBER))
            yield from map(read_row, page)
            if len(page) < PAGE_ROWS:
                return
            after = page[-1][2], page[-1][0]

    def _fetch(self, text: str, values: list[object]) -> list[tuple[Any, ...]]:
        async def fetch(connection: PostgresConnection) -> list[tuple[Any, ...]]:
            return [tuple(line) for line in await connection.fetch(text, *values)]

        return self._database.run(fetch)
