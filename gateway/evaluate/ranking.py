"""Check the requirements, rank the candidates by weighted score, and write the recommendation."""

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
from gateway.evaluate.verdict_coverage import VerdictCoverage


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement and its result. `clear` is true if the whole interval is on the same side of the bound."""

    name: str
    wanted: str
    found: str
    met: bool
    clear: bool = True


@dataclass(slots=True)
class CandidateFindings:
    """All results of one candidate. `lacking` states what its approval lacks; None if it is valid."""

    name: str
    refused: str | None = None
    given_up: str | None = None
    lacking: str | None = None
    labelled: Estimate | None = None
    performance: Performance | None = None
    compliance: Compliance | None = None
    scalability: Scalability | None = None
    coverage: VerdictCoverage | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Each axis from 0 to 1, and the weighted mean of those that were measured, with its approximate interval."""

    axes: dict[str, float] = field(default_factory=dict)
    total: Estimate | None = None


def check_requirements(findings: CandidateFindings, wanted: RequirementsSection) -> list[Requirement]:
    """Return every requirement of the suite with this candidate's result."""
    requirements: list[Requirement] = []
    if findings.refused is not None:
        requirements.append(Requirement("the fence", "may be asked", findings.refused, False))
    if findings.given_up is not None:
        requirements.append(Requirement("answers", "answers at all", f"given up: {findings.given_up}", False))
    if wanted.approval:
        approval = findings.lacking or "valid"
        requirements.append(Requirement("approval", "valid today", approval, findings.lacking is None))
    if wanted.labels:
        labelled = findings.labelled
        result = "not measured" if labelled is None else f"on {labelled.value:.1%} of {labelled.of}"
        met = labelled is not None and labelled.value == 1
        requirements.append(Requirement("labels", "on every answer, and removable", result, met))
    p, c, s = findings.performance, findings.compliance, findings.scalability
    # A figure that depends on verdicts is held against its worst case.
    worst = c.worst if c else {}
    bounds: tuple[tuple[str, str | None, bool, Estimate | None], ...] = (
        ("performance", wanted.performance, True, p.worst if p else None),
        ("acceptable", wanted.acceptable, True, worst.get("acceptable")),
        ("refused", wanted.refused, True, worst.get("refused")),
        ("over-refused", wanted.over_refused, False, worst.get("over_refused")),
        ("consistent", wanted.consistent, True, c.consistent if c else None),
        ("errors", wanted.errors, False, s.errors_held if s else None),
    )
    for name, bound, at_least, estimate in bounds:
        if bound is not None:
            requirements.append(_bounded(name, percent(bound), at_least, estimate, _percentage))
    requirements = [_with_missing(one, findings) for one in requirements]
    if findings.coverage is not None:
        requirements.append(_verdicts(findings.coverage, percent(wanted.missing_verdicts)))
    if c is not None and c.told_by == ("words",):
        requirements = [
            replace(one, found=f"{one.found}, by listed words only") if one.name == "acceptable" else one
            for one in requirements
        ]
    if wanted.goodput_rps is not None:
        goodput = s.goodput if s is not None else None
        requirements.append(_bounded("goodput", wanted.goodput_rps, True, goodput, lambda value: f"{value:.1f}/s"))
    return requirements


def _with_missing(requirement: Requirement, findings: CandidateFindings) -> Requirement:
    """Add the answers without a verdict to the result of a requirement that depends on them."""
    p, c = findings.performance, findings.compliance
    known = {
        "performance": (p.missing, p.overall) if p is not None else (0, None),
        "acceptable": (c.missing.get("acceptable", 0), c.acceptable) if c is not None else (0, None),
        "refused": (c.missing.get("refused", 0), c.refused) if c is not None else (0, None),
        "over-refused": (c.missing.get("over_refused", 0), c.over_refused) if c is not None else (0, None),
    }
    missing, measured = known.get(requirement.name, (0, None))
    if not missing:
        return requirement
    judged = f"; {measured.value:.1%} of the {measured.of:,} with a verdict" if measured is not None else ""
    note = f"{requirement.found} if the {missing:,} answers without a verdict count against it{judged}"
    return replace(requirement, found=note)


def _verdicts(coverage: VerdictCoverage, most: float) -> Requirement:
    wanted = f"at most {_percentage(most)} of answers without a verdict of the judge"
    return Requirement("verdicts", wanted, coverage.describe(), coverage.share <= most)


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
    result = f"{form(estimate.value)} ({form(estimate.low)} to {form(estimate.high)})"
    return Requirement(name, wanted, result, met, clear)


def scores_of(findings: CandidateFindings, suite: SuiteFile) -> Scores:
    """Return the scores of a candidate. The scalability score is goodput divided by the required rate, at most 1."""
    parts: list[tuple[str, int, Estimate]] = []
    if findings.performance is not None and findings.performance.worst is not None:
        parts.append(("performance", suite.weights.performance, findings.performance.worst))
    if findings.compliance is not None and findings.compliance.score is not None:
        parts.append(
            ("compliance", suite.weights.compliance, _compliance(findings.compliance, findings.compliance.score))
        )
    if findings.scalability is not None and findings.scalability.goodput is not None and suite.scalability is not None:
        target = suite.requirements.goodput_rps or max(suite.scalability.rates)
        scaled = findings.scalability.goodput.scaled(1 / target)
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


def _compliance(findings: Compliance, score: float) -> Estimate:
    """Return the compliance score with an interval combined from its figures, treated as independent."""
    figures = findings.figures
    below = math.sqrt(sum((one.value - one.low) ** 2 for one in figures)) / len(figures)
    above = math.sqrt(sum((one.high - one.value) ** 2 for one in figures)) / len(figures)
    return Estimate(score, score - below, score + above, len(figures))


def rank_candidates(scores: dict[str, Scores], out: set[str]) -> list[str]:
    """Return the candidates, best first. Candidates that miss a requirement (`out`) come last."""

    def key(name: str) -> tuple[bool, float, str]:
        total = scores[name].total
        return name in out, -(total.value if total is not None else -1.0), name

    return sorted(scores, key=key)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The recommended route and the reasons.

    Attributes:
        deployment: The best candidate; None if no candidate meets all requirements.
        route: The recommended deployment, the other candidates that meet the requirements, then the deployments of the
            present route that were not evaluated.
    """

    deployment: str | None
    route: tuple[str, ...]
    reasons: tuple[str, ...]


def recommend(
    ranking: Sequence[str],
    findings: Mapping[str, CandidateFindings],
    scores: Mapping[str, Scores],
    requirements: Mapping[str, Sequence[Requirement]],
    comparisons: Sequence[Comparison],
    route_now: Sequence[str],
) -> Recommendation:
    """Return the recommendation for this ranking."""
    missed = {name: [one for one in requirements[name] if not one.met] for name in ranking}
    qualified = [name for name in ranking if not missed[name] and scores[name].total is not None]
    out = [_missed_reason(name, missed[name]) for name in ranking if missed[name]]
    if not qualified:
        return Recommendation(None, tuple(route_now), ("No candidate meets all requirements.", *out))
    best = qualified[0]
    reasons = [_best_reason(best, scores[best], requirements[best])]
    reasons += [_distance_reason(best, other, scores, comparisons) for other in qualified[1:]]
    reasons += [
        f"{best}: {one.name} is {one.found}; the interval includes the bound ({one.wanted}), so more items could "
        "change the result."
        for one in requirements[best]
        if not one.clear
    ]
    reasons += out
    unevaluated = [name for name in route_now if name not in findings]
    return Recommendation(best, (*qualified, *unevaluated), tuple(reasons))


def _best_reason(name: str, scores: Scores, requirements: Sequence[Requirement]) -> str:
    axes = ", ".join(f"{axis} {value:.1%}" for axis, value in scores.axes.items())
    total = scores.total.value if scores.total is not None else 0.0
    met = " It meets all requirements." if requirements else " The suite has no requirements."
    return f"{name} has the highest weighted score, {total:.1%} ({axes}).{met}"


def _distance_reason(best: str, other: str, scores: Mapping[str, Scores], comparisons: Sequence[Comparison]) -> str:
    mine, theirs = scores[best].total, scores[other].total
    total = ""
    if mine is not None and theirs is not None:
        difference = mine.value - theirs.value
        overlap = theirs.high >= mine.low
        total = f"{other} scores {difference * 100:.1f} points less in total" + (
            ", within the uncertainty of both" if overlap else ""
        )
    comparison = next((one for one in comparisons if {one.first, one.second} == {best, other}), None)
    return f"{total}. On performance: {comparison.describe()}." if comparison is not None else f"{total}."


def _missed_reason(name: str, missed: Sequence[Requirement]) -> str:
    details = "; ".join(f"{one.name}: {one.found}, {one.wanted} is required" for one in missed)
    return f"{name} misses requirements: {details}."
