"""Each regular expression of the product needs no more work than its text is long, or has another bound.

`frozen/expressions.txt` lists all of them. `expressions.toml` has the bound of those that need one, and of those that
are made when the product runs. For an intended change, `WRITE=1` writes the list.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.expression_work import Automaton
from tests.architecture.expressions import Expression, expressions
from tests.architecture.source_tree import ROOT
from tests.kit.case_files import cases
from tests.kit.expected_files import expected_text

_FOLDER = Path(__file__).parent
_BOUNDS = tomllib.loads((_FOLDER / "expressions.toml").read_text("utf-8"))
_LIST = _FOLDER / "frozen" / "expressions.txt"


@cases("pattern", "searches", "problem")
def test_analysis_finds_what_takes_more_than_the_length_of_a_text(
    pattern: str, searches: bool, problem: str | None
) -> None:
    found = Automaton(pattern).problem(searches=searches)
    assert (found or "").partition(" (")[0] == (problem or "")


@cache
def _found() -> tuple[list[Expression], list[str]]:
    found, made = expressions()
    assert len(found) > 300
    return found, made


@pytest.mark.slow("imports the whole product")
def test_each_expression_is_linear_or_has_a_bound() -> None:
    bounded = _BOUNDS["bounded"]
    problems = {
        one.place: problem
        for one in _found()[0]
        if one.place not in bounded
        and (problem := Automaton(one.pattern, one.flags).problem(searches=one.searches, whole=one.whole)) is not None
    }
    assert problems == {}, "change the expression, or name its bound in expressions.toml"
    assert bounded.keys() <= {one.place for one in _found()[0]}


@pytest.mark.slow("imports the whole product")
def test_list_of_expressions_is_complete() -> None:
    found, made = _found()
    assert sorted(made) == sorted(_BOUNDS["made"]), "name the bound in expressions.toml"
    lines = {one.place: _BOUNDS["bounded"].get(one.place, "linear") for one in found} | _BOUNDS["made"]
    text = "".join(f"{place} | {bound}\n" for place, bound in sorted(lines.items()))
    assert text == expected_text(_LIST, text)


def test_expressions_of_our_tables_of_errors_are_linear() -> None:
    tables = [tomllib.loads(path.read_text("utf-8")) for path in (ROOT / "providers").rglob("*.toml")]
    found = [value for table in tables for key, value in _members(table) if key.endswith("_in_message")]
    assert len(found) > 2
    for pattern in found:
        assert Automaton(pattern).problem(searches=True) is None, pattern


def _members(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _members(value)
        else:
            yield key, value
