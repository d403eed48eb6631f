"""Score the stored answers of the performance axis by candidate, set, group and language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.cluster_statistics import Groups, clustered_mean, compare_pairs
from evaluation.items import Item, JudgeCheck, RecordedAnswer, draw
from evaluation.run_store import RunStore
from evaluation.samples import Samples, Spread
from evaluation.scorers import Score, score
from evaluation.statistics import Comparison, Estimate

AXIS = "performance"
_MAX_LISTED_FAILURES = 300
_MAX_SHOWN_CHARACTERS = 4000
_MAX_LISTED_BEST, _HIGH_SCORE = 20, 0.75


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item with its answer and what was found about it, for the report."""

    item: str
    group: str
    prompt: str
    answer: str
    why: str

    @staticmethod
    def of(item: Item, answer: RecordedAnswer | None, why: str) -> FailedItem:
        """Return the item with its answer as the report shows it, or without one."""
        return FailedItem(item.id, item.group, item.prompt, "" if answer is None else shown(answer), why)


class HasFailed(Protocol):
    """Results with a list of failed items, and the number of those beyond its bound."""

    failed: list[FailedItem]
    hidden: int


def note_failed(result: HasFailed, failed: FailedItem) -> None:
    """Add a failed item to the list of the results, or count it as hidden if the list is full."""
    if len(result.failed) < _MAX_LISTED_FAILURES:
        result.failed.append(failed)
    else:
        result.hidden += 1


@dataclass(slots=True)
class Performance:
    """The performance results of one candidate.

    Attributes:
        scores: The scores by question, without those that were not asked or have no verdict. The score of a question
            with several samples is their mean.
        first: The scores of the first sample of each question, if there are several.
        worst: The mean score in the worst case: an answer without a verdict of the judge scores 0.
        missing: The number of answers without a verdict of the judge.
        spread: How much the samples of a question differ, if there are several.
        by: The mean scores by set, subject (its key is `group`) and language.
        worst_by: The same in the worst case, if verdicts are missing.
        worst_scores: The scores in the worst case, by question, if verdicts are missing.
        failures: The number of items without an answer. They score 0.
        unanswered: The number of items without a score.
        hidden: The number of failed items that are not in `failed`.
        best: Answers with the highest scores, those that a judge scored first.
    """

    scores: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    overall: Estimate | None = None
    worst: Estimate | None = None
    missing: int = 0
    spread: Spread | None = None
    worst_scores: dict[str, float] = field(default_factory=dict)
    by: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    worst_by: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)
    best: list[FailedItem] = field(default_factory=list)
    failures: int = 0
    unanswered: int = 0
    hidden: int = 0

    @property
    def first_scores(self) -> Mapping[str, float]:
        """The scores of the answers that people mark: the first sample of each question."""
        return self.first or self.scores


Verdicts = Mapping[str, Score]
"""The judge's readable verdicts on the stored answers of one candidate, by item."""


def score_performance(
    store: RunStore, candidates: Iterable[str], items: tuple[Item, ...], seed: int, verdicts: Mapping[str, Verdicts]
) -> tuple[dict[str, Performance], list[Comparison]]:
    """Score the performance axis of each candidate, and compare every pair on the same items."""
    known = {item.id: item for item in items}
    results = {name: _score_one(store, name, known, seed, verdicts.get(name, {})) for name in candidates}
    compared = compare_pairs({name: one.scores for name, one in results.items() if one.scores}, groups_of(items))
    return results, compared


def groups_of(items: Iterable[Item]) -> dict[str, str]:
    """Return the group of each item that depends on others."""
    return {item.id: item.cluster for item in items if item.cluster is not None}


def _score_one(store: RunStore, name: str, known: Mapping[str, Item], seed: int, verdicts: Verdicts) -> Performance:
    result = Performance()
    samples, scored_items = Samples(), 0
    high: list[tuple[float, Item, str]] = []
    for row in store.rows(name, AXIS):
        item = known.get(row.item)
        if item is None or item.check is None:
            continue
        if row.answer is None:
            # A missing answer scores 0, because a client would get nothing either.
            scored = Score(0.0, row.failure or "no answer")
            result.failures += 1
        else:
            is_judged = isinstance(item.check, JudgeCheck)
            judged = verdicts.get(item.id) if is_judged else score(item.check, row.answer)
            if judged is None:
                samples.add(item.question_id, None)
                continue
            scored = judged
        scored_items += 1
        samples.add(item.question_id, scored.value)
        if item.epoch == 1:
            result.first[item.id] = scored.value
        if scored.value >= _HIGH_SCORE:
            high.append((scored.value, item, scored.why))
        if scored.value < 1:
            note_failed(result, FailedItem.of(item, row.answer, scored.why))
    result.scores = samples.measured()
    result.spread = samples.spread()
    if result.spread is None:
        result.first = {}
    result.missing = samples.missing
    result.unanswered = len(known) - scored_items
    groups = groups_of(known.values())
    result.overall = clustered_mean(result.scores, groups, seed)
    result.worst = clustered_mean(samples.worst(), groups, seed)
    result.worst_scores = samples.worst() if samples.missing else {}
    result.by = _by_kind(result.scores, known, groups, seed)
    result.worst_by = _by_kind(result.worst_scores, known, groups, seed)
    result.best = listed_best(store, name, AXIS, high)
    return result


def _by_kind(
    scores: Mapping[str, float], known: Mapping[str, Item], groups: Groups, seed: int
) -> dict[str, dict[str, Estimate]]:
    tables: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for question, value in scores.items():
        item = known[question]
        for kind, word in (("set", item.id.split("/")[0]), ("group", item.group), ("language", item.language)):
            tables[kind][word][question] = value
    by: dict[str, dict[str, Estimate]] = {}
    for kind, words in tables.items():
        estimates = {word: clustered_mean(values, groups, seed) for word, values in sorted(words.items())}
        by[kind] = {word: one for word, one in estimates.items() if one is not None}
    return by


def listed_best(
    store: RunStore, candidate: str, axis: str, scored: Iterable[tuple[float, Item, str]]
) -> list[FailedItem]:
    """Return a random selection of the answers with the highest scores. Those that a judge scored come first."""

    def order(one: tuple[float, Item, str]) -> tuple[bool, float, float]:
        value, item, _ = one
        return not isinstance(item.check, JudgeCheck), -value, draw("best", item.id)

    best: list[FailedItem] = []
    for value, item, why in sorted(scored, key=order)[:_MAX_LISTED_BEST]:
        answer = store.answer_to(candidate, axis, item.id)
        if answer is not None:
            best.append(FailedItem.of(item, answer, why or f"score {value:g}"))
    return best


def whole(answer: RecordedAnswer) -> str:
    """Return an answer as text, with its tool calls and refusal."""
    calls = [f"{call.name}({call.arguments})" for call in answer.calls]
    parts = [answer.text, *calls, *([f"refused: {answer.refusal}"] if answer.refusal else [])]
    return "\n".join(part for part in parts if part) or f"(empty; it ended with {answer.finish})"


def shown(answer: RecordedAnswer) -> str:
    """Return an answer as text for a report, shortened to 4,000 characters."""
    text = whole(answer)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"
