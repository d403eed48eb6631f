import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.features.shadow.model import ShadowRecord
from gateway.features.shadow.state import ShadowStore, read_shadow_records
from gateway.operator_errors import StateError
from gateway.state import database, lock
from gateway.state.database import open_database, open_large_to_read, open_to_read, transaction
from gateway.state.receipts import Receipts, prepare
from gateway.state.schedules import ScheduleStore
from tests.kit.configs import BASE, table_of

LAYOUT = "CREATE TABLE IF NOT EXISTS line (text TEXT NOT NULL);"


def test_database_persists_and_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet"
    writer = open_database(directory, "history", LAYOUT)
    reader = open_database(directory, "history", LAYOUT)
    writer.execute("INSERT INTO line VALUES ('first')")
    assert reader.execute("SELECT text FROM line").fetchall() == [("first",)]
    writer.close()
    reader.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "history.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("opens", [open_database, open_to_read, open_large_to_read])
def test_second_connection_of_a_process_keeps_the_log_of_the_first(tmp_path: Path, opens: Callable[..., Any]) -> None:
    """A command of another process must not delete the log that this process uses."""
    layout = [LAYOUT] if opens is open_database else []
    command = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1]);"
        "connection.execute('INSERT INTO line VALUES (?)', sys.argv[2:]); connection.commit(); connection.close()"
    )
    with closing(open_database(tmp_path, "history", LAYOUT)) as first:
        opens(tmp_path, "history", *layout).close()
        for text in ("one", "two"):
            subprocess.run([sys.executable, "-c", command, str(tmp_path / "history.db"), text], check=True)
        assert (tmp_path / "history.db-wal").exists()
        assert first.execute("SELECT text FROM line").fetchall() == [("one",), ("two",)]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no writable shared memory")  # noqa: S108
def test_database_can_be_read_without_a_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_database(tmp_path, "history", LAYOUT)) as writer:
        writer.execute("INSERT INTO line VALUES ('first')")
    # As in a container with a read-only file system.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with closing(open_to_read(tmp_path, "history")) as reader:
        assert reader.execute("SELECT text FROM line").fetchall() == [("first",)]
    monkeypatch.setattr(database, "_MEMORY", str(tmp_path / "none"))
    with pytest.raises(StateError, match=r"history\.db can't be read: No such file"):
        open_to_read(tmp_path, "history")


def test_later_layout_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path, "history", LAYOUT, version=2).close()
    with pytest.raises(StateError, match=r"history\.db was written by a later version of the gateway \(layout 2"):
        open_database(tmp_path, "history", LAYOUT)


def test_layout_is_not_changed_while_a_gateway_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(tmp_path, "t", LAYOUT).close()
    monkeypatch.setattr(lock._Upgrades, "are_refused", True)
    with pytest.raises(StateError, match=r"t\.db has layout 1 and would get 2; .*: stop and start"):
        open_database(tmp_path, "t", LAYOUT, version=2)
    open_database(tmp_path, "t", LAYOUT).close()
    open_database(tmp_path, "new", LAYOUT, version=2).close()


def test_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database at all, however long it is" * 100)
    with pytest.raises(StateError, match=r"history\.db can't be used: file is not a database; move it away"):
        open_database(tmp_path, "history", LAYOUT)


def test_file_in_place_of_the_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="can't be used"):
        open_database(tmp_path / "state", "history", LAYOUT)


@pytest.mark.parametrize("can_share", [True, False])
def test_reading_needs_no_write_permission(tmp_path: Path, can_share: bool) -> None:
    with closing(open_database(tmp_path, "history", LAYOUT)) as writer:
        writer.execute("INSERT INTO line VALUES ('first')")
        if not can_share:
            # This is the effect of a read-only directory: SQLite cannot create its own file.
            (tmp_path / "history.db-shm").unlink()
            (tmp_path / "history.db-shm").mkdir()
        files = sorted(path.name for path in tmp_path.iterdir())
        with closing(open_to_read(tmp_path, "history")) as reader:
            assert reader.execute("SELECT text FROM line").fetchall() == [("first",)], (
                "including rows in the write-ahead log"
            )
            if can_share:
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    reader.execute("DELETE FROM line")
        assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_reading_reports_an_invalid_file_and_a_later_layout(tmp_path: Path) -> None:
    open_database(tmp_path, "history", LAYOUT, version=2).close()
    (tmp_path / "other.db").write_bytes(b"no database at all, however long it is" * 100)
    for name, message in (("history", "by a later version"), ("other", "not a database"), ("missing", "No such file")):
        with pytest.raises(StateError, match=message):
            open_to_read(tmp_path, name)


def test_failed_commit_is_rolled_back_before_the_next_transaction() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(
            "PRAGMA foreign_keys = ON; CREATE TABLE one (id INTEGER PRIMARY KEY);"
            "CREATE TABLE other (one INTEGER REFERENCES one DEFERRABLE INITIALLY DEFERRED);"
        )
        with pytest.raises(sqlite3.IntegrityError), transaction(database):
            database.execute("INSERT INTO other VALUES (5)")
        with transaction(database):
            database.execute("INSERT INTO one VALUES (1)")
        assert database.execute("SELECT (SELECT count(*) FROM one), (SELECT count(*) FROM other)").fetchall() == [
            (1, 0)
        ]


def test_several_processes_can_create_a_database_at_once(tmp_path: Path) -> None:
    """Workers start at the same time."""
    for number in range(20):
        directory = tmp_path / str(number)
        barrier = threading.Barrier(8)

        def begin(_: int, directory: Path = directory, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            open_database(directory, "history", LAYOUT).close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(8)))


def damaged_behind_its_first_page(path: Path) -> None:
    """Damage a page of rows, so that opening the file succeeds and reading it fails."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def read_schedules(directory: Path) -> None:
    store = ScheduleStore(directory)
    try:
        damaged_behind_its_first_page(directory / "canary.db")
        store.load()
    finally:
        store.close()


def read_receipts(directory: Path) -> None:
    prepare(directory)
    damaged_behind_its_first_page(directory / "receipts.db")
    store = Receipts(directory, lambda: table_of(BASE))
    try:
        store.find("req_1", None)
    finally:
        store.close()


def read_shadows(directory: Path) -> None:
    store = ShadowStore(directory)
    store.store(
        ShadowRecord(1.5, "t", "r", "a", "eu", "new", "m-2", True, "ok", 0.25, 0.75, None, "stop", 10, 1, "old")
    )
    store.close()
    damaged_behind_its_first_page(directory / "shadow.db")
    list(read_shadow_records(directory, "a", "eu"))


@pytest.mark.parametrize("read", [read_schedules, read_receipts, read_shadows])
def test_damage_found_while_reading_is_reported_with_its_fix(tmp_path: Path, read: Callable[[Path], None]) -> None:
    with pytest.raises(
        StateError, match=r"\.db can't be read: .*malformed; move it away together with its -wal and -shm"
    ):
        read(tmp_path)


def test_missing_read_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(tmp_path, "history", LAYOUT).close()

    # As for a user without the permission: the tests may run as root.
    monkeypatch.setattr("gateway.state.database.os.access", lambda _path, _mode: False)
    with pytest.raises(StateError, match=r"history\.db can't be read: Permission denied$"):
        open_to_read(tmp_path, "history")
