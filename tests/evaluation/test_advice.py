"""The experiments of `tests.evaluation.run` in a small form."""

from __future__ import annotations

import pytest

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
