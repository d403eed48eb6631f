"""Confidence intervals and significance tests. Every figure has an interval, and every comparison a test.

- Shares: Wilson's interval.
- Means of scores between 0 and 1: the bootstrap (BCa), or Wilson's interval for few scores.
- Means on other scales, such as lengths: Student's interval.
- Quantiles: order statistics, which assume no distribution.
- Pairs: McNemar's exact test, or Wilcoxon's signed-rank test, with Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

CONFIDENCE = 0.95
_ALPHA = 1 - CONFIDENCE
Z = float(stats.norm.ppf(1 - _ALPHA / 2))
_RESAMPLES = 2000
_MIN_BOOTSTRAP, _SAME_WITHIN = 20, 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and sample size. An end that the data does not determine is infinite."""

    value: float
    low: float
    high: float
    of: int

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.of)


def share(hits: int, of: int) -> Estimate | None:
    """Return the share of hits with Wilson's interval, or None if `of` is 0."""
    if of == 0:
        return None
    interval = stats.binomtest(hits, of).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / of, float(interval.low), float(interval.high), of)


def mean(scores: Sequence[float], seed: int) -> Estimate | None:
    """Return the mean of scores from 0 to 1: a share if all are 0 or 1, else with a bootstrap interval."""
    if all(score in (0, 1) for score in scores):
        return share(int(sum(scores)), len(scores))
    values = np.asarray(scores, dtype=float)
    value = float(values.mean())
    if len(values) < _MIN_BOOTSTRAP or float(np.ptp(values)) < _SAME_WITHIN:
        # The bootstrap draws only from the observed scores: with few or equal ones its interval would be too narrow.
        return wilson(value, len(values), len(values))
    interval = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(values))


def t_mean(values: Sequence[float]) -> Estimate | None:
    """Return the mean of values on any scale with Student's interval, or None if there are no values."""
    if not values:
        return None
    numbers = np.asarray(values, dtype=float)
    value = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(value, -math.inf, math.inf, 1)
    half = float(stats.t.ppf(1 - _ALPHA / 2, len(numbers) - 1) * stats.sem(numbers))
    return Estimate(value, value - half, value + half, len(numbers))


def wilson(value: float, of: int, effective: float) -> Estimate:
    """Return a mean of scores with Wilson's interval for this effective number of scores.

    The scores count as if all were 0 or 1, because no scores from 0 to 1 spread more.
    """
    centre, scale = value + Z**2 / (2 * effective), 1 + Z**2 / effective
    half = Z * math.sqrt(value * (1 - value) / effective + Z**2 / (4 * effective**2))
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Estimate(value, min(low, value), max(high, value), of)


def quantile(values: Sequence[float], p: float) -> Estimate | None:
    """Return the quantile with the interval of order statistics. An end beyond the data is infinite."""
    if not values:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    interval = stats.quantile_test(ordered, p=p).confidence_interval(CONFIDENCE)
    low = 0.0 if math.isnan(interval.low) else float(interval.low)
    high = math.inf if math.isnan(interval.high) else float(interval.high)
    value = float(np.quantile(ordered, p, method="inverted_cdf"))
    return Estimate(value, min(low, value), max(high, value), len(ordered))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates on the same items. `difference` is first minus second; `p` is corrected for all comparisons.

    Attributes:
        low: The lower end of the 95 % interval of the difference.
        high: The upper end.
        groups: The number of groups of items; 0 if the items are not grouped.
    """

    first: str
    second: str
    difference: float
    p: float
    of: int
    low: float = -1.0
    high: float = 1.0
    groups: int = 0

    @property
    def is_measurable(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p < _ALPHA

    def describe(self) -> str:
        """Return the result as a phrase."""
        items = f"{self.of} items" + (f" in {self.groups} groups" if 0 < self.groups < self.of else "")
        if not self.is_measurable:
            return f"no measurable difference between {self.first} and {self.second} (p = {self.p:.2g}, {items})"
        better, worse = (self.first, self.second) if self.difference > 0 else (self.second, self.first)
        points = abs(self.difference) * 100
        return f"{better} is better than {worse} by {points:.1f} points (p = {self.p:.2g}, {items})"


def compare_all(scores: dict[str, dict[str, float]]) -> list[Comparison]:
    """Compare every pair of candidates on their common items, with p values corrected together."""
    return corrected([compare_two(a, b, scores[a], scores[b]) for a, b in combinations(scores, 2)])


def compare_two(a: str, b: str, first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Compare two candidates on their common items, which are independent. `p` is not corrected."""
    common = [item for item in first if item in second]
    differences = [first[item] - second[item] for item in common]
    changed = [one for one in differences if one]
    difference = sum(differences) / len(common) if common else 0.0
    if not changed:
        return Comparison(a, b, difference, 1.0, len(common))
    if all(abs(one) == 1 for one in changed):
        won = sum(one > 0 for one in changed)
        p = sign_test(won, len(changed))
    else:
        p = float(stats.wilcoxon(changed).pvalue)
    return Comparison(a, b, difference, p, len(common))


def sign_test(won: int, of: int) -> float:
    """Return the p value of the exact sign test for this number of wins."""
    return float(stats.binomtest(won, of).pvalue) if of else 1.0


def compare_shares(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """Return the p value that two shares of different items are equal: Fisher's exact test, as Boschloo's is slow."""
    if not of or not other_of:
        return 1.0
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    return float(stats.fisher_exact(table).pvalue)


class _Tested(Protocol):
    """A frozen dataclass with the p value of a test."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def p(self) -> float: ...


_AnyTested = TypeVar("_AnyTested", bound=_Tested)


def corrected(tested: Sequence[_AnyTested]) -> list[_AnyTested]:
    """Return the results of several tests with corrected p values (Holm)."""
    return [replace(one, p=p) for one, p in zip(tested, holm([one.p for one in tested]), strict=True)]


def holm(values: Sequence[float]) -> list[float]:
    """Return the p values with Holm's correction (1979) for multiple tests. Their order does not change."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = highest
    return adjusted
