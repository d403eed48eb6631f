"""Score recorded shadow traffic, and choose the pairs for the judge."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from gateway.evaluate.candidate_client import Asked, Timing
from gateway.evaluate.items import Check, Item, JudgeCheck, RecordedAnswer
from gateway.evaluate.judge import MOST_QUOTED, JudgedPair, Questions, pair_axis, pair_questions, pairs_of
from gateway.evaluate.performance import FailedItem, shown
from gateway.evaluate.run_store import RunStore
from gateway.evaluate.scorers import Score, refused_by, score
from gateway.evaluate.statistics import Estimate, chance_of, quantile, share
from gateway.evaluate.suite import Suite
from gateway.evaluate.text_rules import language_of
from gateway.model.shadow import ShadowRecord
from providers.chat import ToolCall

_MOST_SHOWN = 300


_ROLE = re.compile(r"^(?:system|developer|user|assistant|tool): ", re.MULTILINE)


_USER, _CHECK = "user: ", "check "


_MOST_TEXT, _ALPHA = 4000, 0.05


Recorded = tuple[int, ShadowRecord]


Verdicts = Mapping[str, Score]
"""What the judge said, by the name of its question."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Its times and those of who answered the client, on the same requests. later_s: the median difference; p: of there
    being none."""

    own: dict[str, Estimate]
    others: dict[str, Estimate]
    later_s: float
    p: float
    of: int


@dataclass(slots=True)
class ShadowScores:
    """What one deployment reached as a shadow. checks: the share that is as it should be, by the name of the check.

    acceptable: None where neither words nor a judge could tell. judged_by: who could.
    """

    model: str
    requests: int = 0
    texts: int = 0
    answered: Estimate | None = None
    failures: dict[str, int] = field(default_factory=dict)
    first_token: Beside | None = None
    total: Beside | None = None
    refused: Estimate | None = None
    refusals: dict[str, int] = field(default_factory=lambda: {"provider": 0, "rule": 0})
    acceptable: Estimate | None = None
    judged_by: tuple[str, ...] = ()
    in_language: Estimate | None = None
    checks: dict[str, Estimate] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)
    hidden: int = 0


def last_said(prompt: str) -> str:
    """The last thing that the person said, of a prompt as it is kept: a line for each message, its role before it."""
    marks = list(_ROLE.finditer(prompt))
    for number in range(len(marks) - 1, -1, -1):
        if marks[number][0] == _USER:
            end = marks[number + 1].start() if number + 1 < len(marks) else len(prompt)
            return prompt[marks[number].end() : end].strip()
    return prompt.strip()


class Checks:
    """What the answer to a prompt must be like: by the suite's expressions, and by the item whose question it is."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._items = {item.prompt.strip(): item for item in suite.performance if not item.tools}

    def of(self, record: ShadowRecord) -> Iterator[tuple[str, Check]]:
        """Each with its name."""
        said = last_said(record.prompt or "")
        for one in self._suite.shadow:
            if one.when is None or re.search(one.when, said):
                yield one.name, one.check
        item = self._items.get(said)
        if item is not None and item.check is not None:
            yield item.group, item.check


def texts_of(recorded: Iterable[Recorded]) -> Iterator[tuple[int, ShadowRecord, RecordedAnswer]]:
    """Those with a text, and what it says; one of which only the number of its calls is known says nothing."""
    for number, record in recorded:
        says = record.answer or record.calls or not record.tool_calls
        if record.prompt is not None and record.outcome == "ok" and says:
            calls = tuple(ToolCall("", name, arguments) for name, arguments in record.calls)
            filtered = record.finish_reason == "content_filter"
            yield (
                number,
                record,
                RecordedAnswer(record.answer or "", calls, record.refusal, filtered, record.finish_reason or "stop"),
            )


def asked_of_the_judge(suite: Suite, recorded: Iterable[Recorded]) -> tuple[Item, ...]:
    """What only a judge can tell of these answers: an item for each, as `questions_about` takes it."""
    if suite.file.judge is None:
        return ()
    checks, found = Checks(suite), list[Item]()
    for number, record, answer in texts_of(recorded):
        for name, check in checks.of(record):
            if isinstance(check, JudgeCheck):
                found.append(Item(f"{number} {name}", name, "", record.prompt or "", check))
        if suite.file.judge.compliance and answer.text and refused_by(answer) is None:
            found.append(Item(str(number), "acceptable", "", record.prompt or "", expects="accept"))
    return tuple(found)


def score_shadow(suite: Suite, recorded: Sequence[Recorded], verdicts: Verdicts) -> dict[str, ShadowScores]:
    """The scores of each deployment that was a shadow."""
    apart: dict[str, list[Recorded]] = defaultdict(list)
    for number, record in recorded:
        apart[record.deployment].append((number, record))
    return {name: _score_one(suite, ones, verdicts) for name, ones in sorted(apart.items())}


def _score_one(suite: Suite, recorded: Sequence[Recorded], verdicts: Verdicts) -> ShadowScores:
    records = [record for _, record in recorded]
    answered = [record for record in records if record.outcome == "ok"]
    result = ShadowScores(records[-1].model, len(records), answered=share(len(answered), len(records)))
    result.failures = dict(Counter(record.outcome for record in records if record.outcome != "ok").most_common())
    result.first_token = _beside([(one.first_s, one.beside_first_s) for one in answered if one.stream])
    result.total = _beside([(one.total_s, one.beside_total_s) for one in answered])
    words, judge = suite.bank.unacceptable if suite.bank is not None else (), suite.file.judge
    judges = judge is not None and judge.compliance
    result.judged_by = (*(["words"] if words else []), *(["judge"] if judges else []))
    checks, held = Checks(suite), defaultdict[str, list[bool]](list)
    for number, record, answer in texts_of(recorded):
        result.texts += 1
        by = refused_by(answer)
        held["refused"].append(by is not None)
        if by is not None:
            result.refusals[by] = result.refusals.get(by, 0) + 1
        acceptable = _acceptable(answer, words, verdicts.get(str(number)), judges=judges)
        found: dict[str, Score | None] = {"acceptable": acceptable, "language": _language(record, answer)}
        found |= _of_checks(checks, number, record, answer, verdicts)
        for name, scored in found.items():
            if scored is not None:
                held[name].append(scored.is_right)
                if not scored.is_right:
                    _note(result, number, name, record, answer, scored)
    shares = {name: one for name, values in held.items() if (one := share(sum(values), len(values))) is not None}
    result.refused, result.acceptable = shares.pop("refused", None), shares.pop("acceptable", None)
    result.in_language = shares.pop("language", None)
    result.checks = {name.removeprefix(_CHECK): one for name, one in sorted(shares.items())}
    return result


def _of_checks(
    checks: Checks, number: int, record: ShadowRecord, answer: RecordedAnswer, verdicts: Verdicts
) -> Iterator[tuple[str, Score]]:
    for name, check in checks.of(record):
        found = verdicts.get(f"{number} {name}") if isinstance(check, JudgeCheck) else score(check, answer)
        if found is not None:
            yield f"{_CHECK}{name}", found


def _acceptable(answer: RecordedAnswer, words: Sequence[str], judged: Score | None, *, judges: bool) -> Score | None:
    """By the bank's words and the judge; a refusal is acceptable. None where nobody could tell, or did."""
    found = next((word for word in words if word in answer.text), None)
    if found is not None:
        return Score(0.0, f"has {found!r}, which is not acceptable")
    if refused_by(answer) is not None:
        return Score(1.0) if words or judges else None
    return judged if judges else Score(1.0) if words else None


def _language(record: ShadowRecord, answer: RecordedAnswer) -> Score | None:
    """Whether it is in the language of what was said last, where both can be told."""
    asked, said = language_of(last_said(record.prompt or "")), language_of(answer.text)
    if asked is None or said is None:
        return None
    return Score(float(asked == said), f"is asked in {asked} and answered in {said}")


def _note(
    result: ShadowScores, number: int, name: str, record: ShadowRecord, answer: RecordedAnswer, scored: Score
) -> None:
    if len(result.failed) == _MOST_SHOWN:
        result.hidden += 1
        return
    item = f"{record.request_id} ({number})"
    prompt = record.prompt or ""
    prompt = prompt if len(prompt) <= _MOST_TEXT else f"…{prompt[-_MOST_TEXT:]}"
    result.failed.append(FailedItem(item, name.removeprefix(_CHECK), prompt, shown(answer), scored.why))


def _beside(times: Sequence[tuple[float, float | None]]) -> Beside | None:
    """The quantiles of both, and the exact sign test of one being the later."""
    both = [(own, other) for own, other in times if other is not None]
    if not both:
        return None
    apart = [own - other for own, other in both]
    later, earlier = sum(one > 0 for one in apart), sum(one < 0 for one in apart)
    own, others = _quantiles([one for one, _ in both]), _quantiles([one for _, one in both])
    return Beside(own, others, median(apart), chance_of(later, later + earlier), len(both))


def _quantiles(values: Sequence[float]) -> dict[str, Estimate]:
    found = {name: quantile(values, p) for name, p in (("p50", 0.5), ("p95", 0.95))}
    return {name: one for name, one in found.items() if one is not None}


def shadow_in_words(name: str, one: ShadowScores) -> list[str]:
    """What it comes to, plainly."""
    lines = [f"{name}: {one.requests} requests, {_share(one.answered)} answered; of {one.texts} there is a text."]
    for what, beside in (("until the first token", one.first_token), ("until the answer was whole", one.total)):
        if beside is not None:
            apart = f"{abs(beside.later_s) * 1000:.0f} ms {'later' if beside.later_s > 0 else 'earlier'} than"
            told = f"{apart} who answered" if beside.p < _ALPHA else "no measurable difference to who answered"
            lines.append(f"{name}, {what}: {told} the same {beside.of} requests (p = {beside.p:.2g}).")
    if one.acceptable is not None:
        lines.append(f"{name}: {_share(one.acceptable)} acceptable, as told by {' and '.join(one.judged_by)} alone.")
    elif one.texts:
        lines.append(f"{name}: whether its answers are acceptable nobody could tell; a judge of the suite can.")
    shares = {"refused": one.refused, "in the language of the question": one.in_language}
    shares |= {f"as `{check}` wants it": found for check, found in one.checks.items()}
    return lines + [f"{name}: {_share(found)} {figure}." for figure, found in shares.items() if found is not None]


def _share(one: Estimate | None) -> str:
    return "–" if one is None else f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%}, {one.of})"


BESIDE = "who answered"
"""The other one of each pair: whoever the route had answer the client."""


_AXIS = "shadow pairs"


_Pair = tuple[Item, RecordedAnswer, RecordedAnswer]


def _comparable(recorded: Iterable[Recorded]) -> dict[str, list[_Pair]]:
    """By the shadow's deployment: what was asked, its answer, and the client's."""
    found: dict[str, list[_Pair]] = defaultdict(list)
    for number, record, answer in texts_of(recorded):
        texts = answer.text, record.beside_answer or ""
        is_whole = answer.finish == "stop" and len(answer.text) == record.answer_characters
        if is_whole and not answer.calls and all(0 < len(text) <= MOST_QUOTED for text in texts):
            # The end of a long conversation is what was answered.
            item = Item(str(number), "pair", "", (record.prompt or "")[-MOST_QUOTED:])
            found[record.deployment].append((item, answer, RecordedAnswer(texts[1])))
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
