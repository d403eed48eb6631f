"""Counts of duties from the journal to the report: each is counted once, whatever ends or is repeated."""

import asyncio
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from unittest.mock import ANY, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.features.duties.model import UseRules
from gateway.installation import duty_sums
from gateway.model.age import AgeBand
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.model.parts import Parts
from gateway.operator_errors import StateError
from gateway.usage import duty_counts, journal_file
from gateway.usage.amounts import NANO
from gateway.usage.duty_counts import DutyKey, SourceCounts, encode_key, keys_of, report_rows
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.journal_reading import former_files
from gateway.usage.ledger import Ledger, Person, ledger_file
from gateway.usage.ledger_writer import LedgerRules, LedgerWriter
from tests.gateway.killed_process import WRITER, killed_at_the_end, line_of
from tests.kit.request_records import EU, answered, with_fields

YEAR = ("2027-01", "2027-12")
KEY = DutyKey("2027-03", "us-wa", "US-WA", "tutor", "child", "crisis")
NEW_YEAR_NS = 1_798_761_600 * NANO
"""2027-01-01T00:00:00Z."""


def no_message(text: str) -> None:
    raise AssertionError(text)


def writer_of(directory: Path, ledger: Ledger | None = None) -> LedgerWriter:
    return LedgerWriter(directory, lambda: LedgerRules(UTC), no_message, ledger=ledger)


def count(directory: Path, *keys: DutyKey) -> None:
    async def work() -> None:
        with closing(Journal.open(directory / FOLDER)) as journal:
            for key in keys:
                await journal.count([encode_key(key)])

    asyncio.run(work())


def sums(directory: Path) -> dict[DutyKey, int]:
    return dict(duty_sums(None, directory, YEAR))


def test_counts_are_reported_before_and_after_they_are_moved(tmp_path: Path) -> None:
    other = KEY._replace(kind="notice", territory="")
    with closing(writer_of(tmp_path)) as writer:
        count(tmp_path, KEY, KEY, other)
        assert sums(tmp_path) == {KEY: 2, other: 1}
        writer.move()
        count(tmp_path, KEY)
        assert sums(tmp_path) == {KEY: 3, other: 1}
        writer.move()
        writer.move()
        assert sums(tmp_path) == {KEY: 3, other: 1}
    assert sums(tmp_path) == {KEY: 3, other: 1}
    assert duty_sums(None, tmp_path, ("2027-04", "2027-12")) == {}


def test_move_that_is_repeated_after_a_failure_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger has the number, and the writer does not know it: it ended, or the answer of a database was lost."""
    keep = Ledger.keep_duties

    def keep_and_fail(ledger: Ledger, counts: SourceCounts) -> None:
        keep(ledger, counts)
        raise StateError("the database did not answer in time")

    count(tmp_path, KEY)
    with closing(writer_of(tmp_path)) as writer:
        monkeypatch.setattr(Ledger, "keep_duties", keep_and_fail)
        writer.move()
        assert writer.problem == "the database did not answer in time"
        monkeypatch.setattr(Ledger, "keep_duties", keep)
        writer.move()
        assert (writer.problem, sums(tmp_path)) == (None, {KEY: 1})


def test_ledger_that_was_restored_gets_all_counts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count(tmp_path, KEY)
    with closing(writer_of(tmp_path)) as writer, closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        writer.move()
        with monkeypatch.context() as away, ledger.database.transaction() as statements:
            away.setattr(Journal, "recover", Mock(side_effect=StateError("the database is being restored")))
            writer.move()
            statements.execute("DELETE FROM duty_count")
        writer.move()
        assert ledger.duties() == [SourceCounts(ANY, [(encode_key(KEY), 1)])]


@pytest.mark.slow("starts a process for each journal of an earlier start")
def test_counts_of_an_earlier_start_of_the_machine_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count(tmp_path, KEY, KEY)
    monkeypatch.setattr(journal_file, "_boot", lambda: "another")
    (former,) = former_files(tmp_path / FOLDER)
    kept = former.read_bytes()
    count(tmp_path, KEY)
    assert sums(tmp_path) == {KEY: 3}
    writer_of(tmp_path).close()
    assert (sums(tmp_path), former.exists()) == ({KEY: 3}, False)
    former.write_bytes(kept)  # as after a crash before it was removed, or a restored copy
    assert sums(tmp_path) == {KEY: 3}
    writer_of(tmp_path).close()
    assert sums(tmp_path) == {KEY: 3}


def test_counts_outlive_an_erasure_and_the_rows_of_calls(tmp_path: Path) -> None:
    count(tmp_path, KEY)
    writer_of(tmp_path).close()
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.erase(Person(("u_1",)), 0, ())
        ledger.delete_rows(2**62)
    assert sums(tmp_path) == {KEY: 1}


def test_two_journals_add_up_and_own_counts_move_to_a_shared_ledger(tmp_path: Path) -> None:
    for instance, number in (("a", 2), ("b", 3)):
        count(tmp_path / instance, *[KEY] * number)
        writer_of(tmp_path / instance).close()  # before there is a shared ledger
        count(tmp_path / instance, KEY)
        for _ in range(2):
            writer_of(tmp_path / instance, Ledger(ledger_file(tmp_path / "shared"), lambda: UTC)).close()
    assert sums(tmp_path / "shared") == {KEY: 7}


WORKER = f"""
import asyncio, os, sys
from pathlib import Path
from gateway.usage.duty_counts import DutyKey, encode_key
from gateway.usage.journal import Journal
async def work():
    journal, key = Journal.open(Path(sys.argv[1]) / "journal"), encode_key(DutyKey(*{tuple(KEY)!r}))
    while True:
        await journal.count([key])
        os.write(1, b".")
asyncio.run(work())
"""


@pytest.mark.slow("starts three processes")
def test_killed_processes_neither_lose_nor_double_a_count(tmp_path: Path) -> None:
    """Two workers answer, and each is killed: at most one count of each was written before its answer left."""
    answers = 0
    with killed_at_the_end(WRITER, tmp_path) as writer:
        assert line_of(writer) == "begins"
        for _ in range(2):
            with killed_at_the_end(WORKER, tmp_path) as worker:
                answers += len(os.read(worker.stdout.fileno(), 1))
                while answers % 500:
                    answers += len(os.read(worker.stdout.fileno(), 500 - answers % 500))
                assert sums(tmp_path)[KEY] >= answers
                worker.kill()
                worker.wait(60)
                answers += len(worker.stdout.read())
    assert answers <= sums(tmp_path)[KEY] <= answers + 2
    before = sums(tmp_path)
    writer_of(tmp_path).close()
    assert sums(tmp_path) == before


MONTHS = st.sampled_from(["2026-12", "2027-01", "2027-02"])
_keys = st.builds(
    DutyKey("", "eu", "", "a", "", "crisis")._replace, month=MONTHS, territory=st.sampled_from(["", "DE"])
)


@given(st.lists(st.tuples(st.integers(0, 1), _keys | st.sampled_from(["move", "repeat"])), max_size=30))
def test_any_order_of_counts_and_moves_gives_each_count_once(steps: list[tuple[int, Any]]) -> None:
    """Two sources count; each move writes the present numbers, and a repeated one writes older numbers again."""
    present: list[dict[DutyKey, int]] = [{}, {}]
    older: list[SourceCounts] = []
    wanted: dict[DutyKey, int] = {}

    def of(source: int) -> SourceCounts:
        return SourceCounts(str(source), [(encode_key(key), number) for key, number in present[source].items()])

    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(duty_counts.LAYOUT)
        for source, step in steps:
            if step == "move":
                older.append(of(source))
                duty_counts.keep_counts(database, older[-1])
            elif step == "repeat":
                for counts in older:
                    duty_counts.keep_counts(database, counts)
            else:
                present[source][step] = present[source].get(step, 0) + 1
                if step.month != "2026-12":
                    wanted[step] = wanted.get(step, 0) + 1
            assert duty_counts.add_up(database, [of(0), of(1)], YEAR) == wanted


def test_key_has_the_month_of_the_zone_and_no_more_than_may_be_kept() -> None:
    in_california = replace(EU.region, parts=Parts((UseRules(timezone="America/Los_Angeles"),)))
    child = AgeBand("child")

    def keys(region: Region, *, is_kept: bool = True) -> list[bytes]:
        location = Location(region, "US-CA", "claim", (), age=child, may_be_kept=is_kept)
        record = with_fields(answered(), location=location, assistant="tutor")
        return keys_of(record, {"crisis"}, NEW_YEAR_NS)

    assert keys(EU.region) == [encode_key(DutyKey("2027-01", "eu", "US-CA", "tutor", "child", "crisis"))]
    assert keys(in_california) == [encode_key(DutyKey("2026-12", "eu", "US-CA", "tutor", "child", "crisis"))]
    assert keys(EU.region, is_kept=False) == [encode_key(DutyKey("2027-01", "eu", "", "tutor", "", "crisis"))]


def test_rows_are_summed_by_year_and_small_counts_are_hidden_after_that() -> None:
    counts = {KEY: 3, KEY._replace(month="2027-04"): 4, KEY._replace(territory="", age_band="", region="eu"): 1}
    by_month = report_rows(counts, "month")
    assert by_month[0] == {
        "month": "2027-03", "region": "eu", "territory": None, "assistant": "tutor", "age_band": None,
        "kind": "crisis", "count": 1,
    }  # fmt: skip
    assert [row["count"] for row in by_month] == [1, 3, 4]
    assert [row["count"] for row in report_rows(counts, "month", least=4)] == ["<4", "<4", 4]
    assert report_rows(counts, "year", "us-wa", least=5) == [
        {
            "year": "2027", "region": "us-wa", "territory": "US-WA", "assistant": "tutor", "age_band": "child",
            "kind": "crisis", "count": 7,
        }
    ]  # fmt: skip
