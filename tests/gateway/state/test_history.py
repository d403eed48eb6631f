"""What was active stays known: by whole names and by beginnings, in order, and never as two configs of one name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.state.audit import BEGINNING, Head
from gateway.state.database import StateError
from gateway.state.history import History, Pointer, Version, open_history
from gateway.state.lock import InUse, Lock, holder_of

ONE, TWO = (Version(name, name + "0" * 52, name.encode()) for name in ("aaaa11112222", "aaaa33334444"))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = open_history(tmp_path)
    yield opened
    opened.close()


def test_the_last_switch_is_what_is_active(history: History) -> None:
    assert (history.pointer(), history.audit_head()) == (None, BEGINNING)
    history.add(ONE, "", "start", "", {"ok": True}, "+all", at_s=1.0)
    history.add(TWO, ONE.version, "file", "", {}, "~some", at_s=2.0)
    history.add(ONE, TWO.version, "rollback", "ada", {}, "~back", "digest", at_s=3.0)
    assert history.pointer() == Pointer(ONE.version, "digest")
    assert [(it.version, it.cause, it.who, it.at_s) for it in history.activations()] == [
        (ONE.version, "rollback", "ada", 3.0),
        (TWO.version, "file", "", 2.0),
        (ONE.version, "start", "", 1.0),
    ]
    assert history.before(ONE.version) == TWO.version
    assert history.before("nothing") is None


def test_a_version_is_found_by_its_beginning_if_that_is_one(history: History) -> None:
    for version in (ONE, TWO):
        history.add(version, "", "file", "", {}, "")
    assert history.find("aaaa1") == history.find(f"{ONE.version}+0500") == ONE
    for word in ("aaaa", "aaa", "", "bbbb1", "%%%%%", "aaaa1' OR '1'='1"):
        with pytest.raises(StateError, match="is no version of the history"):
            history.find(word)


def test_two_configs_of_one_name_are_refused(history: History) -> None:
    history.add(ONE, "", "file", "", {}, "")
    with pytest.raises(StateError, match="two configs have the version"):
        history.add(Version(ONE.version, ONE.version + "f" * 52, b""), "", "file", "", {}, "")


def test_a_switch_is_kept_whole_or_not_at_all(history: History, tmp_path: Path) -> None:
    history.add(ONE, "", "start", "", {}, "")
    history._run("DROP TABLE activation")
    with pytest.raises(StateError):
        history.add(TWO, "", "file", "", {}, "")
    assert history.find_exactly(TWO.version) is None
    assert history.pointer() == Pointer(ONE.version)


def test_the_head_of_the_audit_trail_is_known(history: History, tmp_path: Path) -> None:
    history.keep_audit_head(Head(1, "one"))
    history.keep_audit_head(Head(2, "two"))
    other = open_history(tmp_path, make=False)
    assert other.audit_head() == Head(2, "two")
    other.close()


def test_there_is_no_history_where_nothing_was_served(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no history"):
        open_history(tmp_path, make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_one_processes_own_and_says_whose(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    lock = Lock(tmp_path)
    lock.tell({"admin": "http://127.0.0.1:8081"})
    with pytest.raises(InUse, match="is used by another gateway"):
        Lock(tmp_path)
    told = holder_of(tmp_path)
    assert told is not None
    assert told["admin"] == "http://127.0.0.1:8081"
    lock.release()
    assert holder_of(tmp_path) is None
    Lock(tmp_path).release()


def test_a_disk_that_is_full_keeps_nobody_from_saying_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(StateError, match=r"gateway\.lock can't be written: No space left"):
            Lock(tmp_path)
    Lock(tmp_path).release()


def test_more_than_there_can_be_is_all(history: History) -> None:
    history.add(ONE, "", "start", "", {}, "+all")
    assert [it.version for it in history.activations(10**30)] == [ONE.version]


def test_a_plan_that_is_damaged_is_an_error_of_the_state(history: History, tmp_path: Path) -> None:
    history.add(ONE, "", "start", "", {}, "+all")
    with sqlite3.connect(tmp_path / "history.db") as database:
        database.execute("UPDATE activation SET plan = '{'")
    database.close()
    with pytest.raises(StateError, match="the plan of version aaaa11112222 is damaged"):
        history.last_activation(ONE.version)
