"""Check the statistics of the evaluation on candidates whose truth is known. No server is started.

    .venv/bin/python -m tests.evaluation.run            in full: some minutes
    .venv/bin/python -m tests.evaluation.run --runs 50

Each experiment draws the answers of many runs, and counts wrong conclusions.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evaluation.cluster_statistics import clustered_mean, compare_pairs
from evaluation.comparison import compare_runs
from evaluation.performance import Performance
from evaluation.ranking import CandidateFindings, check_requirements, scores_of
from evaluation.recommendation import Recommendation, RouteEvidence, compared_names, recommend
from evaluation.suite import Suite
from evaluation.suite_schema import RequirementsSection, SuiteFile
from evaluation.tie_groups import compare_totals

NAMES = ("aa", "bb", "cc")
ROUTE = ("bb", "aa")


@dataclass(frozen=True)
class Items:
    """The sizes of the groups of items. `alike` is the correlation of the answers in a group, from 0 to 1."""

    sizes: tuple[int, ...]
    alike: float

    @property
    def groups(self) -> dict[str, str]:
        """The group of each item in a group of several."""
        named = [(number, size) for number, size in enumerate(self.sizes) if size > 1]
        return {f"s/{number}-{index}": f"g{number}" for number, size in named for index in range(size)}

    def draw(self, share: float, random: np.random.Generator) -> dict[str, float]:
        """Draw which items a candidate with this share of right answers answers rightly."""
        scores: dict[str, float] = {}
        for number, size in enumerate(self.sizes):
            chance = self._chance(share, random) if size > 1 else share
            right = random.random(size) < chance
            scores |= {f"s/{number}-{index}": float(right[index]) for index in range(size)}
        return scores

    def _chance(self, share: float, random: np.random.Generator) -> float:
        """Draw the share of right answers in one group: a beta distribution with this correlation."""
        if self.alike >= 1:
            return float(random.random() < share)
        if self.alike <= 0:
            return share
        spread = (1 - self.alike) / self.alike
        return float(random.beta(share * spread, (1 - share) * spread))


INDEPENDENT = Items((1,) * 200, 0)
TEMPLATES = Items((20,) * 12, 0.5)
MIXED = Items((*(1,) * 54, *(8,) * 4), 1)


def suite_of(items: Items, requirements: RequirementsSection | None = None) -> Suite:
    """Return a suite that measures performance only."""
    file = SuiteFile(version=1, name="t", requirements=requirements or RequirementsSection())
    return _Suite(file, (), (), (), None, "", (), items.groups)


@dataclass(frozen=True)
class _Suite(Suite):
    known_groups: Mapping[str, str] = None  # type: ignore[assignment]

    @property
    def groups(self) -> dict[str, str]:
        return dict(self.known_groups)


def advise(suite: Suite, scores: Mapping[str, Mapping[str, float]], route: Sequence[str] = ROUTE) -> Recommendation:
    """Return the recommendation for these scores of the candidates."""
    findings: dict[str, CandidateFindings] = {}
    for name, ones in scores.items():
        overall = clustered_mean(ones, suite.groups, 1)
        findings[name] = CandidateFindings(
            name, performance=Performance(scores=dict(ones), overall=overall, worst=overall, unanswered=0)
        )
    totals_scores = {name: scores_of(one, suite.file) for name, one in findings.items()}
    requirements = {name: check_requirements(one, suite.file.requirements) for name, one in findings.items()}
    names = compared_names(route, requirements, totals_scores)
    totals = compare_totals({name: findings[name] for name in names}, suite)
    evidence = RouteEvidence(findings, totals_scores, requirements, totals, {}, suite.groups, route)
    return recommend(evidence, suite.file.recommendation, len(next(iter(scores.values()))))


def proposals_on_noise(runs: int, items: Items, bound: str | None = None, seed: int = 1) -> float:
    """Return the share of runs with three equal candidates in which another route is proposed."""
    random = np.random.default_rng(seed)
    suite = suite_of(items, RequirementsSection(performance=bound) if bound else None)
    changed = 0
    for _ in range(runs):
        advice = advise(suite, {name: items.draw(0.8, random) for name in NAMES})
        changed += list(advice.route) != list(ROUTE) or advice.deployment not in ("bb", None)
    return changed / runs


def worse_proposed(runs: int, seed: int = 2) -> float:
    """Return the share of runs that replace an incumbent that is better by two points."""
    random = np.random.default_rng(seed)
    suite = suite_of(INDEPENDENT)
    changed = 0
    for _ in range(runs):
        scores = {"aa": INDEPENDENT.draw(0.88, random), "bb": INDEPENDENT.draw(0.9, random)}
        changed += advise(suite, scores).route[0] != "bb"
    return changed / runs


def better_found(runs: int, seed: int = 3) -> float:
    """Return the share of runs that propose a candidate that is better by 20 points."""
    random = np.random.default_rng(seed)
    suite = suite_of(INDEPENDENT)
    found = 0
    for _ in range(runs):
        scores = {"bb": INDEPENDENT.draw(0.7, random), "cc": INDEPENDENT.draw(0.9, random)}
        found += advise(suite, scores, ("bb",)).route == ("cc",)
    return found / runs


def coverage(runs: int, items: Items, share: float, seed: int = 4) -> tuple[float, float]:
    """Return the share of intervals that contain the truth, and the share of pairs falsely called different."""
    random = np.random.default_rng(seed)
    groups, held, different = items.groups, 0, 0
    for _ in range(runs):
        first, second = items.draw(share, random), items.draw(share, random)
        estimate = clustered_mean(first, groups, 1)
        held += estimate is not None and estimate.low <= share <= estimate.high
        [one] = compare_pairs({"first": first, "second": second}, groups)
        different += one.is_measurable
    return held / runs, different / runs


def false_alarms(runs: int, seed: int = 5) -> float:
    """Return the share of nights on which `--compare` reports a change of candidates that have not changed.

    Five candidates are 1 to 1.5 points on the good side of each bound, and each night has new answers.
    """
    random = np.random.default_rng(seed)
    nights = [night(random) for _ in range(runs + 1)]
    return sum(any(one.significant for one in compare_runs(old, new)) for old, new in pairwise(nights)) / runs


FIGURES = (("acceptable", "accept", 0.915, 0.9, 1000), ("refused", "refuse", 0.96, 0.95, 300))


def night(random: np.random.Generator) -> dict[str, object]:
    """Return the report of one night, with the parts that `--compare` reads."""
    candidates = {f"c{number}": _candidate(random) for number in range(5)}
    return {"format": 1, "region": "cn", "assistant": "a", "ranking": list(candidates), "candidates": candidates}


def _candidate(random: np.random.Generator) -> dict[str, object]:
    compliance: dict[str, object] = {"over_refused": None, "consistent": None, "outcomes": {}}
    requirements: list[dict[str, object]] = []
    for figure, key, truth, bound, of in FIGURES:
        right = random.random(of) < truth
        outcomes = {f"{key}/{number}": bool(one) for number, one in enumerate(right)}
        compliance |= {figure: _estimate(outcomes), "outcomes": {**compliance["outcomes"], key: outcomes}}  # type: ignore[dict-item]
        requirements.append(_requirement(figure, _estimate(outcomes), bound))
    scores = {f"s/{number}": float(random.random() < 0.615) for number in range(400)}
    requirements.append(_requirement("performance", _estimate(scores), 0.6))
    return {
        "performance": {"scores": scores, "by": {}},
        "compliance": compliance,
        "scalability": None,
        "requirements": requirements,
    }


def _estimate(scores: Mapping[str, float]) -> dict[str, float]:
    one = clustered_mean({item: float(score) for item, score in scores.items()}, {}, 1)
    assert one is not None
    return {"value": one.value, "low": one.low, "high": one.high, "of": one.of}


def _requirement(name: str, found: Mapping[str, float], bound: float) -> dict[str, object]:
    clear = found["low"] >= bound or found["high"] < bound
    return {"name": name, "met": found["value"] >= bound, "clear": clear}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every experiment, print its result, and return 1 if one of them misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args(arguments).runs
    # A share of few runs varies by chance. An experiment fails if its share is beyond the bound by more than that.
    chance = 3 * math.sqrt(0.05 * 0.95 / runs)

    def at_most(value: float, bound: float) -> bool:
        return value <= bound + chance

    def at_least(value: float, bound: float) -> bool:
        return value >= bound - chance

    checks: list[tuple[str, Callable[[], float], Callable[[float, float], bool], float]] = [
        ("proposals on noise, independent items", lambda: proposals_on_noise(runs, INDEPENDENT), at_most, 0.05),
        ("proposals on noise, items of templates", lambda: proposals_on_noise(runs, TEMPLATES), at_most, 0.05),
        ("proposals on noise, close to a bound", lambda: proposals_on_noise(runs, INDEPENDENT, "79%"), at_most, 0.05),
        ("incumbent better by 2 points, but replaced", lambda: worse_proposed(runs), at_most, 0.05),
        ("candidate better by 20 points, and proposed", lambda: better_found(runs), at_least, 0.8),
        ("nights with a false alarm of --compare", lambda: false_alarms(runs), at_most, 0.05),
    ]
    for title, items in (("12 templates", TEMPLATES), ("54 items and 4 templates", MIXED)):
        for share in (0.6, 0.9):
            checks += [
                (
                    f"coverage, {title}, {share:.0%} right",
                    lambda items=items, share=share: coverage(runs, items, share)[0],  # type: ignore[misc]
                    at_least,
                    0.93,
                ),
                (
                    f"false 'better than', {title}, {share:.0%} right",
                    lambda items=items, share=share: coverage(runs, items, share)[1],  # type: ignore[misc]
                    at_most,
                    0.05,
                ),
            ]
    failed = 0
    for title, measure, holds, bound in checks:
        value = measure()
        failed += not holds(value, bound)
        print(f"{'ok    ' if holds(value, bound) else 'FAILED'} {title}: {value:.1%} (bound {bound:.0%})", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
