"""Intervals compared with published values and their nominal coverage; corrections; descriptions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.cluster_statistics import clustered_mean, compare_pairs, sign_flip_p
from evaluation.load_test import arrivals
from evaluation.statistics import compare_all, compare_shares, holm, mean, quantile, share
from tests.kit.chat_strategies import unhurried


def test_wilson_interval_matches_published_values() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, and 0 of 20.
    found = share(81, 263)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    nothing = share(0, 20)
    assert nothing is not None
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
    assert found is not None
    assert found.high == math.inf
    assert quantile([], 0.5) is None


def test_the_mean_of_scores_between_0_and_1_is_bootstrapped_and_the_same_for_the_same_seed() -> None:
    scores = [0.0, 0.25, 0.5, 1.0, 0.75] * 20
    found = mean(scores, 3)
    assert found is not None
    assert found == mean(scores, 3)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.2
    assert mean([0.5] * 9, 1) == mean([0.5] * 9, 2)
    assert mean([1.0, 0.0], 1) == share(1, 2)


@pytest.mark.parametrize("of", [1, 2, 3, 5, 12])
def test_few_or_equal_scores_have_a_wide_interval(of: int) -> None:
    alike = mean([0.5] * of, 1)
    assert alike is not None
    assert alike.value == 0.5
    assert alike.high - alike.low > 0.4
    draws = np.random.default_rng(of)
    chances = (0.05, 0.05, 0.1, 0.3, 0.5)
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    truth = float(np.dot(chances, levels))
    found = [mean([float(one) for one in draws.choice(levels, of, p=chances)], 1) for _ in range(200)]
    assert sum(one is not None and one.low <= truth <= one.high for one in found) >= 190


def test_few_scores_of_0_and_1_have_the_interval_of_a_share() -> None:
    wide, exact = mean([0.5, 0.5], 1), share(1, 2)
    assert wide is not None
    assert exact is not None
    assert (wide.low, wide.high) == (pytest.approx(exact.low), pytest.approx(exact.high))


def test_pairs_are_compared_on_common_items_with_the_exact_test() -> None:
    items = [str(number) for number in range(100)]
    good = dict.fromkeys(items, 1.0)
    worse = {item: float(int(item) >= 10) for item in items}
    [one] = compare_all({"good": good, "worse": worse})
    assert one.difference == pytest.approx(0.1)
    assert one.p == pytest.approx(2 * 0.5**10)
    assert one.describe().startswith("good is better than worse by 10.0 points")
    [same] = compare_all({"good": good, "twin": dict(good)})
    assert same.describe() == "no measurable difference between good and twin (p = 1, 100 items)"
    nearly = {**good, "0": 0.0}
    [close] = compare_all({"good": good, "nearly": nearly})
    assert not close.is_measurable
    assert close.describe().startswith("no measurable difference")


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


def test_shares_of_different_items_are_compared() -> None:
    assert compare_shares(50, 100, 50, 100) == 1
    assert compare_shares(90, 100, 60, 100) < 0.001
    assert compare_shares(0, 0, 5, 10) == 1


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
    assert clustered_mean(scores, one_group, 1) == share(90, 100)
    worse = {item: score * (int(item[2:]) % 3 > 0) for item, score in scores.items()}
    assert compare_pairs({"a": scores, "b": worse}, one_group)[0].p == compare_all({"a": scores, "b": worse})[0].p


def test_groups_widen_the_interval_and_weaken_the_test() -> None:
    scores = {f"i/{number}": float(number >= 20) for number in range(100)}
    groups = {item: f"g{int(item[2:]) // 10}" for item in scores}
    plain, clustered = share(80, 100), clustered_mean(scores, groups, 1)
    assert plain is not None
    assert clustered is not None
    assert (clustered.value, clustered.of) == (plain.value, plain.of)
    assert clustered.low < plain.low - 0.1
    [one] = compare_pairs({"a": dict.fromkeys(scores, 1.0), "b": scores}, groups)
    assert one.groups == 10
    assert one.p == pytest.approx(0.5), "two of ten groups differ"
    assert one.describe().endswith("(p = 0.5, 100 items in 10 groups)")


@given(st.lists(st.integers(-3, 3), max_size=9))
@example([2, -2, -2, -2, 3, 3])  # no part is the common step
def test_sign_flip_test_equals_the_enumeration_of_all_signs(parts: list[int]) -> None:
    signs = [sum(s * p for s, p in zip(one, parts, strict=True)) for one in product((1, -1), repeat=len(parts))]
    expected = sum(abs(total) >= abs(sum(parts)) for total in signs) / len(signs)
    assert sign_flip_p([part / 7 for part in parts]) == pytest.approx(expected)
