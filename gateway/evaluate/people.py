"""What people's marks come to: of each candidate, beside the scores that were reckoned, and pair by pair.

Marks go from 1 to 5, as a judge's do. They are told beside the axes and change none: who marks reads a sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.evaluate.marking import HIGHEST
from gateway.evaluate.statistics import Comparison, Estimate, compare_all, mean, share

__all__ = ["Marked", "Marks", "People", "score_marks"]

_GOOD = 4

Marks = Mapping[str, Mapping[str, int]]
"""The marks of each candidate, by item."""


@dataclass(frozen=True, slots=True)
class Marked:
    """How people marked one candidate. mean: from 1 to 5. counts: how often each mark was given.

    agrees: of the answers that have a score too, the share that both call good, or neither does; good is a mark of 4 or
    5, and a score that is as high. milder, stricter: how often the score alone called it good, and the mark alone.
    """

    mean: Estimate | None
    counts: dict[str, int]
    agrees: Estimate | None
    milder: int
    stricter: int


@dataclass(frozen=True, slots=True)
class People:
    """What people found. of: how many items they marked. words: every pair of candidates on the same items."""

    of: int
    highest: int = HIGHEST
    candidates: dict[str, Marked] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def score_marks(marks: Marks, scores: Mapping[str, Mapping[str, float]], seed: int) -> People:
    """What they found. scores: those that were reckoned, of each candidate by item."""
    shares = {name: {item: _share(mark) for item, mark in ones.items()} for name, ones in marks.items()}
    items = {item for ones in marks.values() for item in ones}
    found = {name: _marked(shares[name], ones, scores.get(name, {}), seed) for name, ones in marks.items()}
    words = tuple(_in_words(one) for one in compare_all(shares))
    return People(len(items), candidates=found, words=words)


def _marked(shares: Mapping[str, float], marks: Mapping[str, int], scores: Mapping[str, float], seed: int) -> Marked:
    one = mean(list(shares.values()), seed)
    both = [(scores[item] >= _share(_GOOD), mark >= _GOOD) for item, mark in marks.items() if item in scores]
    counts = {str(mark): list(marks.values()).count(mark) for mark in range(1, HIGHEST + 1)}
    agrees = share(sum(score == mark for score, mark in both), len(both))
    return Marked(
        None if one is None else Estimate(_mark(one.value), _mark(one.low), _mark(one.high), one.of),
        counts,
        agrees,
        both.count((True, False)),
        both.count((False, True)),
    )


def _share(mark: int) -> float:
    return (mark - 1) / (HIGHEST - 1)


def _mark(part: float) -> float:
    return 1 + part * (HIGHEST - 1)


def _in_words(one: Comparison) -> str:
    if not one.is_measurable:
        return one.in_words()
    better, worse = (one.first, one.second) if one.difference > 0 else (one.second, one.first)
    apart = abs(one.difference) * (HIGHEST - 1)
    return f"{better} is marked higher than {worse} by {apart:.2f} (p = {one.p:.2g}, {one.of} items)"
