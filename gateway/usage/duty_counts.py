"""Count what requests did for duties of time and crisis, by month and place, without anything of a person.

Theory of operation. A count is never an event that is moved: a journal counts up for each key from its first day, under
a name of its own (its *source*), and the ledger has the last number of each key and source. So a number that is written
twice, after a crash or by two processes, changes nothing, and no id of a request has to be kept to know that. A report
adds the sources up. In a cell, each instance has a journal, and so a source. The ledger never deletes these numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.model.record import Record
from gateway.usage.amounts import NANO

if TYPE_CHECKING:
    from gateway.state.database import Statements

LAYOUT = (
    "CREATE TABLE IF NOT EXISTS duty_count (source TEXT NOT NULL, month TEXT NOT NULL, region TEXT NOT NULL, "
    "territory TEXT NOT NULL, assistant TEXT NOT NULL, age_band TEXT NOT NULL, kind TEXT NOT NULL, "
    "number BIGINT NOT NULL, PRIMARY KEY (source, month, region, territory, assistant, age_band, kind))"
)
"""The table of the counts, in SQLite and in PostgreSQL."""

_KEY = "source, month, region, territory, assistant, age_band, kind"
_KEEP = (
    f"INSERT INTO duty_count ({_KEY}, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT ({_KEY}) "  # noqa: S608
    "DO UPDATE SET number = excluded.number WHERE duty_count.number < excluded.number"
)
_READ = f"SELECT {_KEY}, number FROM duty_count"  # noqa: S608
_OF_MONTHS = f"{_READ} WHERE month BETWEEN ? AND ?"


Period = Literal["month", "year"]


class DutyKey(NamedTuple):
    """The facts of a request that is counted. A fact is empty where it is unknown, or may not be kept.

    The month is as `2027-01`, the territory has its subdivision if it is known, and the kind is one of `DUTIES`.
    """

    month: str
    region: str
    territory: str
    assistant: str
    age_band: str
    kind: str


class SourceCounts(NamedTuple):
    """The counts of one journal since it was made: the number of each key, as `encode_key` returns it."""

    source: str
    numbers: list[tuple[bytes, int]]


encode_key = msgspec.msgpack.Encoder().encode
"""Returns a `DutyKey` as bytes."""

_decode_key = msgspec.msgpack.Decoder(DutyKey).decode


def keys_of(record: Record, kinds: Iterable[str], now_ns: int) -> list[bytes]:
    """Return what a request counts for these kinds, encoded. The region's time zone decides the month of this time."""
    location = record.decided.location
    region = location.region if location is not None else None
    zone = ZoneInfo(region.timezone) if region is not None else UTC
    territory = age_band = ""
    if location is not None and location.may_be_kept:
        territory, age_band = location.territory or "", location.age_band or ""
    month = datetime.fromtimestamp(now_ns // NANO, zone).strftime("%Y-%m")
    assistant = record.decided.assistant or ""
    name = region.name if region is not None else ""
    return [encode_key(DutyKey(month, name, territory, assistant, age_band, kind)) for kind in kinds]


def keep_counts(statements: Statements, counts: SourceCounts) -> None:
    """Write the counts of a journal. Those that the ledger has already, or that are lower, change nothing."""
    lines = [(counts.source, *_decode_key(key), number) for key, number in counts.numbers]
    statements.executemany(_KEEP, lines)


def kept_counts(statements: Statements) -> list[SourceCounts]:
    """Return all counts of a ledger, by their sources."""
    found: dict[str, list[tuple[bytes, int]]] = {}
    for source, *key, number in statements.execute(_READ).fetchall():
        found.setdefault(source, []).append((encode_key(DutyKey(*key)), number))
    return [SourceCounts(*one) for one in found.items()]


def add_up(statements: Statements, waiting: Iterable[SourceCounts], months: tuple[str, str]) -> Mapping[DutyKey, int]:
    """Return the sums of these months, both included: of the ledger, and of journals that it lacks in part."""
    found = {
        (source, DutyKey(*key)): number for source, *key, number in statements.execute(_OF_MONTHS, months).fetchall()
    }
    for counts in waiting:
        for data, number in counts.numbers:
            key = counts.source, _decode_key(data)
            if months[0] <= key[1].month <= months[1]:
                found[key] = max(number, found.get(key, 0))
    sums: dict[DutyKey, int] = {}
    for (_, one), number in found.items():
        sums[one] = sums.get(one, 0) + number
    return sums


def report_rows(
    sums: Mapping[DutyKey, int], by: Period, region: str | None = None, least: int = 0
) -> list[dict[str, object]]:
    """Return the rows of the report as JSON data, one for each key and period, with null for what a key does not have.

    A number above 0 and below `least` is shown as `<` and that bound, so that it points to no person.
    """
    found: dict[DutyKey, int] = {}
    for key, number in sums.items():
        if region in (None, key.region):
            period = key._replace(month=key.month[:4] if by == "year" else key.month)
            found[period] = found.get(period, 0) + number
    return [_row(key, found[key], by, least) for key in sorted(found)]


def _row(key: DutyKey, number: int, by: Period, least: int) -> dict[str, object]:
    names = (by, "region", "territory", "assistant", "age_band", "kind")
    shown = f"<{least}" if 0 < number < least else number
    return {**dict(zip(names, (text or None for text in key), strict=True)), "count": shown}
