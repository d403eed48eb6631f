"""Judge the requirements, order the candidates by weight, and write the recommendation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.evaluate.compliance import Compliance
from gateway.evaluate.load_test import Scalability
from gateway.evaluate.performance import Performance
from gateway.evaluate.statistics import Comparison, Estimate
from gateway.evaluate.suite import percent
from gateway.evaluate.suite_schema import RequirementsSection, SuiteFile


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement and what was found. clear: the whole interval is on the side of the figure."""

    name: str
    wanted: str
    found: str
    met: bool
    clear: bool = True


@dataclass(slots=True)
class Found:
    """Everything that is known of one candidate. lacking: what is the matter with its approval; None if nothing is."""

    name: str
    refused: str | None = None
    given_up: str | None = None
    lacking: str | None = None
    labelled: Estimate | None = None
    performance: Performance | None = None
    compliance: Compliance | None = None
    scalability: Scalability | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Each axis from 0 to 1, and the weighted mean of those that were measured, with its approximate interval."""

    axes: dict[str, float] = field(default_factory=dict)
    total: Estimate | None = None


def judge_requirements(found: Found, wanted: RequirementsSection) -> list[Requirement]:
    """Every requirement of the suite, as this candidate meets it or not."""
    requirements: list[Requirement] = []
    if found.refused is not None:
        requirements.append(Requirement("the fence", "may be asked", found.refused, False))
    if found.given_up is not None:
        requirements.append(Requirement("answers", "answers at all", f"given up: {found.given_up}", False))
    if wanted.approval:
        told = found.lacking or "valid"
        requirements.append(Requirement("approval", "valid today", told, found.lacking is None))
    if wanted.labels:
        told = "not measured" if found.labelled is None else f"on {found.labelled.value:.1%} of {found.labelled.of}"
        whole = found.labelled is not None and found.labelled.value == 1
        requirements.append(Requirement("labels", "on every answer, and read back", told, whole))
    p, c, s = found.performance, found.compliance, found.scalability
    bounds: tuple[tuple[str, str | None, bool, Estimate | None], ...] = (
        ("performance", wanted.performance, True, p.overall if p else None),
        ("acceptable", wanted.acceptable, True, c.acceptable if c else None),
        ("refused", wanted.refused, True, c.refused if c else None),
        ("over-refused", wanted.over_refused, False, c.over_refused if c else None),
        ("consistent", wanted.consistent, True, c.consistent if c else None),
        ("errors", wanted.errors, False, s.errors_held if s else None),
    )
    for name, bound, at_least, estimate in bounds:
        if bound is not None:
            requirements.append(_bounded(name, percent(bound), at_least, estimate, _percentage))
    if c is not None and c.told_by == ("words",):
        requirements = [
            replace(one, found=f"{one.found}, by listed words alone") if one.name == "acceptable" else one
            for one in requirements
        ]
    if wanted.goodput_rps is not None:
        goodput = s.goodput if s is not None else None
        requirements.append(_bounded("goodput", wanted.goodput_rps, True, goodput, lambda value: f"{value:.1f}/s"))
    return requirements


def _percentage(value: float) -> str:
    return f"{value:.1%}"


def _bounded(
    name: str, bound: float, at_least: bool, estimate: Estimate | None, form: Callable[[float], str]
) -> Requirement:
    wanted = f"{'at least' if at_least else 'at most'} {form(bound)}"
    if estimate is None:
        return Requirement(name, wanted, "not measured", False)
    met = estimate.value >= bound if at_least else estimate.value <= bound
    clear = (
        estimate.low >= bound or estimate.high < bound if at_least else estimate.high <= bound or estimate.low > bound
    )
    found = f"{form(estimate.value)} ({form(estimate.low)} to {form(estimate.high)})"
    return Requirement(name, wanted, found, met, clear)


def scores_of(found: Found, suite: SuiteFile) -> Scores:
    """The scores of a candidate. Scalability is its goodput as a share of what is wanted, at most 1."""
    parts: list[tuple[str, int, Estimate]] = []
    if found.performance is not None and found.performance.overall is not None:
        parts.append(("performance", suite.weights.performance, found.performance.overall))
    if found.compliance is not None and found.compliance.score is not None:
        parts.append(("compliance", suite.weights.compliance, _compliance(found.compliance, found.compliance.score)))
    if found.scalability is not None and found.scalability.goodput is not None and suite.scalability is not None:
        target = suite.requirements.goodput_rps or max(suite.scalability.rates)
        scaled = found.scalability.goodput.scaled(1 / target)
        bounded = Estimate(min(1.0, scaled.value), min(1.0, scaled.low), min(1.0, scaled.high), scaled.of)
        parts.append(("scalability", suite.weights.scalability, bounded))
    axes = {name: estimate.value for name, _, estimate in parts}
    weight = sum(one for _, one, _ in parts)
    if not weight:
        return Scores(axes)
    total = sum(one * estimate.value for _, one, estimate in parts) / weight
    below = math.sqrt(sum((one * (estimate.value - estimate.low)) ** 2 for _, one, estimate in parts)) / weight
    above = math.sqrt(sum((one * (estimate.high - estimate.value)) ** 2 for _, one, estimate in parts)) / weight
    return Scores(axes, Estimate(total, max(0.0, total - below), min(1.0, total + above), len(parts)))


def _compliance(found: Compliance, score: float) -> Estimate:
    """The mean of its figures with the intervals of those together, as if they were independent."""
    figures = [
        one for one in (found.acceptable, found.refused, found.over_refused, found.consistent) if one is not None
    ]
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in figures)) / len(figures)
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in figures)) / len(figures)
    return Estimate(score, score - below, score + above, len(figures))


def order(scores: dict[str, Scores], out: set[str]) -> list[str]:
    """The candidates, the best first; those that are out behind all others."""

    def key(name: str) -> tuple[bool, float, str]:
        total = scores[name].total
        return name in out, -(total.value if total is not None else -1.0), name

    return sorted(scores, key=key)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Who should answer, and why. deployment: None where nobody meets what is required.

    route: what the route should be: the recommended one, the others that meet the requirements, then what the route
    has besides and wasn't evaluated.
    """

    deployment: str | None
    route: tuple[str, ...]
    reasons: tuple[str, ...]


def recommend(
    ranking: Sequence[str],
    found: Mapping[str, Found],
    scores: Mapping[str, Scores],
    requirements: Mapping[str, Sequence[Requirement]],
    comparisons: Sequence[Comparison],
    route_now: Sequence[str],
) -> Recommendation:
    """What to do, from the ranking."""
    missed = {name: [one for one in requirements[name] if not one.met] for name in ranking}
    fit = [name for name in ranking if not missed[name] and scores[name].total is not None]
    out = [_out(name, missed[name]) for name in ranking if missed[name]]
    if not fit:
        return Recommendation(None, tuple(route_now), ("No candidate meets every requirement.", *out))
    best = fit[0]
    reasons = [_best(best, scores[best], requirements[best])]
    reasons += [_beside(best, other, scores, comparisons) for other in fit[1:]]
    reasons += [
        f"{best}: {one.name} is {one.found}; the interval reaches beyond the bound ({one.wanted}), so that more items "
        "could still turn it."
        for one in requirements[best]
        if not one.clear
    ]
    reasons += out
    kept = [name for name in route_now if name not in found]
    return Recommendation(best, (*fit, *kept), tuple(reasons))


def _best(name: str, scores: Scores, requirements: Sequence[Requirement]) -> str:
    axes = ", ".join(f"{axis} {value:.1%}" for axis, value in scores.axes.items())
    total = scores.total.value if scores.total is not None else 0.0
    met = " It meets every requirement." if requirements else " The suite requires nothing."
    return f"{name} has the highest weighted score, {total:.1%} ({axes}).{met}"


def _beside(best: str, other: str, scores: Mapping[str, Scores], comparisons: Sequence[Comparison]) -> str:
    mine, theirs = scores[best].total, scores[other].total
    total = ""
    if mine is not None and theirs is not None:
        behind = mine.value - theirs.value
        overlap = theirs.high >= mine.low
        total = f"{other} is {behind * 100:.1f} points behind over all" + (
            ", within the uncertainty of both" if overlap else ""
        )
    found = next((one for one in comparisons if {one.first, one.second} == {best, other}), None)
    return f"{total}. On performance: {found.in_words()}." if found is not None else f"{total}."


def _out(name: str, missed: Sequence[Requirement]) -> str:
    told = "; ".join(f"{one.name}: {one.found}, {one.wanted} is required" for one in missed)
    return f"{name} is out: {told}."
