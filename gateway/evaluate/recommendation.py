"""The recommendation and its reasons in words, from what was found and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.evaluate.ranking import Found, Requirement, Scores
from gateway.evaluate.statistics import Comparison

__all__ = ["Recommendation", "recommend"]


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
