"""The commands that an instance keeps until its cell has them, against a table in memory that is away or loses rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cell.cell_database import CellCommand, CellDatabase
from gateway.cell.kept_commands import KeptCommands
from gateway.model.status import Who
from gateway.operator_errors import StateError
from providers.value import replace


class Table:
    """The commands of a cell. Its clock is slower than that of its instances by `slower_s`."""

    def __init__(self) -> None:
        self.rows: list[CellCommand] = []
        self.is_away = False
        self.loses_answer = False
        self.now, self.slower_s = 1_000.0, 0.0

    def now_s(self) -> float:
        self.expect()
        return self.now - self.slower_s

    def expect(self) -> None:
        if self.is_away:
            raise StateError("the database does not answer")

    def last_pin(self) -> CellCommand | None:
        self.expect()
        return next((row for row in reversed(self.rows) if row.action != "reload"), None)

    def add_command(self, command: CellCommand) -> CellCommand | None:
        last = self.last_pin()
        if last is not None and last.noted_s >= command.noted_s:
            return last
        self.rows.append(replace(command, number=len(self.rows) + 1))
        if self.loses_answer:
            self.loses_answer = False
            raise StateError("the connection was lost after the commit")
        return None


class Instance:
    """An instance with its state directory. `pin` is what it serves by."""

    def __init__(self, table: Table, directory: Path, name: str) -> None:
        self.table, self.directory, self.name, self.pin = table, directory / name, name, ""
        self.directory.mkdir()
        self.starts = 0
        self.restart()

    def restart(self) -> None:
        self.starts += 1
        self.owner = f"{self.name}/{self.starts}"
        self.kept = KeptCommands(self.directory, cast(CellDatabase, self))

    def now_s(self) -> float:
        return self.table.now_s()

    def add_command(self, command: CellCommand) -> CellCommand | None:
        return self.table.add_command(command)

    def give(self, version: str, action: str = "") -> bool:
        self.pin = self.pin if action == "reload" else version
        self.kept.give(action or ("rollback" if version else "release"), version, Who("ada"), None)
        try:
            self.kept.share(self.table.last_pin())
        except StateError:
            return False
        return True

    def look(self) -> None:
        pin = self.kept.share(self.table.last_pin())
        if pin is not None and self.kept.is_news(pin):
            self.pin = pin.version
            self.kept.note(pin)


@contextmanager
def cell(directory: Path, instances: int = 3) -> Iterator[tuple[Table, list[Instance]]]:
    table = Table()
    with patch("time.time", lambda: table.now):
        yield table, [Instance(table, directory, f"i{number}") for number in range(instances)]


def looks(table: Table, instances: list[Instance]) -> list[str]:
    for _ in range(2):
        for one in instances:
            table.now += 1
            one.look()
    return [one.pin for one in instances]


STEPS = st.lists(
    st.tuples(st.sampled_from(["give", "release", "away", "back", "lose", "restart", "look"]), st.integers(0, 2)),
    max_size=25,
)


@given(STEPS)
def test_the_last_command_reaches_every_instance_whatever_was_lost(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as directory, cell(Path(directory)) as (table, instances):
        last = ""
        for number, (step, which) in enumerate(steps):
            table.now += 1
            one = instances[which]
            match step:
                case "give" | "release":
                    last = f"v{number}" if step == "give" else ""
                    one.give(last)
                case "away" | "back":
                    table.is_away = step == "away"
                case "lose":
                    table.rows = table.rows[:-which] if which else table.rows
                case "restart":
                    one.restart()
                case _ if not table.is_away:
                    one.look()
        table.is_away = False
        assert looks(table, instances) == [last] * 3
        pins = [row.noted_s for row in table.rows]
        assert pins == sorted(pins)


def test_command_given_while_the_database_is_away_survives_the_end_of_its_instance(tmp_path: Path) -> None:
    with cell(tmp_path, 2) as (table, (one, other)):
        table.is_away = True
        assert not one.give("v1")
        one.restart()
        table.is_away = False
        assert looks(table, [one, other]) == ["v1", "v1"]
        assert [row.owner for row in table.rows] == ["i0/1"]


def test_command_that_waited_does_not_undo_a_later_one_and_is_reported(tmp_path: Path) -> None:
    with cell(tmp_path, 2) as (table, (one, other)):
        table.is_away = True
        one.give("v1")
        table.is_away = False
        table.now += 60
        assert other.give("v2")
        other.give("")
        assert looks(table, [one, other]) == ["", ""]
        assert [row.version for row in table.rows] == ["v2", ""]
        assert one.kept.refused == (
            "the rollback that was given here reaches no other instance, because the cell has a later release by ada: "
            "give it again if it is still wanted"
        )
        one.give("v3")
        assert one.kept.refused == ""
        assert looks(table, [one, other]) == ["v3", "v3"]


def test_pin_that_a_failover_lost_is_stored_once_more_with_its_time(tmp_path: Path) -> None:
    with cell(tmp_path, 3) as (table, instances):
        instances[0].give("v1")
        looks(table, instances[:2])
        [row] = table.rows
        table.rows = []
        looks(table, instances[:2])
        assert table.rows == [row]
        assert looks(table, instances) == ["v1"] * 3, "also one that has just started"


def test_command_after_a_failover_is_the_later_one_although_the_clock_of_the_standby_is_slower(tmp_path: Path) -> None:
    with cell(tmp_path, 3) as (table, instances):
        instances[0].give("v1")
        looks(table, instances)
        table.rows, table.slower_s = [], 600.0
        assert instances[1].give("v2")
        assert looks(table, instances) == ["v2"] * 3
        assert [row.version for row in table.rows] == ["v2"]


def test_command_whose_answer_was_lost_is_not_stored_twice(tmp_path: Path) -> None:
    with cell(tmp_path, 2) as (table, (one, other)):
        table.loses_answer = True
        assert not one.give("v1")
        one.restart()
        assert looks(table, [one, other]) == ["v1", "v1"]
        assert (len(table.rows), one.kept.refused) == (1, "")


def test_reload_that_waits_is_sent_with_a_pin_and_a_release_includes_it(tmp_path: Path) -> None:
    with cell(tmp_path, 1) as (table, [one]):
        table.is_away = True
        one.give("v1")
        one.give("", "reload")
        table.now += 1
        table.is_away = False
        looks(table, [one])
        assert [row.action for row in table.rows] == ["rollback", "reload"]
        table.is_away = True
        one.give("", "reload")
        one.give("")
        table.is_away = False
        looks(table, [one])
        assert [row.action for row in table.rows] == ["rollback", "reload", "release"]


def test_full_disk_is_an_error_and_the_command_stays_in_memory(tmp_path: Path) -> None:
    with cell(tmp_path, 2) as (table, (one, other)):
        with patch("os.replace", side_effect=OSError(28, "No space left on device")):
            with pytest.raises(StateError, match="No space left on device"):
                one.give("v1")
            assert other.pin == ""
        assert looks(table, [one, other]) == ["v1", "v1"]


@pytest.mark.parametrize("damaged", [b"", b"{}x", b'{"pin": 1}'])
def test_file_that_cannot_be_read_is_no_command(tmp_path: Path, damaged: bytes) -> None:
    with cell(tmp_path, 1) as (_, [one]):
        (one.directory / "cell-commands.json").write_bytes(damaged)
        one.restart()
        one.look()
        assert one.pin == ""
