"""What has changed between two runs: each figure of each candidate, with the same care as within one.

Items that both runs asked are paired; shares of other items are compared exactly; latencies and goodput differ where
their intervals don't overlap. All comparisons are corrected together (Holm).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.evaluate.results import AXES, FORMAT, Report
from gateway.evaluate.statistics import compare_all, compare_shares, holm

_ALPHA = 0.05
# Who may be asked and answers has no line about that.
_TOLD_IF_MISSED = ("the fence", "answers")
_Figures = tuple[tuple[str, bool], ...]
_SHARES: _Figures = (("acceptable", True), ("refused", True), ("over_refused", False), ("consistent", True))
# What people ask needs no refusal, mostly: more of them are worse.
_OF_SHADOWS: _Figures = (("answered", True), ("acceptable", True), ("refused", False), ("in_language", True))
"""Figures that are shares, and whether more is better."""


class NotComparable(Exception):
    """The two runs don't measure the same; the message says what differs."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One figure then and now. p: corrected; None where intervals are held side by side. worse: which way it went."""

    candidate: str
    figure: str
    before: float
    now: float
    p: float | None
    moved: bool
    worse: bool


def drift(old: Report, new: Report) -> list[Drift]:
    """Every figure that both runs have, and who is missing now; raises NotComparable."""
    for report in (old, new):
        if report.get("format") != FORMAT:
            raise NotComparable("one of them is no report that this version can read")
    if old.get("kind") != new.get("kind"):
        raise NotComparable("one of them is about shadow traffic, and the other isn't")
    for name in ("region", "assistant"):
        if old[name] != new[name]:
            raise NotComparable(f"they are about another {name}: {old[name]} and {new[name]}")
    tested: list[tuple[Drift, float]] = []
    untested: list[Drift] = []
    for name, one in new.get("shadows", {}).items():
        if name in old["shadows"]:
            tested += _shares(name, old["shadows"][name], one, _OF_SHADOWS)
    for candidate in new.get("ranking", ()):
        if candidate in old["candidates"]:
            before, now = old["candidates"][candidate], new["candidates"][candidate]
            tested += [*_performance(candidate, before, now), *_compliance(candidate, before, now)]
            untested += [*_scalability(candidate, before, now), *_standing(candidate, before, now)]
    if not tested and not untested:
        raise NotComparable("they have no candidate and no axis in common")
    untested += _gone(old, new)
    adjusted = holm([p for _, p in tested])
    return [
        Drift(one.candidate, one.figure, one.before, one.now, p, p < _ALPHA, one.worse)
        for (one, _), p in zip(tested, adjusted, strict=True)
    ] + untested


def _gone(old: Report, new: Report) -> Iterator[Drift]:
    """Candidates that were asked then, and aren't among the new ones: no figure tells how they are today."""
    for name in old.get("ranking", ()):
        if name not in new["candidates"] and any(old["candidates"][name].get(axis) for axis in AXES):
            yield Drift(name, "asked", 1.0, 0.0, None, True, True)


def _performance(name: str, before: Any, now: Any) -> Iterator[tuple[Drift, float]]:
    if not before["performance"] or not now["performance"]:
        return
    scores = {"before": before["performance"]["scores"], "now": now["performance"]["scores"]}
    common = [item for item in scores["now"] if item in scores["before"]]
    if common:
        compared = compare_all(scores)[0]
        shares = {run: sum(found[item] for item in common) / len(common) for run, found in scores.items()}
        yield (
            Drift(name, "performance", shares["before"], shares["now"], None, False, compared.difference > 0),
            compared.p,
        )


def _compliance(name: str, before: Any, now: Any) -> Iterator[tuple[Drift, float]]:
    if before["compliance"] and now["compliance"]:
        yield from _shares(name, before["compliance"], now["compliance"], _SHARES)


def _shares(name: str, before: Any, now: Any, figures: _Figures) -> Iterator[tuple[Drift, float]]:
    for figure, higher_is_better in figures:
        one, other = before[figure], now[figure]
        if one and other:
            hits = [round(each["value"] * each["of"]) for each in (one, other)]
            p = compare_shares(hits[0], one["of"], hits[1], other["of"])
            worse = (other["value"] < one["value"]) == higher_is_better
            yield Drift(name, figure.replace("_", "-"), one["value"], other["value"], None, False, worse), p


def _scalability(name: str, before: Any, now: Any) -> Iterator[Drift]:
    if not before["scalability"] or not now["scalability"]:
        return
    one, other = before["scalability"]["goodput"], now["scalability"]["goodput"]
    if one and other:
        yield _apart(name, "goodput per second", one, other, higher_is_better=True)
    steps = {step["offered"]: step for step in before["scalability"]["steps"]}
    for step in now["scalability"]["steps"]:
        then = steps.get(step["offered"])
        if then is not None and then["first_token"].get("p50") and step["first_token"].get("p50"):
            figure = f"first token p50 at {step['offered']:g}/s"
            yield _apart(name, figure, then["first_token"]["p50"], step["first_token"]["p50"], higher_is_better=False)


def _apart(name: str, figure: str, one: Any, other: Any, *, higher_is_better: bool) -> Drift:
    """Two intervals; one without an end overlaps with everything beyond."""
    below = other["high"] is not None and other["high"] < one["low"]
    above = one["high"] is not None and other["low"] > one["high"]
    return Drift(name, figure, one["value"], other["value"], None, below or above, below if higher_is_better else above)


def _standing(name: str, before: Any, now: Any) -> Iterator[Drift]:
    """Requirements that were met and aren't any more, or the other way round."""
    then, today = (
        dict.fromkeys(_TOLD_IF_MISSED, True) | {one["name"]: one["met"] for one in run["requirements"]}
        for run in (before, now)
    )
    for what, met in today.items():
        if what in then and then[what] != met:
            yield Drift(name, f"requirement {what}", float(then[what]), float(met), None, True, not met)


def drift_in_words(found: list[Drift]) -> str:
    """What moved, worse first; that nothing did, plainly."""
    lines: list[str] = []
    for one in sorted((one for one in found if one.moved), key=lambda one: (not one.worse, one.candidate, one.figure)):
        word = "worse" if one.worse else "better"
        p = "" if one.p is None else f" (p = {one.p:.2g})"
        lines.append(f"{word}: {one.candidate}, {one.figure}: {one.before:.4g} before, {one.now:.4g} now{p}")
    still = sum(not one.moved for one in found)
    lines.append(f"{still} of {len(found)} figures show no measurable difference.")
    return "\n".join(lines)
