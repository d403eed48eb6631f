"""Who is out, who is how good, and in which order: requirements first, then the weighted axes.

A requirement is met by the figure that was measured, as the standard reckons; where the interval reaches over the
bound, that is said. What is required and wasn't measured is not met.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gateway.evaluate.compliance import Compliance
from gateway.evaluate.performance import Performance
from gateway.evaluate.scalability import Scalability
from gateway.evaluate.statistics import Estimate
from gateway.evaluate.suite import percent
from gateway.evaluate.suite_schema import RequirementsSection, SuiteFile

__all__ = ["Found", "Requirement", "Scores", "judge_requirements", "order", "scores_of"]


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
