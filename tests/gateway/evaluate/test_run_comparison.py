"""Two runs side by side: what moved, which way, and what can't be held side by side."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.evaluate.comparison import NotComparable, drift, drift_in_words


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
    """What moved, and whether for the worse."""
    return {one.figure: one.worse for one in drift(old, new) if one.moved}


def test_what_did_not_change_did_not_move() -> None:
    found = drift(report(), report())
    assert moved(report(), report()) == {}
    assert drift_in_words(found) == f"{len(found)} of {len(found)} figures show no measurable difference."


def test_chance_moves_nothing_and_a_real_change_does() -> None:
    assert moved(report(90), report(88)) == {}
    assert moved(report(90), report(60)) == {"performance": True}
    assert moved(report(60), report(90)) == {"performance": False}
    assert moved(report(refused=295), report(refused=250)) == {"refused": True}


def test_times_move_where_their_intervals_lie_apart() -> None:
    slow = time(0.2, 0.18, None)
    assert moved(report(), report(first=slow)) == {"first token p50 at 5/s": True}
    assert moved(report(first=slow), report()) == {"first token p50 at 5/s": False}
    assert moved(report(), report(first=time(0.12, 0.105, 0.13))) == {}


def test_a_requirement_that_is_missed_now_is_worse() -> None:
    assert moved(report(), report(met=False)) == {"requirement approval": True}


@pytest.mark.parametrize("name", ["the fence", "answers"])
def test_a_candidate_that_is_not_asked_any_more_or_given_up_is_worse(name: str) -> None:
    gone = report()
    gone["candidates"]["one"] |= {"performance": None, "compliance": None, "scalability": None}
    gone["candidates"]["one"]["requirements"] = [{"name": name, "met": False}]
    assert moved(report(), gone) == {f"requirement {name}": True}
    assert moved(gone, report()) == {f"requirement {name}": False}


def test_a_candidate_that_the_new_run_does_not_have_is_told() -> None:
    two = report()
    two["ranking"], two["candidates"] = ["one", "two"], two["candidates"] | {"two": report()["candidates"]["one"]}
    assert moved(two, report()) == {"asked": True}
    assert "worse: two, asked: 1 before, 0 now" in drift_in_words(drift(two, report()))
    assert moved(report(), two) == {}
    never_asked = dict.fromkeys(("performance", "compliance", "scalability"))
    two["candidates"]["two"] = two["candidates"]["two"] | never_asked
    assert moved(two, report()) == {}


def test_what_people_asked_can_be_compared_as_well() -> None:
    def shadow(refused: int) -> dict[str, Any]:
        figures = {"answered": share(400, 400), "acceptable": None, "in_language": None, "refused": share(refused, 400)}
        return {"format": 1, "kind": "shadow", "region": "cn", "assistant": "a", "shadows": {"new": figures}}

    assert moved(shadow(4), shadow(60)) == {"refused": True}
    assert moved(shadow(4), shadow(6)) == {}
    with pytest.raises(NotComparable, match="shadow traffic"):
        drift(shadow(4), report())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report(format=2), "no report that this version can read"),
        (report(region="us"), "another region: cn and us"),
        (report(ranking=[]), "no candidate and no axis in common"),
    ],
)
def test_what_can_not_be_compared_is_said(other: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        drift(report(), other)
