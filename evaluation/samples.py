"""Combine the samples of a question: several answers of one candidate to the same question (`epochs`)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from evaluation.statistics import Estimate, share


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the answers of one candidate to the same question differ.

    Attributes:
        epochs: The highest number of samples of a question.
        same: The share of questions whose samples all have the same score, among those with several samples.
        deviation: The mean standard deviation of the scores of one question.
    """

    epochs: int
    same: Estimate | None
    deviation: float


@dataclass(slots=True)
class Samples:
    """The results of all samples by question, from 0 to 1. None is a sample without a verdict."""

    values: dict[str, list[float | None]] = field(default_factory=lambda: defaultdict(list))

    def add(self, question: str, value: float | None) -> None:
        """Add the result of one sample."""
        self.values[question].append(value)

    @property
    def missing(self) -> int:
        """The number of samples without a verdict."""
        return sum(value is None for values in self.values.values() for value in values)

    def measured(self) -> dict[str, float]:
        """Return the mean of the samples with a verdict, by question. Questions without any are left out."""
        known = {question: [one for one in values if one is not None] for question, values in self.values.items()}
        return {question: fmean(values) for question, values in known.items() if values}

    def worst(self) -> dict[str, float]:
        """Return the mean of all samples by question. A sample without a verdict counts 0."""
        return {question: fmean(value or 0.0 for value in values) for question, values in self.values.items()}

    def spread(self) -> Spread | None:
        """Return the spread, or None if each question has only one sample."""
        known = [[one for one in values if one is not None] for values in self.values.values()]
        several = [values for values in known if len(values) > 1]
        if not several:
            return None
        same = share(sum(len(set(values)) == 1 for values in several), len(several))
        return Spread(max(map(len, several)), same, fmean(map(pstdev, several)))
