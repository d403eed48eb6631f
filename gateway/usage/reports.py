"""Group usage by client, model, day and so on: calls, tokens and amounts, with the estimated part apart.

A report reads the totals of the ledger and the rows that are still in the journal, so it is complete at any time, also
while a gateway runs and after one was killed. It never blocks the gateway. Where no totals have its dimensions, it
reads the rows of the ledger, and lacks the calls whose rows were deleted.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, date, datetime, tzinfo
from operator import add
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.state.database import Database
from gateway.undo import undone_on_failure
from gateway.usage import ledger
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.journal_reading import former_rows, waiting_rows
from gateway.usage.quota_sums import PartsByCaller, parts_since
from gateway.usage.quotas import NOTHING, row_parts
from gateway.usage.usage_row import TOKENS, RowKind, UsageRow, UsageSource, shown_seconds
from providers.catalogue.prices import NO_CURRENCY
from providers.value import Value, replace

DIMENSIONS: Mapping[str, str] = {
    name: {"user": "end_user", "quota": "deployment"}.get(name, name)
    for name in (
        "client", "project", "assistant", "user", "model", "region", "territory", "processes", "provider", "site",
        "deployment", "quota", "use", "day", "hour",
    )
}  # fmt: skip
"""The names by which a report can group, with their columns in the totals. Deployments name quotas."""

_TOTALS = {
    "user": "total_user_day",
    "hour": "total_hour",
    "assistant": ledger.TOTALS_OF_ASSISTANTS,
    "territory": ledger.LINES_OF_ROWS,
    "processes": ledger.LINES_OF_ROWS,
    "use": ledger.LINES_OF_ROWS,
}
"""The totals of dimensions that those by day and series do not have. Several of them together are read from rows."""

_ANY_DAY = "0000-00-00", "9999-99-99"
PAGE_ROWS = 5_000


class UsageQuery(Value, frozen=True):
    """The days, the groups and the filters of a report, and its statements for SQLite and PostgreSQL."""

    by: tuple[str, ...]
    first_day: str
    """The first day, as `2026-11-01`."""
    last_day: str
    client: str | None = None
    """The client that is reported, or None for all clients."""
    assistant: str | None = None
    """The assistant that is reported, an empty text for calls without an assistant, or None for all calls."""
    request: str | None = None
    """The request whose rows are read, which no report has, or None for all requests."""
    person: ledger.Person | None = None
    """The end user that is reported, by `user`, or None for all users."""

    @classmethod
    def of_request(cls, request: str) -> UsageQuery:
        """Return the query for the rows of a request, of any day."""
        return cls((), *_ANY_DAY, request=request)

    @classmethod
    def of_person(cls, person: ledger.Person, by: Sequence[str]) -> UsageQuery:
        """Return the query for the rows and the sums of an end user, of any day."""
        return cls(tuple(by), *_ANY_DAY, person=person)

    @property
    def totals(self) -> str:
        """The totals that have all dimensions of the query, also that of its filter by assistant."""
        filtered = ("assistant",) if self.assistant is not None else ()
        own = {_TOTALS[name] for name in (*self.by, *filtered) if name in _TOTALS}
        return own.pop() if len(own) == 1 else ledger.LINES_OF_ROWS if own else "total_day"

    def columns(self) -> list[str]:
        """Return the columns of the groups."""
        return [DIMENSIONS[name] for name in self.by]

    def sums(self, *, of_audio: bool = False) -> tuple[str, list[object]]:
        """Return the statement for the lines that `lines_of` reads, and its values.

        Totals have no sums of audio. `of_audio`: these sums alone, from the rows.
        """
        where, values = self._where()
        columns = [*self.columns(), "usage_source", "currency", "vendor_currency"]
        totals = ledger.LINES_OF_ROWS if of_audio else self.totals
        summed = {*(() if of_audio else ledger.MEASURES), *(ledger.AUDIO if totals == ledger.LINES_OF_ROWS else ())}
        sums = ", ".join(
            f"CAST(SUM({name}) AS BIGINT)" if name in summed else "0" for name in (*ledger.MEASURES, *ledger.AUDIO)
        )
        if of_audio:
            where += " AND audio_ms + characters > 0"
        numbers = ", ".join(map(str, range(1, len(columns) + 1)))
        text = (
            f"SELECT {', '.join(columns)}, {sums} FROM {totals} AS totals "  # noqa: S608
            f"JOIN series ON series.number = totals.series WHERE {where} GROUP BY {numbers}"
        )
        return text, values

    def implausible(self) -> tuple[str, list[object]]:
        """Return the statement for the calls of each deployment whose counted input cannot be true, and its values."""
        where, values = self._where()
        text = (
            "SELECT deployment, COUNT(*), CAST(SUM(budget_amount) AS BIGINT) FROM usage_row "  # noqa: S608
            "JOIN series ON series.number = usage_row.series "
            f"WHERE kind = 'usage' AND budget_amount IS NOT NULL AND {where} GROUP BY deployment"
        )
        return text, values

    def page(self, after: tuple[int, int], newest: int, columns: str = ledger.READ) -> tuple[str, list[object]]:
        """Return the statement for the next `PAGE_ROWS` rows, and its values.

        `after` is time and number of the last row before. Of the columns, the second is the time.
        """
        where, values = self._where()
        if self.request is not None:
            where, values = f"{where} AND request_id = ?", [*values, self.request]
        text = (
            f"SELECT usage_row.number, {columns} FROM usage_row JOIN series ON series.number = usage_row.series "  # noqa: S608
            f"WHERE (time_ns, usage_row.number) > (?, ?) AND usage_row.number <= ? AND {where} "
            f"ORDER BY time_ns, usage_row.number LIMIT {PAGE_ROWS}"
        )
        return text, [*after, newest, *values]

    def _where(self) -> tuple[str, list[object]]:
        where = "day BETWEEN ? AND ?"
        values: list[object] = [self.first_day, self.last_day]
        for column, value in (("client", self.client), ("COALESCE(assistant, '')", self.assistant)):
            if value is not None:
                values.append(value)
                where += f" AND {column} = ?"
        if self.person is not None:
            of_person, its_values = self.person.where()
            where, values = f"{where} AND {of_person}", [*values, *its_values]
        return where, values

    def includes(self, row: UsageRow, day: str) -> bool:
        """Return whether a row of a day belongs to the report."""
        if self.person is not None and not self.person.is_of(row):
            return False
        filters = (self.client, row.client), (self.assistant, row.assistant), (self.request, row.request)
        return self.first_day <= day <= self.last_day and all(one in (None, name or "") for one, name in filters)


class UsageSums(msgspec.Struct):
    """Sums over calls. Amounts are in nano-units: in the own currency, and by vendors' currencies.

    No amount contains unpriced calls. Unconverted calls have an amount in the vendor's currency only.
    """

    calls: int = 0
    tokens: list[int] = msgspec.field(default_factory=lambda: [0] * len(TOKENS))
    unpriced_calls: int = 0
    unconverted_calls: int = 0
    amount_nano: int = 0
    vendor_nano: dict[str, int] = {}
    audio: list[int] = msgspec.field(default_factory=lambda: [0] * len(ledger.AUDIO))

    def add(self, line: ledger.LedgerLine) -> None:
        """Add a line of totals."""
        sums = dict(zip(ledger.MEASURES, line.sums, strict=True))
        self.calls += sums["calls"]
        self.audio = [*map(add, self.audio, line.audio)]
        for number, name in enumerate(TOKENS):
            self.tokens[number] += sums[name]
        self.unpriced_calls += sums["unpriced_calls"]
        self.unconverted_calls += sums["unconverted_calls"]
        self.amount_nano += sums["amount_whole"] * NANO + sums["amount_nano"]
        if line.vendor_currency not in (None, NO_CURRENCY):
            name, amount = str(line.vendor_currency), sums["vendor_amount_whole"] * NANO + sums["vendor_amount_nano"]
            self.vendor_nano[name] = self.vendor_nano.get(name, 0) + amount

    def data(self, currency: str | None) -> dict[str, object]:
        """Return the sums as JSON data, with the amount in this currency."""
        missing = self.unpriced_calls + self.unconverted_calls
        has_amount = currency is not None and (missing < self.calls or not self.calls)
        tokens = dict(zip(TOKENS, self.tokens, strict=True))
        data: dict[str, object] = {
            "calls": self.calls,
            **tokens,
            "total_tokens": tokens["input_tokens"] + tokens["output_tokens"],
            "amount": shown_nano(self.amount_nano) if has_amount else None,
            "currency": currency,
            "vendor": {name: shown_nano(nano) for name, nano in sorted(self.vendor_nano.items())},
        }
        if self.audio[0]:
            data["audio_seconds"] = shown_seconds(self.audio[0])
        if self.audio[1]:
            data["characters"] = self.audio[1]
        if self.unpriced_calls:
            data["unpriced_calls"] = self.unpriced_calls
        if self.unconverted_calls and has_amount:
            data["unconverted_calls"] = self.unconverted_calls
        return data


class UsageGroup(msgspec.Struct):
    """The sums of the calls that have the values of the query's dimensions in common, with the estimated part apart.

    The own currency is None without one, and in a total of several currencies.
    """

    key: tuple[str | None, ...]
    currency: str | None = None
    all: UsageSums = msgspec.field(default_factory=UsageSums)
    estimated: UsageSums = msgspec.field(default_factory=UsageSums)

    def add(self, line: ledger.LedgerLine) -> None:
        """Add a line of totals."""
        self.all.add(line)
        if line.usage_source == UsageSource.ESTIMATED:
            self.estimated.add(line)

    def data(self, by: Sequence[str]) -> dict[str, object]:
        """Return the group as JSON data."""
        return {
            **dict(zip(by, self.key, strict=True)),
            **self.all.data(self.currency),
            "estimated": self.estimated.data(self.currency),
        }


class GroupedUsage(Value, frozen=True):
    """A report: its groups in the order of their keys.

    If `usage.currency` changed in the reported days, a key occurs once for each currency.
    """

    by: tuple[str, ...]
    groups: tuple[UsageGroup, ...]
    total: UsageGroup

    def data(self) -> dict[str, object]:
        """Return the report as JSON data."""
        return {"groups": [group.data(self.by) for group in self.groups], "total": self.total.data(())}


def group_lines(by: tuple[str, ...], found: Iterable[ledger.LedgerLine]) -> GroupedUsage:
    """Return the report of lines whose keys are the values of these dimensions."""
    lines = list(found)
    currencies: dict[tuple[str | None, ...], set[str]] = {}
    for line in lines:
        currencies.setdefault(line.key, set()).update((line.currency,) if line.currency else ())
    total = UsageGroup((), _only(set().union(*currencies.values())))
    groups: dict[tuple[tuple[str | None, ...], str | None], UsageGroup] = {}
    for line in lines:
        total.add(line)
        # A call without an own amount belongs to the group of the others, if they have one currency.
        currency = line.currency or _only(currencies[line.key])
        groups.setdefault((line.key, currency), UsageGroup(line.key, currency)).add(line)
    return GroupedUsage(by, tuple(sorted(groups.values(), key=_order)), total)


def _only(names: set[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _order(group: UsageGroup) -> tuple[object, ...]:
    return [(text is not None, text or "") for text in group.key], group.currency or ""


def _lines_of_quotas(
    lines: Iterable[ledger.LedgerLine], place: int, config: ConfigVersion | None
) -> Iterator[ledger.LedgerLine]:
    """Yield each line once for each quota of its deployment, whose name it has at this place of its key."""
    for line in lines:
        deployment = config.deployments.get(line.key[place] or "") if config is not None else None
        for name in [quota.name for quota in deployment.quotas] if deployment and deployment.quotas else [None]:
            yield replace(line, key=(*line.key[:place], name, *line.key[place + 1 :]))


class UsageReader:
    """The usage in a state directory or in the shared ledger, at the moment when it is opened. A context manager.

    Methods raise StateError. The time zone is that in which the ledger was last written. Rows of days up to
    `deleted_through` were deleted.
    """

    def __init__(self, directory: Path | None, shared: Database | None = None) -> None:
        # Before the ledger is read: a row that is moved in the meantime is in one of them.
        waiting = []
        if directory is not None and shared is None:
            waiting = former_rows(directory) + waiting_rows(directory)
        self._database = shared or ledger.ledger_to_read(directory or Path())
        self._moment = ExitStack()
        with undone_on_failure(self._close):
            statements = self._statements = self._moment.enter_context(self._database.transaction(reads_only=True))
            self.zone = zone_of(ledger.fact(statements, ledger.TIMEZONE) or "UTC")
            self.deleted_through = ledger.fact(statements, ledger.DELETED_THROUGH)
            self._unmoved = [row for row in waiting if not ledger.has_call(statements, row.call)]

    def _close(self) -> None:
        with closing(self._database):
            self._moment.close()

    def __enter__(self) -> UsageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def parts_since(self, since_ns: int) -> PartsByCaller:
        """Return what calls have used since a time (Unix nanoseconds), by client and deployment."""
        found = parts_since(self._statements, since_ns)
        for row in self._unmoved:
            if row.kind is RowKind.USAGE and row.time_ns >= since_ns:
                key, parts = (row.client or "", row.deployment or ""), row_parts(row, row.amount_nano or 0)
                before = found.get(key, NOTHING)
                found[key] = tuple(map(add, before, parts))
        return found

    def period_query(
        self,
        month: str | None,
        days: tuple[date, date] | None,
        by: Sequence[str] = (),
        client: str | None = None,
        assistant: str | None = None,
    ) -> tuple[UsageQuery, dict[str, str]]:
        """Return the query for these days or this month (`2026-11`), and the period as reports name it.

        Without both: for the current month.
        """
        if days is not None:
            first, last = (day.isoformat() for day in days)
            return UsageQuery(tuple(by), first, last, client, assistant), {"from": first, "to": last}
        shown = month or self.month(time.time())
        return UsageQuery(tuple(by), f"{shown}-01", f"{shown}-31", client, assistant), {"month": shown}

    def month(self, now_s: float) -> str:
        """Return the month of a Unix time, in the time zone of the ledger: `2026-11`."""
        return datetime.fromtimestamp(now_s, self.zone).strftime("%Y-%m")

    def report(self, query: UsageQuery, config: ConfigVersion | None = None) -> GroupedUsage:
        """Return the report of a query. The deployments of the config version name the quotas."""
        lines = [*ledger.lines_of(self._statements.execute(*query.sums()).fetchall())]
        if query.totals != ledger.LINES_OF_ROWS and ledger.fact(self._statements, ledger.HAS_AUDIO):
            lines += ledger.lines_of(self._statements.execute(*query.sums(of_audio=True)).fetchall())
        local_time = ledger.LocalTime(self.zone)
        found = (ledger.line_of(row, query.columns(), local_time) for row in self._unmoved_in(query, local_time))
        lines += filter(None, found)
        report = group_lines(query.by, lines)
        if "quota" not in query.by:
            return report
        in_quotas = group_lines(query.by, _lines_of_quotas(lines, query.by.index("quota"), config))
        return replace(report, groups=in_quotas.groups)

    def deleted_through_in(self, query: UsageQuery) -> str | None:
        """Return `deleted_through` if rows of the days of a query may be missing, or None."""
        is_concerned = self.deleted_through is not None and query.first_day <= self.deleted_through
        return self.deleted_through if is_concerned else None

    def report_data(self, query: UsageQuery, config: ConfigVersion | None = None) -> dict[str, object]:
        """Return the report of a query as JSON data, with the time zone of its days. See `report` for `config`.

        `rows_deleted_through` is the last day of which it lacks calls, because it reads rows, and rows were deleted.
        """
        report = self.report(query, config)
        data = {**report.data(), "timezone": str(self.zone)}
        if report.total.estimated.calls and (implausible := self._implausible(query)):
            data["implausible"] = implausible
        deleted = self.deleted_through_in(query) if query.totals == ledger.LINES_OF_ROWS else None
        return data if deleted is None else {**data, "rows_deleted_through": deleted}

    def _implausible(self, query: UsageQuery) -> list[dict[str, object]]:
        """Return by deployment how many calls have a counted input that cannot be true, and the sum of these counts."""
        found = {
            name: [calls, tokens] for name, calls, tokens in self._statements.execute(*query.implausible()).fetchall()
        }
        for row in self._unmoved_in(query, ledger.LocalTime(self.zone)):
            if row.reported_input_tokens is not None:
                sums = found.setdefault(row.deployment or "", [0, 0])
                found[row.deployment or ""] = [sums[0] + 1, sums[1] + row.reported_input_tokens]
        return [
            {"deployment": name, "calls": calls, "reported_input_tokens": tokens}
            for name, (calls, tokens) in sorted(found.items())
        ]

    def rows(self, query: UsageQuery) -> Iterator[UsageRow]:
        """Yield all rows of the days of a query, oldest first. It ends the moment for which reports are made."""
        unmoved = sorted(self._unmoved_in(query, ledger.LocalTime(self.zone)), key=lambda row: row.time_ns)
        return heapq.merge((ledger.read_row(row) for row in self._moved(query)), unmoved, key=lambda row: row.time_ns)

    def requests(self, query: UsageQuery) -> Iterator[tuple[int, str | None, str | None]]:
        """Yield time, request and region of all calls of the days of a query, in a third of the time of `rows`.

        As `rows`, it ends the moment for which reports are made.
        """
        unmoved = [*self._unmoved_in(query, ledger.LocalTime(self.zone))]
        for row in self._moved(query, "call_id, time_ns, request_id, region, kind"):
            if row[5] == RowKind.USAGE:
                yield row[2], row[3], row[4] or None
        for one in unmoved:
            if one.kind == RowKind.USAGE:
                yield one.time_ns, one.request, one.region

    def _moved(self, query: UsageQuery, columns: str = ledger.READ) -> Iterator[Sequence[Any]]:
        """Yield rows, a page at a time: a slow reader does not keep SQLite from reusing the space of its log."""
        after = (-1, 0)
        newest = self._statements.execute("SELECT COALESCE(MAX(number), 0) FROM usage_row").fetchone()[0]
        self._moment.close()
        while True:
            with self._database.transaction(reads_only=True) as statements:
                page = statements.execute(*query.page(after, newest, columns)).fetchall()
            yield from page
            if len(page) < PAGE_ROWS:
                return
            after = page[-1][2], page[-1][0]

    def _unmoved_in(self, query: UsageQuery, local_time: ledger.LocalTime) -> Iterator[UsageRow]:
        for row in self._unmoved:
            if query.includes(row, local_time.hour_and_day(row.time_ns)[1]):
                yield row


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a ledger. Raises StateError."""
    if name == "UTC":
        return UTC
    with suppress(LookupError, ValueError, OSError):
        return ZoneInfo(name)
    raise StateError(f"the time zone {name!r} of the ledger is not known here: install the package tzdata")
