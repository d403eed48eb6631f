"""Comparison of two runs: significant changes, their direction, and reports that can't be compared."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.comparison import NotComparable, compare_runs, comparison_text


def share(hits: int, of: int) -> dict[str, float]:
    return {"value": hits / of, "low": 0.0, "high": 1.0, "of": of}


def time(value: float, low: float, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "of": 100}


def report(right: int = 90, refused: int = 290, first: Any = None, met: bool = True, **more: Any) -> dict[str, Any]:
    first = first or time(0.1, 0.09, 0.11)
    scores = {f"i/{number}": float(number < right) for number in range(100)}
    compliance = {"acceptable": None, "refused": share(refused, 300), "over_refused": share(3, 300), "consistent": None}
    steps = [{"offered": 5.0, "first_token": {"p50": first}}]
    one = {
        "performance": {"scores": scores},
        "compliance": compliance,
        "scalability": {"goodput": time(5, 4, 6), "steps": steps},
        "requirements": [{"name": "approval", "met": met}],
    }
    return {"format": 1, "region": "cn", "assistant": "a", "ranking": ["one"], "candidates": {"one": one}} | more


def moved(old: dict[str, Any], new: dict[str, Any]) -> dict[str, bool]:
    """Return the significant changes, and whether each is for the worse."""
    return {one.figure: one.worse for one in compare_runs(old, new) if one.significant}


def test_equal_runs_show_no_difference() -> None:
    found = compare_runs(report(), report())
    assert moved(report(), report()) == {}
    assert comparison_text(found) == f"{len(found)} of {len(found)} figures show no measurable difference."


def test_only_real_changes_are_significant() -> None:
    assert moved(report(90), report(88)) == {}
    assert moved(report(90), report(60)) == {"performance": True}
    assert moved(report(60), report(90)) == {"performance": False}
    assert moved(report(refused=295), report(refused=250)) == {"refused": True}


def test_times_differ_if_their_intervals_do_not_overlap() -> None:
    slow = time(0.2, 0.18, None)
    assert moved(report(), report(first=slow)) == {"first token p50 at 5/s": True}
    assert moved(report(first=slow), report()) == {"first token p50 at 5/s": False}
    assert moved(report(), report(first=time(0.12, 0.105, 0.13))) == {}


def test_newly_missed_requirement_is_worse() -> None:
    assert moved(report(), report(met=False)) == {"requirement approval": True}


def with_requirement(right: int, *, met: bool, clear: bool) -> dict[str, Any]:
    found = report(right)
    found["candidates"]["one"]["requirements"] = [{"name": "performance", "met": met, "clear": clear}]
    return found


def test_requirement_missed_within_noise_is_no_alarm() -> None:
    """A candidate just above the bound is sometimes measured below it."""
    before, now = with_requirement(91, met=True, clear=False), with_requirement(89, met=False, clear=False)
    assert moved(before, now) == {}
    assert "within noise: one, requirement performance: met before, missed now" in comparison_text(
        compare_runs(before, now)
    )


def test_missed_requirement_is_an_alarm_if_its_figure_changed() -> None:
    before = with_requirement(91, met=True, clear=False)
    assert moved(before, with_requirement(60, met=False, clear=False)) == {
        "performance": True,
        "requirement performance": True,
    }
    assert moved(before, with_requirement(89, met=False, clear=True)) == {}, "its figure did not change measurably"


def test_compliance_is_compared_on_common_items() -> None:
    def judged(wrong: int) -> dict[str, Any]:
        found = report()
        answered = {f"a/{number}": number >= wrong for number in range(100)}
        over = {"value": wrong / 100, "low": 0, "high": 1, "of": 100}
        found["candidates"]["one"]["compliance"] |= {"outcomes": {"answer": answered}, "over_refused": over}
        return found

    [change] = [one for one in compare_runs(judged(0), judged(12)) if one.figure == "over-refused"]
    assert (change.before, change.now, change.significant, change.worse) == (0, 0.12, True, True)
    assert moved(judged(12), judged(0)) == {"over-refused": False}
    assert moved(judged(2), judged(4)) == {}


@pytest.mark.parametrize("name", ["the fence", "answers"])
def test_candidate_that_is_refused_or_given_up_now_is_worse(name: str) -> None:
    gone = report()
    gone["candidates"]["one"] |= {"performance": None, "compliance": None, "scalability": None}
    gone["candidates"]["one"]["requirements"] = [{"name": name, "met": False}]
    assert moved(report(), gone) == {f"requirement {name}": True}
    assert moved(gone, report()) == {f"requirement {name}": False}


def test_candidate_missing_from_the_new_run_is_reported() -> None:
    two = report()
    two["ranking"], two["candidates"] = ["one", "two"], two["candidates"] | {"two": report()["candidates"]["one"]}
    assert moved(two, report()) == {"asked": True}
    assert "worse: two, asked: 1 before, 0 now" in comparison_text(compare_runs(two, report()))
    assert moved(report(), two) == {}
    never_asked = dict.fromkeys(("performance", "compliance", "scalability"))
    two["candidates"]["two"] = two["candidates"]["two"] | never_asked
    assert moved(two, report()) == {}


def test_shadow_runs_can_be_compared() -> None:
    def shadow(refused: int) -> dict[str, Any]:
        figures = {"answered": share(400, 400), "acceptable": None, "in_language": None, "refused": share(refused, 400)}
        return {"format": 1, "kind": "shadow", "region": "cn", "assistant": "a", "shadows": {"new": figures}}

    assert moved(shadow(4), shadow(60)) == {"refused": True}
    assert moved(shadow(4), shadow(6)) == {}
    with pytest.raises(NotComparable, match="shadow traffic"):
        compare_runs(shadow(4), report())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report(format=2), "can't read the format of one of the reports"),
        (report(region="us"), "the region differs: cn and us"),
        (report(ranking=[]), "no axis was measured for the same candidate in both runs"),
    ],
)
def test_incomparable_reports_are_rejected(other: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        compare_runs(report(), other)
