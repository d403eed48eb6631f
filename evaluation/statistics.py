"""Intervals and tests. Their unit is the group: items that depend on each other, such as all items of one template.

- Shares and means: Wilson's interval for the effective number of items (Korn and Graubard 1998).
- Quantiles: order statistics, which assume no distribution.
- Differences: the sign-flip test of the groups. For single items of 0 or 1, it is McNemar's exact test.
- Many tests: Holm's correction.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from providers.value import Value, replace

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
Z = float(stats.norm.ppf(1 - ALPHA / 2))
Scores = Mapping[str, float]
"""Scores from 0 to 1, by question."""
Groups = Mapping[str, str]
"""The group of each question that has one. A question without a group is a group of its own."""
Weights = Mapping[str, float]
"""The weight of each question whose weight is not 1."""
_NONE: Mapping[str, float] = {}
_Floats = NDArray[np.float64]
# Variances are computed as if this part of a group more were all right, and as much all wrong. Without it, a few groups
# that are alike would look certain. Chosen by simulation: the coverage is at least 93 % for 10 to 60 groups.
_PSEUDO_GROUP = 0.05
_GRID_POINTS, _NORMAL_REACH = 20_000, 8.0
_POWER = 0.8


class Estimate(Value, frozen=True):
    """A figure with its 95 % interval and sample size. An end that the data does not determine is infinite."""

    value: float
    low: float
    high: float
    of: int

    def scaled(self, factor: float, most: float = math.inf) -> Estimate:
        """Return the estimate in another unit, at most `most`."""
        value, low, high = (min(most, end * factor) for end in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.of)

    @property
    def turned(self) -> Estimate:
        """The share of the opposite."""
        return Estimate(1 - self.value, 1 - self.high, 1 - self.low, self.of)

    @property
    def variance(self) -> float:
        """The variance of a normal distribution with this interval."""
        return ((self.high - self.low) / (2 * Z)) ** 2


def share(hits: int, of: int) -> Estimate | None:
    """Return the share of hits with Wilson's interval, or None if `of` is 0."""
    return _wilson(hits / of, of, of) if of else None


def _wilson(value: float, of: int, effective: float) -> Estimate:
    """Return a mean with Wilson's interval. Scores count as if all were 0 or 1, because no scores spread more."""
    centre, scale = value + Z**2 / (2 * effective), 1 + Z**2 / effective
    half = Z * math.sqrt(value * (1 - value) / effective + Z**2 / (4 * effective**2))
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Estimate(value, min(low, value), max(high, value), of)


def quantile(values: Sequence[float], p: float) -> Estimate | None:
    """Return the quantile with the interval of order statistics. An end beyond the data is infinite."""
    if not values:
        return None
    ordered = sorted(values)
    below, above = (int(end) for end in stats.binom.interval(CONFIDENCE, len(ordered), p))
    value = ordered[max(0, math.ceil(p * len(ordered) - 1e-9) - 1)]
    low = ordered[below - 1] if below else 0.0
    high = ordered[above] if above < len(ordered) else math.inf
    return Estimate(value, min(low, value), max(high, value), len(ordered))


def count_groups(questions: Collection[str], groups: Groups) -> int:
    return len({groups.get(one, f"item {one}") for one in questions})


def _sums(parts: Scores, groups: Groups) -> dict[str, float]:
    """Return the sum of the parts by group. If all parts are of one group, each is a group of its own."""
    groups = groups if count_groups(parts, groups) > 1 else {}
    sums: dict[str, float] = defaultdict(float)
    for question, part in parts.items():
        sums[groups.get(question, f"item {question}")] += part
    return sums


def estimate(scores: Scores, groups: Groups = {}, weights: Weights = _NONE) -> Estimate | None:  # noqa: B006  # not changed
    """Return the weighted mean of scores from 0 to 1 with its interval, or None if there are no scores."""
    weighed = {one: weight for one in scores if (weight := weights.get(one, 1.0)) > 0}
    if not weighed:
        return None
    value = sum(weight * scores[one] for one, weight in weighed.items()) / sum(weighed.values())
    return _wilson(value, len(weighed), _effective(scores, weighed, groups))


def _effective(scores: Scores, weighed: Weights, groups: Groups) -> float:
    """Return the number of independent items of equal weight whose mean has the same variance.

    It is at least the number that remains if all items of a group have the same score.
    """
    by_group = _sums(weighed, groups)
    if len(by_group) == len(weighed) and len(set(weighed.values())) == 1:
        return len(weighed)
    sizes = np.array(list(by_group.values()))
    totals = np.array(list(_sums({one: weight * scores[one] for one, weight in weighed.items()}, groups).values()))
    values, weights = np.array([scores[one] for one in weighed]), np.array(list(weighed.values()))
    size, typical = float(sizes.sum()), float((sizes**2).sum() / sizes.sum())
    mean_weight = float((weights**2).sum() / weights.sum())
    parts = np.append(np.ones(len(sizes)), [_PSEUDO_GROUP, _PSEUDO_GROUP])
    all_totals, all_sizes = np.append(totals, [typical, 0.0]), np.append(sizes, [typical, typical])
    centre = float((parts * all_totals).sum() / (parts * all_sizes).sum())
    between = float((parts * (all_totals - centre * all_sizes) ** 2).sum()) * parts.sum() / (parts.sum() - 1)
    pseudo = _PSEUDO_GROUP * typical * mean_weight * ((1 - centre) ** 2 + centre**2)
    within = float((weights**2 * (values - centre) ** 2).sum()) + pseudo
    student = float(stats.t.ppf(1 - ALPHA / 2, _freedom(sizes)))
    return max(float(size / mean_weight / max(1.0, between / within) * (Z / student) ** 2), size / typical)


def _freedom(sizes: _Floats) -> float:
    """Return the degrees of freedom of a variance between groups (Satterthwaite). Large groups decide most of it."""
    return max(1.0, float((sizes**2).sum() ** 2 / (sizes**4).sum()) - 1)


class Difference(Value, frozen=True):
    """The first candidate's figure minus the second's, with the degrees of freedom of its variance.

    `noise` is a part that is not of items, such as that of two load tests, with its variance. `of` counts the items.
    """

    value: float
    by_group: Mapping[str, float]
    variance: float
    freedom: float
    of: int
    noise: tuple[float, float] = (0.0, 0.0)

    def reach(self, tail: float) -> float:
        """Return the distance from the value to the bound that it exceeds with this probability."""
        return float(stats.t.isf(tail, self.freedom)) * math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """The p value that both candidates are equal."""
        return sign_flip_p(list(self.by_group.values()), self.noise[0], math.sqrt(self.noise[1]))


def difference(first: Scores, second: Scores, groups: Groups, weights: Weights = _NONE) -> Difference | None:
    """Return the difference of two weighted means on their common questions, or None if there are none.

    As in the interval of Agresti and Min (2005), half an item more on each side is assumed for the variance, so that
    two candidates with the same scores are not certain to be equal.
    """
    weighed = {one: weight for one in first if one in second and (weight := weights.get(one, 1.0)) > 0}
    if not weighed:
        return None
    size = sum(weighed.values())
    by_group = _sums({one: weight * (first[one] - second[one]) / size for one, weight in weighed.items()}, groups)
    totals, shares = np.array(list(by_group.values())), np.array(list(_sums(weighed, groups).values())) / size
    value, typical, count = float(totals.sum()), float((shares**2).sum()), len(totals)
    variance = (float(((totals - value * shares) ** 2).sum()) + typical**2) * count / max(1, count - 1)
    return Difference(value, by_group, variance, _freedom(shares), len(weighed))


def combined(parts: Sequence[tuple[float, Difference]]) -> Difference | None:
    """Return the weighted mean of differences, or None if there are none or all weights are 0."""
    total = sum(weight for weight, _ in parts)
    if total <= 0:
        return None
    by_group: dict[str, float] = defaultdict(float)
    variances: list[tuple[float, float]] = []
    for weight, one in parts:
        variances.append((one.variance * (weight / total) ** 2, one.freedom))
        for group, part in one.by_group.items():
            by_group[group] += part * weight / total
    variance, spread = sum(one for one, _ in variances), sum(one**2 / freedom for one, freedom in variances)
    noises = [(one.noise[0] * weight / total, one.noise[1] * (weight / total) ** 2) for weight, one in parts]
    return Difference(
        sum(one.value * weight / total for weight, one in parts),
        by_group,
        variance,
        variance**2 / spread if spread else 1e6,
        sum(one.of for _, one in parts),
        (sum(one for one, _ in noises), sum(one for _, one in noises)),
    )


def noise(first: Estimate, second: Estimate) -> Difference:
    """Return the difference of two figures that were measured independently."""
    value, variance = first.value - second.value, first.variance + second.variance
    return Difference(value, {}, variance, 1e6, 0, (value, variance))


def sign_flip_p(parts: Sequence[float], extra: float = 0.0, extra_sd: float = 0.0) -> float:
    """Return the p value that the differences of all groups have random signs: how often their sum is as far from 0.

    The distribution of the sum is computed, not drawn. `extra` is a further difference that is normally distributed.
    """
    reach = sum(map(abs, parts)) + abs(extra) + _NORMAL_REACH * extra_sd
    if reach <= 0:
        return 1.0
    step = _grid_step(parts, reach)
    signed = [moves for part in parts if (moves := round(part / step))]
    half = sum(map(abs, signed))
    chances = np.zeros(2 * half + 1)
    chances[half] = 1.0
    for one in map(abs, signed):
        moved = np.zeros_like(chances)
        moved[one:] += chances[: len(chances) - one] / 2
        moved[: len(chances) - one] += chances[one:] / 2
        chances = moved
    observed, at = abs(sum(signed) + extra / step), np.arange(-half, half + 1)
    if extra_sd <= 0:
        return min(1.0, float(chances[np.abs(at) >= observed - 1e-6].sum()))
    spread = extra_sd / step
    tails = stats.norm.sf((observed - at) / spread) + stats.norm.cdf((-observed - at) / spread)
    return min(1.0, float((chances * tails).sum()))


def _grid_step(parts: Sequence[float], reach: float) -> float:
    """Return the step of the grid of sums. It is exact if all parts are multiples of a part that is not too small."""
    nothing, step = reach * 1e-9, 0.0
    for part in parts:
        # Euclid's algorithm. Parts such as 2/7 and 3/7 have the common step 1/7.
        larger, smaller = max(abs(part), step), min(abs(part), step)
        while smaller > nothing:
            larger, smaller = smaller, abs(math.remainder(larger, smaller))
        step = larger
    return max(step, reach / _GRID_POINTS)


class Comparison(Value, frozen=True):
    """The first candidate minus the second, from -1 to 1, with the 95 % interval and the corrected p value."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    of: int
    detectable: float
    """The difference that this sample would have found with a probability of 80 %."""
    load_share: float
    """The part of the variance that comes from load tests. More items do not reduce it."""

    @property
    def is_established(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p < ALPHA

    def seen_from(self, name: str) -> Comparison:
        """Return the comparison with this candidate as the first."""
        if name == self.first:
            return self
        return replace(self, first=name, second=self.first, difference=-self.difference, low=-self.high, high=-self.low)

    def describe(self) -> str:
        one = self if self.difference >= 0 else self.seen_from(self.second)
        interval = f"{one.low * 100:+.1f} to {one.high * 100:+.1f} points, p = {one.p:.2g}"
        if not self.is_established:
            return f"{one.first} and {one.second} are not distinguished ({interval})"
        return f"{one.first} is better than {one.second} by {one.difference * 100:.1f} points ({interval})"


def compare(pairs: Mapping[tuple[str, str], Difference | None]) -> tuple[Comparison, ...]:
    """Return the comparisons of all pairs, with p values corrected together."""
    known = {names: one for names, one in pairs.items() if one is not None}
    tail = ALPHA / (2 * max(1, len(known)))
    return tuple(
        Comparison(
            *(
                *names,
                one.value,
                max(-1.0, one.value - one.reach(ALPHA / 2)),
                min(1.0, one.value + one.reach(ALPHA / 2)),
            ),
            *(p, one.of, min(1.0, one.reach(tail) + one.reach(1 - _POWER))),
            one.noise[1] / one.variance if one.variance > 0 else 0.0,
        )
        for (names, one), p in zip(known.items(), holm([one.p for one in known.values()]), strict=True)
    )


def holm(values: Sequence[float]) -> list[float]:
    """Return the p values with Holm's correction (1979) for multiple tests. Their order does not change."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = highest
    return adjusted
