"""Score the stored answers of the performance axis by candidate, set, group and language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.evaluate.items import Item, JudgeCheck, RecordedAnswer
from gateway.evaluate.run_store import RunStore
from gateway.evaluate.scorers import Score, score
from gateway.evaluate.statistics import Comparison, Estimate, compare_all, mean

AXIS = "performance"
_MAX_LISTED_FAILURES = 300
_MAX_SHOWN_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item with a wrong answer, for the report."""

    item: str
    group: str
    prompt: str
    answer: str
    why: str


@dataclass(slots=True)
class Performance:
    """The performance results of one candidate.

    Attributes:
        scores: The scores by item, without items that were not asked.
        by: The mean scores by set, group and language.
        failures: The number of items without an answer. They score 0.
        unanswered: The number of items without a score.
        hidden: The number of failed items that are not in `failed`.
    """

    scores: dict[str, float] = field(default_factory=dict)
    overall: Estimate | None = None
    by: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)
    failures: int = 0
    unanswered: int = 0
    hidden: int = 0


Rubric = Callable[[str, Item, RecordedAnswer], Score | None]
"""Returns the judge's score of a candidate's answer to an item, or None if there is none."""


def score_performance(
    store: RunStore, candidates: Iterable[str], items: tuple[Item, ...], seed: int, rubric: Rubric
) -> tuple[dict[str, Performance], list[Comparison]]:
    """Score the performance axis of each candidate, and compare every pair on the same items."""
    known = {item.id: item for item in items}
    results = {name: _score_one(store, name, known, seed, rubric) for name in candidates}
    compared = compare_all({name: one.scores for name, one in results.items() if one.scores})
    return results, compared


def _score_one(store: RunStore, name: str, known: Mapping[str, Item], seed: int, rubric: Rubric) -> Performance:
    result = Performance()
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in store.rows(name, AXIS):
        item = known.get(row.item)
        if item is None or item.check is None:
            continue
        if row.answer is None:
            # A missing answer scores 0, because a client would get nothing either.
            scored, text = Score(0.0, row.failure or "no answer"), ""
            result.failures += 1
        else:
            text = shown(row.answer)
            judged = (
                rubric(name, item, row.answer) if isinstance(item.check, JudgeCheck) else score(item.check, row.answer)
            )
            if judged is None:
                continue
            scored = judged
        result.scores[item.id] = scored.value
        for kind, word in (("set", item.id.split("/")[0]), ("group", item.group), ("language", item.language)):
            groups[kind][word].append(scored.value)
        if scored.value < 1:
            if len(result.failed) < _MAX_LISTED_FAILURES:
                result.failed.append(FailedItem(item.id, item.group, item.prompt, text, scored.why))
            else:
                result.hidden += 1
    result.unanswered = len(known) - len(result.scores)
    result.overall = mean(list(result.scores.values()), seed) if result.scores else None
    for kind, words in groups.items():
        estimates = {word: mean(values, seed) for word, values in sorted(words.items())}
        result.by[kind] = {word: one for word, one in estimates.items() if one is not None}
    return result


def whole(answer: RecordedAnswer) -> str:
    """Return an answer as text, with its tool calls and refusal."""
    calls = [f"{call.name}({call.arguments})" for call in answer.calls]
    parts = [answer.text, *calls, *([f"refused: {answer.refusal}"] if answer.refusal else [])]
    return "\n".join(part for part in parts if part) or f"(empty; it ended with {answer.finish})"


def shown(answer: RecordedAnswer) -> str:
    """Return an answer as text for a report, shortened to 4,000 characters."""
    text = whole(answer)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"
