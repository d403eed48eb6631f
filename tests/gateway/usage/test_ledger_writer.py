import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import UTC
from pathlib import Path

import lmdb
import pytest

from gateway.operator_errors import StateError
from gateway.usage import ledger_writer as ledger_writer_module
from gateway.usage.amounts import NANO
from gateway.usage.gate import HoldRequest
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.ledger import Ledger
from gateway.usage.ledger_writer import LedgerRules, LedgerWriter
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import CallOutcome, UsageRow, encode_row
from tests.kit.usage_rows import NOON_NS, keep_rows, kept_rows, usage_row
from tests.kit.waiting import eventually

EVERY_DAY = UsageQuery((), "2000-01-01", "2100-01-01")


def no_message(text: str) -> None:
    raise AssertionError(text)


def writer_of(directory: Path, keep_s: float | None = None, messages: list[str] | None = None) -> LedgerWriter:
    failed = no_message if messages is None else messages.append
    return LedgerWriter(directory, lambda: LedgerRules(UTC, keep_s), failed, clock=lambda: NOON_NS / NANO)


def rows_of(directory: Path) -> list[UsageRow]:
    with UsageReader(directory) as reader:
        return list(reader.rows(EVERY_DAY))


def moved_calls(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "ledger.db")) as database:
        return [call for (call,) in database.execute("SELECT call_id FROM usage_row ORDER BY number")]


def test_rows_are_moved_soon_and_the_rest_at_the_end(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.start()
    keep_rows(tmp_path, usage_row("first"))
    eventually(lambda: moved_calls(tmp_path) == ["first"])
    keep_rows(tmp_path, usage_row("second"))
    writer.close()
    assert moved_calls(tmp_path) == ["first", "second"]
    assert kept_rows(tmp_path) == []


def test_many_rows_are_moved_in_several_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer_module, "_MOST_ROWS", 7)
    keep_rows(tmp_path, *(usage_row(f"call-{number}") for number in range(50)))
    with closing(writer_of(tmp_path)) as writer:
        writer.move()
        assert len(moved_calls(tmp_path)) == 50


def test_rows_are_reported_before_they_are_moved(tmp_path: Path) -> None:
    with closing(writer_of(tmp_path)) as writer:
        keep_rows(tmp_path, usage_row("first"))
        writer.move()
        keep_rows(tmp_path, usage_row("second", client="other"))
        with UsageReader(tmp_path) as reader:
            report = reader.report(UsageQuery(("client",), EVERY_DAY.first_day, EVERY_DAY.last_day))
            own = reader.report(UsageQuery((), EVERY_DAY.first_day, EVERY_DAY.last_day, "ios-app"))
            past = reader.report(UsageQuery((), "2026-11-01", "2026-11-23"))
        assert [(group.key, group.all.calls) for group in report.groups] == [(("ios-app",), 1), (("other",), 1)]
        assert (own.total.all.calls, past.total.all.calls) == (1, 0)
        assert [row.call for row in rows_of(tmp_path)] == ["first", "second"]


def test_writer_that_ended_between_steps_neither_loses_nor_doubles_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_rows(tmp_path, *(usage_row(f"call-{number}") for number in range(4)))
    for owner, name in ((Ledger, "insert"), (Journal, "remove")):
        with monkeypatch.context() as patch:

            def killed(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(owner, name, killed)
            writer = writer_of(tmp_path)
            with pytest.raises(KeyboardInterrupt):
                writer.move()
            monkeypatch.setattr(writer, "move", lambda: None)
            writer.close()
        assert len(rows_of(tmp_path)) == 4, name
    with closing(writer_of(tmp_path)) as writer:
        writer.move()
        assert len(moved_calls(tmp_path)) == 4
    assert kept_rows(tmp_path) == []


def test_calls_of_a_killed_process_are_recovered_before_the_gateway_serves(tmp_path: Path) -> None:
    found: list[int] = []
    journal = Journal.open(tmp_path / FOLDER)
    lost = usage_row("lost", outcome=CallOutcome.LOST)
    asyncio.run(journal.hold(HoldRequest("lost", 1, 1, (), (), {}, encode_row(lost))))
    with closing(LedgerWriter(tmp_path, lambda: LedgerRules(UTC), no_message, recovered=found.append)) as writer:
        writer.move()
        assert (found, moved_calls(tmp_path)) == ([], [])
        journal.close()
        writer.move()
        assert (found, moved_calls(tmp_path)) == ([1], ["lost"])


def test_full_disk_keeps_rows_in_the_journal(tmp_path: Path) -> None:
    """SQLite reports a full disk. It is the problem of the writer, and the rows are moved when there is space again."""
    messages: list[str] = []
    writer = writer_of(tmp_path, messages=messages)
    pages = writer._ledger.database.connection.execute("PRAGMA page_count").fetchone()[0]  # type: ignore[attr-defined]
    writer._ledger.database.connection.execute(f"PRAGMA max_page_count = {pages}")  # type: ignore[attr-defined]
    keep_rows(tmp_path, *(usage_row(f"call-{number}") for number in range(300)))
    writer.move()
    writer.move()
    assert messages == []
    assert writer.problem == "ledger.db can't be written: database or disk is full"
    assert moved_calls(tmp_path) == []
    assert len(rows_of(tmp_path)) == 300
    writer._ledger.database.connection.execute("PRAGMA max_page_count = 100000")  # type: ignore[attr-defined]
    writer.move()
    assert writer.problem is None
    assert len(moved_calls(tmp_path)) == 300
    writer.close()


def test_full_disk_of_the_journal_is_named_as_its_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as that of the ledger, which may be a shared database that answers."""

    def full(*_: object) -> object:
        raise lmdb.Error("mdb_txn_commit: No space left on device")

    with closing(writer_of(tmp_path)) as writer:
        writer.move()
        assert (writer._journal.problem, writer.problem) == ("", None)
        with monkeypatch.context() as patch:
            patch.setattr(writer._journal._file, "begin", full)
            writer.move()
            assert writer.is_of_journal
            assert writer.problem == writer._journal.problem
            assert str(writer.problem).endswith(".lmdb can't be written: mdb_txn_commit: No space left on device")
        writer.move()
        assert writer.problem is None


def test_row_that_cannot_be_read_is_reported_and_hides_no_other(tmp_path: Path) -> None:
    messages: list[str] = []
    keep_rows(tmp_path, usage_row("first"))
    with closing(Journal.open(tmp_path / FOLDER)) as journal:
        journal.do_now(lambda txn, _: txn.put(b"wbroken", b"no row"))
    with closing(writer_of(tmp_path, messages=messages)) as writer:
        writer.move()
        writer.move()
        assert moved_calls(tmp_path) == ["first"]
    assert len(messages) == 1
    assert "can't be read" in messages[0]


def test_ledger_that_was_moved_away_gets_no_rows(tmp_path: Path) -> None:
    """They would be in a file that no later process finds."""
    messages: list[str] = []
    writer = writer_of(tmp_path, messages=messages)
    keep_rows(tmp_path, usage_row("first"))
    os.rename(tmp_path / "ledger.db", tmp_path / "old.db")
    writer.move()
    writer.close()
    assert "was moved or removed while it was in use: start the gateway again" in (writer.problem or "")
    left = f"1 usage rows are still in {tmp_path / FOLDER}: a start with this directory moves them to the ledger"
    assert messages == [left]
    with closing(writer_of(tmp_path)) as again:
        again.move()
        assert moved_calls(tmp_path) == ["first"]


def test_old_rows_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer_module, "_MOVE_S", 0.01)
    old, new = (usage_row(name, time_ns=NOON_NS - age_s * NANO) for name, age_s in (("old", 11), ("new", 9)))
    keep_rows(tmp_path, old, new)
    writer = writer_of(tmp_path, keep_s=10.0)
    writer.start()
    eventually(lambda: moved_calls(tmp_path) == ["new"])
    writer.close()
    with UsageReader(tmp_path) as reader:
        assert reader.report(EVERY_DAY).total.all.calls == 2


def test_second_writer_of_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all, however long it is" * 100)
    with pytest.raises(StateError, match="file is not a database; move it away"):
        writer_of(tmp_path)


def test_paused_writer_leaves_the_rows_to_another_one_and_goes_on_after_it(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    keep_rows(tmp_path, usage_row("before"))
    writer.move()
    writer.pause()
    writer.start()
    keep_rows(tmp_path, usage_row("meanwhile"))
    with closing(writer_of(tmp_path)) as successor:
        successor.move()
        assert moved_calls(tmp_path) == ["before", "meanwhile"]
    keep_rows(tmp_path, usage_row("after"))
    writer.resume()
    eventually(lambda: moved_calls(tmp_path) == ["before", "meanwhile", "after"])
    writer.pause()
    keep_rows(tmp_path, usage_row("left"))
    writer.close()
    assert len(moved_calls(tmp_path)) == 3
    assert len(rows_of(tmp_path)) == 4
