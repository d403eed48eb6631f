"""A shadow's answers beside those that the clients got, where both are kept: pairs for a judge, each in both orders.

Only whole answers are held side by side: one that was cut, by its provider or by what is kept of it, compares badly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from gateway.evaluate.asking import Asked, Timing
from gateway.evaluate.items import Answer, Item
from gateway.evaluate.judge import MOST_QUOTED, JudgedPair, Questions, pair_axis, pair_questions, pairs_of
from gateway.evaluate.shadow_traffic import Recorded, texts_of
from gateway.evaluate.store import RunStore
from gateway.evaluate.suite import Suite

__all__ = ["BESIDE", "ask_of_pairs", "judged_pairs", "pair_in_words", "questions_of_pairs"]

BESIDE = "who answered"
"""The other one of each pair: whoever the route had answer the client."""
_AXIS = "shadow pairs"
_ALPHA = 0.05

_Pair = tuple[Item, Answer, Answer]


def _comparable(recorded: Iterable[Recorded]) -> dict[str, list[_Pair]]:
    """By the shadow's deployment: what was asked, its answer, and the client's."""
    found: dict[str, list[_Pair]] = defaultdict(list)
    for number, record, answer in texts_of(recorded):
        texts = answer.text, record.beside_answer or ""
        is_whole = answer.finish == "stop" and len(answer.text) == record.answer_characters
        if is_whole and not answer.calls and all(0 < len(text) <= MOST_QUOTED for text in texts):
            # The end of a long conversation is what was answered.
            item = Item(str(number), "pair", "", (record.prompt or "")[-MOST_QUOTED:])
            found[record.deployment].append((item, answer, Answer(texts[1])))
    return found


def questions_of_pairs(suite: Suite, recorded: Iterable[Recorded]) -> int:
    """How many questions a judge is asked about pairs."""
    most = suite.file.judge.pairs if suite.file.judge is not None else 0
    return sum(2 * min(most, len(pairs)) for pairs in _comparable(recorded).values()) if most else 0


def ask_of_pairs(suite: Suite, recorded: Iterable[Recorded], store: RunStore) -> Mapping[str, Questions]:
    """What the judge is asked, by the name under which its verdicts are kept. The answers go into the store first."""
    most = suite.file.judge.pairs if suite.file.judge is not None else 0
    asked: dict[str, Questions] = {}
    for name, pairs in _comparable(recorded).items() if most else ():
        for item, own, other in pairs:
            store.add(name, _AXIS, item.id, Asked(Timing(0.0), own))
            store.add(BESIDE, _AXIS, item.id, Asked(Timing(0.0), other))
        items = tuple(item for item, _, _ in pairs)
        asked[pair_axis(name, BESIDE)] = pair_questions(store, name, BESIDE, _AXIS, items, most, suite.file.seed)
    return asked


def judged_pairs(store: RunStore, judge: str, shadows: Sequence[str]) -> list[JudgedPair]:
    """What the judge made of them, of each shadow."""
    return pairs_of(store, judge, (*shadows, BESIDE))


def pair_in_words(pair: JudgedPair) -> str:
    """What it comes to, plainly."""
    of = pair.won + pair.lost + pair.tied + pair.swayed
    told = "no measurable difference, " if pair.p >= _ALPHA else ""
    return (
        f"{pair.first}: of {of} pairs the judge preferred it in {pair.won} and who answered the client in {pair.lost} "
        f"({told}p = {pair.p:.2g}); in {pair.tied} it had no preference, in {pair.swayed} the order swayed it."
    )
