"""Read the ledger: totals and rows, at one moment, while a gateway may be writing to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    has_assistants,
    ledger_errors,
    numbered,
)
from gateway.usage.usage_row import TOKENS, BudgetChange, CallOutcome, RowKind, UsageRow, UsageSource

_COLUMNS = [name for name in ROW if name not in ("day", "hour", "series")]
READ = ", ".join([*(f"usage_row.{name}" for name in _COLUMNS), *(f"series.{name}" for name in SERIES)])
"""The columns of a row with those of its series, which `read_row` expects after the row's number."""

PAGE_ROWS = 5_000

_WITHOUT_ASSISTANTS = f"""
PRAGMA query_only = FALSE;
PRAGMA temp_store = MEMORY;
CREATE TEMP VIEW usage_row AS SELECT *, NULL AS assistant FROM main.usage_row;
CREATE TEMP VIEW total_assistant_day AS
    SELECT day, '' AS assistant, series, {", ".join(MEASURES)} FROM main.total_day WHERE FALSE;
PRAGMA query_only = TRUE;
"""  # noqa: S608
"""Shows a ledger that release 0.2.0 wrote as one of this release, and changes nothing in its file."""


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
            if not has_assistants(self._database):
                self._database.executescript(_WITHOUT_ASSISTANTS)
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

    def sums(self, text: str, values: Sequence[object]) -> Iterator[LedgerLine]:
        """Yield the lines of a statement (`UsageQuery.sums`)."""
        with ledger_errors("read"):
            yield from lines_of(self._fetch(text, values))

    def rows(self, page_after: Callable[[tuple[int, int], int], tuple[str, Sequence[object]]]) -> Iterator[UsageRow]:
        """Yield the rows of a query (`UsageQuery.page`), oldest first.

        It reads a page at a time. A slow reader does not keep the writer from reusing the space of its log.
        """
        with ledger_errors("read"):
            newest = self._database.execute("SELECT COALESCE(MAX(number), 0) FROM usage_row").fetchone()[0]
            self._database.execute("COMMIT")
            after = (-1, 0)
            while True:
                page = self._fetch(*page_after(after, newest))
                yield from map(read_row, page)
                if len(page) < PAGE_ROWS:
                    return
                after = page[-1][2], page[-1][0]

    def _fetch(self, text: str, values: Sequence[object]) -> list[Sequence[Any]]:
        return self._database.execute(text, numbered(values)).fetchall()


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


def lines_of(found: Iterable[Sequence[Any]]) -> Iterator[LedgerLine]:
    """Yield the lines that a database found for `UsageQuery.sums`, without those that count nothing."""
    for values in found:
        *key, source, currency, vendor_currency = (str(text) if text else None for text in values[: -len(MEASURES)])
        if any(sums := values[-len(MEASURES) :]):
            yield LedgerLine(tuple(key), source, currency, vendor_currency, sums)


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
        _, call, time_ns, kind, request, user, territory, assistant, config_version, price_version, *tokens,
        vendor_amount, amount, rate, outcome, of, per, unit, changed,
    ) = values[: -len(SERIES)]  # fmt: skip
    series: dict[str, Any] = {name: value or None for name, value in zip(SERIES, values[-len(SERIES) :], strict=True)}
    source = series.pop("usage_source")
    return UsageRow(
        call=call, time_ns=time_ns, kind=RowKind(kind), request=request, user=user, territory=territory,
        assistant=assistant, config_version=config_version, price_version=price_version,
        **dict(zip(TOKENS, tokens, strict=True)), **series,
        usage_source=UsageSource(source) if source else None, vendor_amount_nano=vendor_amount, amount_nano=amount,
        rate=rate, outcome=CallOutcome(outcome) if outcome else None,
        budget=BudgetChange(of, per, unit, changed) if of else None,
    )  # fmt: skip
