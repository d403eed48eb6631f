"""Recommend a route. A deployment of the present route is replaced only if the evidence supports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.cluster_statistics import Groups, paired_difference, sign_flip_p
from evaluation.ranking import CandidateFindings, Requirement, Scores
from evaluation.statistics import Estimate
from evaluation.suite import percent
from evaluation.suite_schema import RecommendationSection
from evaluation.tie_groups import ALPHA, TotalComparison, Totals, group_ties, outcomes_of

# The items that decide a requirement.
_FIGURE_OF = {
    "performance": "performance",
    "acceptable": "accept",
    "refused": "refuse",
    "over-refused": "answer",
    "consistent": "consistent",
}


@dataclass(frozen=True, slots=True)
class RouteEvidence:
    """Everything that a recommendation is made from.

    Attributes:
        findings: The results of the candidates, in the order of the command.
        totals: The comparisons of the weighted scores of candidates that are in a tie group or in the route.
        cost: The cost of each candidate's answers; None if it has no price.
        groups: The groups of items that depend on each other.
        route_now: The deployments of the present route.
    """

    findings: Mapping[str, CandidateFindings]
    scores: Mapping[str, Scores]
    requirements: Mapping[str, Sequence[Requirement]]
    totals: Totals
    cost: Mapping[str, float | None]
    groups: Groups
    route_now: Sequence[str]

    def missed(self, name: str) -> list[Requirement]:
        """Return the requirements that a candidate misses."""
        return [one for one in self.requirements[name] if not one.met]

    def is_qualified(self, name: str) -> bool:
        """Return whether a candidate meets all requirements and has a score."""
        return not self.missed(name) and self.scores[name].total is not None

    def misses_within_noise(self, name: str) -> bool:
        """Return whether each missed requirement may be met: its bound is inside the interval."""
        missed = self.missed(name)
        return bool(missed) and self.scores[name].total is not None and not any(one.clear for one in missed)


@dataclass(frozen=True, slots=True)
class Power:
    """The differences that the sample could have found.

    Attributes:
        detectable: The difference of the weighted score that is found with a probability of 80 %.
        margin: The difference that matters to the suite.
        items: The number of asked items.
        items_needed: The number of items that would find a difference of `margin`; None if no number would, because the
            load tests are too short.
    """

    detectable: float
    margin: float
    items: int
    items_needed: int | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The recommended route and the reasons.

    Attributes:
        deployment: The first deployment of the recommended route that was evaluated; None if no route is recommended.
        route: The recommended route, as long as the present one unless the suite states a length.
        reasons: The reasons, in sentences.
        groups: The candidates that meet all requirements, in groups that the evidence does not distinguish.
        power: The differences that the sample could have found; None with fewer than two qualified candidates.
    """

    deployment: str | None
    route: tuple[str, ...]
    reasons: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()
    power: Power | None = None


def compared_names(
    route_now: Sequence[str], requirements: Mapping[str, Sequence[Requirement]], scores: Mapping[str, Scores]
) -> list[str]:
    """Return the candidates whose weighted scores are compared.

    These are the candidates that meet all requirements, and those of the route that miss them within noise.
    """
    evidence = RouteEvidence({}, scores, requirements, Totals(), {}, {}, route_now)
    return [
        name
        for name in scores
        if evidence.is_qualified(name) or (name in route_now and evidence.misses_within_noise(name))
    ]


def tie_groups(evidence: RouteEvidence) -> tuple[tuple[str, ...], ...]:
    """Return the qualified candidates in groups, the best group first. Within a group the present route comes first."""
    qualified = [name for name in evidence.scores if evidence.is_qualified(name)]
    order = sorted(qualified, key=lambda name: -_total(evidence, name))
    route = list(evidence.route_now)

    def rank(name: str) -> tuple[int, float]:
        return route.index(name) if name in route else len(route), -_total(evidence, name)

    return tuple(tuple(sorted(group, key=rank)) for group in group_ties(order, evidence.totals))


def rank_candidates(evidence: RouteEvidence) -> list[str]:
    """Return all candidates: the tie groups, then those that miss a requirement, by their score."""
    ranked = [name for group in tie_groups(evidence) for name in group]
    return ranked + sorted((name for name in evidence.scores if name not in ranked), key=lambda n: -_total(evidence, n))


def _total(evidence: RouteEvidence, name: str) -> float:
    total = evidence.scores[name].total
    return total.value if total is not None else -1.0


def recommend(evidence: RouteEvidence, section: RecommendationSection, items: int) -> Recommendation:
    """Return the recommendation.

    `items` is the number of items that each candidate was asked.
    """
    groups = tie_groups(evidence)
    ranked = [name for group in groups for name in group]
    route_now = tuple(evidence.route_now)
    out = [_missed_reason(name, evidence.missed(name)) for name in evidence.scores if evidence.missed(name)]
    if not ranked:
        return Recommendation(None, route_now, ("No candidate meets all requirements.", *out))
    power = _power(evidence, percent(section.margin), items)
    choice = _Choice(evidence, section, ranked)
    route = choice.choose()
    first = route[0]
    end = [*map(_group_reason, groups), *_power_reasons(power), *_unclear_reasons(evidence, ranked), *out]
    if first not in evidence.findings:
        reason = (
            f"{first}, the first deployment of the route, was not evaluated, so nothing shows that another one is "
            f"better. Add it to --candidates."
        )
        evaluated = next((name for name in route if name in evidence.findings), None)
        return Recommendation(evaluated, tuple(route), (reason, *choice.reasons, *end), groups, power)
    if not evidence.is_qualified(first):
        reason = (
            f"{first}, the first deployment of the route, misses a requirement within noise, and no candidate is "
            "established as better. The route stays as it is; more items would decide."
        )
        return Recommendation(None, route_now, (reason, *end), groups, power)
    reasons = [_score_reason(evidence, first), *choice.reasons]
    reasons += [_pair_reason(evidence, first, other) for other in ranked if other != first]
    reasons += [
        f"{name} stays in the route. It misses {_names(evidence.missed(name))} within noise; more items would decide."
        for name in route
        if name in evidence.findings and evidence.misses_within_noise(name)
    ]
    return Recommendation(first, tuple(route), (*reasons, *end), groups, power)


@dataclass(slots=True)
class _Choice:
    """Fills the places of the route, and collects the reasons for each change."""

    evidence: RouteEvidence
    section: RecommendationSection
    ranked: list[str]
    reasons: list[str] = field(default_factory=list)

    def choose(self) -> list[str]:
        evidence = self.evidence
        present = [name for name in evidence.route_now if self._may_stay(name)]
        length = self.section.route_length or max(1, len(evidence.route_now))
        route: list[str] = []
        while len(route) < length:
            place = len(route) + 1
            waiting = [name for name in present if name not in route]
            if waiting and waiting[0] not in evidence.findings:
                route.append(waiting[0])
                continue
            left = [name for name in self.ranked if name not in route]
            if waiting:
                route.append(self._keep_or_replace(place, waiting, left))
            elif left:
                route.append(self._fill(place, left))
            else:
                break
        return route

    def _may_stay(self, name: str) -> bool:
        """Return whether a deployment of the route is kept unless another is better."""
        evidence = self.evidence
        return name not in evidence.findings or evidence.is_qualified(name) or evidence.misses_within_noise(name)

    def _keep_or_replace(self, place: int, waiting: list[str], left: list[str]) -> str:
        occupant = waiting[0]
        others = [name for name in left if name != occupant]
        supports: tuple[Callable[[str, str], str | None], ...] = (self._better, self._cheaper, self._faster)
        for support in supports:
            found = {name: reason for name in others if (reason := support(name, occupant)) is not None}
            # A deployment of the route is preferred, because a new one is one more processor of prompts.
            for name in (*(one for one in waiting if one in found), *found):
                better = [one for one in found if self.evidence.totals.is_better(one, name)]
                if not better:
                    self.reasons.append(f"{name} comes before {occupant} at place {place}: {found[name]}.")
                    return name
        if others and place == 1:
            self.reasons.append(f"{occupant} stays first, because no candidate is established as better.")
        return occupant

    def _fill(self, place: int, left: list[str]) -> str:
        """Return the candidate for a place that no deployment of the present route can take."""
        name = left[0]
        ties = [other for other in left[1:] if not self.evidence.totals.is_better(name, other)]
        tied = f"; {', '.join(ties)} {'are' if len(ties) > 1 else 'is'} not distinguished from it" if ties else ""
        self.reasons.append(f"{name} takes place {place}, because it has the highest score of the others{tied}.")
        return name

    def _better(self, name: str, occupant: str) -> str | None:
        one = self.evidence.totals.between(name, occupant)
        if one is not None and one.is_established and one.difference > 0:
            points = f"{one.difference * 100:.1f} points ({one.low * 100:.1f} to {one.high * 100:.1f}, p = {one.p:.2g})"
            return f"its weighted score is higher by {points}"
        for requirement in self.evidence.missed(occupant):
            figure = _FIGURE_OF.get(requirement.name)
            if figure is None:
                continue
            first, second = (outcomes_of(self.evidence.findings[one], figure) for one in (name, occupant))
            found = paired_difference(first, second, self.evidence.groups)
            if found is not None and found.value > 0:
                p = min(1.0, sign_flip_p(list(found.by_group.values())) * max(1, len(self.ranked)))
                if p < ALPHA:
                    return f"{occupant} misses {requirement.name}, where it is better (p = {p:.2g})"
        return None

    def _cheaper(self, name: str, occupant: str) -> str | None:
        mine, theirs = self.evidence.cost.get(name), self.evidence.cost.get(occupant)
        if self.section.cheaper_by is None or mine is None or theirs is None or theirs <= 0:
            return None
        if (
            mine > theirs * (1 - percent(self.section.cheaper_by))
            or (margin := self._not_inferior(name, occupant)) is None
        ):
            return None
        return f"it is cheaper by {1 - mine / theirs:.0%}, and {margin}"

    def _faster(self, name: str, occupant: str) -> str | None:
        if self.section.faster_by is None:
            return None
        mine, theirs = (_first_token(self.evidence.findings[one]) for one in (name, occupant))
        if mine is None or theirs is None or mine.high >= theirs.low:
            return None
        if mine.value > theirs.value * (1 - percent(self.section.faster_by)):
            return None
        if (margin := self._not_inferior(name, occupant)) is None:
            return None
        return f"its median first token is earlier by {1 - mine.value / theirs.value:.0%}, and {margin}"

    def _not_inferior(self, name: str, occupant: str) -> str | None:
        one, margin = self.evidence.totals.between(name, occupant), percent(self.section.margin)
        if one is None or one.low <= -margin:
            return None
        interval = f"{one.low * 100:+.1f} to {one.high * 100:+.1f}"
        return f"its weighted score is not lower by {margin * 100:g} points or more ({interval})"


def _first_token(findings: CandidateFindings) -> Estimate | None:
    steps = findings.scalability.steps if findings.scalability is not None else []
    return steps[0].first_token.get("p50") if steps else None


def _power(evidence: RouteEvidence, margin: float, items: int) -> Power | None:
    """Return what the worst comparison between qualified candidates could have found."""
    comparisons = [
        one
        for one in evidence.totals.comparisons
        if evidence.is_qualified(one.first) and evidence.is_qualified(one.second)
    ]
    if not comparisons:
        return None
    worst = max(comparisons, key=lambda one: one.detectable)
    return Power(worst.detectable, margin, items, _items_needed(worst, margin, items))


def _items_needed(one: TotalComparison, margin: float, items: int) -> int | None:
    # Variances add up. That of the items shrinks with their number, and that of the load tests stays.
    wanted = (margin / one.detectable) ** 2 - one.load_share if one.detectable else 1.0
    if margin <= 0 or wanted <= 0:
        return None
    return round(items * (1 - one.load_share) / wanted)


def _power_reasons(power: Power | None) -> list[str]:
    if power is None:
        return []
    if power.detectable >= 1:
        return [f"The sample of {power.items:,} items is too small to find any difference of the weighted score."]
    found = (
        f"The sample of {power.items:,} items finds a difference of {power.detectable * 100:.1f} points of the "
        "weighted score with a probability of 80 %."
    )
    if power.detectable <= power.margin:
        return [found]
    if power.items_needed is None:
        return [f"{found} The load tests are too short to find {power.margin * 100:g} points with any number of items."]
    return [f"{found} About {power.items_needed:,} items would find {power.margin * 100:g} points."]


def _group_reason(group: Sequence[str]) -> str:
    return f"{', '.join(group)}: not distinguished." if len(group) > 1 else f"{group[0]}: a group of its own."


def _score_reason(evidence: RouteEvidence, name: str) -> str:
    axes = ", ".join(f"{axis} {value:.1%}" for axis, value in evidence.scores[name].axes.items())
    met = "It meets all requirements." if evidence.requirements[name] else "The suite has no requirements."
    return f"{name} has a weighted score of {_total(evidence, name):.1%} ({axes}). {met}"


def _pair_reason(evidence: RouteEvidence, first: str, other: str) -> str:
    one = evidence.totals.between(first, other)
    return f"{first} and {other} can't be compared." if one is None else f"{one.describe()}."


def _unclear_reasons(evidence: RouteEvidence, ranked: Sequence[str]) -> list[str]:
    return [
        f"{name}: {one.name} is {one.found}; the interval includes the bound ({one.wanted}), so more items could "
        "change the result."
        for name in ranked
        for one in evidence.requirements[name]
        if one.met and not one.clear
    ]


def _names(requirements: Sequence[Requirement]) -> str:
    return "; ".join(one.name for one in requirements)


def _missed_reason(name: str, missed: Sequence[Requirement]) -> str:
    details = "; ".join(f"{one.name}: {one.found}, {one.wanted} is required" for one in missed)
    return f"{name} misses requirements: {details}."
