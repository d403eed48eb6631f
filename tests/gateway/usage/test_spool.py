from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage import spool as spool_module
from gateway.usage.spool import FOLDER, Spool, SpoolError, SpoolFile, batches, spool_files
from gateway.usage.usage_row import UsageRow, encode_row
from tests.kit.usage_rows import usage_row, usage_rows


def no_message(text: str) -> None:
    raise AssertionError(text)


def rows_in(directory: Path) -> list[UsageRow]:
    files = list(spool_files(directory, {}, recovered=False))
    rows = [row for file in files for batch in batches(file, 0) for row in batch.rows]
    for file in files:
        file.close()
    return rows


def only_file(directory: Path) -> Path:
    (path,) = (directory / FOLDER).iterdir()
    return path


def abandoned(path: Path) -> SpoolFile:
    file = SpoolFile(path)
    assert file.take()
    return file


def written(directory: Path, *rows: UsageRow) -> Path:
    """Write rows with a spool whose process has ended. Return its file."""
    spool = Spool(directory, no_message)
    for row in rows:
        assert spool.append(encode_row(row))
    spool.close()
    return only_file(directory)


@given(st.lists(usage_rows(), max_size=8))
def test_rows_are_read_as_they_were_written(rows: list[UsageRow]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), *rows)
        assert rows_in(Path(folder)) == rows


def test_spool_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    path = written(tmp_path / "state")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_spool_of_a_running_process_has_an_owner(tmp_path: Path) -> None:
    spool = Spool(tmp_path, no_message)
    file = SpoolFile(only_file(tmp_path))
    assert not file.take()
    spool.close()
    assert file.take()
    file.close()


def test_incomplete_last_record_is_ignored_wherever_it_was_cut(tmp_path: Path) -> None:
    first, last = usage_row("first"), usage_row("last")
    path = written(tmp_path, first, last)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    begin = data.rindex(b"\xffrow")
    for cut in [*range(begin, begin + 14), *range(begin + 14, end, 9), end - 1]:
        # The process was killed while the kernel copied the record: the rest is still unused space.
        path.write_bytes(data[:cut] + bytes(end + 100 - cut))
        file = abandoned(path)
        batch = file.read(0)
        assert (batch.rows, batch.damaged, batch.end) == ((first,), (), begin), cut
        assert file.read(begin).end == begin
        file.close()


def test_record_that_is_being_written_is_read_later(tmp_path: Path) -> None:
    spool = Spool(tmp_path, no_message)
    spool.append(encode_row(usage_row("first")))
    spool.append(encode_row(usage_row("last")))
    path = only_file(tmp_path)
    data = path.read_bytes()
    begin, end = data.rindex(b"\xffrow"), len(data.rstrip(b"\0"))
    file = SpoolFile(path)
    for cut in (begin, begin + 3, begin + 12, end - 1):
        with path.open("r+b") as changed:
            changed.write(data[:cut] + bytes(len(data) - cut))
        batch = file.read(0)
        assert ([row.call for row in batch.rows], batch.end, batch.damaged) == (["first"], begin, ())
    with path.open("r+b") as changed:
        changed.write(data)
    assert [row.call for row in file.read(begin).rows] == ["last"]
    file.close()
    spool.close()


@pytest.mark.parametrize("is_abandoned", [True, False])
@pytest.mark.parametrize("patch", [b"\x00", b"X", b"\xff", b"\xffrow\xff\xff\xff\xff"])
def test_damaged_record_hides_no_other_row(tmp_path: Path, patch: bytes, is_abandoned: bool) -> None:
    spool = Spool(tmp_path, no_message)
    rows = [usage_row(f"call-{number}") for number in range(5)]
    for row in rows:
        spool.append(encode_row(row))
    path = only_file(tmp_path)
    data = path.read_bytes().rstrip(b"\0")
    begin = [place for place in range(len(data)) if data.startswith(b"\xffrow", place)]
    if is_abandoned:
        spool.close()
    file = SpoolFile(path)
    assert file.take() is is_abandoned
    # A mark of zeros looks like the end of the data as long as the owner may still write.
    first = begin[2] if is_abandoned or patch != b"\x00" else begin[2] + 20
    for place in range(first, begin[3] - len(patch), 17):
        with path.open("r+b") as changed:
            changed.write(data)
            changed.seek(place)
            changed.write(patch)
        if data[place : place + len(patch)] == patch:
            continue
        found = list(batches(file, 0))
        assert [row for batch in found for row in batch.rows] == rows[:2] + rows[3:], place
        assert [part for batch in found for part in batch.damaged] == [(begin[2], begin[3])]
    file.close()
    if not is_abandoned:
        spool.close()


def test_damaged_last_record_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path, usage_row("first"), usage_row("last"))
    data = path.read_bytes()
    begin = data.rindex(b"\xffrow")
    path.write_bytes(data[: begin + 30] + b"X" + data[begin + 31 :])
    file = abandoned(path)
    (batch,) = batches(file, 0)
    assert [row.call for row in batch.rows] == ["first"]
    assert batch.damaged[0][0] == begin
    file.close()


def test_many_rows_are_read_in_several_batches(tmp_path: Path) -> None:
    rows = [usage_row(f"call-{number}", model="m" * 1000) for number in range(2000)]
    path = written(tmp_path, *rows)
    file = abandoned(path)
    found = list(batches(file, 0))
    assert len(found) > 1
    assert [row for batch in found for row in batch.rows] == rows
    file.close()


def test_spool_continues_in_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_ROTATE_BYTES", 2000)
    spool = Spool(tmp_path, no_message)
    rows = [usage_row(f"call-{number}") for number in range(20)]
    for row in rows:
        spool.reserve()
        spool.append(encode_row(row))
    files = list(spool_files(tmp_path, {}, recovered=False))
    assert len(files) > 3
    assert [file.take() for file in files] == [True] * (len(files) - 1) + [False]
    assert rows_in(tmp_path) == rows
    spool.close()
    for file in files:
        file.close()


def test_deleted_file_is_replaced_at_the_next_growth(tmp_path: Path) -> None:
    spool = Spool(tmp_path, no_message)
    only_file(tmp_path).unlink()
    for _ in range(200):
        spool.reserve()
    assert spool.append(encode_row(usage_row("later")))
    assert [row.call for row in rows_in(tmp_path)] == ["later"]
    spool.close()


class FullDisk:
    """A disk on which a file can't get more space, while `is_full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
        self.is_full = False
        for name in calls:
            monkeypatch.setattr(os, name, self._limited(getattr(os, name)))

    def _limited(self, call):  # type: ignore[no-untyped-def]
        def limited(*arguments: object) -> object:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments)

        return limited


def test_full_disk_refuses_calls_before_they_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that reserved space can write its row, although the disk is full by then."""
    disk = FullDisk(monkeypatch, "posix_fallocate")
    spool = Spool(tmp_path, no_message)
    disk.is_full = True
    sent, message = 0, ""
    while not message and sent < 1000:
        try:
            spool.reserve()
            sent += 1
        except SpoolError as error:
            message = str(error)
    assert sent > 100
    assert re.search("there is no space for usage rows in .*: No space left on device; free some space, or", message)
    assert all(spool.append(encode_row(usage_row(f"call-{number}", user="u" * 1200))) for number in range(sent))
    assert len(rows_in(tmp_path)) == sent
    disk.is_full = False
    spool.reserve()
    spool.close()


def test_released_space_serves_another_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch, "posix_fallocate")
    spool = Spool(tmp_path, no_message)
    disk.is_full = True
    for _ in range(10_000):
        spool.reserve()
        spool.release()
    spool.close()


def test_rows_that_cannot_be_written_wait_and_stop_further_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, "pwrite")
    messages: list[str] = []
    spool = Spool(tmp_path, messages.append)
    spool.reserve()
    spool.reserve()
    disk.is_full = True
    assert not spool.append(encode_row(usage_row("first")))
    assert not spool.append(encode_row(usage_row("second")))
    assert spool.unwritten_rows == 2
    with pytest.raises(SpoolError, match="2 usage rows can't be written"):
        spool.reserve()
    assert len(messages) == 1
    assert "wait in memory: No space left on device" in messages[0]
    disk.is_full = False
    spool.reserve()
    assert spool.unwritten_rows == 0
    assert [row.call for row in rows_in(tmp_path)] == ["first", "second"]
    spool.close()


def test_rows_that_are_lost_at_the_end_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch, "pwrite")
    messages: list[str] = []
    spool = Spool(tmp_path, messages.append)
    disk.is_full = True
    spool.append(encode_row(usage_row("first")))
    spool.close()
    assert "1 usage rows are lost" in messages[-1]


def test_state_directory_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="can't be used: Not a directory; name another state directory"):
        Spool(tmp_path / "file", no_message)
