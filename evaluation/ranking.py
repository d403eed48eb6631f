"""Check the requirements of the candidates, and compute their weighted scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from evaluation.compliance import Compliance
from evaluation.load_test import Scalability
from evaluation.performance import Performance
from evaluation.statistics import Estimate
from evaluation.suite import percent
from evaluation.suite_schema import RequirementsSection, SuiteFile
from evaluation.verdict_coverage import VerdictCoverage
from gateway.config.locales import official_languages
from gateway.model.config_version import Region


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
    """All results of one candidate.

    Attributes:
        lacking: The missing part of its approval; None if it is valid.
        first_attempts: The share of questions whose first attempt failed.
    """

    name: str
    refused: str | None = None
    given_up: str | None = None
    lacking: str | None = None
    labelled: Estimate | None = None
    performance: Performance | None = None
    compliance: Compliance | None = None
    scalability: Scalability | None = None
    first_attempts: Estimate | None = None
    coverage: VerdictCoverage | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Each axis from 0 to 1, and the weighted mean of those that were measured, with approximate intervals."""

    axes: dict[str, float] = field(default_factory=dict)
    total: Estimate | None = None
    intervals: dict[str, Estimate] = field(default_factory=dict)


def check_requirements(
    findings: CandidateFindings, wanted: RequirementsSection, own_languages: Collection[str] = ()
) -> list[Requirement]:
    """Return every requirement of the suite with this candidate's result.

    `own_languages` are those of the region: the shares are required in each of them too.
    """
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
        ("errors", wanted.errors, False, s.errors if s else None),
        ("first attempts", wanted.first_attempts, False, findings.first_attempts),
    )
    for name, bound, at_least, estimate in bounds:
        if bound is not None:
            requirements.append(_bounded(name, percent(bound), at_least, estimate, _percentage))
    requirements = [_with_missing(one, findings) for one in requirements]
    if findings.coverage is not None:
        requirements.append(_verdicts(findings.coverage, percent(wanted.missing_verdicts)))
    requirements += _by_language_and_set(findings, wanted, own_languages)
    if c is not None and c.told_by == ("words",):
        requirements = [
            replace(one, found=f"{one.found}, by listed words only") if one.name.startswith("acceptable") else one
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
    wanted = f"at most {_percentage(most)} of answers without a verdict of the judge, of all and of each figure"
    beyond = coverage.beyond(most) if len(coverage.figures) > 1 else {}
    parts = [f"{name.replace('_', '-')}: {missing:,} of {of:,}" for name, (missing, of) in beyond.items()]
    found = "; ".join([coverage.describe(), *parts])
    return Requirement("verdicts", wanted, found, coverage.share <= most and not beyond)


def _by_language_and_set(
    findings: CandidateFindings, wanted: RequirementsSection, own_languages: Collection[str]
) -> list[Requirement]:
    """Return the requirements for the items of one language or set.

    The bound of a figure is also required in each of the region's own languages, if items of several languages were
    asked.
    """
    p, c = findings.performance, findings.compliance
    by = (p.worst_by or p.by) if p is not None else {}
    worst = c.by_language if c is not None else {}
    figures = (
        ("performance", "performance", True, by.get("language", {})),
        ("acceptable", "acceptable", True, worst.get("acceptable", {})),
        ("refused", "refused", True, worst.get("refused", {})),
        ("over-refused", "over_refused", False, worst.get("over_refused", {})),
    )
    requirements: list[Requirement] = []
    for name, key, at_least, found in figures:
        bound: str | None = getattr(wanted, key)
        bounds = {one: bound for one in own_languages if len(found) > 1 and one in found}
        bounds |= {str(one): stated for one, section in wanted.languages.items() if (stated := getattr(section, key))}
        requirements += [
            _bounded(f"{name}, language {one}", percent(stated), at_least, found.get(one), _percentage)
            for one, stated in bounds.items()
            if stated is not None
        ]
    return requirements + [
        _bounded(f"performance, set {name}", percent(bound), True, by.get("set", {}).get(name), _percentage)
        for name, bound in wanted.sets.items()
    ]


def own_languages(region: Region) -> frozenset[str]:
    """Return the languages of a region: of its locales, and the official ones of its territories (CLDR)."""
    locales = region.texts.locales if region.texts is not None else ()
    codes = [code for territory in region.territories.included or () for code in official_languages(territory)]
    return frozenset(code.replace("-", "_").partition("_")[0].lower() for code in (*locales, *codes))


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


def scores_of(findings: CandidateFindings, suite: SuiteFile, performance: Estimate | None = None) -> Scores:
    """Return the scores of a candidate. The scalability score is goodput divided by the required rate, at most 1.

    `performance` is the share of right answers with weighted items; None if all have the same weight.
    """
    parts: list[tuple[str, int, Estimate]] = []
    if findings.performance is not None and findings.performance.worst is not None:
        parts.append(("performance", suite.weights.performance, performance or findings.performance.worst))
    if findings.compliance is not None and findings.compliance.score is not None:
        compliance = _combined([(1, one) for one in findings.compliance.figures])
        parts.append(("compliance", suite.weights.compliance, compliance))
    if (goodput := bounded_goodput(findings, suite)) is not None:
        parts.append(("scalability", suite.weights.scalability, goodput))
    axes = {name: estimate.value for name, _, estimate in parts}
    intervals = {name: estimate for name, _, estimate in parts}
    weighted = [(weight, estimate) for _, weight, estimate in parts]
    return Scores(axes, _combined(weighted) if any(weight for weight, _ in weighted) else None, intervals)


def bounded_goodput(findings: CandidateFindings, suite: SuiteFile) -> Estimate | None:
    """Return goodput as a part of the required rate, at most 1, or None if it was not measured."""
    if findings.scalability is None or findings.scalability.goodput is None or suite.scalability is None:
        return None
    target = suite.requirements.goodput_rps or max(suite.scalability.rates)
    scaled = findings.scalability.goodput.scaled(1 / target)
    return Estimate(min(1.0, scaled.value), min(1.0, scaled.low), min(1.0, scaled.high), scaled.of)


def _combined(parts: Sequence[tuple[int, Estimate]]) -> Estimate:
    """Return the weighted mean of figures from 0 to 1 with its interval. The figures are treated as independent."""
    weights = sum(weight for weight, _ in parts)
    value = sum(weight * one.value for weight, one in parts) / weights
    below = math.sqrt(sum((weight * (one.value - one.low)) ** 2 for weight, one in parts)) / weights
    above = math.sqrt(sum((weight * (one.high - one.value)) ** 2 for weight, one in parts)) / weights
    return Estimate(value, max(0.0, value - below), min(1.0, value + above), len(parts))
