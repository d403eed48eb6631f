"""The benchmark guard holds for the current code, and it reports an increase of calls per request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.guard import BUDGET, judge, recorded_for
from tests.kit.case_files import cases

ROOT = Path(__file__).parents[2]
RECORDED = {"JSON": 100, "stream": 1000}


@pytest.mark.slow("traces every call in an interpreter of its own")
def test_request_takes_no_more_calls_than_recorded() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.guard"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@cases("counts", "problems")
def test_growth_of_more_than_a_tenth_is_reported(counts: dict[str, int], problems: list[str]) -> None:
    assert judge(counts, RECORDED) == problems


@pytest.mark.parametrize(
    ("version", "taken"), [((3, 10), None), ((3, 11), "3.11"), ((3, 12), "3.11"), ((3, 13), "3.13"), ((3, 14), "3.13")]
)
def test_unknown_python_version_is_compared_with_the_newest_older_one(
    version: tuple[int, int], taken: str | None
) -> None:
    recorded = {"3.11": {"JSON": 2}, "3.13": {"JSON": 1}}
    assert recorded_for(version, recorded) == (recorded[taken] if taken else None)


def test_each_case_with_a_budget_is_recorded_within_it() -> None:
    budget = json.loads(BUDGET.read_text("utf-8"))
    cases = ("JSON", "stream of 64 events at once")
    accounted = [f"{case}{kind}" for case in cases for kind in ("", ", with budgets")]
    assert list(budget) == [*accounted, "stream of 64 events one by one"]
    for recorded in json.loads(BUDGET.with_name("guard.json").read_text("utf-8")).values():
        assert judge({case: recorded[case] for case in budget}, budget, 1.0, "budget of") == []
    spent = {case: calls + 1 for case, calls in budget.items()}
    assert [problem.partition(":")[0] for problem in judge(spent, budget, 1.0, "budget of")] == list(budget)


def test_slow_drift_is_reported_although_the_counts_were_updated() -> None:
    assert judge({"JSON": 125}, {"JSON": 100}, 1.25, "baseline's") == []
    assert judge({"JSON": 126}, {"JSON": 100}, 1.25, "baseline's") == [
        "JSON: 126 calls, 26% more than the baseline's 100"
    ]
