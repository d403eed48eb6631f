"""The exact output of `check`: the files in `golden/`, rewritten with GOLDEN=write in the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.check_report import render_matrix, render_problems
from gateway.config.compile import compile_config
from gateway.config.loading import load_document
from gateway.config.problems import ConfigRejected, Problem
from providers.registry import load_registry
from tests.kit.config_cases import ENVIRON

GOLDEN = Path(__file__).parent / "golden"


def report(name: str) -> str:
    try:
        compiled = compile_config(load_document(GOLDEN / name, ENVIRON), registry=load_registry())
    except ConfigRejected as rejection:
        text = render_problems(rejection.problems)
    else:
        text = f"{render_problems(compiled.warnings)}\n\n{render_matrix(compiled.table)}"
    return text.replace(f"{GOLDEN}/", "") + "\n"


@pytest.mark.parametrize("name", ["broken", "canary", "full"])
def test_report_equals_the_golden_file(name: str) -> None:
    expected = GOLDEN / f"{name}.txt"
    found = report(f"{name}.yaml")
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(found, "utf-8")
    assert found == expected.read_text("utf-8")


def test_the_matrix_is_readable_at_100_columns() -> None:
    matrix = report("full.yaml").partition("\n\ntable ")[2]
    assert matrix
    assert max(map(len, matrix.splitlines())) <= 100
    assert matrix.isascii()


def test_report_without_problems_is_empty() -> None:
    assert render_problems([]) == ""


def test_terminal_control_characters_are_escaped() -> None:
    problem = Problem("a\x1b[2J\u202e.yaml", 0, 0, (), "unknown assistant 'x'", "there is a\nb")
    assert str(problem) == "a\\x1b[2J\\u202e.yaml: unknown assistant 'x'; there is a\\nb"


def test_a_problem_of_the_whole_file_has_no_line() -> None:
    problem = Problem("a.yaml", 0, 0, (), "is too large", "make it smaller", "warning")
    assert render_problems([problem]) == "a.yaml: warning: is too large; make it smaller\n\n1 warning"
