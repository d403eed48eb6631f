"""Comparison of two runs: established changes, their direction, and reports that can't be compared."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.drift import NotComparable, compare_runs


def estimate(value: float, low: float, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "of": 100}


def report(
    right: int = 90, refused: int = 290, first: Any = None, requirement: Any = None, **more: Any
) -> dict[str, Any]:
    scores = {
        "performance": {f"i/{number}": float(number < right) for number in range(100)},
        "over_refused": {f"r/{number}": float(number < refused) for number in range(300)},
    }
    times = {"first_token": {"p50": first or estimate(0.1, 0.09, 0.11)}}
    load = {"goodput": estimate(5, 4, 6), "errors": estimate(0.1, 0, 0.2), "steps": [{"offered": 5.0, "times": times}]}
    one = {"scores": scores, "load": load, "requirements": [requirement or {"name": "approval", "met": True}]}
    return {"format": 2, "kind": "evaluation", "region": "cn", "assistant": "a", "candidates": {"one": one}} | more


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what changed, without the last line and the p values."""
    return [line.partition(" (p =")[0] for line in compare_runs(old, new)[0][:-1]]


def performance(met: bool) -> dict[str, Any]:
    return {"name": "performance", "figure": "performance", "met": met}


SLOW = estimate(0.2, 0.18, None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (report(), report(), []),
        (report(90), report(88), []),
        (report(90), report(60), ["worse: one, performance: 0.9 before, 0.6 now"]),
        (report(60), report(90), ["better: one, performance: 0.6 before, 0.9 now"]),
        (report(refused=300), report(refused=270), ["worse: one, over_refused: 0 before, 0.1 now"]),
        (report(), report(first=SLOW), ["worse: one, first token p50 at 5/s: 0.1 before, 0.2 now"]),
        (report(first=SLOW), report(), ["better: one, first token p50 at 5/s: 0.2 before, 0.1 now"]),
        (report(), report(first=estimate(0.12, 0.105, 0.13)), []),
        (
            report(),
            report(requirement={"name": "approval", "met": False}),
            ["worse: one, requirement approval: met before, missed now"],
        ),
        (
            report(91, requirement=performance(True)),
            report(89, requirement=performance(False)),
            ["within noise: one, requirement performance: met before, missed now"],
        ),
        (
            report(91, requirement=performance(True)),
            report(60, requirement=performance(False)),
            [
                "worse: one, performance: 0.91 before, 0.6 now",
                "worse: one, requirement performance: met before, missed now",
            ],
        ),
        (
            report(candidates=report()["candidates"] | {"two": report()["candidates"]["one"]}),
            report(),
            ["worse: two: asked before, and not now"],
        ),
    ],
)
def test_only_established_changes_are_reported(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert changes(old, new) == expected
    assert compare_runs(old, new)[1] == any(line.startswith("worse") for line in expected)


@pytest.mark.parametrize("name", ["the fence", "answers"])
def test_candidate_that_is_refused_or_given_up_now_is_worse(name: str) -> None:
    gone = report(requirement={"name": name, "met": False})
    gone["candidates"]["one"] |= {"scores": {}, "load": None}
    assert f"worse: one, requirement {name}: met before, missed now" in changes(report(), gone)
    assert f"better: one, requirement {name}: missed before, met now" in changes(gone, report())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report(format=1), "can't read the format of one of the reports"),
        (report(kind="shadow"), "the kind differs: evaluation and shadow"),
        (report(region="us"), "the region differs: cn and us"),
        (report(candidates={}), "no candidate is in both runs"),
    ],
)
def test_incomparable_reports_are_rejected(other: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        compare_runs(report(), other)
