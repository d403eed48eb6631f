"""The ledger of one machine: usage rows and their totals in SQLite, in the state directory.

Rows are inserted once by the id of their call. The same transaction adds them to the totals and stores how far each
spool file was read, so that a crash neither loses nor doubles a row. The statements that add rows to the totals are
those that rebuild them, limited to the new rows.

A *series* is a combination of client, project, region, provider, site, deployment, model, source and currencies. Rows
and totals refer to it by number, which keeps them small. Totals have a line for each hour and series, each day and
series, each day, end user and series, and each day, assistant and series. Release 0.2.0 records no assistants, and may
still write to the ledger. So calls without an assistant have no such line: a report takes what the lines of the day
count and those of assistants don't.

Hours and days are those of `usage.timezone` when a row is inserted. Deleting old rows keeps their totals. A rebuild
changes only days whose rows are all there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path

from gateway.operator_errors import StateError
from gateway.state.database import OpenedFile, describe_error, open_database, transaction
from gateway.undo import undone_on_failure
from gateway.usage.amounts import NANO
from gateway.usage.counter_sums import CounterSums
from gateway.usage.usage_row import TOKENS, CallOutcome, RowKind, UsageRow, UsageSource

NAME = "ledger"
VERSION = 1

SERIES = (
    "client", "project", "region", "provider", "site", "deployment", "model", "usage_source", "currency",
    "vendor_currency",
)  # fmt: skip
"""The columns of a series. They are fields of `UsageRow`, and empty, not NULL, where a row has none."""

MEASURES = (
    "calls", *TOKENS, "unpriced_calls", "unconverted_calls", "amount_whole", "amount_nano", "vendor_amount_whole",
    "vendor_amount_nano",
)  # fmt: skip
"""The sums of each line of the totals. Amounts are split into whole units and the rest, so that no sum overflows."""

TOTALS = {
    "total_hour": ("day", "hour", "series"),
    "total_day": ("day", "series"),
    "total_user_day": ("day", "end_user", "series"),
    "total_assistant_day": ("day", "assistant", "series"),
}
"""The tables of totals, with the columns that identify a line."""

CONDITIONS = {"total_assistant_day": "assistant <> ''"}
"""Which rows a table of totals counts, if not all."""

_SUMMED = ", ".join(MEASURES)
TOTALS_OF_ASSISTANTS = (
    f"(SELECT day, assistant, series, {_SUMMED} FROM total_assistant_day "  # noqa: S608
    f"UNION ALL SELECT day, '', series, {_SUMMED} FROM total_day "
    f"UNION ALL SELECT day, '', series, {', '.join(f'-{name}' for name in MEASURES)} FROM total_assistant_day)"
)
"""Lines of which the sums by day and assistant are those of all rows. The assistant is empty where rows have none."""

ROW = (
    "call_id", "time_ns", "day", "hour", "series", "kind", "request_id", "end_user", "territory", "assistant",
    "config_version", "price_version", *TOKENS, "vendor_amount_nano", "amount_nano", "rate", "outcome", "budget_of",
    "budget_per", "budget_unit", "budget_amount",
)  # fmt: skip
"""The columns of `usage_row`, except its number."""

_LAYOUT = f"""
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY, {", ".join(f"{name} TEXT NOT NULL" for name in SERIES)}, UNIQUE ({", ".join(SERIES)})
);
CREATE TABLE IF NOT EXISTS usage_row (
    number INTEGER PRIMARY KEY, call_id TEXT NOT NULL UNIQUE, time_ns BIGINT NOT NULL, day TEXT NOT NULL,
    hour TEXT NOT NULL, series BIGINT NOT NULL, kind TEXT NOT NULL, request_id TEXT, end_user TEXT, territory TEXT,
    assistant TEXT, config_version TEXT, price_version TEXT, {", ".join(f"{name} BIGINT NOT NULL" for name in TOKENS)},
    vendor_amount_nano BIGINT, amount_nano BIGINT, rate TEXT, outcome TEXT, budget_of TEXT, budget_per TEXT,
    budget_unit TEXT, budget_amount BIGINT
);
CREATE INDEX IF NOT EXISTS usage_row_of_time ON usage_row (time_ns);
CREATE TABLE IF NOT EXISTS spool_position (file TEXT NOT NULL PRIMARY KEY, position BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger_fact (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
""" + "".join(
    f"CREATE TABLE IF NOT EXISTS {table} "
    f"({', '.join(f'{name} BIGINT NOT NULL' if name == 'series' else f'{name} TEXT NOT NULL' for name in key)}, "
    f"{', '.join(f'{name} BIGINT NOT NULL' for name in MEASURES)}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID;\n"
    for table, key in TOTALS.items()
)

_INSERT = (
    f"INSERT INTO usage_row ({', '.join(ROW)}) VALUES ({', '.join('?' * len(ROW))}) "  # noqa: S608
    "ON CONFLICT (call_id) DO NOTHING"
)
INSERT_SERIES = (
    f"INSERT INTO series ({', '.join(SERIES)}) VALUES ({', '.join(f'${n}' for n in range(1, len(SERIES) + 1))}) "  # noqa: S608
    f"ON CONFLICT ({', '.join(SERIES)}) DO NOTHING"
)
FIND_SERIES = f"SELECT number FROM series WHERE {' AND '.join(f'{name} = ${n}' for n, name in enumerate(SERIES, 1))}"  # noqa: S608
FIND_FACT = "SELECT value FROM ledger_fact WHERE name = $1"
STORE_FACT = (
    "INSERT INTO ledger_fact (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)

SUMS = {
    "calls": "SUM(CASE kind WHEN 'usage' THEN 1 ELSE 0 END)",
    **{name: f"SUM({name})" for name in TOKENS},
    "unpriced_calls": "SUM(CASE WHEN vendor_amount_nano IS NULL THEN 1 ELSE 0 END)",
    "unconverted_calls": "SUM(CASE WHEN amount_nano IS NULL AND vendor_amount_nano IS NOT NULL THEN 1 ELSE 0 END)",
    "amount_whole": f"SUM(COALESCE(amount_nano, 0) / {NANO})",
    "amount_nano": f"SUM(COALESCE(amount_nano, 0) % {NANO})",
    "vendor_amount_whole": f"SUM(COALESCE(vendor_amount_nano, 0) / {NANO})",
    "vendor_amount_nano": f"SUM(COALESCE(vendor_amount_nano, 0) % {NANO})",
}


_GROUP = ("day", "hour", "end_user", "assistant", "series")
_LAYOUT_OF_SUMS = f"PRAGMA temp_store = MEMORY; CREATE TEMP TABLE new_sums ({', '.join(_GROUP)}, {', '.join(MEASURES)})"
"""Rows are summed up once, in memory, and the few sums are added to each table of totals."""


def _sum_rows(condition: str) -> str:
    """Return the statement that sums up the rows of a condition."""
    sums = ", ".join(SUMS[name] for name in MEASURES)
    return (
        f"INSERT INTO new_sums SELECT day, hour, COALESCE(end_user, ''), COALESCE(assistant, ''), series, {sums} "  # noqa: S608
        f"FROM usage_row WHERE kind IN ('usage', 'unattributed') AND {condition} GROUP BY 1, 2, 3, 4, 5"
    )


def _add_totals(table: str) -> str:
    """Return the statement that adds the new sums to a table of totals."""
    key = ", ".join(TOTALS[table])
    sums = ", ".join(f"SUM({name}) AS {name}" for name in MEASURES)
    updates = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in MEASURES)
    return (
        f"INSERT INTO {table} ({key}, {', '.join(MEASURES)}) SELECT {key}, {sums} FROM new_sums "  # noqa: S608
        f"WHERE {CONDITIONS.get(table, 'TRUE')} GROUP BY {key} ON CONFLICT ({key}) DO UPDATE SET {updates}"
    )


def remove_callers(of_regions: str) -> tuple[str, ...]:
    """Return the statements that remove territory and end user from rows and totals, limited by a condition."""
    sums = ", ".join(f"SUM({name})" for name in MEASURES)
    updates = ", ".join(f"{name} = total_user_day.{name} + excluded.{name}" for name in MEASURES)
    return (
        "UPDATE usage_row SET end_user = NULL, territory = NULL "  # noqa: S608
        f"WHERE {of_regions} AND (end_user IS NOT NULL OR territory IS NOT NULL)",
        f"INSERT INTO total_user_day (day, end_user, series, {', '.join(MEASURES)}) "  # noqa: S608
        f"SELECT day, '', series, {sums} FROM total_user_day WHERE {of_regions} AND end_user <> '' "
        f"GROUP BY day, series ON CONFLICT (day, end_user, series) DO UPDATE SET {updates}",
        f"DELETE FROM total_user_day WHERE {of_regions} AND end_user <> ''",  # noqa: S608
    )


_SUM_NEW_ROWS, _SUM_DAY = _sum_rows("number > ?"), _sum_rows("day = ?")
_ADD_TOTALS = tuple(map(_add_totals, TOTALS))

_REMOVE_CALLERS = remove_callers(
    "series IN (SELECT number FROM series WHERE region IN (SELECT value FROM json_each(?)))"
)

WITHOUT_CALLERS = "regions_without_callers"
DELETED_THROUGH = "rows_deleted_through_day"
TIMEZONE = "timezone"
_DELETED_AT_ONCE = 5_000
_QUARTER_NS = 900 * NANO
_MOST_KNOWN_SERIES = 100_000
# SQLite's driver takes several microseconds for a value of a subclass of `str`.
_TEXTS: dict[str | None, str | None] = {one: one.value for kind in (RowKind, UsageSource, CallOutcome) for one in kind}
_TEXTS[None] = None


class LocalTime:
    """Returns the hour and the day of a time in a time zone. Offsets of zones are multiples of a quarter of an hour."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._known: dict[int, tuple[str, str]] = {}

    def hour_and_day(self, time_ns: int) -> tuple[str, str]:
        """Return the start of the hour with its offset (`2026-11-20T12:00+01:00`), and the day (`2026-11-20`)."""
        quarter = time_ns // _QUARTER_NS
        found = self._known.get(quarter)
        if found is None:
            if len(self._known) > 1000:
                self._known.clear()
            local = datetime.fromtimestamp(time_ns // NANO, self.zone).replace(minute=0, second=0)
            found = self._known[quarter] = local.isoformat(timespec="minutes"), local.date().isoformat()
        return found


class Ledger:
    """The ledger, open for writing. Methods raise StateError. One process writes, and any number read.

    Args:
        directory: The state directory.
        zone: Returns the time zone of hours and days (`usage.timezone`).
    """

    def __init__(self, directory: Path, zone: Callable[[], tzinfo]) -> None:
        self._zone = zone
        self._local_time = LocalTime(zone())
        self._series: dict[tuple[str, ...], int] = {}
        # A commit survives a power failure, because the spool file with the rows may be deleted after it.
        self._database = open_database(directory, NAME, _LAYOUT, version=VERSION, durable=True)
        with undone_on_failure(self._database.close):
            self._file = OpenedFile(directory / f"{NAME}.db")
            with ledger_errors("written"):
                self._database.executescript(_LAYOUT_OF_SUMS)
                with transaction(self._database):
                    if not has_assistants(self._database):
                        self._database.execute("ALTER TABLE usage_row ADD COLUMN assistant TEXT")
                    self._store_fact(TIMEZONE, str(self._local_time.zone))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def check(self) -> None:
        """Raise StateError if the file was moved or removed, so that later processes would not find its rows."""
        self._file.check_path()

    def positions(self) -> dict[str, int]:
        """Return how far each spool file was read."""
        with ledger_errors("read"):
            return dict(self._database.execute("SELECT file, position FROM spool_position"))

    def insert(self, rows: Sequence[UsageRow], positions: Mapping[str, int] | None = None) -> int:
        """Insert the rows whose calls have none yet, add them to the totals, and store positions of spool files.

        Returns:
            The number of inserted rows. The others were in the ledger already.
        """
        database = self._database
        # Numbers that were not committed are forgotten.
        with undone_on_failure(self._series.clear), ledger_errors("written"), transaction(database):
            self._follow_zone()
            values = [row_values(row, self._local_time, self._series_of(row)) for row in rows]
            before = database.execute("SELECT COALESCE(MAX(number), 0) FROM usage_row").fetchone()[0]
            inserted = database.executemany(_INSERT, values).rowcount if rows else 0
            if inserted:
                self._add(_SUM_NEW_ROWS, before)
            database.executemany(
                "INSERT INTO spool_position (file, position) VALUES (?, ?) "
                "ON CONFLICT (file) DO UPDATE SET position = excluded.position",
                list((positions or {}).items()),
            )
        return inserted

    def forget_positions(self, names: Iterable[str]) -> None:
        """Delete the positions of spool files that were deleted."""
        with ledger_errors("written"), transaction(self._database):
            self._database.executemany("DELETE FROM spool_position WHERE file = ?", [(name,) for name in names])

    def delete_rows(self, before_ns: int) -> int:
        """Delete rows of earlier calls, a limited number at a time. Their totals stay, and so do changes of budgets.

        Returns:
            The number of deleted rows. Call it again until it is 0.
        """
        reported = "kind IN ('usage', 'unattributed')"
        chosen = f"SELECT number FROM usage_row WHERE time_ns < ? AND {reported} ORDER BY time_ns LIMIT ?"  # noqa: S608
        limits = (before_ns, _DELETED_AT_ONCE)
        with ledger_errors("written"), transaction(self._database):
            last = self._database.execute(
                f"SELECT MAX(day) FROM usage_row WHERE number IN ({chosen})",  # noqa: S608
                limits,
            ).fetchone()[0]
            if last is None:
                return 0
            deleted = self._database.execute(f"DELETE FROM usage_row WHERE number IN ({chosen})", limits)  # noqa: S608
            self._store_fact(DELETED_THROUGH, max(last, fact(self._database, DELETED_THROUGH) or ""))
            return deleted.rowcount

    def sum_up(self, sums: CounterSums) -> None:
        """Sum up what the counters of open windows must show."""
        with ledger_errors("read"):
            for statement in sums.statements():
                statement.add(self._database.execute(statement.text, numbered(statement.values)))

    def remove_callers(self, regions: frozenset[str]) -> None:
        """Remove territory and end user from the rows and totals of these regions, also from free space of the file.

        It does so once for each region, because it reads all rows.
        """
        cleaned = json.dumps(sorted(regions))
        with ledger_errors("written"):
            stored = fact(self._database, WITHOUT_CALLERS) or "[]"
            if stored == cleaned:
                return
            if regions - set(json.loads(stored)):
                with transaction(self._database):
                    changed = sum(self._database.execute(one, (cleaned,)).rowcount for one in _REMOVE_CALLERS)
                if changed:
                    self._database.execute("VACUUM")
                    self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with transaction(self._database):
                self._store_fact(WITHOUT_CALLERS, cleaned)

    def rebuild_totals(self) -> None:
        """Compute the totals again from the rows, for the days of which no row was deleted."""
        with ledger_errors("written"), transaction(self._database):
            since = fact(self._database, DELETED_THROUGH) or ""
            for table in TOTALS:
                self._database.execute(f"DELETE FROM {table} WHERE day > ?", (since,))  # noqa: S608
            days = self._database.execute("SELECT DISTINCT day FROM usage_row WHERE day > ?", (since,)).fetchall()
            for (day,) in days:
                self._add(_SUM_DAY, day)

    def _add(self, sum_rows: str, chosen: object) -> None:
        """Add the rows that a statement chooses to the totals."""
        self._database.execute(sum_rows, (chosen,))
        for add in _ADD_TOTALS:
            self._database.execute(add)
        self._database.execute("DELETE FROM new_sums")

    def _follow_zone(self) -> None:
        zone = self._zone()
        if zone is not self._local_time.zone:
            self._local_time = LocalTime(zone)
            self._store_fact(TIMEZONE, str(zone))

    def _store_fact(self, name: str, value: str) -> None:
        self._database.execute(STORE_FACT, numbered((name, value)))

    def _series_of(self, row: UsageRow) -> int:
        """Return the number of the row's series, which is inserted if it is new."""
        values = series_values(row)
        number = self._series.get(values)
        if number is None:
            if len(self._series) >= _MOST_KNOWN_SERIES:
                self._series.clear()
            given = numbered(values)
            self._database.execute(INSERT_SERIES, given)
            number = self._series[values] = int(self._database.execute(FIND_SERIES, given).fetchone()[0])
        return number


def row_values(row: UsageRow, local_time: LocalTime, series: int) -> tuple[object, ...]:
    """Return the values of `ROW`."""
    hour, day = local_time.hour_and_day(row.time_ns)
    change = row.budget
    return (
        row.call, row.time_ns, day, hour, series, _TEXTS[row.kind], row.request, row.user, row.territory, row.assistant,
        row.config_version, row.price_version, row.input_tokens, row.cached_tokens, row.cache_write_tokens,
        row.output_tokens, row.reasoning_tokens, row.vendor_amount_nano, row.amount_nano, row.rate, _TEXTS[row.outcome],
        *((change.of, change.per, change.unit, change.amount) if change is not None else (None,) * 4),
    )  # fmt: skip


def series_values(row: UsageRow) -> tuple[str, ...]:
    """Return the values of `SERIES`."""
    return (
        row.client or "", row.project or "", row.region or "", row.provider or "", row.site or "", row.deployment or "",
        row.model or "", _TEXTS[row.usage_source] or "", row.currency or "", row.vendor_currency or "",
    )  # fmt: skip


def numbered(values: Sequence[object]) -> dict[str, object]:
    """Return values for a statement with `$1`, `$2` and so on, which both databases understand."""
    return {str(number): value for number, value in enumerate(values, 1)}


def has_assistants(database: sqlite3.Connection) -> bool:
    """Return whether the rows of the ledger have a column for the assistant. Those of release 0.2.0 have none."""
    return bool(database.execute("SELECT 1 FROM pragma_table_info('usage_row') WHERE name = 'assistant'").fetchone())


def fact(database: sqlite3.Connection, name: str) -> str | None:
    found = database.execute(FIND_FACT, numbered((name,))).fetchone()
    return None if found is None else str(found[0])


@contextmanager
def ledger_errors(done: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateError(f"{NAME}.db can't be {done}: {describe_error(error)}") from error
