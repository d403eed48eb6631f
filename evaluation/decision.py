"""Weigh the figures of the candidates, and recommend a route.

Candidates that the evidence does not distinguish are one group. A deployment of the present route is replaced only if
another one is established as better, or for a stated reason (cheaper, faster) without being worse by the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from evaluation.checks import Rubric
from evaluation.figures import AXES, FIGURES, Requirement, Results
from evaluation.questions import Suite
from evaluation.statistics import (
    ALPHA,
    Comparison,
    Difference,
    Estimate,
    combined,
    compare,
    difference,
    noise,
    share,
    sign_flip_p,
)
from evaluation.suite import RecommendationSection
from providers.value import Value, replace

# Two answers are of similar length if the longer one has at most this many times the words of the other.
_SIMILAR_RATIO = 1.25


class RouteEvidence(Value, frozen=True):
    """Everything that a recommendation is made from. `cost` is None for a candidate without a price."""

    suite: Suite
    results: Mapping[str, Results]
    requirements: Mapping[str, Sequence[Requirement]]
    scores: Mapping[str, Score]
    cost: Mapping[str, float | None]
    route_now: Sequence[str]
    totals: Sequence[Comparison] = ()

    def missed(self, name: str) -> list[Requirement]:
        """Return the requirements that a candidate misses."""
        return [one for one in self.requirements[name] if not one.met]

    def is_qualified(self, name: str) -> bool:
        """Return whether a candidate meets all requirements and has a score."""
        return not self.missed(name) and self.scores[name].total is not None

    def misses_within_noise(self, name: str) -> bool:
        """Return whether each missed requirement may be met, because its bound is inside the interval."""
        missed = self.missed(name)
        return bool(missed) and self.scores[name].total is not None and not any(one.clear for one in missed)

    def total(self, name: str) -> float:
        """Return the weighted score, for an order."""
        total = self.scores[name].total
        return total.value if total is not None else -1.0

    def between(self, first: str, second: str) -> Comparison | None:
        """Return the comparison of two candidates, from the first one's side, or None."""
        found = next((one for one in self.totals if {one.first, one.second} == {first, second}), None)
        return found.seen_from(first) if found is not None else None

    def is_better(self, first: str, second: str) -> bool:
        """Return whether the first candidate is established as better than the second."""
        one = self.between(first, second)
        return one is not None and one.is_established and one.difference > 0


class Score(Value, frozen=True):
    """Each axis from 0 to 1, and the weighted mean of the axes that were measured."""

    axes: Mapping[str, Estimate]
    total: Estimate | None


def score_of(results: Results, suite: Suite) -> Score:
    """Return the scores of a candidate. The score of an axis is the mean of its figures, 1 being best.

    The figures are treated as independent. The scalability score is goodput divided by the required rate, at most 1.
    """
    axes: dict[str, Estimate] = {}
    for axis in AXES:
        found = [
            one.turned if FIGURES[key].is_turned else one
            for key in _counted(axis)
            if (one := results.figure(key, suite.groups, suite.weights)) is not None
        ]
        if axis == "scalability" and (goodput := bounded_goodput(results, suite)) is not None:
            found = [goodput]
        if found:
            axes[axis] = _mean([(1, one) for one in found])
    weighted = [(getattr(suite.file.weights, axis), one) for axis, one in axes.items()]
    return Score(axes, _mean(weighted) if any(weight for weight, _ in weighted) else None)


def _counted(axis: str) -> list[str]:
    return [key for key, figure in FIGURES.items() if figure.axis == axis and figure.counts]


def _mean(parts: Sequence[tuple[int, Estimate]]) -> Estimate:
    weights = sum(weight for weight, _ in parts)
    value = sum(weight * one.value for weight, one in parts) / weights
    below = math.hypot(*(weight * (one.value - one.low) for weight, one in parts)) / weights
    above = math.hypot(*(weight * (one.high - one.value) for weight, one in parts)) / weights
    return Estimate(value, max(0.0, value - below), min(1.0, value + above), sum(one.of for _, one in parts))


def bounded_goodput(results: Results, suite: Suite) -> Estimate | None:
    """Return goodput as a part of the required rate, at most 1, or None if it was not measured."""
    section, load = suite.file.scalability, results.load
    if section is None or load is None or load.goodput is None:
        return None
    return load.goodput.scaled(1 / (suite.file.requirements.goodput_rps or max(section.rates)), 1.0)


def compare_candidates(
    results: Mapping[str, Results], suite: Suite, names: Sequence[str], axes: Sequence[str] = AXES
) -> tuple[Comparison, ...]:
    """Compare the weighted scores of every pair of these candidates, of all axes or some.

    If the judge preferred the longer answers of a pair, its scores are left out of their comparison.
    """
    groups, weights, biased = suite.groups, suite.weights, length_bias(results, suite)

    def apart(*pair: str) -> Difference | None:
        one, other = (without_rubrics(results[name], suite) if pair in biased else results[name] for name in pair)
        parts: list[tuple[float, Difference]] = []
        for axis in axes:
            weight = getattr(suite.file.weights, axis) if len(axes) > 1 else 1
            found = [difference(one.scores(key), other.scores(key), groups, weights) for key in _counted(axis)]
            known = [each for each in found if each is not None]
            loads = bounded_goodput(one, suite), bounded_goodput(other, suite)
            if axis == "scalability" and loads[0] is not None and loads[1] is not None:
                known = [noise(*loads)]  # type: ignore[arg-type]  # both are known
            parts += [(weight / len(known), each) for each in known]
        return combined(parts)

    return compare({pair: apart(*pair) for pair in combinations([name for name in results if name in names], 2)})


def compared_names(evidence: RouteEvidence) -> list[str]:
    """Return the candidates that decide: those that meet all requirements, or in the route miss one within noise."""
    return [
        name
        for name in evidence.results
        if evidence.is_qualified(name) or (name in evidence.route_now and evidence.misses_within_noise(name))
    ]


def length_bias(results: Mapping[str, Results], suite: Suite) -> dict[tuple[str, str], Estimate]:
    """Return the pairs of candidates of which the judge measurably preferred the longer answers, and how often.

    A preference for length and better quality look alike here. So such scores establish no difference.
    """
    judged = [item.id for item in suite.performance if isinstance(item.check, Rubric) and not item.question]
    found: dict[tuple[str, str], Estimate] = {}
    for a, b in combinations(results, 2):
        signs: list[bool] = []
        for one in judged:
            (score, *_), (other, *_) = (results[name].marks["performance"].get(one, [None]) for name in (a, b))
            words, others = (results[name].words.get(one, 0) for name in (a, b))
            is_longer = max(words, others) > _SIMILAR_RATIO * min(words, others)
            if is_longer and score is not None and other is not None and score != other:
                signs.append((score > other) == (words > others))
        longer = share(sum(signs), len(signs))
        p = sign_flip_p([1.0 if one else -1.0 for one in signs])
        if longer is not None and longer.value > 1 / 2 and p * len(list(combinations(results, 2))) < ALPHA:
            found[a, b] = longer
    return found


def without_rubrics(results: Results, suite: Suite) -> Results:
    """Return the results without the questions that a judge scores by a rubric."""
    rubrics = {item.question_id for item in suite.performance if isinstance(item.check, Rubric)}
    marks = {
        figure: {question: values for question, values in questions.items() if question not in rubrics}
        for figure, questions in results.marks.items()
    }
    return replace(results, marks=marks)


def group_ties(evidence: RouteEvidence) -> tuple[tuple[str, ...], ...]:
    """Return the qualified candidates in groups, the best first. No pair of a group is established as different.

    Within a group the present route comes first.
    """
    groups: list[list[str]] = []
    for name in sorted(filter(evidence.is_qualified, evidence.results), key=lambda name: -evidence.total(name)):
        apart = any(
            evidence.is_better(a, b)
            for other in (groups[-1] if groups else ())
            for a, b in ((other, name), (name, other))
        )
        if groups and not apart:
            groups[-1].append(name)
        else:
            groups.append([name])
    route = list(evidence.route_now)

    def rank(name: str) -> tuple[int, float]:
        return route.index(name) if name in route else len(route), -evidence.total(name)

    return tuple(tuple(sorted(group, key=rank)) for group in groups)


class Recommendation(Value, frozen=True):
    """The recommended route and the reasons, in sentences."""

    deployment: str | None
    """The first deployment of the recommended route that was evaluated; None if no route is recommended."""
    route: tuple[str, ...]
    reasons: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()
    """The candidates that meet all requirements, in groups that the evidence does not distinguish."""
    detectable: float | None = None
    """The difference of the weighted score that the sample finds with a probability of 80 %."""
    items_needed: int | None = None
    """The number of items that would find the suite's margin; None if no number would."""


def recommend(evidence: RouteEvidence) -> Recommendation:
    groups, route_now = group_ties(evidence), tuple(evidence.route_now)
    ranked = [name for group in groups for name in group]
    missed = {name: evidence.missed(name) for name in evidence.results}
    details = {
        name: [f"{one.name}: {one.found}, {one.wanted} is required" for one in ones] for name, ones in missed.items()
    }
    out = [f"{name} misses requirements: {'; '.join(ones)}." for name, ones in details.items() if ones]
    if not ranked:
        return Recommendation(None, route_now, ("No candidate meets all requirements.", *out))
    choice = _Choice(evidence, ranked)
    route = choice.choose()
    first = route[0]
    detectable, needed, power = _power(evidence, ranked)
    end = [f"{', '.join(one)}: {'not distinguished' if len(one) > 1 else 'a group of its own'}." for one in groups]
    unclear = [
        f"{name}: {one.name} is {one.found}; the interval includes the bound ({one.wanted}), so more items could "
        "change the result."
        for name in ranked
        for one in evidence.requirements[name]
        if one.met and not one.clear
    ]
    end += [*power, *unclear, *out]
    deployment: str | None = first
    if first not in evidence.results:
        deployment = next((name for name in route if name in evidence.results), None)
        begin = [
            f"{first}, the first deployment of the route, was not evaluated, so nothing shows that another one is "
            "better. Add it to --candidates.",
            *choice.reasons,
        ]
    elif not evidence.is_qualified(first):
        deployment, route = None, list(route_now)
        begin = [
            f"{first}, the first deployment of the route, misses a requirement within noise, and no candidate is "
            "established as better. The route stays as it is; more items would decide."
        ]
    else:
        axes = ", ".join(f"{axis} {one.value:.1%}" for axis, one in evidence.scores[first].axes.items())
        met = "It meets all requirements." if evidence.requirements[first] else "The suite has no requirements."
        begin = [f"{first} has a weighted score of {evidence.total(first):.1%} ({axes}). {met}", *choice.reasons]
        begin += [_pair(evidence, first, other) for other in ranked if other != first]
        begin += [
            f"{name} stays in the route. It misses {'; '.join(one.name for one in missed[name])} within noise; more "
            "items would decide."
            for name in route
            if name in evidence.results and evidence.misses_within_noise(name)
        ]
    return Recommendation(deployment, tuple(route), (*begin, *end), groups, detectable, needed)


@dataclass(slots=True)
class _Choice:
    """Fills the places of the route, and collects the reasons for each change."""

    evidence: RouteEvidence
    ranked: list[str]
    reasons: list[str] = field(default_factory=list)

    def choose(self) -> list[str]:
        evidence, route = self.evidence, list[str]()
        length = evidence.suite.file.recommendation.route_length or max(1, len(evidence.route_now))
        stays = [
            name
            for name in evidence.route_now
            if name not in evidence.results or evidence.is_qualified(name) or evidence.misses_within_noise(name)
        ]
        while len(route) < length:
            waiting = [name for name in stays if name not in route]
            left = [name for name in self.ranked if name not in route]
            if waiting and waiting[0] not in evidence.results:
                route.append(waiting[0])
            elif waiting:
                route.append(self._keep_or_replace(len(route) + 1, waiting, left))
            elif left:
                tied = [other for other in left[1:] if not evidence.is_better(left[0], other)]
                also = f"; not distinguished from it: {', '.join(tied)}" if tied else ""
                self.reasons.append(
                    f"{left[0]} takes place {len(route) + 1}, with the highest score of the others{also}."
                )
                route.append(left[0])
            else:
                break
        return route

    def _keep_or_replace(self, place: int, waiting: list[str], left: list[str]) -> str:
        occupant = waiting[0]
        others = [name for name in left if name != occupant]
        supports: tuple[Callable[[str, str], str | None], ...] = (self._better, self._cheaper, self._faster)
        for support in supports:
            found = {name: reason for name in others if (reason := support(name, occupant)) is not None}
            # A deployment of the route is preferred, because a new one is one more processor of prompts.
            for name in (*(one for one in waiting if one in found), *found):
                if not any(self.evidence.is_better(one, name) for one in found):
                    self.reasons.append(f"{name} comes before {occupant} at place {place}: {found[name]}.")
                    return name
        if others and place == 1:
            self.reasons.append(f"{occupant} stays first, because no candidate is established as better.")
        return occupant

    def _better(self, name: str, occupant: str) -> str | None:
        evidence = self.evidence
        one = evidence.between(name, occupant)
        if one is not None and one.is_established and one.difference > 0:
            points = f"{one.difference * 100:.1f} points ({one.low * 100:.1f} to {one.high * 100:.1f}, p = {one.p:.2g})"
            return f"its weighted score is higher by {points}"
        for requirement in evidence.missed(occupant):
            pair = {each: evidence.results[each] for each in (name, occupant)}
            if length_bias(pair, evidence.suite):
                pair = {each: without_rubrics(one, evidence.suite) for each, one in pair.items()}
            mine, theirs = (one.scores(requirement.figure) for one in pair.values())
            found = difference(mine, theirs, evidence.suite.groups)
            p = min(1.0, found.p * len(self.ranked)) if found is not None and found.value > 0 else 1.0
            if p < ALPHA:
                return f"{occupant} misses {requirement.name}, where it is better (p = {p:.2g})"
        return None

    def _cheaper(self, name: str, occupant: str) -> str | None:
        by, mine, theirs = self._section.cheaper_by, self.evidence.cost.get(name), self.evidence.cost.get(occupant)
        if by is None or mine is None or not theirs or mine > theirs * (1 - by):
            return None
        margin = self._not_inferior(name, occupant)
        return f"it is cheaper by {1 - mine / theirs:.0%}, and {margin}" if margin is not None else None

    def _faster(self, name: str, occupant: str) -> str | None:
        by = self._section.faster_by
        mine, theirs = (_first_token(self.evidence.results[one]) for one in (name, occupant))
        if by is None or mine is None or theirs is None:
            return None
        if mine.high >= theirs.low or mine.value > theirs.value * (1 - by):
            return None
        margin = self._not_inferior(name, occupant)
        earlier = f"its median first token is earlier by {1 - mine.value / theirs.value:.0%}"
        return f"{earlier}, and {margin}" if margin is not None else None

    @property
    def _section(self) -> RecommendationSection:
        return self.evidence.suite.file.recommendation

    def _not_inferior(self, name: str, occupant: str) -> str | None:
        one, margin = self.evidence.between(name, occupant), self._section.margin
        if one is None or one.low <= -margin:
            return None
        interval = f"{one.low * 100:+.1f} to {one.high * 100:+.1f}"
        return f"its weighted score is not lower by {margin * 100:g} points or more ({interval})"


def _first_token(results: Results) -> Estimate | None:
    steps = results.load.steps if results.load is not None else []
    return steps[0].times["first_token"].get("p50") if steps else None


def _power(evidence: RouteEvidence, ranked: Sequence[str]) -> tuple[float | None, int | None, list[str]]:
    """Return what the worst comparison between qualified candidates could have found, and how to find the margin."""
    known = [one for one in evidence.totals if one.first in ranked and one.second in ranked]
    if not known:
        return None, None, []
    worst, margin = max(known, key=lambda one: one.detectable), evidence.suite.file.recommendation.margin
    if worst.detectable >= 1:
        return (
            1.0,
            None,
            [f"The sample of {worst.of:,} items is too small to find any difference of the weighted score."],
        )
    points = f"{worst.detectable * 100:.1f} points of the weighted score with a probability of 80 %."
    found = f"The sample of {worst.of:,} items finds a difference of {points}"
    # Variances add up. That of the items shrinks with their number, and that of the load tests stays.
    wanted = (margin / worst.detectable) ** 2 - worst.load_share if worst.detectable else 1.0
    needed = round(worst.of * (1 - worst.load_share) / wanted) if margin > 0 and wanted > 0 else None
    if worst.detectable <= margin:
        return worst.detectable, needed, [found]
    how = f"About {needed:,} items would find" if needed is not None else "The load tests are too short to find"
    return worst.detectable, needed, [f"{found} {how} {margin * 100:g} points."]


def _pair(evidence: RouteEvidence, first: str, other: str) -> str:
    one = evidence.between(first, other)
    return f"{first} and {other} can't be compared." if one is None else f"{one.describe()}."
