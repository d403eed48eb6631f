"""Compare two runs: every figure of every candidate, with a statistical test.

Scores of items that both runs asked are compared in pairs, and shares with Fisher's exact test. Latencies and goodput
differ if their intervals do not overlap. All p values are corrected together (Holm).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.evaluate.results import AXES, FORMAT, Report
from gateway.evaluate.statistics import compare_all, compare_shares, holm

_ALPHA = 0.05
# A report lists these requirements only if they were missed.
_LISTED_IF_MISSED = ("the fence", "answers")
_Figures = tuple[tuple[str, bool], ...]
"""Figures that are shares, and whether a higher value is better."""
_SHARES: _Figures = (("acceptable", True), ("refused", True), ("over_refused", False), ("consistent", True))
# Most requests of users need no refusal, so a higher share of refusals is worse.
_SHADOW_SHARES: _Figures = (("answered", True), ("acceptable", True), ("refused", False), ("in_language", True))


class NotComparable(Exception):
    """The two runs do not measure the same. The message states the difference."""


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure in both runs.

    Attributes:
        p: The corrected p value; None if the intervals are compared instead.
        significant: Whether the difference is measurable.
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
    untested: list[FigureChange] = []
    for name, one in new.get("shadows", {}).items():
        if name in old["shadows"]:
            tested += _shares(name, old["shadows"][name], one, _SHADOW_SHARES)
    for candidate in new.get("ranking", ()):
        if candidate in old["candidates"]:
            before, now = old["candidates"][candidate], new["candidates"][candidate]
            tested += [*_performance(candidate, before, now), *_compliance(candidate, before, now)]
            untested += [*_scalability(candidate, before, now), *_requirement_changes(candidate, before, now)]
    if not tested and not untested:
        raise NotComparable("no axis was measured for the same candidate in both runs")
    untested += _missing_candidates(old, new)
    adjusted = holm([p for _, p in tested])
    return [
        FigureChange(one.candidate, one.figure, one.before, one.now, p, p < _ALPHA, one.worse)
        for (one, _), p in zip(tested, adjusted, strict=True)
    ] + untested


def _missing_candidates(old: Report, new: Report) -> Iterator[FigureChange]:
    """Yield the candidates that were measured in the old run and are not in the new one."""
    for name in old.get("ranking", ()):
        if name not in new["candidates"] and any(old["candidates"][name].get(axis) for axis in AXES):
            yield FigureChange(name, "asked", 1.0, 0.0, None, True, True)


def _performance(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if not before["performance"] or not now["performance"]:
        return
    scores = {"before": before["performance"]["scores"], "now": now["performance"]["scores"]}
    common = [item for item in scores["now"] if item in scores["before"]]
    if common:
        compared = compare_all(scores)[0]
        shares = {run: sum(values[item] for item in common) / len(common) for run, values in scores.items()}
        yield (
            FigureChange(name, "performance", shares["before"], shares["now"], None, False, compared.difference > 0),
            compared.p,
        )


def _compliance(name: str, before: Any, now: Any) -> Iterator[tuple[FigureChange, float]]:
    if before["compliance"] and now["compliance"]:
        yield from _shares(name, before["compliance"], now["compliance"], _SHARES)


def _shares(name: str, before: Any, now: Any, figures: _Figures) -> Iterator[tuple[FigureChange, float]]:
    for figure, higher_is_better in figures:
        one, other = before[figure], now[figure]
        if one and other:
            hits = [round(each["value"] * each["of"]) for each in (one, other)]
            p = compare_shares(hits[0], one["of"], hits[1], other["of"])
            worse = (other["value"] < one["value"]) == higher_is_better
            yield FigureChange(name, figure.replace("_", "-"), one["value"], other["value"], None, False, worse), p


def _scalability(name: str, before: Any, now: Any) -> Iterator[FigureChange]:
    if not before["scalability"] or not now["scalability"]:
        return
    one, other = before["scalability"]["goodput"], now["scalability"]["goodput"]
    if one and other:
        yield _interval_change(name, "goodput per second", one, other, higher_is_better=True)
    steps = {step["offered"]: step for step in before["scalability"]["steps"]}
    for step in now["scalability"]["steps"]:
        then = steps.get(step["offered"])
        if then is not None and then["first_token"].get("p50") and step["first_token"].get("p50"):
            figure = f"first token p50 at {step['offered']:g}/s"
            yield _interval_change(
                name, figure, then["first_token"]["p50"], step["first_token"]["p50"], higher_is_better=False
            )


def _interval_change(name: str, figure: str, one: Any, other: Any, *, higher_is_better: bool) -> FigureChange:
    """Compare two intervals. An interval without an upper end overlaps with all higher values."""
    below = other["high"] is not None and other["high"] < one["low"]
    above = one["high"] is not None and other["low"] > one["high"]
    return FigureChange(
        name, figure, one["value"], other["value"], None, below or above, below if higher_is_better else above
    )


def _requirement_changes(name: str, before: Any, now: Any) -> Iterator[FigureChange]:
    """Yield the requirements that only one of the runs met."""
    old_met, new_met = (
        dict.fromkeys(_LISTED_IF_MISSED, True) | {one["name"]: one["met"] for one in run["requirements"]}
        for run in (before, now)
    )
    for requirement, met in new_met.items():
        if requirement in old_met and old_met[requirement] != met:
            before = float(old_met[requirement])
            yield FigureChange(name, f"requirement {requirement}", before, float(met), None, True, not met)


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
    lines.append(f"{unchanged} of {len(changes)} figures show no measurable difference.")
    return "\n".join(lines)
