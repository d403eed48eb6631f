"""Read the ledger: totals and rows, at one moment, while a gateway may be writing to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.files import path_exists
from gateway.state.database import open_large_to_read
from gateway.undo import undone_on_failure
from gateway.usage.amounts import NANO
from gateway.usage.ledger import (
    DELETED_THROUGH,
    MEASURES,
    NAME,
    ROW,
    SERIES,
    TIMEZONE,
    VERSION,
    LocalTime,
    fact,
    ledger_errors,
)
from gateway.usage.usage_row import TOKENS, BudgetChange, CallOutcome, RowKind, UsageRow, UsageSource

_COLUMNS = [name for name in ROW if name not in ("day", "hour", "series")]
READ = ", ".join([*(f"usage_row.{name}" for name in _COLUMNS), *(f"series.{name}" for name in SERIES)])
"""The columns of a row with those of its series, which `read_row` expects after the row's number."""

PAGE_ROWS = 5_000


class LedgerReader:
    """The ledger at one moment, while a gateway may be writing to it. Methods raise StateError.

    Any thread may use it, one at a time.

    Without a file it is empty: a command such as `gateway evaluate` writes a spool, and only a gateway moves its rows.

    Attributes:
        positions: How far each spool file was read.
        zone: The name of the time zone of hours and days.
        deleted_through: The last day of which rows were deleted, or None. Its totals are still there.
    """

    def __init__(self, directory: Path) -> None:
        if path_exists(directory / f"{NAME}.db"):
            self._database = open_large_to_read(directory, NAME, version=VERSION)
        else:
            self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with undone_on_failure(self.close), ledger_errors("read"):
            # The file may be new, and have no layout yet. Otherwise, all statements read the same moment.
            self._database.execute("BEGIN")
            self.has_layout = bool(
                self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger_fact'").fetchone()
            )
            self.positions: dict[str, int] = {}
            self.zone, self.deleted_through = "UTC", None
            if self.has_layout:
                self.positions = dict(self._database.execute("SELECT file, position FROM spool_position"))
                self.zone = fact(self._database, TIMEZONE) or self.zone
                self.deleted_through = fact(self._database, DELETED_THROUGH)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def has_call(self, call: str) -> bool:
        """Return whether the ledger has a row of this call."""
        with ledger_errors("read"):
            return bool(self._database.execute("SELECT 1 FROM usage_row WHERE call_id = ?", (call,)).fetchone())

    def sums(
        self, table: str, columns: Sequence[str], days: tuple[str, str], client: str | None
    ) -> Iterator[LedgerLine]:
        """Yield the sums of a table of totals for each combination of the columns.

        Args:
            table: One of `TOTALS`.
            columns: Columns of its key.
            days: The first and the last day.
            client: Only the totals of this client.
        """
        where, values = "day BETWEEN ? AND ?", [*days]
        if client is not None:
            where, values = f"{where} AND client = ?", [*values, client]
        columns = [*columns, "usage_source", "currency", "vendor_currency"]
        sums = ", ".join(f"SUM({name})" for name in MEASURES)
        numbers = ", ".join(map(str, range(1, len(columns) + 1)))
        with ledger_errors("read"):
            found = self._database.execute(
                f"SELECT {', '.join(columns)}, {sums} FROM {table} "  # noqa: S608
                f"JOIN series ON series.number = {table}.series WHERE {where} GROUP BY {numbers}",
                values,
            )
            for line in found:
                key = [text or None for text in line[: len(columns)]]
                yield LedgerLine(tuple(key[:-3]), key[-3], key[-2], key[-1], line[len(columns) :])

    def rows(self, days: tuple[str, str], client: str | None) -> Iterator[UsageRow]:
        """Yield the rows of these days (first, last), oldest first.

        It reads a page at a time. A slow reader does not keep the writer from reusing the space of its log.
        """
        where = f"day BETWEEN ? AND ? AND usage_row.number <= ?{'' if client is None else ' AND client = ?'}"
        with ledger_errors("read"):
            newest = self._database.execute("SELECT COALESCE(MAX(number), 0) FROM usage_row").fetchone()[0]
            self._database.execute("COMMIT")
            after = (-1, 0)
            while True:
                page = self._database.execute(
                    f"SELECT usage_row.number, {READ} FROM usage_row "  # noqa: S608
                    "JOIN series ON series.number = usage_row.series "
                    f"WHERE (time_ns, usage_row.number) > (?, ?) AND {where} "
                    "ORDER BY time_ns, usage_row.number LIMIT ?",
                    (*after, *days, newest, *(() if client is None else (client,)), PAGE_ROWS),
                ).fetchall()
                yield from map(read_row, page)
                if len(page) < PAGE_ROWS:
                    return
                after = page[-1][2], page[-1][0]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """Sums of rows that have these values in common. None where the rows have none.

    Attributes:
        key: The values of the chosen columns.
        usage_source: The source of the numbers.
        currency: The currency of `amount`.
        vendor_currency: The currency of `vendor_amount`.
        sums: The sums of `MEASURES`.
    """

    key: tuple[str | None, ...]
    usage_source: str | None
    currency: str | None
    vendor_currency: str | None
    sums: Sequence[int]


def line_of(row: UsageRow, columns: Sequence[str], local_time: LocalTime) -> LedgerLine | None:
    """Return the sums of one row, as the totals contain them, or None for a row that is not in the totals."""
    if row.kind not in (RowKind.USAGE, RowKind.UNATTRIBUTED):
        return None
    hour, day = local_time.hour_and_day(row.time_ns)
    values = {"hour": hour, "day": day, "end_user": row.user}
    key = tuple(values[name] if name in values else getattr(row, name) for name in columns)
    has_price = row.vendor_amount_nano is not None
    amounts = divmod(row.amount_nano or 0, NANO) + divmod(row.vendor_amount_nano or 0, NANO)
    sums = (
        int(row.kind is RowKind.USAGE),
        *(getattr(row, name) for name in TOKENS),
        int(not has_price),
        int(has_price and row.amount_nano is None),
        *amounts,
    )
    return LedgerLine(key, row.usage_source, row.currency, row.vendor_currency, sums)


def read_row(values: Sequence[Any]) -> UsageRow:
    """Return the row of a line of the database: its number, and the columns of `READ`."""
    (
        _, call, time_ns, kind, request, user, territory, config_version, price_version, *tokens, vendor_amount, amount,
        rate, outcome, of, per, unit, changed,
    ) = values[: -len(SERIES)]  # fmt: skip
    series: dict[str, Any] = {name: value or None for name, value in zip(SERIES, values[-len(SERIES) :], strict=True)}
    source = series.pop("usage_source")
    return UsageRow(
        call=call, time_ns=time_ns, kind=RowKind(kind), request=request, user=user, territory=territory,
        config_version=config_version, price_version=price_version, **dict(zip(TOKENS, tokens, strict=True)), **series,
        usage_source=UsageSource(source) if source else None, vendor_amount_nano=vendor_amount, amount_nano=amount,
        rate=rate, outcome=CallOutcome(outcome) if outcome else None,
        budget=BudgetChange(of, per, unit, changed) if of else None,
    )  # fmt: skip
