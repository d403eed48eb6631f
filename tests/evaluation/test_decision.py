"""The recommended route: incumbents, stated reasons, length, missed requirements and tie groups, and the experiments of
`tests.evaluation.run` in a small form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from evaluation.checks import Exact, Rubric
from evaluation.decision import (
    Recommendation,
    RouteEvidence,
    Score,
    compare_candidates,
    group_ties,
    recommend,
    score_of,
)
from evaluation.figures import Mark, Requirement, Results
from evaluation.load import Load, LoadStep
from evaluation.questions import Item, Suite
from evaluation.statistics import Comparison, Estimate
from evaluation.suite import RecommendationSection, SuiteFile
from tests.evaluation.run import (
    INDEPENDENT,
    MIXED,
    TEMPLATES,
    Items,
    better_found,
    coverage,
    false_alarms,
    proposals_on_noise,
    worse_proposed,
)
from tests.kit.case_files import cases


def comparison(
    first: str, second: str, value: float, low: float, high: float, p: float, detectable: float
) -> Comparison:
    return Comparison(first, second, value, low, high, p, 200, detectable, 0.0)


def score(value: float) -> Score:
    found = Estimate(value, value - 0.05, value + 0.05, 100)
    return Score({"performance": found}, found)


def better(first: str, second: str, points: float) -> Comparison:
    """Return an established difference."""
    value = points / 100
    return comparison(first, second, value, value / 2, value * 1.5, 0.001, 0.03)


def tied(first: str, second: str, low: float = -3.0) -> Comparison:
    return comparison(first, second, 0.0, low / 100, 0.03, 0.8, 0.06)


def advise(
    scores: Mapping[str, float],
    comparisons: list[Comparison],
    route: list[str],
    *,
    missed: Mapping[str, Requirement] | None = None,
    **section: Any,
) -> Recommendation:
    suite = Suite(SuiteFile(version=1, name="t", recommendation=RecommendationSection(**section)))
    evidence = RouteEvidence(
        suite,
        {name: Results(name, load=LOADS.get(name)) for name in scores},
        {name: [missed[name]] if missed and name in missed else [] for name in scores},
        {name: score(value) for name, value in scores.items()},
        {"aa": 1.0, "bb": 1.0, "cc": 0.5},
        route,
        comparisons,
    )
    assert {name for group in group_ties(evidence) for name in group} == set(scores) - set(missed or {})
    return recommend(evidence)


def loads(first_s: float) -> Load:
    time, part = Estimate(first_s, first_s * 0.95, first_s * 1.05, 50), Estimate(1.0, 0.9, 1.0, 50)
    return Load([LoadStep(1.0, 10.0, 50, part, part, part, 0.0, 0.0, {"first_token": {"p50": time}})])


LOADS = {"aa": loads(0.2), "bb": loads(0.2), "cc": loads(0.1)}
TIED = [tied("bb", "aa"), tied("bb", "cc", -1.0), tied("aa", "cc")]
SCORES = {"aa": 0.9, "bb": 0.88, "cc": 0.91}


def test_tied_candidates_leave_the_route_as_it_is() -> None:
    advice = advise(SCORES, TIED, ["bb", "aa"])
    assert (advice.deployment, advice.route) == ("bb", ("bb", "aa"))
    assert advice.groups == (("bb", "aa", "cc"),), "the present route comes first within a group"
    assert "bb stays first, because no candidate is established as better." in advice.reasons
    assert "bb, aa, cc: not distinguished." in advice.reasons


def test_established_candidate_replaces_the_first_and_the_length_stays() -> None:
    comparisons = [better("cc", "bb", 9), better("cc", "aa", 8), tied("aa", "bb")]
    advice = advise({"aa": 0.82, "bb": 0.81, "cc": 0.9}, comparisons, ["bb", "aa"])
    assert (advice.deployment, advice.route) == ("cc", ("cc", "bb"))
    assert advice.groups == (("cc",), ("bb", "aa"))
    assert advise({"aa": 0.82, "bb": 0.81, "cc": 0.9}, comparisons, ["bb", "aa"], route_length=3).route == (
        *("cc", "bb", "aa"),
    )


@cases("section", "route")
def test_tie_is_broken_only_by_a_stated_reason_within_the_margin(
    section: dict[str, str], route: tuple[str, ...]
) -> None:
    one = comparison("cc", "bb", 0.0, -0.01, 0.01, 0.9, 0.02)
    advice = advise({"bb": 0.9, "cc": 0.9}, [one], ["bb"], **section)
    assert advice.route == route


def test_deployment_that_clearly_misses_a_requirement_leaves_the_route() -> None:
    refused = Requirement("refused", "at least 95.0%", "60.0% (50.0% to 70.0%)", False)
    advice = advise(SCORES, TIED[2:], ["bb", "aa"], missed={"bb": refused})
    assert (advice.deployment, advice.route) == ("aa", ("aa", "cc"))
    assert advice.groups == (("aa", "cc"),)


def test_first_deployment_that_misses_a_requirement_within_noise_is_not_replaced() -> None:
    unclear = Requirement("refused", "at least 95.0%", "94.0% (90.0% to 97.0%)", False, clear=False)
    advice = advise(SCORES, TIED, ["bb", "aa"], missed={"bb": unclear})
    assert (advice.deployment, advice.route) == (None, ("bb", "aa"))
    assert "within noise" in advice.reasons[0]


def test_deployment_that_was_not_evaluated_keeps_its_place() -> None:
    advice = advise(SCORES, TIED, ["xx", "bb"])
    assert (advice.deployment, advice.route) == ("bb", ("xx", "bb"))
    assert "xx, the first deployment of the route, was not evaluated" in advice.reasons[0]


def test_route_without_a_deployment_gets_the_best_candidate() -> None:
    advice = advise(SCORES, TIED, [])
    assert (advice.deployment, advice.route) == ("cc", ("cc",))
    assert "cc takes place 1" in " ".join(advice.reasons)


def test_no_qualified_candidate_leaves_the_route() -> None:
    out = Requirement("approval", "valid today", "ended", False)
    advice = advise({"aa": 0.9}, [], ["aa"], missed={"aa": out})
    assert (advice.deployment, advice.route) == (None, ("aa",))
    assert advice.reasons[0] == "No candidate meets all requirements."


def test_power_states_the_items_that_would_find_the_margin() -> None:
    advice = advise(SCORES, TIED, ["bb", "aa"])
    assert (advice.detectable, advice.items_needed) == (0.06, 1800)
    assert any("finds a difference of 6.0 points" in one and "1,800 items" in one for one in advice.reasons)


JUDGED = tuple(Item(f"manners/{number}", "manners", "en", f"{number}?", Rubric("polite")) for number in range(60))
RULED = tuple(Item(f"sums/{number}", "sums", "en", f"{number}?", Exact(("1",))) for number in range(60))


@cases("words", "sums", "route")
@pytest.mark.parametrize("missed", [False, True])
def test_judge_that_prefers_long_answers_replaces_no_deployment(
    words: int, sums: float, route: str, missed: bool
) -> None:
    """The judge gives the longer answers of `cc` more points than those of `bb`; `sums` are scored by a rule."""
    suite = Suite(SuiteFile(version=1, name="t"), (*JUDGED, *RULED))
    results = {"bb": Results("bb"), "cc": Results("cc")}
    for name, points, length in (("bb", 0.5, 10), ("cc", 1.0, words)):
        for item in JUDGED:
            results[name].words[item.id] = length
            results[name].note(Mark("performance", item, points, "why"))
        for number, item in enumerate(RULED):
            right = float(number % 2) if name == "bb" or sums < 1 else 1.0
            results[name].note(Mark("performance", item, right, "why"))
    lacks = Requirement("performance", "at least 60.0%", "50.0%", False, clear=False, figure="performance")
    evidence = RouteEvidence(
        suite,
        results,
        {"bb": [lacks] if missed else [], "cc": []},
        {name: score_of(one, suite) for name, one in results.items()},
        {},
        ["bb"],
        compare_candidates(results, suite, ["bb", "cc"]),
    )
    assert recommend(evidence).route == (route,)


@pytest.mark.slow("scores forty runs")
@pytest.mark.parametrize(("items", "bound"), [(INDEPENDENT, None), (INDEPENDENT, "79%"), (TEMPLATES, None)])
def test_equal_candidates_change_the_route_in_at_most_5_percent_of_runs(items: Items, bound: str | None) -> None:
    assert proposals_on_noise(40, items, bound) <= 0.05


def test_worse_candidate_does_not_replace_the_incumbent() -> None:
    assert worse_proposed(40) <= 0.05


def test_clearly_better_candidate_is_proposed() -> None:
    assert better_found(20) >= 0.9


@pytest.mark.parametrize("items", [TEMPLATES, MIXED])
def test_intervals_of_items_in_groups_contain_the_truth(items: Items) -> None:
    held, different = coverage(100, items, 0.9)
    assert held >= 0.93
    assert different <= 0.05


@pytest.mark.slow("compares forty pairs of runs")
def test_compare_has_a_false_alarm_in_at_most_5_percent_of_nights() -> None:
    assert false_alarms(40) <= 0.05
