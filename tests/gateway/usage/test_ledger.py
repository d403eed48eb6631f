import os
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.operator_errors import StateError
from gateway.usage.amounts import NANO
from gateway.usage.ledger import Ledger, LocalTime, ledger_file
from gateway.usage.reports import DIMENSIONS, GroupedUsage, UsageQuery, UsageReader
from gateway.usage.usage_row import UsageRow, UsageSource
from tests.kit.configs import BASE, table_of
from tests.kit.usage_rows import NOON_NS, expect_recount, first_of_each_call, usage_row, usage_rows

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = ("2000-01-01", "2100-01-01")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
MEMORY = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
"""Where a commit needs no disk."""
CALLS = st.sampled_from([f"call-{number}" for number in range(12)])


def opened(directory: Path, zone: tzinfo = UTC) -> Ledger:
    return Ledger(ledger_file(directory), lambda: zone)


def report(directory: Path, *by: str) -> GroupedUsage:
    with UsageReader(directory) as reader:
        return reader.report(UsageQuery(by, *EVERY_DAY))


def test_quota_of_a_new_counter_is_summed_up_with_each_begun_second_of_audio(tmp_path: Path) -> None:
    quotas = {"account": {"seconds": {"day": 100}, "requests": {"day": 9}}}
    config = table_of(BASE.merge({"quotas": quotas, "deployments": {"chatgpt-eu": {"quota": "account"}}}))
    with closing(opened(tmp_path)) as ledger:
        lengths = {"a": 1500, "b": 1, "c": None, "d": 3000}
        rows = {call: {"audio_ms": length, "use": "transcription"} for call, length in lengths.items()}
        ledger.insert([usage_row(call, deployment="chatgpt-eu", **more) for call, more in rows.items()])
        found = ledger.sum_up({}, config, NOON_NS + NANO)[1]
    sums = {limit.unit: used for limit, used, _ in found}
    assert sums == {"seconds": 2 + 1 + 3, "requests": 4}


@pytest.mark.parametrize("by", ["use", "client"])
def test_report_has_the_sums_of_audio(tmp_path: Path, by: str) -> None:
    rows = [
        usage_row("a", use="transcription", audio_ms=1_234),
        usage_row("b", use="transcription", audio_ms=1_000),
        usage_row("c", use="transcription"),
        usage_row("d", use="speech", characters=7, usage_source=UsageSource.ESTIMATED),
        usage_row("e"),
        usage_row("f", use=None),
    ]
    with closing(opened(tmp_path)) as ledger:
        ledger.insert(rows)
    found: Any = report(tmp_path, by).data()
    heard, spoken = {"audio_seconds": "2.234"}, {"characters": 7}
    of_use = {None: {}, "chat": {}, "speech": spoken, "transcription": heard}
    names = ("audio_seconds", "characters")
    assert {one[by]: {name: one[name] for name in names if name in one} for one in found["groups"]} == (
        of_use if by == "use" else {"ios-app": heard | spoken}
    )
    assert {one[by]: one["calls"] for one in found["groups"]} == (
        {None: 1, "chat": 1, "speech": 1, "transcription": 3} if by == "use" else {"ios-app": 6}
    )
    assert found["total"]["estimated"]["characters"] == 7


@pytest.mark.slow("writes a ledger for each example")
@given(st.lists(st.lists(usage_rows(CALLS), max_size=6), max_size=4))
def test_totals_equal_a_recount_of_the_rows(batches: list[list[UsageRow]]) -> None:
    """Also after repeated calls, which are inserted once."""
    rows = first_of_each_call([row for batch in batches for row in batch])
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        with closing(opened(Path(folder))) as ledger:
            for batch in batches:
                assert ledger.insert(batch) <= len(rows)
        with UsageReader(Path(folder)) as reader:
            expect_recount(reader, rows)


@pytest.mark.slow("writes a ledger for each example")
@given(st.lists(usage_rows(CALLS), max_size=12))
def test_every_dimension_sums_to_the_same_total(rows: list[UsageRow]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        with closing(opened(Path(folder), BERLIN)) as ledger:
            ledger.insert(rows)
        totals = [report(Path(folder), name).total.data(()) for name in DIMENSIONS]
        assert all(total == totals[0] for total in totals)


def test_call_has_one_row(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        assert ledger.insert([usage_row("a"), usage_row("a", client="other")]) == 1
        assert ledger.insert([usage_row("a"), usage_row("b")]) == 1
    found = report(tmp_path, "client")
    assert [(group.key, group.all.calls) for group in found.groups] == [(("ios-app",), 2)]


def test_rows_are_stored_together(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        ledger.insert([usage_row("a")])
        with pytest.raises(OverflowError):
            ledger.insert([usage_row("b"), usage_row("c", input_tokens=2**63)])
    assert report(tmp_path).total.all.calls == 1


def test_sums_beyond_64_bits_stay_exact(tmp_path: Path) -> None:
    """A billion units for each call, as in a currency with small units."""
    with closing(opened(tmp_path)) as ledger:
        ledger.insert([usage_row(f"call-{number}", amount_nano=10**18 - 1) for number in range(40)])
    assert report(tmp_path).total.all.amount_nano == 40 * (10**18 - 1)


@pytest.mark.parametrize(
    ("at", "zone", "hour", "day"),
    [
        ("2026-10-31T22:59:59+00:00", BERLIN, "2026-10-31T23:00+01:00", "2026-10-31"),
        ("2026-10-31T23:00:00+00:00", BERLIN, "2026-11-01T00:00+01:00", "2026-11-01"),
        # The hour from 2 to 3 occurs twice when daylight saving ends.
        ("2026-10-25T00:30:00+00:00", BERLIN, "2026-10-25T02:00+02:00", "2026-10-25"),
        ("2026-10-25T01:30:00+00:00", BERLIN, "2026-10-25T02:00+01:00", "2026-10-25"),
        ("2026-11-20T18:29:59+00:00", ZoneInfo("Asia/Kolkata"), "2026-11-20T23:00+05:30", "2026-11-20"),
        ("2026-11-20T18:30:00+00:00", ZoneInfo("Asia/Kolkata"), "2026-11-21T00:00+05:30", "2026-11-21"),
        ("2024-02-29T23:59:59+00:00", UTC, "2024-02-29T23:00+00:00", "2024-02-29"),
    ],
)
def test_hours_and_days_are_those_of_the_time_zone(at: str, zone: tzinfo, hour: str, day: str) -> None:
    time_ns = int(datetime.fromisoformat(at).timestamp()) * NANO
    assert LocalTime(zone).hour_and_day(time_ns) == (hour, day)


def test_changed_time_zone_applies_to_later_rows(tmp_path: Path) -> None:
    zone: list[tzinfo] = [UTC]
    late_ns = NOON_NS + 12 * 3600 * NANO + 1800 * NANO  # 23:30 in UTC, the next day in Berlin
    with closing(Ledger(ledger_file(tmp_path), lambda: zone[0])) as ledger:
        ledger.insert([usage_row("a", time_ns=late_ns)])
        zone[0] = BERLIN
        ledger.insert([usage_row("b", time_ns=late_ns)])
    assert [group.key for group in report(tmp_path, "day").groups] == [("2026-11-24",), ("2026-11-25",)]
    with UsageReader(tmp_path) as reader:
        assert str(reader.zone) == "Europe/Berlin"


def test_deleted_rows_keep_their_totals(tmp_path: Path) -> None:
    day_ns = int(timedelta(days=1).total_seconds()) * NANO
    rows = [usage_row(f"call-{number}", time_ns=NOON_NS + number * day_ns // 4) for number in range(12)]
    with closing(opened(tmp_path)) as ledger:
        ledger.insert(rows)
        before = report(tmp_path, "day").data()
        assert ledger.delete_rows(rows[5].time_ns) == 5
        assert ledger.delete_rows(rows[5].time_ns) == 0
        assert report(tmp_path, "day").data() == before
        late = usage_row("late", time_ns=rows[0].time_ns)
        assert ledger.insert([late]) == 1
        assert report(tmp_path).total.all.calls == 13
        ledger.delete_rows(rows[5].time_ns)
    assert report(tmp_path).total.all.calls == 13
    with UsageReader(tmp_path) as reader:
        assert reader.deleted_through == "2026-11-25"
        assert len(list(reader.rows(UsageQuery((), *EVERY_DAY)))) == 7


def test_rows_are_deleted_in_small_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.usage.ledger._DELETED_AT_ONCE", 3)
    with closing(opened(tmp_path)) as ledger:
        ledger.insert([usage_row(f"call-{number}") for number in range(7)])
        steps = [ledger.delete_rows(NOON_NS + 1) for _ in range(4)]
    assert steps == [3, 3, 1, 0]


def test_ledger_of_a_later_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute("PRAGMA user_version = 2")
    for start in (opened, report):
        with pytest.raises(StateError, match=r"ledger\.db was written by a later version of the gateway"):
            start(tmp_path)


def test_damaged_ledger_is_reported_with_the_fix(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        ledger.insert([usage_row(f"call-{number}") for number in range(500)])
    data = (tmp_path / "ledger.db").read_bytes()
    (tmp_path / "ledger.db").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(StateError, match=r"ledger\.db can't be read: .*malformed.*; move it away"):
        report(tmp_path, "client")
    (tmp_path / "ledger.db").write_bytes(b"no database at all, however long it is" * 100)
    for start in (opened, report):
        with pytest.raises(StateError, match=r"ledger\.db can't be (used|read): file is not a database; move it away"):
            start(tmp_path)


def test_ledger_without_layout_is_empty(tmp_path: Path) -> None:
    """Between the creation of the file and its first table, a report may read it."""
    (tmp_path / "ledger.db").touch()
    assert report(tmp_path).groups == ()


def test_ledger_of_release_0_2_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as ledger:
        ledger.insert([usage_row("old")])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        database.execute("ALTER TABLE usage_row DROP COLUMN processes")
    for use in (report, opened):
        with pytest.raises(
            StateError, match=r"ledger\.db is of release 0\.2: start release 1\.0 with its state directory"
        ):
            use(tmp_path)


def test_callers_of_a_region_are_removed_from_rows_and_totals_and_sums_stay(tmp_path: Path) -> None:
    rows = [
        usage_row(f"call-{number}", region="us" if number % 2 else "eu", request=f"r_{number}", user=f"u_{number}")
        for number in range(6)
    ]
    with closing(opened(tmp_path)) as ledger:
        ledger.insert(rows)
        before = report(tmp_path, "region").data()
        ledger.remove_callers(frozenset({"us"}))
        assert report(tmp_path, "region").data() == before
        users = {group.key for group in report(tmp_path, "user", "region").groups}
        assert users == {(None, "us"), ("u_0", "eu"), ("u_2", "eu"), ("u_4", "eu")}
    with UsageReader(tmp_path) as reader:
        left = {row.call: (row.request, row.territory, row.user) for row in reader.rows(UsageQuery((), *EVERY_DAY))}
    assert left == {
        row.call: (None, None, None) if row.region == "us" else (row.request, "DE", row.user) for row in rows
    }
