"""Intervals compared with published values and their nominal coverage; corrections; descriptions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.load import arrivals
from evaluation.statistics import Comparison, compare, difference, estimate, holm, quantile, share, sign_flip_p
from tests.kit.chat_strategies import unhurried


def test_wilson_interval_matches_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and 0 of 20.
    found = share(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    nothing = share(0, 20)
    assert (nothing.low, round(nothing.high, 4)) == (0, 0.1611)
    assert share(0, 0) is None


@pytest.mark.parametrize("truth", [0.05, 0.5, 0.95])
def test_interval_of_a_share_has_its_nominal_coverage(truth: float) -> None:
    drawn = np.random.default_rng(1).binomial(300, truth, size=2000)
    intervals = {int(hits): share(int(hits), 300) for hits in set(drawn)}
    held = sum(one.low <= truth <= one.high for hits in drawn if (one := intervals[int(hits)]) is not None)
    assert 0.93 <= held / 2000 <= 0.97


def test_interval_of_a_quantile_has_its_nominal_coverage() -> None:
    drawn = np.random.default_rng(2).exponential(1, size=(400, 200))
    truth = math.log(2)
    held = sum((found := quantile(list(row), 0.5)) is not None and found.low <= truth <= found.high for row in drawn)
    assert held / 400 >= 0.93


def test_interval_of_a_quantile_beyond_the_data_is_unbounded() -> None:
    found = quantile([0.1, 0.2, 0.3], 0.99)
    assert found.high == math.inf
    assert quantile([], 0.5) is None


@pytest.mark.parametrize("of", [1, 2, 3, 5, 12])
def test_few_or_equal_scores_have_a_wide_interval(of: int) -> None:
    draws = np.random.default_rng(of)
    chances = (0.05, 0.05, 0.1, 0.3, 0.5)
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    truth = float(np.dot(chances, levels))
    found = [
        estimate({str(index): float(one) for index, one in enumerate(draws.choice(levels, of, p=chances))})
        for _ in range(200)
    ]
    assert sum(one is not None and one.low <= truth <= one.high for one in found) >= 190


def compared(groups: dict[str, str] | None = None, **scores: dict[str, float]) -> Comparison:
    (first, one), (second, other) = scores.items()
    return compare({(first, second): difference(one, other, groups or {})})[0]


def test_pairs_are_compared_on_common_items_with_the_exact_test() -> None:
    items = [str(number) for number in range(100)]
    good = dict.fromkeys(items, 1.0)
    worse = {item: float(int(item) >= 10) for item in items}
    one = compared(good=good, worse=worse)
    assert one.difference == pytest.approx(0.1)
    assert one.p == pytest.approx(2 * 0.5**10)
    assert one.describe().startswith("good is better than worse by 10.0 points")
    assert compared(good=good, twin=dict(good)).describe().startswith("good and twin are not distinguished")
    assert not compared(good=good, nearly={**good, "0": 0.0}).is_established


def test_p_values_are_corrected_for_many_comparisons() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@unhurried
@given(st.lists(st.floats(0, 1), max_size=12))
def test_corrected_p_values_are_not_smaller_and_keep_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(0 <= raw <= after <= 1 for raw, after in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


def test_arrivals_are_a_seeded_poisson_process() -> None:
    due = arrivals(50, 200, (1, 2))
    assert due == arrivals(50, 200, (1, 2)) != arrivals(50, 200, (1, 3))
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] < 200
    assert len(due) == 10_000
    waits = np.diff(due)
    # The standard deviation of an exponential distribution equals its mean. Regular arrivals would have none.
    assert float(waits.std() / waits.mean()) == pytest.approx(1, abs=0.05)


def test_items_of_one_group_only_are_treated_as_independent() -> None:
    """There is no variance between groups to estimate, so the interval holds for this template only."""
    scores = {f"i/{number}": float(number % 10 > 0) for number in range(100)}
    one_group = dict.fromkeys(scores, "template")
    assert estimate(scores, one_group) == share(90, 100)
    worse = {item: score * (int(item[2:]) % 3 > 0) for item, score in scores.items()}
    assert compared(one_group, a=scores, b=worse).p == compared(a=scores, b=worse).p


def test_groups_widen_the_interval_and_weaken_the_test() -> None:
    scores = {f"i/{number}": float(number >= 20) for number in range(100)}
    groups = {item: f"g{int(item[2:]) // 10}" for item in scores}
    plain, clustered = share(80, 100), estimate(scores, groups)
    assert (clustered.value, clustered.of) == (plain.value, plain.of)
    assert clustered.low < plain.low - 0.1
    assert compared(groups, a=dict.fromkeys(scores, 1.0), b=scores).p == pytest.approx(0.5), "two of ten groups differ"


@given(st.lists(st.integers(-3, 3), max_size=9))
@example([2, -2, -2, -2, 3, 3])  # no part is the common step
def test_sign_flip_test_equals_the_enumeration_of_all_signs(parts: list[int]) -> None:
    signs = [sum(s * p for s, p in zip(one, parts, strict=True)) for one in product((1, -1), repeat=len(parts))]
    expected = sum(abs(total) >= abs(sum(parts)) for total in signs) / len(signs)
    assert sign_flip_p([part / 7 for part in parts]) == pytest.approx(expected)
