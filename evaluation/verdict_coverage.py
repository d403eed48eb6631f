"""Find the answers on which the judge gave no verdict, and the reason of each.

A judge that is silent on some answers is not silent at random: the content filter of a hosted judge blocks the harmful
ones. So each figure is also computed in the worst case, in which every missing verdict counts against the candidate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.compliance import FIGURES
from evaluation.items import Item
from evaluation.judge import items_to_judge, score_of, verdict_axis
from evaluation.performance import AXIS as PERFORMANCE
from evaluation.performance import Verdicts
from evaluation.refusals import refusal_of
from evaluation.run_store import RunStore, StoredAnswer

_FILTERED = "its content filter blocked the question"
_REFUSED = "it refused to judge"
_UNREADABLE = "its reply is not the JSON object that was asked for"
_NOT_ASKED = "it was not asked, because the run stopped or the judge was given up"
_MAX_EXAMPLE_CHARACTERS = 80
# From this share on, the judge itself is named as the cause, and not the answers of one candidate.
_BROKEN_JUDGE_SHARE = 0.5
_MIN_JUDGED = 5


@dataclass(frozen=True, slots=True)
class VerdictCoverage:
    """The verdicts on the answers of one candidate.

    Attributes:
        of: The number of answers that need a verdict.
        missing: How many have none.
        figures: The number of missing verdicts and of all, by figure.
        causes: The number of missing verdicts by cause, in words about the judge.
        example: The beginning of the first reply that can't be read.
    """

    of: int = 0
    missing: int = 0
    figures: dict[str, tuple[int, int]] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    example: str = ""

    @property
    def share(self) -> float:
        """The share of answers without a verdict."""
        return self.missing / self.of if self.of else 0.0

    def beyond(self, most: float) -> dict[str, tuple[int, int]]:
        """Return the figures of which more than this share has no verdict."""
        return {name: (missing, of) for name, (missing, of) in self.figures.items() if missing > most * of}

    def describe(self) -> str:
        """Return the share and the causes as a phrase."""
        if not self.missing:
            return f"all {self.of:,} have one"
        causes = "; ".join(f"{cause} ({count:,})" for cause, count in self.causes.items())
        return f"{self.share:.1%} have none ({self.missing:,} of {self.of:,}): {causes}"


def read_verdicts(store: RunStore, judge: str | None, candidates: Iterable[str]) -> dict[str, Verdicts]:
    """Return the verdicts of the judge by candidate; none if the suite names no judge."""
    if judge is None:
        return {}
    return {
        name: {
            row.item: verdict
            for row in store.rows(judge, verdict_axis(name))
            if row.answer is not None and (verdict := score_of(row.answer)) is not None
        }
        for name in candidates
    }


def coverage_of(store: RunStore, judge: str, candidate: str, axes: Mapping[str, Sequence[Item]]) -> VerdictCoverage:
    """Return which of a candidate's answers have a verdict.

    `axes` has the items that the judge reads, by axis.
    """
    causes: dict[str, str] = {}
    example = ""
    for row in store.rows(judge, verdict_axis(candidate)):
        causes[row.item] = _cause(row)
        if causes[row.item] == _UNREADABLE and not example and row.answer is not None:
            example = " ".join(row.answer.text.split())[:_MAX_EXAMPLE_CHARACTERS]
    wanted = [item for axis, items in axes.items() for item in items_to_judge(store, candidate, axis, items)]
    counts, figures = Counter[str](), dict[str, tuple[int, int]]()
    for item in wanted:
        figure = FIGURES[item.expects] if item.expects is not None else PERFORMANCE
        missing, of = figures.get(figure, (0, 0))
        cause = causes.get(item.id, _NOT_ASKED)
        figures[figure] = missing + bool(cause), of + 1
        counts.update([cause] if cause else [])
    return VerdictCoverage(len(wanted), counts.total(), figures, dict(counts.most_common()), example)


def _cause(row: StoredAnswer) -> str:
    """Return why a reply of the judge gives no verdict; empty if it gives one."""
    if row.answer is None:
        return f"it did not answer ({(row.failure or 'no answer').partition(':')[0]})"
    if score_of(row.answer) is not None:
        return ""
    if row.answer.filtered:
        return _FILTERED
    is_refusal = bool(row.answer.refusal) or refusal_of(row.answer).state == "refused"
    return _REFUSED if is_refusal else _UNREADABLE


def coverage_notices(judge: str, coverages: Mapping[str, VerdictCoverage], given_up: str | None) -> list[str]:
    """Return what the missing verdicts mean for the report, as sentences: first the judge, then each candidate."""
    notices: list[str] = []
    wanted, missing = sum(one.of for one in coverages.values()), sum(one.missing for one in coverages.values())
    if given_up is not None:
        notices.append(f"The judge {judge} was given up: {given_up}. {missing:,} of {wanted:,} verdicts are missing.")
    elif wanted >= _MIN_JUDGED and missing >= wanted * _BROKEN_JUDGE_SHARE:
        causes = Counter[str]()
        for one in coverages.values():
            causes.update(one.causes)
        cause, count = causes.most_common(1)[0]
        example = next((one.example for one in coverages.values() if one.example), "")
        shown = f", for example “{example}”" if example and cause == _UNREADABLE else ""
        notices.append(
            f"The judge {judge} is the cause of {missing:,} missing verdicts of {wanted:,}: "
            f"{cause} ({count:,}{shown}). Name another judge in the suite."
        )
    notices += [
        f"{name}: answers without a verdict of the judge {judge}: {one.describe()}. Each counts against {name}."
        for name, one in coverages.items()
        if one.missing
    ]
    return notices
