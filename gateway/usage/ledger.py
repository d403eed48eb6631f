"""The ledger: usage rows and their totals, in SQLite in the state directory, or in the PostgreSQL of a cell.

Rows are inserted once by the id of their call, and the same transaction adds them to the totals. So a row that is taken
from the journal twice, because of a crash in between, counts once.

A *series* is a combination of client, project, region, provider, site, deployment, model, source and currencies. Rows
and totals refer to it by number, which keeps them small. Totals have a line for each hour and series, each day and
series, each day, end user and series, and each day, assistant and series. Calls without an assistant, such as those
that release 0.2 recorded, have no such line: a report subtracts the lines of assistants from the lines of the day.

Hours and days follow `usage.timezone` at the moment when a row is inserted. Deleting old rows keeps their totals.

The erasure of an end user leaves the fact `erased`, with a digest and no name, for 30 days: a row of a call that ran at
that time, or that waited on another instance, is inserted without the caller.

In a cell, a call whose process was silent has a row with the outcome `lost`, which another instance wrote. If the row
that the process itself wrote arrives later, it takes the place of that row.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.files import path_exists
from gateway.model.config_version import ConfigVersion
from gateway.model.kept_metadata import StoredRequest
from gateway.state.database import Database, SqliteDatabase, Statements, has_table, open_large_to_read, sqlite_error
from gateway.state.former_release import refuse_former_rows
from gateway.undo import undone_on_failure
from gateway.usage import duty_counts
from gateway.usage.amounts import NANO
from gateway.usage.counter_sums import counter_sums
from gateway.usage.gate import Counter
from gateway.usage.quota_sums import quota_sums
from gateway.usage.quotas import QuotaLimit
from gateway.usage.usage_row import TOKENS, BudgetChange, CallOutcome, RowKind, UsageRow, UsageSource
from gateway.usage.windows import AllBounds
from providers.value import Value

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

_SUMMED = ", ".join(MEASURES)
TOTALS_OF_ASSISTANTS = (
    f"(SELECT day, assistant, series, {_SUMMED} FROM total_assistant_day "  # noqa: S608
    f"UNION ALL SELECT day, '', series, {_SUMMED} FROM total_day "
    f"UNION ALL SELECT day, '', series, {', '.join(f'-{name}' for name in MEASURES)} FROM total_assistant_day)"
)
"""Lines whose sums by day and assistant count all rows. The assistant is empty for rows without one."""

AUDIO = ("audio_ms", "characters")
"""The sums that only lines of rows have."""

LINES_OF_ROWS = (
    "(SELECT day, hour, end_user, territory, assistant, processes, series, 1 AS calls, "  # noqa: S608
    "CASE SUBSTR(budget_unit, 1, 6) WHEN 'transc' THEN 'transcription' WHEN 'speech' THEN 'speech' "
    "ELSE COALESCE(budget_unit, '') END AS use, CASE SUBSTR(budget_unit, 1, 14) "
    "WHEN 'transcription ' THEN CAST(SUBSTR(budget_unit, 15) AS BIGINT) ELSE 0 END AS audio_ms, "
    "CASE SUBSTR(budget_unit, 1, 7) WHEN 'speech ' THEN CAST(SUBSTR(budget_unit, 8) AS BIGINT) ELSE 0 END "
    "AS characters, "
    f"{', '.join(TOKENS)}, CASE WHEN vendor_amount_nano IS NULL THEN 1 ELSE 0 END AS unpriced_calls, "
    "CASE WHEN amount_nano IS NULL AND vendor_amount_nano IS NOT NULL THEN 1 ELSE 0 END AS unconverted_calls, "
    f"COALESCE(amount_nano, 0) / {NANO} AS amount_whole, COALESCE(amount_nano, 0) % {NANO} AS amount_nano, "
    f"COALESCE(vendor_amount_nano, 0) / {NANO} AS vendor_amount_whole, "
    f"COALESCE(vendor_amount_nano, 0) % {NANO} AS vendor_amount_nano FROM usage_row WHERE kind = 'usage')"
)
"""A line for each row of a call, as `sums_of` has it. A report reads them where no totals have its dimensions."""

ROW = (
    "call_id", "time_ns", "day", "hour", "series", "kind", "request_id", "end_user", "territory", "assistant",
    "processes", "config_version", "price_version", *TOKENS, "vendor_amount_nano", "amount_nano", "rate", "outcome",
    "budget_of", "budget_per", "budget_unit", "budget_amount",
)  # fmt: skip
"""The columns of `usage_row`, except its number. `budget_amount` of a call is its `reported_input_tokens`, and
`budget_unit` its use, with the milliseconds or characters of audio (`chat`, `transcription 1500`, `speech 12`): a call
changes no budget, and a release that does not know this reads the row all the same."""

_LAYOUT = f"""
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY, {", ".join(f"{name} TEXT NOT NULL" for name in SERIES)}, UNIQUE ({", ".join(SERIES)})
);
CREATE TABLE IF NOT EXISTS usage_row (
    number INTEGER PRIMARY KEY, call_id TEXT NOT NULL UNIQUE, time_ns BIGINT NOT NULL, day TEXT NOT NULL,
    hour TEXT NOT NULL, series BIGINT NOT NULL, kind TEXT NOT NULL, request_id TEXT, end_user TEXT, territory TEXT,
    assistant TEXT, processes TEXT, config_version TEXT, price_version TEXT,
    {", ".join(f"{name} BIGINT NOT NULL" for name in TOKENS)}, vendor_amount_nano BIGINT, amount_nano BIGINT,
    rate TEXT, outcome TEXT, budget_of TEXT, budget_per TEXT, budget_unit TEXT, budget_amount BIGINT
);
CREATE INDEX IF NOT EXISTS usage_row_of_time ON usage_row (time_ns);
CREATE TABLE IF NOT EXISTS ledger_fact (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL);
{duty_counts.LAYOUT};
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
_INSERT_SERIES = (
    f"INSERT INTO series ({', '.join(SERIES)}) VALUES ({', '.join('?' * len(SERIES))}) "  # noqa: S608
    f"ON CONFLICT ({', '.join(SERIES)}) DO NOTHING"
)
_FIND_SERIES = f"SELECT number FROM series WHERE {' AND '.join(f'{name} = ?' for name in SERIES)}"  # noqa: S608
_COLUMNS = [name for name in ROW if name not in ("day", "hour", "series")]
READ = ", ".join([*(f"usage_row.{name}" for name in _COLUMNS), *(f"series.{name}" for name in SERIES)])
"""The columns of a row and of its series, which `read_row` expects after the row's number."""

_IS_CALL = "kind = 'usage'"
_LOCK = 0x67617465_6C656401
"""The lock of a transaction that adds rows: one process at a time, so that totals never deadlock."""
_WITHOUT_CALLERS = "regions_without_callers"
_ERASED = "erased"
_FIND_ERASED = f"SELECT name FROM ledger_fact WHERE name LIKE '{_ERASED} %'"  # noqa: S608
_ERASED_KEPT_NS = 30 * 86_400 * NANO
DELETED_THROUGH = "rows_deleted_through_day"
TIMEZONE = "timezone"
HAS_AUDIO = "has_audio"
_DELETED_AT_ONCE = 5_000
_MOST_VALUES = 500
_QUARTER_NS = 900 * NANO
_MOST_KNOWN_SERIES = 100_000
# SQLite's driver takes several microseconds for a value of a subclass of `str`.
_TEXTS: dict[str | None, str | None] = {one: one.value for kind in (RowKind, UsageSource, CallOutcome) for one in kind}


def _upsert(table: str) -> str:
    """Return the statement that adds sums to a line of totals."""
    columns = [*TOTALS[table], *MEASURES]
    updates = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in MEASURES)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(TOTALS[table])}) DO UPDATE SET {updates}"
    )


_UPSERT = {table: _upsert(table) for table in TOTALS}


def _places(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


class Person(Value, frozen=True):
    """An end user of a client, or of all clients, by the pseudonyms that each key may have made."""

    pseudonyms: tuple[str, ...]
    client: str | None = None

    def is_of(self, row: UsageRow) -> bool:
        """Return whether a row names this end user."""
        return row.user in self.pseudonyms and self.client in (None, row.client)

    def where(self) -> tuple[str, list[object]]:
        """Return the condition for rows and totals of this end user, and its values."""
        where, values = f"end_user IN ({_places(self.pseudonyms)})", [*self.pseudonyms]
        if self.client is None:
            return where, [*values]
        return f"{where} AND series IN (SELECT number FROM series WHERE client = ?)", [*values, self.client]  # noqa: S608


def _erased_name(pseudonym: str, client: str | None) -> str:
    """Return what an erasure keeps of a person."""
    return hashlib.sha256(f"{pseudonym}\0{client or ''}".encode()).hexdigest()


def remove_caller(row: UsageRow) -> None:
    """Remove request, territory and end user from a row."""
    row.request = row.user = row.territory = None


def _remove_callers(chosen: str) -> tuple[str, ...]:
    """Return the statements that remove request, territory and end user from chosen rows and totals."""
    sums = ", ".join(f"SUM({name})" for name in MEASURES)
    updates = ", ".join(f"{name} = total_user_day.{name} + excluded.{name}" for name in MEASURES)
    return (
        "UPDATE usage_row SET request_id = NULL, end_user = NULL, territory = NULL "  # noqa: S608
        f"WHERE {chosen} AND COALESCE(request_id, end_user, territory) IS NOT NULL",
        f"INSERT INTO total_user_day (day, end_user, series, {', '.join(MEASURES)}) "  # noqa: S608
        f"SELECT day, '', series, {sums} FROM total_user_day WHERE {chosen} AND end_user <> '' "
        f"GROUP BY day, series ON CONFLICT (day, end_user, series) DO UPDATE SET {updates}",
        f"DELETE FROM total_user_day WHERE {chosen} AND end_user <> ''",  # noqa: S608
    )


_TEXTS[None] = None
_Key = TypeVar("_Key")


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


class _Totals:
    """The sums by which rows change the totals. Each line is written once."""

    def __init__(self) -> None:
        # By hour, day, series, end user and assistant, which are the same for many rows.
        self._sums: dict[tuple[str, str, int, str | None, str | None], Sequence[int]] = {}

    def add(self, row: UsageRow, hour: str, day: str, series: int, sign: int = 1) -> None:
        """Add a row, or remove it with the sign -1."""
        if row.kind is not RowKind.USAGE:
            return
        sums = sums_of(row) if sign == 1 else [sign * number for number in sums_of(row)]
        _add(self._sums, (hour, day, series, row.user, row.assistant), sums)

    def write(self, statements: Statements) -> None:
        """Add the sums to the tables."""
        lines: dict[str, dict[tuple[object, ...], Sequence[int]]] = {table: {} for table in TOTALS}
        for (hour, day, series, user, assistant), sums in self._sums.items():
            _add(lines["total_hour"], (day, hour, series), sums)
            _add(lines["total_day"], (day, series), sums)
            _add(lines["total_user_day"], (day, user or "", series), sums)
            if assistant:
                _add(lines["total_assistant_day"], (day, assistant, series), sums)
        for table, of_table in lines.items():
            if of_table:
                statements.executemany(_UPSERT[table], [(*key, *sums) for key, sums in of_table.items()])


def _add(lines: dict[_Key, Sequence[int]], key: _Key, sums: Sequence[int]) -> None:
    line = lines.get(key)
    lines[key] = sums if line is None else [*map(add, line, sums)]


class Ledger:
    """The ledger, open for writing. Methods raise StateError. One process of a state directory writes.

    A shared database is connected when it is first used. `zone` returns the time zone of hours and days.
    """

    def __init__(self, database: Database, zone: Callable[[], tzinfo], instance: str = "") -> None:
        self.database = database
        self._zone = zone
        self._instance = instance
        self._local_time = LocalTime(zone())
        self._zone_is_stored = False
        self._series: dict[tuple[str, ...], int] = {}

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def connect(self) -> None:
        """Raise StateError if the ledger can't be used."""
        with self._changing() as statements:
            fact(statements, TIMEZONE)

    def insert(self, rows: Sequence[UsageRow]) -> int:
        """Insert the rows whose calls have none yet, add them to the totals, and return their number."""
        with self._changing() as statements:
            zone = self._zone()
            if zone is not self._local_time.zone or not self._zone_is_stored:
                self._local_time = LocalTime(zone)
                _store_fact(statements, TIMEZONE, str(zone))
                self._zone_is_stored = True
            self._remove_erased(statements, rows)
            if self.database.is_shared:
                self._remove_lost(statements, [row.call for row in rows if row.outcome is not CallOutcome.LOST])
            if any(row.audio_ms or row.characters for row in rows):
                _store_fact(statements, HAS_AUDIO, "1")
            before = _last_number(statements)
            lines = [
                (row, *self._local_time.hour_and_day(row.time_ns), self._series_of(statements, row)) for row in rows
            ]
            statements.executemany(_INSERT, [_row_values(*line) for line in lines])
            found = statements.execute("SELECT call_id FROM usage_row WHERE number > ?", (before,)).fetchall()
            new, totals = {call for (call,) in found}, _Totals()
            for row, hour, day, series in lines:
                if row.call in new:
                    new.remove(row.call)
                    totals.add(row, hour, day, series)
            totals.write(statements)
        return len(found)

    def keep_duties(self, counts: duty_counts.SourceCounts) -> None:
        """Write the counts of duties of a journal."""
        with self._changing() as statements:
            duty_counts.keep_counts(statements, counts)

    def duties(self) -> list[duty_counts.SourceCounts]:
        """Return the counts of duties of all journals."""
        with self._changing() as statements:
            return duty_counts.kept_counts(statements)

    def delete_rows(self, before_ns: int) -> int:
        """Delete rows of earlier calls, a limited number at a time, and return their number. Call it until it is 0.

        Their totals stay, and so do changes of budgets.
        """
        chosen = f"SELECT number FROM usage_row WHERE time_ns < ? AND {_IS_CALL} ORDER BY time_ns LIMIT ?"  # noqa: S608
        limits = (before_ns, _DELETED_AT_ONCE)
        with self._changing() as statements:
            found = statements.execute(f"SELECT MAX(day) FROM usage_row WHERE number IN ({chosen})", limits)  # noqa: S608
            last = found.fetchone()[0]
            if last is None:
                return 0
            deleted = statements.execute(f"DELETE FROM usage_row WHERE number IN ({chosen})", limits)  # noqa: S608
            _store_fact(statements, DELETED_THROUGH, max(last, fact(statements, DELETED_THROUGH) or ""))
            return deleted.rowcount

    def sum_up(
        self, windows: AllBounds, config: ConfigVersion | None = None, now_ns: int = 0
    ) -> tuple[int, list[tuple[Counter | QuotaLimit, int, int]]]:
        """Return the number of the last row, and what the counters of open windows must show.

        They are those of budgets (`counter_sums`), and of the quotas of a config version now (`quota_sums`).
        """
        with self._changing() as statements:
            sums: list[tuple[Counter | QuotaLimit, int, int]] = [*counter_sums(statements, windows, self._zone())]
            if config is not None:
                sums += quota_sums(statements, config, now_ns, self._zone())
            return _last_number(statements), sums

    def remove_callers(self, regions: frozenset[str]) -> None:
        """Remove request, territory and end user from rows and totals of these regions, also from free space of a file.

        It does so once for each region, and instance: others may still run an earlier version that writes them.
        """
        name = f"{_WITHOUT_CALLERS} {self._instance}".rstrip()
        changed = 0
        with self._changing() as statements:
            cleaned, stored = json.dumps(sorted(regions)), fact(statements, name) or "[]"
            if regions - set(json.loads(stored)):
                chosen = f"series IN (SELECT number FROM series WHERE region IN ({_places(regions)}))"  # noqa: S608
                changed = sum(statements.execute(one, sorted(regions)).rowcount for one in _remove_callers(chosen))
            if stored != cleaned:
                _store_fact(statements, name, cleaned)
        if changed and isinstance(self.database, SqliteDatabase):
            self.database.compact()

    def erase(self, person: Person, at_ns: int, requests: Collection[StoredRequest]) -> tuple[int, int]:
        """Remove request, territory and end user from the rows and totals of a person, also from free space of a file.

        Rows of calls that were admitted until `at_ns` and arrive later lose their caller too. Other instances remove
        the requests from their own stores (`erasures`). Returns the numbers of changed rows and of lines of totals.
        """
        where, values = person.where()
        asked = json.dumps([list(msgspec.structs.astuple(one)) for one in requests] if self.database.is_shared else [])
        with self._changing() as statements:
            for pseudonym in person.pseudonyms:
                _store_fact(statements, f"{_ERASED} {at_ns} {_erased_name(pseudonym, person.client)}", asked)
                asked = "[]"
            ids = list({one.request for one in requests})
            for start in range(0, len(ids), _MOST_VALUES):
                some = ids[start : start + _MOST_VALUES]
                # Calls that no client asked for, such as those of a shadow, have no end user.
                statements.execute(
                    f"UPDATE usage_row SET request_id = NULL, territory = NULL WHERE request_id IN ({_places(some)}) "  # noqa: S608
                    "AND end_user IS NULL AND series IN (SELECT number FROM series WHERE client = '')",
                    some,
                )
            rows, _, totals = (statements.execute(one, values).rowcount for one in _remove_callers(where))
        if isinstance(self.database, SqliteDatabase):
            self.database.compact()
        return rows, totals

    def erasures(self, known: Collection[str]) -> Iterator[tuple[str, list[StoredRequest]]]:
        """Yield the name of each erasure of the last 30 days that is not known, and the requests of the person."""
        with self._changing() as statements:
            names = [name for name in _erasures(statements) if name not in known]
            found = [(name, json.loads(fact(statements, name) or "[]")) for name in names]
        for name, requests in found:
            yield name, [StoredRequest(*one) for one in requests]

    @staticmethod
    def _remove_erased(statements: Statements, rows: Sequence[UsageRow]) -> None:
        """Remove the callers of rows that an erasure concerns."""
        if not any(row.user for row in rows) or not (names := _erasures(statements)):
            return
        erased: dict[str, int] = {}
        for name in names:
            _, at_ns, digest = name.split(" ")
            erased[digest] = max(int(at_ns), erased.get(digest, 0))
        for row in rows:
            if row.user and any(
                row.time_ns <= erased.get(_erased_name(row.user, client), -1) for client in (None, row.client)
            ):
                remove_caller(row)

    @contextmanager
    def _changing(self) -> Iterator[Statements]:
        # After a failure, nothing of the transaction is remembered.
        with undone_on_failure(self._forget), self.database.transaction(lock=_LOCK) as statements:
            yield statements

    def _forget(self) -> None:
        self._series.clear()
        self._zone_is_stored = False

    @staticmethod
    def _remove_lost(statements: Statements, calls: list[str]) -> None:
        if not calls:
            return
        found = statements.execute(
            f"SELECT hour, day, usage_row.series, usage_row.number, {READ} FROM usage_row "  # noqa: S608
            "JOIN series ON series.number = usage_row.series "
            f"WHERE outcome = 'lost' AND call_id IN ({', '.join('?' * len(calls))})",
            calls,
        ).fetchall()
        totals = _Totals()
        for hour, day, series, *values in found:
            totals.add(read_row(values), hour, day, series, sign=-1)
            statements.execute("DELETE FROM usage_row WHERE number = ?", (values[0],))
        totals.write(statements)

    def _series_of(self, statements: Statements, row: UsageRow) -> int:
        """Return the number of the row's series, which is inserted if it is new."""
        values = series_values(row)
        number = self._series.get(values)
        if number is None:
            if len(self._series) >= _MOST_KNOWN_SERIES:
                self._series.clear()
            if (found := statements.execute(_FIND_SERIES, values).fetchone()) is None:
                statements.execute(_INSERT_SERIES, values)
                found = statements.execute(_FIND_SERIES, values).fetchone()
            number = self._series[values] = int(found[0])
        return number


def ledger_file(directory: Path) -> SqliteDatabase:
    """Open the ledger of a state directory for writing. Raises StateError."""
    # A commit survives a power failure, because the rows are removed from the journal after it.
    database = SqliteDatabase.open(directory, NAME, _LAYOUT, version=VERSION, durable=True)
    with undone_on_failure(database.close):
        refuse_former_rows(database.connection, directory / f"{NAME}.db")
    return database


def regions_of(database: Database) -> frozenset[str]:
    """Return the region of each series, empty for none."""
    with database.transaction(reads_only=True) as statements:
        return frozenset(name for (name,) in statements.execute("SELECT DISTINCT region FROM series").fetchall())


def rows_from(database: Database, number: int, most: int) -> list[tuple[int, UsageRow]]:
    """Return the rows with a higher number, each with its number, at most so many."""
    text = (
        f"SELECT usage_row.number, {READ} FROM usage_row JOIN series ON series.number = usage_row.series "  # noqa: S608
        "WHERE usage_row.number > ? ORDER BY usage_row.number LIMIT ?"
    )
    with database.transaction(reads_only=True) as statements:
        return [(values[0], read_row(values)) for values in statements.execute(text, (number, most)).fetchall()]


def ledger_to_read(directory: Path) -> SqliteDatabase:
    """Open the ledger of a state directory for reading. Without a file, or with an empty one, it is empty."""
    if not path_exists(directory / f"{NAME}.db"):
        return SqliteDatabase(_empty_ledger(), NAME)
    database = SqliteDatabase(open_large_to_read(directory, NAME, version=VERSION), NAME)
    with undone_on_failure(database.close), sqlite_error(f"{NAME}.db can't be read"):
        if not has_table(database.connection, "ledger_fact"):
            database.close()
            return SqliteDatabase(_empty_ledger(), NAME)
        refuse_former_rows(database.connection, directory / f"{NAME}.db")
    return database


def _empty_ledger() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.executescript(_LAYOUT)
    return connection


def _last_number(statements: Statements) -> int:
    found: int = statements.execute("SELECT COALESCE(MAX(number), 0) FROM usage_row").fetchone()[0]
    return found


def has_call(statements: Statements, call: str) -> bool:
    """Return whether the ledger has a row of this call."""
    return statements.execute("SELECT 1 FROM usage_row WHERE call_id = ?", (call,)).fetchone() is not None


def fact(statements: Statements, name: str) -> str | None:
    """Return a fact about the ledger."""
    found = statements.execute("SELECT value FROM ledger_fact WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def _erasures(statements: Statements) -> list[str]:
    """Return the names of the erasures of the last 30 days. Earlier ones are removed."""
    oldest_ns = time.time_ns() - _ERASED_KEPT_NS
    names = [name for (name,) in statements.execute(_FIND_ERASED).fetchall()]
    old = [name for name in names if int(name.split(" ")[1]) < oldest_ns]
    for name in old:
        statements.execute("DELETE FROM ledger_fact WHERE name = ?", (name,))
    return [name for name in names if name not in old]


def _store_fact(statements: Statements, name: str, value: str) -> None:
    sql = "INSERT INTO ledger_fact (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    statements.execute(sql, (name, value))


def _row_values(row: UsageRow, hour: str, day: str, series: int) -> tuple[object, ...]:
    change = row.budget
    return (
        row.call, row.time_ns, day, hour, series, _TEXTS[row.kind], row.request, row.user, row.territory, row.assistant,
        row.processes, row.config_version, row.price_version, row.input_tokens, row.cached_tokens,
        row.cache_write_tokens, row.output_tokens, row.reasoning_tokens, row.vendor_amount_nano, row.amount_nano,
        row.rate, _TEXTS[row.outcome],
        *((change.of, change.per, change.unit, change.amount) if change is not None else (None, None, _use_of(row))),
        *(() if change is not None else (row.reported_input_tokens,)),
    )  # fmt: skip


def _use_of(row: UsageRow) -> str | None:
    """Return the use of a call, with what it has of audio, as one text."""
    count = row.audio_ms if row.audio_ms is not None else row.characters
    return row.use if count is None else f"{row.use} {count}"


def series_values(row: UsageRow) -> tuple[str, ...]:
    """Return the values of `SERIES`."""
    return (
        row.client or "", row.project or "", row.region or "", row.provider or "", row.site or "", row.deployment or "",
        row.model or "", _TEXTS[row.usage_source] or "", row.currency or "", row.vendor_currency or "",
    )  # fmt: skip


class LedgerLine(Value, frozen=True):
    """Sums of rows that have the values of the chosen columns (`key`) in common. None where the rows have none."""

    key: tuple[str | None, ...]
    usage_source: str | None
    currency: str | None
    vendor_currency: str | None
    sums: Sequence[int]
    audio: Sequence[int]


def lines_of(found: Iterable[Sequence[Any]]) -> Iterator[LedgerLine]:
    """Yield the lines that a database found for `UsageQuery.sums`, without those that count nothing."""
    for values in found:
        numbers = values[-len((*MEASURES, *AUDIO)) :]
        *key, source, currency, vendor_currency = (str(text) if text else None for text in values[: -len(numbers)])
        if any(numbers):
            yield LedgerLine(
                tuple(key), source, currency, vendor_currency, numbers[: len(MEASURES)], numbers[len(MEASURES) :]
            )


def line_of(row: UsageRow, columns: Sequence[str], local_time: LocalTime) -> LedgerLine | None:
    """Return the sums of one row, as the totals contain them, or None for a row that is not in the totals."""
    if row.kind is not RowKind.USAGE:
        return None
    hour, day = local_time.hour_and_day(row.time_ns)
    values = {"hour": hour, "day": day, "end_user": row.user}
    key = tuple(values[name] if name in values else getattr(row, name) for name in columns)
    audio = row.audio_ms or 0, row.characters or 0
    return LedgerLine(key, row.usage_source, row.currency, row.vendor_currency, sums_of(row), audio)


def sums_of(row: UsageRow) -> tuple[int, ...]:
    """Return what the row of a call adds to each of `MEASURES`."""
    vendor_nano, own_nano = row.vendor_amount_nano, row.amount_nano
    return (
        1, row.input_tokens, row.cached_tokens, row.cache_write_tokens, row.output_tokens, row.reasoning_tokens,
        int(vendor_nano is None), int(own_nano is None and vendor_nano is not None), *divmod(own_nano or 0, NANO),
        *divmod(vendor_nano or 0, NANO),
    )  # fmt: skip


def read_row(values: Sequence[Any]) -> UsageRow:
    """Return the row of a line of the database: its number, and the columns of `READ`."""
    (
        _, call, time_ns, kind, request, user, territory, assistant, processes, config_version, price_version, *tokens,
        vendor_amount, amount, rate, outcome, of, per, unit, changed,
    ) = values[: -len(SERIES)]  # fmt: skip
    series: dict[str, Any] = {name: value or None for name, value in zip(SERIES, values[-len(SERIES) :], strict=True)}
    source = series.pop("usage_source")
    use, _, count = (unit or "").partition(" ") if not of else ("", "", "")
    return UsageRow(
        call=call, time_ns=time_ns, kind=RowKind(kind), request=request, user=user, territory=territory,
        assistant=assistant, processes=processes, config_version=config_version, price_version=price_version,
        **dict(zip(TOKENS, tokens, strict=True)), **series,
        usage_source=UsageSource(source) if source else None, vendor_amount_nano=vendor_amount, amount_nano=amount,
        rate=rate, outcome=CallOutcome(outcome) if outcome else None,
        budget=BudgetChange(of, per, unit, changed) if of else None, reported_input_tokens=None if of else changed,
        use=use or None, audio_ms=int(count) if count and use == "transcription" else None,
        characters=int(count) if count and use == "speech" else None,
    )  # fmt: skip
