from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from datetime import UTC
from pathlib import Path

import pytest

from gateway.operator_errors import StateError
from gateway.usage import ledger_writer as ledger_writer_module
from gateway.usage.amounts import NANO
from gateway.usage.ledger import Ledger
from gateway.usage.ledger_writer import LedgerWriter
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.spool import FOLDER, Spool, SpoolFile
from gateway.usage.usage_row import CallOutcome, UsageRow, encode_row
from tests.kit.usage_rows import NOON_NS, usage_row
from tests.kit.waiting import eventually

EVERY_DAY = UsageQuery((), "2000-01-01", "2100-01-01")


def no_message(text: str) -> None:
    raise AssertionError(text)


def writer_of(directory: Path, keep_s: float | None = None, messages: list[str] | None = None) -> LedgerWriter:
    failed = no_message if messages is None else messages.append
    return LedgerWriter(directory, lambda: UTC, lambda: keep_s, failed, clock=lambda: NOON_NS / NANO)


def rows_of(directory: Path) -> list[UsageRow]:
    with UsageReader(directory) as reader:
        return list(reader.rows(EVERY_DAY))


def moved_calls(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "ledger.db")) as database:
        return [call for (call,) in database.execute("SELECT call_id FROM usage_row ORDER BY number")]


def spooled(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / FOLDER).iterdir())


def test_rows_are_moved_and_files_without_an_owner_are_deleted(tmp_path: Path) -> None:
    ended, running = Spool(tmp_path, no_message), Spool(tmp_path, no_message)
    for number in range(3):
        ended.append(encode_row(usage_row(f"ended-{number}")))
        running.append(encode_row(usage_row(f"running-{number}")))
    ended.close()
    with closing(writer_of(tmp_path)) as writer:
        writer.move()
        assert sorted(moved_calls(tmp_path)) == [
            f"{name}-{number}" for name in ("ended", "running") for number in range(3)
        ]
        assert len(spooled(tmp_path)) == 1
        running.append(encode_row(usage_row("later")))
        running.close()
        writer.move()
        assert spooled(tmp_path) == []
    assert len(moved_calls(tmp_path)) == 7


def test_thread_moves_rows_soon_and_the_rest_at_the_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path, no_message)
    writer = writer_of(tmp_path)
    writer.start()
    spool.append(encode_row(usage_row("first")))
    eventually(lambda: moved_calls(tmp_path) == ["first"])
    spool.append(encode_row(usage_row("second")))
    spool.close()
    writer.close()
    assert moved_calls(tmp_path) == ["first", "second"]
    assert spooled(tmp_path) == []


def test_rows_are_reported_before_they_are_moved(tmp_path: Path) -> None:
    spool = Spool(tmp_path, no_message)
    with closing(writer_of(tmp_path)) as writer:
        spool.append(encode_row(usage_row("first")))
        writer.move()
        spool.append(encode_row(usage_row("second", client="other")))
        with UsageReader(tmp_path) as reader:
            report = reader.report(UsageQuery(("client",), EVERY_DAY.first_day, EVERY_DAY.last_day))
            own = reader.report(UsageQuery((), EVERY_DAY.first_day, EVERY_DAY.last_day, "ios-app"))
            past = reader.report(UsageQuery((), "2026-11-01", "2026-11-23"))
        assert [(group.key, group.all.calls) for group in report.groups] == [(("ios-app",), 1), (("other",), 1)]
        assert (own.total.all.calls, past.total.all.calls) == (1, 0)
        assert [row.call for row in rows_of(tmp_path)] == ["first", "second"]
        spool.close()


def test_own_row_of_a_process_wins_over_the_recovered_one(tmp_path: Path) -> None:
    """A process was killed after it wrote a row and before it settled the call."""
    recovered = Spool(tmp_path, no_message, recovered=True)
    recovered.append(encode_row(usage_row("both", outcome=CallOutcome.LOST)))
    recovered.append(encode_row(usage_row("lost", outcome=CallOutcome.LOST)))
    recovered.close()
    own = Spool(tmp_path, no_message)
    own.append(encode_row(usage_row("both")))
    own.close()
    Ledger(tmp_path, lambda: UTC).close()
    expected = {"both": CallOutcome.ANSWERED, "lost": CallOutcome.LOST}
    assert {row.call: row.outcome for row in rows_of(tmp_path)} == expected
    with closing(writer_of(tmp_path)) as writer:
        writer.move()
        assert {row.call: row.outcome for row in rows_of(tmp_path)} == expected
        assert spooled(tmp_path) == []


def test_writer_that_ended_between_steps_neither_loses_nor_doubles_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, no_message)
    for number in range(4):
        spool.append(encode_row(usage_row(f"call-{number}")))
    spool.close()
    for name in ("insert", "delete", "forget_positions"):
        owner = SpoolFile if name == "delete" else Ledger
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
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
            assert database.execute("SELECT * FROM spool_position").fetchall() == []


def test_full_disk_keeps_rows_in_the_spool(tmp_path: Path) -> None:
    """SQLite reports a full disk. One message is logged, and the rows are moved when there is space again."""
    messages: list[str] = []
    spool = Spool(tmp_path, no_message)
    writer = writer_of(tmp_path, messages=messages)
    pages = writer._ledger._database.execute("PRAGMA page_count").fetchone()[0]
    writer._ledger._database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(300):
        spool.append(encode_row(usage_row(f"call-{number}")))
    writer.move()
    writer.move()
    assert messages == [
        "usage rows stay in the spools until this is fixed: ledger.db can't be written: database or disk is full"
    ]
    assert writer.problem == "ledger.db can't be written: database or disk is full"
    assert moved_calls(tmp_path) == []
    assert len(rows_of(tmp_path)) == 300
    writer._ledger._database.execute("PRAGMA max_page_count = 100000")
    writer.move()
    assert writer.problem is None
    assert len(moved_calls(tmp_path)) == 300
    spool.close()
    writer.close()


def test_unreadable_spool_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    spool = Spool(tmp_path, no_message)
    spool.append(encode_row(usage_row("first")))
    with closing(writer_of(tmp_path, messages=messages)) as writer:
        with monkeypatch.context() as patch:

            def broken(*_: object) -> bytes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(os, "pread", broken)
            writer.move()
        assert len(messages) == 1
        assert messages[0].startswith("usage rows stay in the spools until this is fixed: ")
        assert messages[0].endswith(".rows can't be read: Input/output error")
        writer.move()
        assert moved_calls(tmp_path) == ["first"]
        spool.close()


def test_ledger_that_was_moved_away_gets_no_rows(tmp_path: Path) -> None:
    """They would be in a file that no later process finds."""
    messages: list[str] = []
    spool = Spool(tmp_path, no_message)
    writer = writer_of(tmp_path, messages=messages)
    spool.append(encode_row(usage_row("first")))
    os.rename(tmp_path / "ledger.db", tmp_path / "old.db")
    writer.move()
    writer.close()
    spool.close()
    assert len(messages) == 1
    assert "was moved or removed while it was in use: start the gateway again" in messages[0]
    with closing(writer_of(tmp_path)) as again:
        again.move()
        assert moved_calls(tmp_path) == ["first"]


def test_damaged_spool_is_reported_once_and_kept(tmp_path: Path) -> None:
    messages: list[str] = []
    spool = Spool(tmp_path, no_message)
    for number in range(3):
        spool.append(encode_row(usage_row(f"call-{number}")))
    spool.close()
    (name,) = spooled(tmp_path)
    path = tmp_path / FOLDER / name
    data = path.read_bytes()
    path.write_bytes(data[:600] + b"X" + data[601:])
    with closing(writer_of(tmp_path, messages=messages)) as writer:
        writer.move()
        writer.move()
        assert moved_calls(tmp_path) == ["call-0", "call-2"]
    assert spooled(tmp_path) == [f"{name}.damaged"]
    assert len(messages) == 1
    assert f"{name}.damaged is damaged: the usage rows in its bytes" in messages[0]


def test_old_rows_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_writer_module, "_MOVE_S", 0.01)
    spool = Spool(tmp_path, no_message)
    spool.append(encode_row(usage_row("old", time_ns=NOON_NS - 11 * NANO)))
    spool.append(encode_row(usage_row("new", time_ns=NOON_NS - 9 * NANO)))
    spool.close()
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
    spool = Spool(tmp_path, no_message)
    writer = writer_of(tmp_path)
    spool.append(encode_row(usage_row("before")))
    writer.move()
    writer.pause()
    writer.start()
    spool.append(encode_row(usage_row("meanwhile")))
    spool.close()
    with closing(writer_of(tmp_path)) as successor:
        successor.move()
        assert (moved_calls(tmp_path), spooled(tmp_path)) == (["before", "meanwhile"], [])
    later = Spool(tmp_path, no_message)
    later.append(encode_row(usage_row("after")))
    writer.resume()
    eventually(lambda: moved_calls(tmp_path) == ["before", "meanwhile", "after"])
    writer.pause()
    later.append(encode_row(usage_row("left")))
    later.close()
    writer.close()
    assert len(moved_calls(tmp_path)) == 3
    assert len(rows_of(tmp_path)) == 4
