"""Intervals and comparisons. Every figure has one, and two figures differ only where a test on the same items says so.

Shares: Wilson's interval. Means of scores between 0 and 1: the bootstrap (BCa), of few Wilson's. Quantiles: order
statistics, which assume no distribution. Pairs: the exact test of McNemar, or the signed-rank test of Wilcoxon,
corrected by Holm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

CONFIDENCE = 0.95
_ALPHA = 1 - CONFIDENCE
_RESAMPLES = 2000
_FEWEST, _ALIKE = 20, 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, its interval at 95 %, and of how many it was reckoned. An end that the data can't give is infinite."""

    value: float
    low: float
    high: float
    of: int

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.of)


def share(hits: int, of: int) -> Estimate | None:
    """The share of hits, with Wilson's interval; None of nothing."""
    if of == 0:
        return None
    interval = stats.binomtest(hits, of).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(hits / of, float(interval.low), float(interval.high), of)


def mean(scores: Sequence[float], seed: int) -> Estimate | None:
    """The mean of scores from 0 to 1: a share where all are 0 or 1, else by the bootstrap."""
    if all(score in (0, 1) for score in scores):
        return share(int(sum(scores)), len(scores))
    values = np.asarray(scores, dtype=float)
    value = float(values.mean())
    if len(values) < _FEWEST or float(np.ptp(values)) < _ALIKE:
        return _widest(value, len(values))
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, rng=np.random.default_rng(seed)
    ).confidence_interval
    return Estimate(value, float(found.low), float(found.high), len(values))


def _widest(value: float, of: int) -> Estimate:
    """A mean with Wilson's interval, as if all scores were 0 or 1: none from 0 to 1 spread more, whatever they are.

    What the bootstrap draws again are the scores that there are. So it takes a few, or scores that are alike, for all
    that there could be, and is sure of the mean of two.
    """
    z = float(stats.norm.ppf(1 - _ALPHA / 2))
    centre, scale = value + z * z / (2 * of), 1 + z * z / of
    half = z * math.sqrt(value * (1 - value) / of + z * z / (4 * of * of))
    return Estimate(value, max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale), of)


def quantile(values: Sequence[float], p: float) -> Estimate | None:
    """The quantile, with the interval of order statistics; an end beyond the data is infinite."""
    if not values:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    found = stats.quantile_test(ordered, p=p).confidence_interval(CONFIDENCE)
    low = 0.0 if math.isnan(found.low) else float(found.low)
    high = math.inf if math.isnan(found.high) else float(found.high)
    value = float(np.quantile(ordered, p, method="inverted_cdf"))
    return Estimate(value, min(low, value), max(high, value), len(ordered))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two on the same items. difference: of the first from the second. p: corrected for all comparisons made."""

    first: str
    second: str
    difference: float
    p: float
    of: int

    @property
    def is_measurable(self) -> bool:
        """Whether the difference is more than chance would give in 1 of 20 such evaluations."""
        return self.p < _ALPHA

    def in_words(self) -> str:
        """What it comes to, plainly."""
        if not self.is_measurable:
            return (
                f"no measurable difference between {self.first} and {self.second} (p = {self.p:.2g}, {self.of} items)"
            )
        better, worse = (self.first, self.second) if self.difference > 0 else (self.second, self.first)
        points = abs(self.difference) * 100
        return f"{better} is better than {worse} by {points:.1f} points (p = {self.p:.2g}, {self.of} items)"


def compare_all(scores: dict[str, dict[str, float]]) -> list[Comparison]:
    """Every pair of candidates on the items that both have, corrected together."""
    raw = [_compared(a, b, scores[a], scores[b]) for a, b in combinations(scores, 2)]
    adjusted = holm([one.p for one in raw])
    return [Comparison(one.first, one.second, one.difference, p, one.of) for one, p in zip(raw, adjusted, strict=True)]


def _compared(a: str, b: str, first: dict[str, float], second: dict[str, float]) -> Comparison:
    common = [item for item in first if item in second]
    differences = [first[item] - second[item] for item in common]
    changed = [one for one in differences if one]
    difference = sum(differences) / len(common) if common else 0.0
    if not changed:
        return Comparison(a, b, difference, 1.0, len(common))
    if all(abs(one) == 1 for one in changed):
        won = sum(one > 0 for one in changed)
        p = chance_of(won, len(changed))
    else:
        p = float(stats.wilcoxon(changed).pvalue)
    return Comparison(a, b, difference, p, len(common))


def chance_of(won: int, of: int) -> float:
    """The p of so many wins, or as uneven a count, where both are as likely to win (the exact sign test)."""
    return float(stats.binomtest(won, of).pvalue) if of else 1.0


def compare_shares(hits: int, of: int, other_hits: int, other_of: int) -> float:
    """The p of two shares of different items being one: Boschloo's exact test is slow, so Fisher's."""
    if not of or not other_of:
        return 1.0
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    return float(stats.fisher_exact(table).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p values, corrected for being many (Holm 1979): none is smaller than one that was smaller before."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = highest
    return adjusted
