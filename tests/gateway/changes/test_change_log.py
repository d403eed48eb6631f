"""The audit trail and the history agree after every failure: a change that cannot be recorded is not made, and an audit
line of a failed change is revoked."""

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gateway.changes.change_log import ChangeLog, review_change
from gateway.changes.compile_job import CompiledState
from gateway.changes.plan import NO_CONFIG_VERSION
from gateway.operator_errors import StateError
from gateway.state.audit import verify_trail
from gateway.state.history import Pointer, TrailHead, open_history
from tests.kit.config_cases import compiled
from tests.kit.configs import BASE, KEYS, Config

OFF = BASE.merge("deployments: {gemini: {enabled: false}}")
NOTHING = CompiledState(NO_CONFIG_VERSION, None)


def state_of(config: Config) -> CompiledState:
    found = compiled(config.text, KEYS)
    return CompiledState(found.config, found.written)


FIRST, SECOND = state_of(BASE), state_of(OFF)


def switch(log: ChangeLog, old: CompiledState, new: CompiledState) -> None:
    log.record_switch(review_change(old, new, 0.0, lambda: None), new, "file", "ada")


def open_log(directory: Path) -> ChangeLog:
    opened = ChangeLog(directory)
    opened.note("started", {})
    switch(opened, NOTHING, FIRST)
    return opened


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ChangeLog]:
    opened = open_log(tmp_path)
    yield opened
    opened.close()


def trail(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.jsonl").read_bytes().splitlines()]


def events(directory: Path) -> list[str]:
    return [line["event"] for line in trail(directory)]


def change_history(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "history.db")) as database, database:
        database.execute(statement)


def break_commit(log: ChangeLog, directory: Path) -> None:
    """Make the commit of a switch fail after all its statements, as on a disk that is full by then."""
    for statement in (
        "CREATE TABLE late (version TEXT REFERENCES version DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER breaks AFTER INSERT ON activation BEGIN INSERT INTO late VALUES ('nothing'); END",
    ):
        change_history(directory, statement)
    log.history._run("PRAGMA foreign_keys = ON")


class FullAfter:
    """An audit trail with room for a given number of lines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
        self._write, self.lines = os.write, lines
        monkeypatch.setattr("gateway.state.audit.os.write", self)

    def __call__(self, descriptor: int, data: bytes) -> int:
        if not data.startswith(b'{"number"'):
            return self._write(descriptor, data)
        self.lines -= 1
        return self._write(descriptor, data if self.lines >= 0 else data[:7])


def test_failed_write_to_the_history_leaves_no_audit_line(log: ChangeLog, tmp_path: Path) -> None:
    log.history._run("DROP TABLE activation")
    with pytest.raises(StateError, match="no such table"):
        switch(log, FIRST, SECOND)
    assert events(tmp_path) == ["started", "activated"]
    assert log.pointer() == Pointer(FIRST.config.version)


def test_audit_line_of_a_failed_switch_is_revoked(log: ChangeLog, tmp_path: Path) -> None:
    break_commit(log, tmp_path)
    with pytest.raises(StateError, match="FOREIGN KEY constraint failed"):
        switch(log, FIRST, SECOND)
    assert events(tmp_path) == ["started", "activated", "activated", "kill_switch", "not_done"]
    last = trail(tmp_path)[-1]
    assert (last["lines"], last["config_version"]) == ([3, 4], FIRST.config.version)
    assert "FOREIGN KEY" in last["detail"]
    assert log.pointer() == Pointer(FIRST.config.version)
    assert log.history.find_exactly(SECOND.config.version) is None
    change_history(tmp_path, "DROP TRIGGER breaks")
    switch(log, FIRST, SECOND)
    assert log.pointer() == Pointer(SECOND.config.version)
    assert verify_trail(tmp_path, {"history.db": log.history.audit_head()}).faults == ()


@pytest.mark.parametrize("lines", [0, 1])
def test_full_audit_trail_leaves_the_history_unchanged(
    log: ChangeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    FullAfter(monkeypatch, lines)
    with pytest.raises(StateError, match="No space left"):
        switch(log, FIRST, SECOND)
    monkeypatch.undo()
    assert log.pointer() == Pointer(FIRST.config.version)
    log.note("stopped", {})
    # The line of the switch was written, and the line of the kill switch was not.
    taken_back = ["activated", "not_done"] if lines else []
    assert events(tmp_path) == ["started", "activated", *taken_back, "stopped"]
    assert verify_trail(tmp_path, {"history.db": log.history.audit_head()}).faults == ()


def test_revocation_that_cannot_be_written_yet_is_the_next_line(
    log: ChangeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_commit(log, tmp_path)
    full = FullAfter(monkeypatch, 2)
    with pytest.raises(StateError, match=r"line 3 of the audit trail already .* it will be the next line"):
        switch(log, FIRST, SECOND)
    with pytest.raises(StateError, match="No space left"):
        log.note("rejected", {})
    assert events(tmp_path)[2:] == ["activated", "kill_switch"]
    full.lines = 10
    log.note("rejected", {})
    assert events(tmp_path)[2:] == ["activated", "kill_switch", "not_done", "rejected"]
    log.note("stopped", {})
    assert events(tmp_path)[-2:] == ["rejected", "stopped"]


def test_switch_interrupted_by_the_end_of_the_process_is_reported_at_the_next_start(tmp_path: Path) -> None:
    """The same state remains after a power failure, and after a disk that stayed full."""
    log = open_log(tmp_path)
    known = log.history.audit_head()
    switch(log, FIRST, SECOND)
    log.history.store_audit_head(known)
    assert verify_trail(tmp_path, {"history.db": known}).unconfirmed == (3, 4)
    log.close()
    again = ChangeLog(tmp_path)
    again.note("started", {})
    assert events(tmp_path)[2:] == ["activated", "kill_switch", "not_confirmed", "started"]
    assert trail(tmp_path)[-2]["lines"] == [3, 4]
    assert verify_trail(tmp_path, {"history.db": again.history.audit_head()}).unconfirmed == ()
    again.close()


def test_other_lines_and_a_new_history_make_no_switch_unconfirmed(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path)
    log.note("started", {})
    known = log.history.audit_head()
    log.note("rejected", {})
    log.history.store_audit_head(known)
    log.close()
    log = ChangeLog(tmp_path)
    log.note("started", {})
    switch(log, NOTHING, FIRST)
    log.close()
    (tmp_path / "history.db").unlink()
    log = ChangeLog(tmp_path)
    log.note("started", {})
    log.close()
    assert events(tmp_path) == ["started", "rejected", "started", "activated", "started"]
    assert verify_trail(tmp_path, {"history.db": TrailHead(0, "0" * 64)}).unconfirmed == ()


def test_deleted_lock_file_does_not_admit_a_second_writer(log: ChangeLog, tmp_path: Path) -> None:
    (tmp_path / "gateway.lock").unlink()
    for _ in range(2):
        with pytest.raises(StateError, match="is written by another gateway"):
            ChangeLog(tmp_path)
    switch(log, FIRST, SECOND)
    assert verify_trail(tmp_path, {"history.db": log.history.audit_head()}).faults == ()


def test_change_log_that_cannot_be_opened_closes_the_history(log: ChangeLog, tmp_path: Path) -> None:
    (tmp_path / "gateway.lock").unlink()
    history = open_history(tmp_path)
    with (
        patch("gateway.changes.change_log.open_history", return_value=history),
        pytest.raises(StateError, match="is written by another gateway"),
    ):
        ChangeLog(tmp_path)
    with pytest.raises(StateError, match="closed database"):
        history.pointer()


def test_failed_read_of_the_trail_does_not_block_the_next_attempt(tmp_path: Path) -> None:
    words = os.strerror(errno.EIO)
    broken = patch("gateway.state.audit.os.pread", side_effect=OSError(errno.EIO, words))
    with broken, pytest.raises(StateError, match=words):
        ChangeLog(tmp_path)
    open_log(tmp_path).close()


@pytest.mark.parametrize("taken", ["removed", "replaced"])
def test_moved_history_or_trail_accepts_no_switch(log: ChangeLog, taken: str) -> None:
    """SQLite would continue to write to the moved file, and the next start would not know the switch."""
    directory = Path(log.lock._path).parent
    kept = directory / "history.db"
    kept.rename(directory / "elsewhere")
    if taken == "replaced":
        kept.write_bytes((directory / "elsewhere").read_bytes())
    with pytest.raises(StateError, match=r"history.db was moved or removed while it was in use: start the gateway"):
        switch(log, FIRST, SECOND)
    assert [line["event"] for line in trail(directory)] == ["started", "activated"]
    (directory / "elsewhere").replace(kept)
    switch(log, FIRST, SECOND)
    assert trail(directory)[-1]["event"] == "kill_switch"


def test_paused_log_writes_nothing_and_goes_on_after_a_successor_that_served_nothing(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.pause()
    with pytest.raises(StateError, match="a restart is under way"):
        log.note("noted", {})
    successor = ChangeLog(tmp_path, inherited_lock=os.dup(log.lock.descriptor))
    successor.note("started", {})
    switch(successor, FIRST, SECOND)
    successor.close()
    log.resume()
    log.note("noted", {})
    assert log.pointer() == Pointer(FIRST.config.version)
    assert events(tmp_path)[-3:] == ["kill_switch", "activated", "noted"]
    with pytest.raises(StateError, match="is used by another gateway"):
        ChangeLog(tmp_path)
    log.close()
    assert verify_trail(tmp_path, {}).faults == ()


def test_lock_stays_with_the_successor_of_a_paused_log(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.pause()
    successor = ChangeLog(tmp_path, inherited_lock=os.dup(log.lock.descriptor))
    log.lock.release()
    log.close()
    with pytest.raises(StateError, match="is used by another gateway"):
        ChangeLog(tmp_path)
    successor.note("noted", {})
    successor.close()
    assert events(tmp_path)[-1] == "noted"
    open_log(tmp_path).close()
