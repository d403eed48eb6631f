"""Compare two runs: every figure of every candidate, with a statistical test.

Items that both runs asked are compared in pairs, and other shares with Fisher's exact test. Latencies and goodput
differ if their intervals do not overlap. All p values are corrected together (Holm). A requirement that is newly missed
is a change only if its figure has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.cluster_statistics import compare_pairs
from evaluation.results import AXES, FORMAT, Report
from evaluation.statistics import compare_shares, holm

_ALPHA, _Z = 0.05, 1.96
# A report lists these requirements only if they were missed.
_LISTED_IF_MISSED = ("the fence", "answers")
_Figures = tuple[tuple[str, bool], ...]
"""Figures that are shares, and whether a higher value is better."""
_SHARES: _Figures = (("acceptable", True), ("refused", True), ("over_refused", False), ("consistent", True))
_OUTCOMES = {"acceptable": "accept", "refused": "refuse", "over_refused": "answer", "consistent": "consistent"}
"""The items of each figure in `outcomes` of the report."""
_FIGURE_OF = {"goodput": "goodput per second"}
"""The figure of a requirement, where their names differ."""
# Most requests of users need no refusal, so a higher share of refusals is worse.
_SHADOW_SHARES: _Figures = (("answered", True), ("acceptable", True), ("refused", False), ("in_language", True))


class NotComparable(Exception):
    """The two runs do not measure the same. The message states the difference."""


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure in both runs.

    Attributes:
        p: The corrected p value; None for a change that is not one of a figure.
        significant: Whether the change is established, and not within the noise.
        worse: Whether the new value is the worse one.
    """

    candidate: str
    figure: str
    before: float
    now: float
    p: float | None
    significant: bool
    worse: bool


def compare_runs(old: Report, new: Report) -> list[FigureChange]:
    """Compare every figure of both runs, and list candidates that the new run lacks. Raises NotComparable."""
    for report in (old, new):
        if report.get("format") != FORMAT:
            raise NotComparable("this version can't read the format of one of the reports")
    if old.get("kind") != new.get("kind"):
        raise NotComparable("only one of them measures shadow traffic")
    for name in ("region", "assistant"):
        if old[name] != new[name]:
            raise NotComparable(f"the {name} differs: {old[name]} and {new[name]}")
    tested: list[tuple[FigureChange, float]] = []
    for name, one in new.get("shadows", {}).items():
        if name in old["shadows"]:
            tested += _shares(name, old["shadows"][name], one, _SHADOW_SHARES)
    common = [name for name in new.get("ranking", ()) if name in old["candidates"]]
    for name in common:
        before, now = old["candidates"][name], new["candidates"][name]
        tested += [*_performance(name, before, now), *_compliance(name, before, now)]
        tested += [*_scalability(name, before, now), *_first_attempts(name, before, now)]
    if not tested and not common:
        raise NotComparable("no axis was measured for the same candidate in both runs")
    adjusted = holm([p for _, p in tested])
    changes = [
        # Intervals that overlap show no difference, whatever the p value.
        replace(one, p=p, significant=p < _ALPHA and one.significant)
        for (one, _), p in zip(tested, adjusted, strict=True)
    ]
    for name in common:
        changes += _requirement_changes(name, old["candidates"][name], new["candidates"][name], changes)
    return changes + list(_missing_candidates(old, new))


def _missing_candidates(old: Report, new: Report) -> Iterator[FigureChange]:
    """Yield the candidates that were measured in the old run and are not in the new one."""
    for name in old.get("ranking", ()):
        if name not in new["candidates"] and any(old["candidates"][name].get(axis) for axis in AXES):
            yield FigureChange(name, "asked", 1.0, 0.0, None, True, True)


def _performance(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if not before["performance"] or not now["performance"]:
        return
    yield from _paired(name, "performance", before["performance"]["scores"], now["performance"]["scores"])
    for kind in ("language", "set"):
        parts = [one["performance"].get("by", {}).get(kind, {}) for one in (before, now)]
        yield from _required_parts(name, f"performance, {kind}", parts, now, higher_is_better=True)


def _required_parts(
    name: str, figure: str, parts: Sequence[Any], now: Any, *, higher_is_better: bool
) -> Iterator[tuple[FigureChange, float]]:
    """Compare the parts of a figure (languages or sets) that have a requirement of their own."""
    required = [one["name"] for one in now["requirements"]]
    for part in parts[1]:
        label = f"{figure} {part}"
        if part in parts[0] and label in required:
            yield _share(name, label, parts[0][part], parts[1][part], higher_is_better=higher_is_better)


def _paired(
    name: str, figure: str, before: Mapping[str, float], now: Mapping[str, float]
) -> Iterator[tuple[FigureChange, float]]:
    """Compare the items that both runs scored. A higher score is better.

    Items of one group are not tested together here. If a candidate has not changed, its answers to the same questions
    differ by chance only, and for each question alone. A change on one template is a change.
    """
    common = [item for item in now if item in before]
    if common:
        runs = {
            "before": {item: float(before[item]) for item in common},
            "now": {item: float(now[item]) for item in common},
        }
        [one] = compare_pairs(runs)
        shares = {run: sum(scores.values()) / len(common) for run, scores in runs.items()}
        yield FigureChange(name, figure, shares["before"], shares["now"], None, True, one.difference > 0), one.p


def _compliance(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if not before["compliance"] or not now["compliance"]:
        return
    unpaired: list[tuple[str, bool]] = []
    for figure, higher_is_better in _SHARES:
        outcomes = [one["compliance"].get("outcomes", {}).get(_OUTCOMES[figure], {}) for one in (before, now)]
        measured = all(one["compliance"][figure] for one in (before, now))
        if not measured or not outcomes[0].keys() & outcomes[1].keys():
            unpaired.append((figure, higher_is_better))
            continue
        for change, p in _paired(name, figure.replace("_", "-"), outcomes[0], outcomes[1]):
            # An outcome states whether the result was the expected one. For `over_refused` it is the opposite share.
            values = (change.before, change.now) if higher_is_better else (1 - change.before, 1 - change.now)
            yield replace(change, before=values[0], now=values[1]), p
    yield from _shares(name, before["compliance"], now["compliance"], tuple(unpaired))
    for figure, higher_is_better in _SHARES:
        parts = [one["compliance"].get("by_language", {}).get(figure, {}) for one in (before, now)]
        label = f"{figure.replace('_', '-')}, language"
        yield from _required_parts(name, label, parts, now, higher_is_better=higher_is_better)


def _shares(name: str, before: Any, now: Any, figures: _Figures) -> Iterator[tuple[FigureChange, float]]:
    for figure, higher_is_better in figures:
        if before[figure] and now[figure]:
            label = figure.replace("_", "-")
            yield _share(name, label, before[figure], now[figure], higher_is_better=higher_is_better)


def _share(name: str, figure: str, one: Any, other: Any, *, higher_is_better: bool) -> tuple[FigureChange, float]:
    hits = [round(each["value"] * each["of"]) for each in (one, other)]
    p = compare_shares(hits[0], one["of"], hits[1], other["of"])
    worse = (other["value"] < one["value"]) == higher_is_better
    return FigureChange(name, figure, one["value"], other["value"], None, True, worse), p


def _first_attempts(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if before.get("first_attempts") and now.get("first_attempts"):
        yield _share(name, "first attempts", before["first_attempts"], now["first_attempts"], higher_is_better=False)


def _scalability(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if not before["scalability"] or not now["scalability"]:
        return
    one, other = before["scalability"]["goodput"], now["scalability"]["goodput"]
    if one and other:
        yield _interval_change(name, "goodput per second", one, other, higher_is_better=True)
    one, other = before["scalability"].get("errors"), now["scalability"].get("errors")
    if one and other:
        yield _share(name, "errors", one, other, higher_is_better=False)
    steps = {step["offered"]: step for step in before["scalability"]["steps"]}
    for step in now["scalability"]["steps"]:
        then = steps.get(step["offered"])
        if then is not None and then["first_token"].get("p50") and step["first_token"].get("p50"):
            figure = f"first token p50 at {step['offered']:g}/s"
            yield _interval_change(
                name, figure, then["first_token"]["p50"], step["first_token"]["p50"], higher_is_better=False
            )


def _interval_change(
    name: str, figure: str, one: Any, other: Any, *, higher_is_better: bool
) -> tuple[FigureChange, float]:
    """Compare two intervals. An interval without an upper end overlaps with all higher values.

    The p value is that of a normal distribution with the standard errors of the ends that face each other.
    """
    below = other["high"] is not None and other["high"] < one["low"]
    above = one["high"] is not None and other["low"] > one["high"]
    lower, upper = (other, one) if other["value"] < one["value"] else (one, other)
    p = 1.0
    if below or above:
        errors = (lower["high"] - lower["value"]) / _Z, (upper["value"] - upper["low"]) / _Z
        distance, error = upper["value"] - lower["value"], math.hypot(*errors)
        p = math.erfc(distance / error / math.sqrt(2)) if error > 0 else 0.0
    worse = below if higher_is_better else above
    return FigureChange(name, figure, one["value"], other["value"], None, below or above, worse), p


def _requirement_changes(name: str, before: Any, now: Any, changes: Sequence[FigureChange]) -> Iterator[FigureChange]:
    """Yield the requirements that only one of the runs met.

    A change is established if its figure has changed measurably. An interval that misses the bound is not enough:
    with many candidates, one of them misses a bound by chance on many nights. Requirements without a figure, such as an
    approval, have no noise.
    """
    old_met, new_met = (
        dict.fromkeys(_LISTED_IF_MISSED, True) | {one["name"]: one["met"] for one in run["requirements"]}
        for run in (before, now)
    )
    clear: dict[str, bool] = {one["name"]: one.get("clear", True) for one in now["requirements"]}
    measured = {one.figure: one.significant for one in changes if one.candidate == name}
    for requirement, met in new_met.items():
        if requirement in old_met and old_met[requirement] != met:
            figure = _FIGURE_OF.get(requirement) or str(requirement)
            is_clear = clear.get(requirement, True)
            established = measured.get(figure, is_clear)
            was = float(old_met[requirement])
            yield FigureChange(name, f"requirement {requirement}", was, float(met), None, established, not met)


def comparison_text(changes: list[FigureChange]) -> str:
    """Return the significant changes as text, worse ones first, and the number of unchanged figures."""
    lines: list[str] = []
    significant = [change for change in changes if change.significant]
    for change in sorted(significant, key=lambda change: (not change.worse, change.candidate, change.figure)):
        direction = "worse" if change.worse else "better"
        p = "" if change.p is None else f" (p = {change.p:.2g})"
        values = f"{change.before:.4g} before, {change.now:.4g} now"
        lines.append(f"{direction}: {change.candidate}, {change.figure}: {values}{p}")
    unchanged = len(changes) - len(significant)
    lines += [
        f"within noise: {change.candidate}, {change.figure}: {_met(change.before)} before, {_met(change.now)} now"
        for change in changes
        if change.figure.startswith("requirement ") and not change.significant
    ]
    lines.append(f"{unchanged} of {len(changes)} figures show no measurable difference.")
    return "\n".join(lines)


def _met(value: float) -> str:
    return "met" if value else "missed"
