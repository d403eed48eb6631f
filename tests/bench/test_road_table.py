"""The table of roads: it has each road, a road that grows fails, and the change that moves one is noted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.road_table import TABLE, RoadTable
from bench.roads import ROADS

ROOT = Path(__file__).parents[2]
HEAD = "# Roads\n\n"
HERE, ELSEWHERE = "3.11.7, GCC 12.2.0", "3.13.0, GCC 14.2.0"
RECORDED = RoadTable.read(
    f"""{HEAD}Build of Python: {HERE}.

| road  | thousands of instructions | times plain |                        moved by |
|-------|--------------------------:|------------:|--------------------------------:|
| plain |                       500 |        1.00 |                                 |
| cell  |                     2,000 |        4.00 | 2,100 → 2,000: Ask Valkey once |
"""
)


@pytest.mark.slow("counts the instructions of ten roads by valgrind")
def test_no_road_takes_more_instructions_than_recorded() -> None:
    command = [sys.executable, "-m", "bench.guard", "--roads"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_table_has_each_road_as_it_is_written() -> None:
    text = TABLE.read_text("utf-8")
    table = RoadTable.read(text)
    assert list(table.rows) == list(ROADS)
    assert all(row.thousands > 0 for row in table.rows.values())
    assert table.text() == text


@pytest.mark.parametrize(
    ("build", "plain", "cell", "growth"),
    [
        (HERE, 550, 2200, []),
        (HERE, 551, 2000, ["plain: 551 thousand instructions, 10.2% more than recorded"]),
        (HERE, 400, 2201, ["cell: 2,201 thousand instructions, 10.1% more than recorded"]),
        (ELSEWHERE, 600, 2640, []),
        (ELSEWHERE, 600, 2641, ["cell: 2,641 thousand instructions, 10.0% more than recorded"]),
    ],
)
def test_road_that_grows_is_a_problem(build: str, plain: int, cell: int, growth: list[str]) -> None:
    assert RECORDED.problems(build, {"plain": plain, "cell": cell}) == growth


def test_road_without_a_count_is_a_problem() -> None:
    counts = {"plain": 500, "cell": 2000, "tokens": 510}
    assert RECORDED.problems(HERE, counts) == ["tokens: no count is recorded"]


def test_change_is_noted_where_a_road_moved_by_more_than_one_percent() -> None:
    table = RECORDED.updated(HERE, {"plain": 505, "cell": 1979, "tokens": 510}, "Pack once")
    assert {name: row.thousands for name, row in table.rows.items()} == {"plain": 500, "cell": 1979, "tokens": 510}
    assert table.rows["cell"].moved == "2,000 → 1,979: Pack once; 2,100 → 2,000: Ask Valkey once"
    assert RoadTable.read(table.text()) == table


def test_moved_road_needs_a_named_change() -> None:
    with pytest.raises(ValueError, match="cell has moved from 2,000 to 2,021: name the change"):
        RECORDED.updated(HERE, {"plain": 500, "cell": 2021}, "")


def test_counts_of_another_build_replace_the_table_without_a_change() -> None:
    table = RECORDED.updated(ELSEWHERE, {"plain": 400, "cell": 1600}, "")
    assert (table.build, table.rows["plain"].thousands) == (ELSEWHERE, 400)
    assert table.rows["cell"].moved == RECORDED.rows["cell"].moved
