"""Compare the weighted scores of the candidates, and put those that the evidence does not distinguish into groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from scipy import stats  # type: ignore[import-untyped]

from evaluation.cluster_statistics import Groups, PairedDifference, Weights, paired_difference, sign_flip_p
from evaluation.ranking import CandidateFindings, bounded_goodput
from evaluation.statistics import CONFIDENCE, Estimate, holm
from evaluation.suite import Suite

ALPHA = 1 - CONFIDENCE
POWER = 0.8
COMPLIANCE_FIGURES = ("accept", "refuse", "answer", "consistent")
"""The figures of `Compliance.outcomes` that make up the compliance score."""


@dataclass(frozen=True, slots=True)
class TotalComparison:
    """The difference of two candidates' weighted scores: the first minus the second, from -1 to 1.

    Attributes:
        low: The lower end of the 95 % interval of the difference.
        high: The upper end.
        p: The p value, corrected for all pairs (Holm).
        detectable: The difference that this sample would have found with a probability of 80 %.
        load_share: The part of the variance that comes from load tests. More items do not reduce it.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    detectable: float
    load_share: float = 0.0

    @property
    def is_established(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p < ALPHA

    def seen_from(self, name: str) -> TotalComparison:
        """Return the comparison with this candidate as the first."""
        if name == self.first:
            return self
        return replace(self, first=name, second=self.first, difference=-self.difference, low=-self.high, high=-self.low)

    def describe(self) -> str:
        """Return the result as a phrase."""
        interval = f"{self.low * 100:+.1f} to {self.high * 100:+.1f} points, p = {self.p:.2g}"
        if not self.is_established:
            return f"{self.first} and {self.second} are not distinguished ({interval})"
        one = self if self.difference > 0 else self.seen_from(self.second)
        interval = f"{one.low * 100:.1f} to {one.high * 100:.1f}, p = {one.p:.2g}"
        return f"{one.first} is better than {one.second} by {one.difference * 100:.1f} points ({interval})"


@dataclass(frozen=True, slots=True)
class Totals:
    """The comparisons of all pairs of some candidates."""

    comparisons: tuple[TotalComparison, ...] = ()

    def between(self, first: str, second: str) -> TotalComparison | None:
        """Return the comparison of two candidates, from the first one's side, or None."""
        found = next((one for one in self.comparisons if {one.first, one.second} == {first, second}), None)
        return found.seen_from(first) if found is not None else None

    def is_better(self, first: str, second: str) -> bool:
        """Return whether the first candidate is established as better than the second."""
        one = self.between(first, second)
        return one is not None and one.is_established and one.difference > 0


def compare_totals(findings: Mapping[str, CandidateFindings], suite: Suite) -> Totals:
    """Compare the weighted scores of every pair of these candidates.

    Answers are compared on the same items, in groups. Goodput has its own interval and is treated as independent.
    """
    groups, weights = suite.groups, item_weights(suite)
    pairs = [
        (a, b, _difference(findings[a], findings[b], suite, groups, weights)) for a, b in combinations(findings, 2)
    ]
    known = [(a, b, one) for a, b, one in pairs if one is not None]
    adjusted = holm([one.p for _, _, one in known])
    tail = ALPHA / (2 * max(1, len(known)))
    return Totals(
        tuple(
            TotalComparison(
                *(a, b, one.value),
                max(-1.0, one.value - one.reach(ALPHA / 2)),
                min(1.0, one.value + one.reach(ALPHA / 2)),
                p,
                min(1.0, one.reach(tail) + one.reach(1 - POWER)),
                one.noise_variance / one.variance if one.variance > 0 else 0.0,
            )
            for (a, b, one), p in zip(known, adjusted, strict=True)
        )
    )


def item_weights(suite: Suite) -> dict[str, float]:
    """Return the weight of each performance item: that of its language times that of its set."""
    languages, sets = suite.file.weights.languages, suite.file.weights.sets
    if not languages and not sets:
        return {}
    return {
        item.id: float(languages.get(item.language, 1) * sets.get(item.id.split("/")[0], 1))  # type: ignore[call-overload]  # a code
        for item in suite.performance
    }


@dataclass(frozen=True, slots=True)
class _Difference:
    value: float
    variance: float
    noise_variance: float
    freedom: float
    p: float

    def reach(self, tail: float) -> float:
        return float(stats.t.isf(tail, self.freedom)) * math.sqrt(self.variance)


def _difference(
    one: CandidateFindings, other: CandidateFindings, suite: Suite, groups: Groups, weights: Weights
) -> _Difference | None:
    axes = suite.file.weights
    parts: list[tuple[float, PairedDifference]] = []
    total = 0.0
    if one.performance is not None and other.performance is not None:
        found = paired_difference(scores_by_question(one), scores_by_question(other), groups, weights)
        if found is not None:
            parts.append((axes.performance, found))
            total += axes.performance
    if one.compliance is not None and other.compliance is not None:
        figures = [
            found
            for figure in COMPLIANCE_FIGURES
            if (figure != "accept" or (one.compliance.acceptable and other.compliance.acceptable))
            and (found := _compliance(one, other, figure, groups)) is not None
        ]
        parts += [(axes.compliance / len(figures), found) for found in figures]
        total += axes.compliance if figures else 0.0
    loads = bounded_goodput(one, suite.file), bounded_goodput(other, suite.file)
    noise = noise_variance = 0.0
    if loads[0] is not None and loads[1] is not None:
        total += axes.scalability
        noise = axes.scalability * (loads[0].value - loads[1].value)
        noise_variance = axes.scalability**2 * (_variance(loads[0]) + _variance(loads[1]))
    if total <= 0:
        return None
    scaled = [found.scaled(weight / total) for weight, found in parts]
    noise, noise_variance = noise / total, noise_variance / total**2
    by_group: dict[str, float] = defaultdict(float)
    for found in scaled:
        for group, part in found.by_group.items():
            by_group[group] += part
    variance = sum(found.variance for found in scaled) + noise_variance
    spread = sum(found.variance**2 / found.freedom for found in scaled)
    freedom = variance**2 / spread if spread > 0 else 1e6
    p = sign_flip_p(list(by_group.values()), noise, math.sqrt(noise_variance))
    return _Difference(sum(found.value for found in scaled) + noise, variance, noise_variance, freedom, p)


def _compliance(
    one: CandidateFindings, other: CandidateFindings, figure: str, groups: Groups
) -> PairedDifference | None:
    return paired_difference(outcomes_of(one, figure), outcomes_of(other, figure), groups)


def outcomes_of(findings: CandidateFindings, figure: str) -> dict[str, float]:
    """Return the scores of the items of a figure: `performance`, or one of COMPLIANCE_FIGURES."""
    if figure == "performance":
        return scores_by_question(findings)
    return findings.compliance.outcomes.get(figure, {}) if findings.compliance is not None else {}


def scores_by_question(findings: CandidateFindings) -> dict[str, float]:
    """Return the scores of the performance items. A missing verdict counts as 0, as in the weighted score."""
    performance = findings.performance
    return (performance.worst_scores or performance.scores) if performance is not None else {}


def _variance(estimate: Estimate) -> float:
    return ((estimate.high - estimate.low) / (2 * float(stats.norm.isf(ALPHA / 2)))) ** 2


def group_ties(order: Sequence[str], totals: Totals) -> tuple[tuple[str, ...], ...]:
    """Return the candidates in groups. No pair of a group is established as different.

    The first of `order` has the highest score.
    """
    groups: list[list[str]] = []
    for name in order:
        if groups and not any(totals.is_better(other, name) or totals.is_better(name, other) for other in groups[-1]):
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(map(tuple, groups))
