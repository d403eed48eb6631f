"""The thresholds of a decision model that judges: an operator's, with a statement for each category."""

from __future__ import annotations

from providers.value import Value


class Threshold(Value, frozen=True):
    """A category of a judge: it applies from this probability on. `ask` is the statement."""

    category: str
    at: float
    ask: str


class Verdicts(Value, frozen=True):
    """The categories of a judge, in the order of its questions, and the version of the statements that are ours."""

    thresholds: tuple[Threshold, ...]
    version: int

    def __str__(self) -> str:
        """Return the thresholds as a plan shows them."""
        shown = ", ".join(f"{it.category} {it.at:g}" for it in self.thresholds)
        return f"{shown}; statements {self.version}"

    @property
    def names(self) -> frozenset[str]:
        """The categories."""
        return frozenset(it.category for it in self.thresholds)
