from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.state.database import StateError, open_database

LAYOUT = "CREATE TABLE IF NOT EXISTS line (text TEXT NOT NULL);"


def test_what_is_written_is_there_for_the_next_process_and_for_nobody_else(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet"
    writer = open_database(directory, "history", LAYOUT)
    reader = open_database(directory, "history", LAYOUT)
    writer.execute("INSERT INTO line VALUES ('first')")
    assert reader.execute("SELECT text FROM line").fetchall() == [("first",)]
    writer.close()
    reader.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "history.db").stat().st_mode) == 0o600


def test_a_later_layout_is_not_misread(tmp_path: Path) -> None:
    open_database(tmp_path, "history", LAYOUT, version=2).close()
    with pytest.raises(StateError, match=r"history\.db was written by a later version of the gateway \(layout 2"):
        open_database(tmp_path, "history", LAYOUT)


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"no database at all, however long it is" * 100)
    with pytest.raises(StateError, match=r"history\.db can't be used: file is not a database"):
        open_database(tmp_path, "history", LAYOUT)


def test_a_directory_that_is_a_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="can't be used"):
        open_database(tmp_path / "state", "history", LAYOUT)
