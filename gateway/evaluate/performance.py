"""The axis of performance: the stored answers, scored, by candidate, set, group and language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.evaluate.items import Item, JudgeCheck, RecordedAnswer
from gateway.evaluate.run_store import RunStore
from gateway.evaluate.scorers import Score, score
from gateway.evaluate.statistics import Comparison, Estimate, compare_all, mean

AXIS = "performance"
_MOST_SHOWN = 300
_MOST_TEXT = 4000


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item whose answer was not right: everything that is needed to see why."""

    item: str
    group: str
    prompt: str
    answer: str
    why: str


@dataclass(slots=True)
class Performance:
    """What one candidate reached. scores: by item; not asked is absent. by: the same by set, group and language."""

    scores: dict[str, float] = field(default_factory=dict)
    overall: Estimate | None = None
    by: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)
    failures: int = 0
    unanswered: int = 0
    hidden: int = 0


Rubric = Callable[[str, Item, RecordedAnswer], Score | None]
"""The judge's score of a candidate's answer to an item; None where it gave none."""


def score_performance(
    store: RunStore, candidates: Iterable[str], items: tuple[Item, ...], seed: int, rubric: Rubric
) -> tuple[dict[str, Performance], list[Comparison]]:
    """The axis of each candidate, and every pair compared on the same items."""
    known = {item.id: item for item in items}
    found = {name: _score_one(store, name, known, seed, rubric) for name in candidates}
    compared = compare_all({name: one.scores for name, one in found.items() if one.scores})
    return found, compared


def _score_one(store: RunStore, name: str, known: Mapping[str, Item], seed: int, rubric: Rubric) -> Performance:
    result = Performance()
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in store.rows(name, AXIS):
        item = known.get(row.item)
        if item is None or item.check is None:
            continue
        if row.answer is None:
            # No answer is no right answer: who asks a deployment gets nothing from it either.
            scored, said = Score(0.0, row.failure or "no answer"), ""
            result.failures += 1
        else:
            said = shown(row.answer)
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
            if len(result.failed) < _MOST_SHOWN:
                result.failed.append(FailedItem(item.id, item.group, item.prompt, said, scored.why))
            else:
                result.hidden += 1
    result.unanswered = len(known) - len(result.scores)
    result.overall = mean(list(result.scores.values()), seed) if result.scores else None
    for kind, words in groups.items():
        estimates = {word: mean(values, seed) for word, values in sorted(words.items())}
        result.by[kind] = {word: one for word, one in estimates.items() if one is not None}
    return result


def whole(answer: RecordedAnswer) -> str:
    """An answer as a person reads it."""
    calls = [f"{call.name}({call.arguments})" for call in answer.calls]
    parts = [answer.text, *calls, *([f"refused: {answer.refusal}"] if answer.refusal else [])]
    return "\n".join(part for part in parts if part) or f"(nothing; it ended with {answer.finish})"


def shown(answer: RecordedAnswer) -> str:
    """The same as a report has it, which is no place for long ones."""
    text = whole(answer)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"
