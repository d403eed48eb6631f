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
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from evaluation.decision import Recommendation, RouteEvidence, compare_candidates, compared_names, recommend, score_of
from evaluation.drift import compare_runs
from evaluation.figures import Results, requirements_of
from evaluation.questions import Item, Suite
from evaluation.statistics import compare, difference, estimate
from evaluation.suite import RequirementsSection, SuiteFile
from gateway.model.config_version import Region
from providers.territories import Places

REGION = Region("r", Places(frozenset()), Places(frozenset()))
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
    names = [f"s/{number}-{index}" for number, size in enumerate(items.sizes) for index in range(size)]
    return Suite(file, tuple(Item(name, "g", "en", name, group=items.groups.get(name)) for name in names))


def advise(suite: Suite, scores: Mapping[str, Mapping[str, float]], route: Sequence[str] = ROUTE) -> Recommendation:
    """Return the recommendation for these scores of the candidates."""
    results = {
        name: Results(name, marks={"performance": {one: [value] for one, value in ones.items()}})
        for name, ones in scores.items()
    }
    requirements = {name: requirements_of(one, suite, REGION) for name, one in results.items()}
    evidence = RouteEvidence(
        suite, results, requirements, {name: score_of(one, suite) for name, one in results.items()}, {}, route
    )
    return recommend(replace(evidence, totals=compare_candidates(results, suite, compared_names(evidence))))


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
        found = estimate(first, groups)
        held += found is not None and found.low <= share <= found.high
        [one] = compare({("first", "second"): difference(first, second, groups)})
        different += one.is_established
    return held / runs, different / runs


def false_alarms(runs: int, seed: int = 5) -> float:
    """Return the share of nights on which `--compare` reports a change of candidates that have not changed.

    Five candidates are 1 to 1.5 points on the good side of each bound, and each night has new answers.
    """
    random = np.random.default_rng(seed)
    nights = [night(random) for _ in range(runs + 1)]
    return sum(len(compare_runs(old, new)[0]) > 1 + noisy(old, new) for old, new in pairwise(nights)) / runs


def noisy(old: Mapping[str, object], new: Mapping[str, object]) -> int:
    """Return the number of lines about requirements that changed within noise."""
    return sum(line.startswith("within noise") for line in compare_runs(old, new)[0])


FIGURES = (("acceptable", 0.915, 0.9, 1000), ("refused", 0.96, 0.95, 300), ("performance", 0.615, 0.6, 400))


def night(random: np.random.Generator) -> dict[str, object]:
    """Return the report of one night, with the parts that `--compare` reads."""
    candidates = {f"c{number}": _candidate(random) for number in range(5)}
    return {"format": 2, "kind": "evaluation", "region": "cn", "assistant": "a", "candidates": candidates}


def _candidate(random: np.random.Generator) -> dict[str, object]:
    scores = {
        name: {f"{name}/{number}": float(one) for number, one in enumerate(random.random(of) < truth)}
        for name, truth, _, of in FIGURES
    }
    met = {name: sum(scores[name].values()) >= bound * of for name, _, bound, of in FIGURES}
    requirements = [{"name": name, "figure": name, "met": one} for name, one in met.items()]
    return {"scores": scores, "load": None, "requirements": requirements}


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
