"""The history finds versions by name and by prefix, in order, and refuses two configs with the same version."""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from gateway.operator_errors import StateError
from gateway.state.history import BEGINNING, Activation, History, Pointer, TrailHead, Version, open_history
from gateway.state.lock import InUse, Lock, holder_of

ONE, TWO = (Version(name, name + "0" * 52, name.encode()) for name in ("aaaa11112222", "aaaa33334444"))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = open_history(tmp_path)
    yield opened
    opened.close()


def add(history: History, version: Version, cause: str = "file") -> None:
    history.add(version, Activation(version.version, "", cause, "", 1.0, ""))


def test_last_activation_is_the_active_version(history: History) -> None:
    assert (history.pointer(), history.audit_head()) == (None, BEGINNING)
    history.add(ONE, Activation(ONE.version, "", "start", "", 1.0, "+all", {"ok": True}))
    history.add(TWO, Activation(TWO.version, ONE.version, "file", "", 2.0, "~some"))
    history.add(ONE, Activation(ONE.version, TWO.version, "rollback", "ada", 3.0, "~back"), "digest")
    assert history.pointer() == Pointer(ONE.version, "digest")
    assert [
        (activation.version, activation.cause, activation.who, activation.at_s) for activation in history.activations()
    ] == [(ONE.version, "rollback", "ada", 3.0), (TWO.version, "file", "", 2.0), (ONE.version, "start", "", 1.0)]
    assert history.before(ONE.version) == TWO.version
    assert history.before("nothing") is None


def test_version_is_found_by_a_unique_prefix(history: History) -> None:
    for version in (ONE, TWO):
        add(history, version)
    assert history.find("aaaa1") == history.find(f"{ONE.version}+0500") == ONE
    for word in ("aaaa", "aaa", "", "bbbb1", "%%%%%", "aaaa1' OR '1'='1"):
        with pytest.raises(StateError, match="is not a version of the history"):
            history.find(word)


def test_two_configs_with_the_same_version_are_refused(history: History) -> None:
    add(history, ONE)
    with pytest.raises(StateError, match="two configs have the same version"):
        add(history, Version(ONE.version, ONE.version + "f" * 52, b""))


def test_activation_is_stored_completely_or_not_at_all(history: History, tmp_path: Path) -> None:
    add(history, ONE, cause="start")
    history._run("DROP TABLE activation")
    with pytest.raises(StateError):
        add(history, TWO)
    assert history.find_exactly(TWO.version) is None
    assert history.pointer() == Pointer(ONE.version)


def test_head_of_the_audit_trail_is_stored(history: History, tmp_path: Path) -> None:
    history.store_audit_head(TrailHead(1, "one"))
    history.store_audit_head(TrailHead(2, "two"))
    other = open_history(tmp_path, make=False)
    assert other.audit_head() == TrailHead(2, "two")
    other.close()


def test_unused_directory_has_no_history(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no history"):
        open_history(tmp_path, make=False)
    assert list(tmp_path.iterdir()) == []


def test_lock_admits_one_process_and_names_it(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    lock = Lock(tmp_path)
    lock.write_info({"admin": "http://127.0.0.1:8081"})
    with pytest.raises(InUse, match="is used by another gateway"):
        Lock(tmp_path)
    info = holder_of(tmp_path)
    assert info["admin"] == "http://127.0.0.1:8081"
    # Shorter than before, without a rest of the old content.
    lock.write_info({"a": 1})
    assert holder_of(tmp_path) == {"pid": os.getpid(), "a": 1}
    for text in ("", "{", "[]", "1"):
        (tmp_path / "gateway.lock").write_text(text, "utf-8")
        assert holder_of(tmp_path) == {}, "the lock is held, whatever the file contains"
        with pytest.raises(InUse, match=r"\(process unknown\)"):
            Lock(tmp_path)
    lock.release()
    assert holder_of(tmp_path) is None
    Lock(tmp_path).release()


def test_lock_file_is_never_empty_while_its_content_is_replaced(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.write_info({"admin": "http://127.0.0.1:8081"})
    is_done = threading.Event()

    def rewrite() -> None:
        while not is_done.is_set():
            lock.write_info({"admin": "http://127.0.0.1:8081"})

    writing = threading.Thread(target=rewrite)
    writing.start()
    try:
        read = [(holder_of(tmp_path) or {}).get("admin") for _ in range(500)]
    finally:
        is_done.set()
        writing.join()
        lock.release()
    assert set(read) == {"http://127.0.0.1:8081"}


def test_last_served_config_survives_its_gateway_and_readers(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    assert lock.config == ""
    lock.write_info({"config": "/etc/house.yaml", "admin": "http://127.0.0.1:8081"})
    lock.release()
    for _ in range(2):
        lock = Lock(tmp_path)
        assert (lock.config, holder_of(tmp_path)) == ("/etc/house.yaml", {"pid": os.getpid(), "config": lock.config})
        lock.release()


def test_created_files_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    directory = tmp_path / "in" / "state"
    lock = Lock(directory)
    lock.release()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / "gateway.lock")]
    assert modes == [0o700, 0o600]


def test_impossible_state_directory_is_reported_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"the state directory \S+/file is a file; name a directory$"):
        Lock(tmp_path / "file")
    with pytest.raises(StateError, match=r"/file/below can't be used: Not a directory; name another state directory$"):
        Lock(tmp_path / "file" / "below")


def test_holder_of_the_lock_is_found_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(tmp_path)
    opened = os.open

    def to_read_alone(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(30, "Read-only file system")
        return opened(path, flags, *more)

    with monkeypatch.context() as patched:
        patched.setattr("os.open", to_read_alone)
        assert holder_of(tmp_path) == {"pid": os.getpid()}
    lock.release()


def test_full_disk_is_reported_and_releases_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(StateError, match=r"gateway\.lock can't be written: No space left"):
            Lock(tmp_path)
    Lock(tmp_path).release()


def test_limit_above_the_largest_integer_returns_all_rows(history: History) -> None:
    history.add(ONE, Activation(ONE.version, "", "start", "", 1.0, "+all"))
    assert [activation.version for activation in history.activations(10**30)] == [ONE.version]


READS = {
    "version": lambda history: [history.find("aaaa1"), history.find_exactly(ONE.version)],
    "activation": lambda history: [
        history.activations(), history.last_activation(ONE.version), history.before(ONE.version)
    ],
    "pointer": lambda history: [history.pointer()],
    "audit_head": lambda history: [history.audit_head()],
}  # fmt: skip
COLUMNS = {
    "version": ("content", "text", "why_not"),
    "activation": ("previous", "cause", "who", "at_s", "summary", "plan"),
    "pointer": ("version", "overrides"),
    "audit_head": ("number", "hash"),
}
VALUES = ("'words'", "x'00ff'", "CAST(x'c328' AS TEXT)", "1.5", "-1", "1e300", "9e999", "'[]'", "'{'")
NEVER = {
    "text": {"'words'", "1.5"},
    "at_s": {"'words'", "1e300", "9e999", "-1"},
    "plan": {"'[]'", "'{'", "'words'"},
    "number": {"'words'", "1.5"},
}


@pytest.mark.parametrize(("table", "column"), [(table, column) for table in COLUMNS for column in COLUMNS[table]])
def test_column_with_a_wrong_type_is_reported_as_damage(
    history: History, tmp_path: Path, table: str, column: str
) -> None:
    """SQLite accepts any value in a column."""
    history.add(ONE, Activation(ONE.version, TWO.version, "start", "", 1.0, "+all"))
    history.store_audit_head(TrailHead(1, "one"))
    info: dict[str, str] = {}
    for value in VALUES:
        with sqlite3.connect(tmp_path / "history.db") as database:
            database.execute(f"UPDATE {table} SET {column} = {value}")  # noqa: S608  # of this test
        database.close()
        try:
            READS[table](history)
        except StateError as error:
            info[value] = str(error)
    wrong = "'words'" if column == "text" else "x'00ff'"
    assert info.keys() >= {wrong, *NEVER.get(column, ())}
    for message in info.values():
        assert message.startswith("history.db can't be used: ")
        assert "; move it away together with its -wal and -shm, or restore it" in message


def test_start_waits_until_the_workers_of_a_killed_gateway_have_released_the_lock(tmp_path: Path) -> None:
    held = Lock(tmp_path)
    inherited = os.dup(held.descriptor)  # as a worker has it
    held.release()
    with pytest.raises(InUse):
        Lock(tmp_path)
    Timer(0.05, os.close, [inherited]).start()
    Lock(tmp_path, wait_s=10.0).release()
