"""Compare two runs: every figure of every candidate on the common questions, with p values corrected together (Holm).

Items of one group are not tested together: if a candidate has not changed, its answers to the same questions differ by
chance only, and for each question alone. Latencies and goodput differ if their intervals do not overlap. A requirement
that is newly missed is a change only if its figure has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from evaluation.figures import FIGURES
from evaluation.report import FORMAT, Report
from evaluation.statistics import ALPHA, Z, difference, holm
from providers.value import Value


class NotComparable(Exception):
    """The two runs do not measure the same. The message states the difference."""


class FigureChange(Value, frozen=True):
    """One figure in both runs. `p` is not corrected; None for a change that is not one of a figure."""

    candidate: str
    figure: str
    before: float
    now: float
    p: float | None
    is_worse: bool

    @property
    def direction(self) -> str:
        return "worse" if self.is_worse else "better"


def compare_runs(old: Report, new: Report) -> tuple[list[str], bool]:
    """Compare two runs. Return the result as lines, and whether something got worse. Raises NotComparable."""
    if old.get("format") != FORMAT or new.get("format") != FORMAT:
        raise NotComparable("this version can't read the format of one of the reports")
    for name in ("kind", "region", "assistant"):
        if old[name] != new[name]:
            raise NotComparable(f"the {name} differs: {old[name]} and {new[name]}")
    common = [name for name in new["candidates"] if name in old["candidates"]]
    tested = [one for name in common for one in _figures(name, old["candidates"][name], new["candidates"][name])]
    if not common:
        raise NotComparable("no candidate is in both runs")
    adjusted = holm([one.p for one in tested if one.p is not None])
    found: dict[str, list[str]] = {"worse": [], "better": [], "within noise": []}
    is_changed: dict[tuple[str, str], bool] = {}
    for one, p in zip(tested, adjusted, strict=True):
        is_changed[one.candidate, one.figure] = p < ALPHA
        if p < ALPHA:
            text = f"{one.candidate}, {one.figure}: {one.before:.4g} before, {one.now:.4g} now (p = {p:.2g})"
            found[one.direction].append(text)
    for one, figure in (each for name in common for each in _requirements(name, old, new)):
        text = f"{one.candidate}, requirement {one.figure}: {_met(one.before)} before, {_met(one.now)} now"
        is_noise = not is_changed.get((one.candidate, figure or one.figure), True)
        found["within noise" if is_noise else one.direction].append(text)
    gone = old["candidates"].keys() - new["candidates"]
    found["worse"] += [f"{name}: asked before, and not now" for name in old["candidates"] if name in gone]
    lines = [f"{word}: {text}" for word, texts in found.items() for text in texts]
    total = len(tested) - sum(is_changed.values())
    return [*lines, f"{total} of {len(tested)} figures show no measurable difference."], bool(found["worse"])


def _figures(name: str, before: Any, now: Any) -> Iterator[FigureChange]:
    for key in now["scores"]:
        first, second = before["scores"].get(key, {}), now["scores"][key]
        if (found := difference(first, second, {})) is None:
            continue
        then, since = (sum(ones[one] for one in first if one in second) / found.of for ones in (first, second))
        if key in FIGURES and FIGURES[key].is_turned:
            then, since = 1 - then, 1 - since
        yield FigureChange(name, key, then, since, found.p, found.value > 0)
    loads = before["load"], now["load"]
    if all(one and one["goodput"] for one in loads):
        yield _apart(name, "goodput", loads[0]["goodput"], loads[1]["goodput"], higher_is_better=True)
        yield _apart(name, "errors", loads[0]["errors"], loads[1]["errors"], higher_is_better=False)
        steps = {step["offered"]: step["times"]["first_token"].get("p50") for step in loads[0]["steps"]}
        for step in loads[1]["steps"]:
            times = steps.get(step["offered"]), step["times"]["first_token"].get("p50")
            if all(times):
                yield _apart(name, f"first token p50 at {step['offered']:g}/s", *times, higher_is_better=False)


def _apart(name: str, figure: str, one: Any, other: Any, *, higher_is_better: bool) -> FigureChange:
    """Compare two intervals. The p value is that of a normal distribution with the errors of the facing ends.

    It is 1 if they overlap. An interval without an upper end overlaps with all higher values.
    """
    lower, upper = (other, one) if other["value"] < one["value"] else (one, other)
    p = 1.0
    if lower["high"] is not None and lower["high"] < upper["low"]:
        error = math.hypot(lower["high"] - lower["value"], upper["value"] - upper["low"]) / Z
        p = math.erfc((upper["value"] - lower["value"]) / error / math.sqrt(2)) if error > 0 else 0.0
    return FigureChange(
        name, figure, one["value"], other["value"], p, (other["value"] < one["value"]) == higher_is_better
    )


def _requirements(name: str, old: Report, new: Report) -> Iterator[tuple[FigureChange, str]]:
    """Yield the requirements that only one of the runs met, with their figures. Some are listed only if missed."""
    before = {one["name"]: one for one in old["candidates"][name]["requirements"]}
    now = {one["name"]: one for one in new["candidates"][name]["requirements"]}
    for requirement in {**before, **now}:
        one, other = before.get(requirement, {"met": True}), now.get(requirement, {"met": True})
        if one["met"] != other["met"]:
            figure = other.get("figure") or one.get("figure") or ""
            yield (
                FigureChange(name, requirement, float(one["met"]), float(other["met"]), None, not other["met"]),
                str(figure),
            )


def _met(value: float) -> str:
    return "met" if value else "missed"
