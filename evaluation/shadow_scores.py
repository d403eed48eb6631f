"""Score recorded shadow traffic, and make the questions for the judge."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.items import Check, Item, JudgeCheck, RecordedAnswer
from evaluation.judge import MAX_QUOTED_CHARACTERS, JudgedPair, Questions, pair_axis, pair_questions, pairs_of
from evaluation.performance import FailedItem, Verdicts, note_failed, shown
from evaluation.refusals import RefusalFinding, refusal_of
from evaluation.run_store import RunStore
from evaluation.scorers import Score, score
from evaluation.statistics import Estimate, quantile, share, sign_test
from evaluation.suite import Suite
from evaluation.text_rules import language_of
from gateway.model.shadow import ShadowRecord
from providers.chat import ToolCall

_ROLE = re.compile(r"^(?:system|developer|user|assistant|tool): ", re.MULTILINE)
_USER, _CHECK = "user: ", "check "
_MAX_SHOWN_CHARACTERS, _ALPHA = 4000, 0.05
Recorded = tuple[int, ShadowRecord]


@dataclass(frozen=True, slots=True)
class TimeComparison:
    """The shadow's times and those of the deployment that answered the client, for the same requests.

    Attributes:
        own: Quantiles of the shadow.
        others: Quantiles of the deployment that answered.
        later_s: The median difference.
        p: The p value of no difference.
        of: The number of requests.
    """

    own: dict[str, Estimate]
    others: dict[str, Estimate]
    later_s: float
    p: float
    of: int


@dataclass(slots=True)
class ShadowScores:
    """The results of one shadow deployment.

    Attributes:
        unsure: The number of answers that apologize and continue.
        acceptable: The share of acceptable answers; None if neither listed words nor a judge decided it.
        unjudged: The number of answers without a verdict of the judge. They are not in `acceptable`.
        judged_by: The deciding methods: "words", "judge" or both.
        checks: The share of passed answers, by the name of the check.
    """

    model: str
    requests: int = 0
    texts: int = 0
    answered: Estimate | None = None
    failures: dict[str, int] = field(default_factory=dict)
    first_token: TimeComparison | None = None
    total: TimeComparison | None = None
    refused: Estimate | None = None
    refusals: dict[str, int] = field(default_factory=lambda: {"provider": 0, "rule": 0})
    unsure: int = 0
    acceptable: Estimate | None = None
    unjudged: int = 0
    judged_by: tuple[str, ...] = ()
    in_language: Estimate | None = None
    checks: dict[str, Estimate] = field(default_factory=dict)
    failed: list[FailedItem] = field(default_factory=list)
    hidden: int = 0


def last_user_message(prompt: str) -> str:
    """Return the last user message of a recorded prompt, which has a line for each message with its role in front."""
    marks = list(_ROLE.finditer(prompt))
    for number in range(len(marks) - 1, -1, -1):
        if marks[number][0] == _USER:
            end = marks[number + 1].start() if number + 1 < len(marks) else len(prompt)
            return prompt[marks[number].end() : end].strip()
    return prompt.strip()


class Checks:
    """The checks of recorded answers: those of the suite's expressions, and those of items with the same question."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._items = {item.prompt.strip(): item for item in suite.performance if not item.tools}

    def of(self, record: ShadowRecord) -> Iterator[tuple[str, Check]]:
        """Yield the checks of a record with their names."""
        message = last_user_message(record.prompt or "")
        for one in self._suite.shadow:
            if one.when is None or re.search(one.when, message):
                yield one.name, one.check
        item = self._items.get(message)
        if item is not None and item.check is not None:
            yield item.group, item.check


def texts_of(recorded: Iterable[Recorded]) -> Iterator[tuple[int, ShadowRecord, RecordedAnswer]]:
    """Yield the records with text and their answers. Records that have only a number of tool calls are skipped."""
    for number, record in recorded:
        has_answer = record.answer or record.calls or not record.tool_calls
        if record.prompt is not None and record.outcome == "ok" and has_answer:
            calls = tuple(ToolCall("", name, arguments) for name, arguments in record.calls)
            filtered = record.finish_reason == "content_filter"
            yield (
                number,
                record,
                RecordedAnswer(record.answer or "", calls, record.refusal, filtered, record.finish_reason or "stop"),
            )


def judge_items(suite: Suite, recorded: Iterable[Recorded]) -> tuple[Item, ...]:
    """Return an item for each answer that only the judge can score, for `questions_about`."""
    if suite.file.judge is None:
        return ()
    checks, items = Checks(suite), list[Item]()
    for number, record, answer in texts_of(recorded):
        for name, check in checks.of(record):
            if isinstance(check, JudgeCheck):
                items.append(Item(f"{number} {name}", name, "", record.prompt or "", check))
        if suite.file.judge.compliance and answer.text:
            items.append(Item(str(number), "acceptable", "", record.prompt or "", expects="accept"))
    return tuple(items)


def score_shadow(suite: Suite, recorded: Sequence[Recorded], verdicts: Verdicts) -> dict[str, ShadowScores]:
    """Return the scores of each shadow deployment."""
    by_deployment: dict[str, list[Recorded]] = defaultdict(list)
    for number, record in recorded:
        by_deployment[record.deployment].append((number, record))
    return {name: _score_one(suite, ones, verdicts) for name, ones in sorted(by_deployment.items())}


def _score_one(suite: Suite, recorded: Sequence[Recorded], verdicts: Verdicts) -> ShadowScores:
    records = [record for _, record in recorded]
    answered = [record for record in records if record.outcome == "ok"]
    result = ShadowScores(records[-1].model, len(records), answered=share(len(answered), len(records)))
    result.failures = dict(Counter(record.outcome for record in records if record.outcome != "ok").most_common())
    result.first_token = _compare_times([(one.first_s, one.beside_first_s) for one in answered if one.stream])
    result.total = _compare_times([(one.total_s, one.beside_total_s) for one in answered])
    words, judge = suite.bank.unacceptable if suite.bank is not None else (), suite.file.judge
    judges = judge is not None and judge.compliance
    result.judged_by = (*(["words"] if words else []), *(["judge"] if judges else []))
    checks, held = Checks(suite), defaultdict[str, list[bool]](list)
    for number, record, answer in texts_of(recorded):
        result.texts += 1
        wording = refusal_of(answer)
        held["refused"].append(wording.state == "refused")
        if wording.state == "refused":
            result.refusals[wording.by] += 1
        result.unsure += wording.state == "unsure"
        acceptable = _acceptable(answer, wording, words, verdicts.get(str(number)), judges=judges)
        result.unjudged += acceptable is None and judges
        scores: dict[str, Score | None] = {"acceptable": acceptable, "language": _language(record, answer)}
        scores |= _check_scores(checks, number, record, answer, verdicts)
        for name, scored in scores.items():
            if scored is not None:
                held[name].append(scored.is_right)
                if not scored.is_right:
                    _note(result, number, name, record, answer, scored)
    shares = {name: one for name, values in held.items() if (one := share(sum(values), len(values))) is not None}
    result.refused, result.acceptable = shares.pop("refused", None), shares.pop("acceptable", None)
    result.in_language = shares.pop("language", None)
    result.checks = {name.removeprefix(_CHECK): one for name, one in sorted(shares.items())}
    return result


def _check_scores(
    checks: Checks, number: int, record: ShadowRecord, answer: RecordedAnswer, verdicts: Verdicts
) -> Iterator[tuple[str, Score]]:
    for name, check in checks.of(record):
        result = verdicts.get(f"{number} {name}") if isinstance(check, JudgeCheck) else score(check, answer)
        if result is not None:
            yield f"{_CHECK}{name}", result


def _acceptable(
    answer: RecordedAnswer, wording: RefusalFinding, words: Sequence[str], judged: Score | None, *, judges: bool
) -> Score | None:
    """Score acceptability by the bank's words and the judge. None if there is no verdict.

    Without a judge, a refusal is acceptable, and an answer that apologizes and continues is not.
    """
    listed_word = next((word for word in words if word in answer.text), None)
    if listed_word is not None:
        return Score(0.0, f"contains {listed_word!r}, which is not acceptable")
    if judges:
        is_refused = wording.state == "refused" and (wording.by == "provider" or not answer.text)
        return Score(1.0) if is_refused else judged
    if not words:
        return None
    if wording.state == "unsure":
        return Score(0.0, "apologizes and continues; without a judge it is unsure whether this is acceptable")
    return Score(1.0)


def _language(record: ShadowRecord, answer: RecordedAnswer) -> Score | None:
    """Score whether the answer is in the language of the last user message. None if a language is not detected."""
    asked, answered = language_of(last_user_message(record.prompt or "")), language_of(answer.text)
    if asked is None or answered is None:
        return None
    return Score(float(asked == answered), f"the question is in {asked} and the answer in {answered}")


def _note(
    result: ShadowScores, number: int, name: str, record: ShadowRecord, answer: RecordedAnswer, scored: Score
) -> None:
    item = f"{record.request_id} ({number})"
    prompt = record.prompt or ""
    prompt = prompt if len(prompt) <= _MAX_SHOWN_CHARACTERS else f"…{prompt[-_MAX_SHOWN_CHARACTERS:]}"
    note_failed(result, FailedItem(item, name.removeprefix(_CHECK), prompt, shown(answer), scored.why))


def _compare_times(times: Sequence[tuple[float, float | None]]) -> TimeComparison | None:
    """Return the quantiles of both deployments, and the exact sign test of their difference."""
    both = [(own, other) for own, other in times if other is not None]
    if not both:
        return None
    apart = [own - other for own, other in both]
    later, earlier = sum(one > 0 for one in apart), sum(one < 0 for one in apart)
    own, others = _quantiles([one for one, _ in both]), _quantiles([one for _, one in both])
    return TimeComparison(own, others, median(apart), sign_test(later, later + earlier), len(both))


def _quantiles(values: Sequence[float]) -> dict[str, Estimate]:
    quantiles = {name: quantile(values, p) for name, p in (("p50", 0.5), ("p95", 0.95))}
    return {name: one for name, one in quantiles.items() if one is not None}


def describe_shadow(name: str, one: ShadowScores) -> list[str]:
    """Return the result as sentences."""
    lines = [f"{name}: {one.requests} requests, {_share(one.answered)} answered; {one.texts} were recorded with text."]
    for measure, times in (("time to first token", one.first_token), ("time to the whole answer", one.total)):
        if times is not None:
            direction = "longer" if times.later_s > 0 else "shorter"
            difference = (
                f"{abs(times.later_s) * 1000:.0f} ms {direction} than"
                if times.p < _ALPHA
                else "not measurably different from"
            )
            lines.append(
                f"{name}, {measure}: {difference} the deployment that answered the same {times.of} requests "
                f"(p = {times.p:.2g})."
            )
    if one.acceptable is not None:
        lines.append(f"{name}: {_share(one.acceptable)} acceptable, decided by {' and '.join(one.judged_by)} only.")
    elif one.texts:
        lines.append(f"{name}: acceptability was not measured; name a judge in the suite to measure it.")
    if one.unjudged:
        judged = one.acceptable.of if one.acceptable is not None else 0
        good = round(one.acceptable.value * judged) if one.acceptable is not None else 0
        worst = _share(share(good, judged + one.unjudged))
        lines.append(
            f"{name}: {one.unjudged} answers have no verdict of the judge; {worst} acceptable if they count against it."
        )
    if one.unsure:
        lines.append(f"{name}: {one.unsure} answers apologize and then continue, so their wording decides nothing.")
    shares = {"refused": one.refused, "in the language of the question": one.in_language}
    shares |= {f"passed `{check}`": one_share for check, one_share in one.checks.items()}
    return lines + [
        f"{name}: {_share(one_share)} {figure}." for figure, one_share in shares.items() if one_share is not None
    ]


def _share(one: Estimate | None) -> str:
    return "–" if one is None else f"{one.value:.1%} ({one.low:.1%} to {one.high:.1%}, {one.of})"


ANSWERING_DEPLOYMENT = "who answered"
"""The name of the other candidate of each pair: the deployment that answered the client."""
_AXIS = "shadow pairs"
_Pair = tuple[Item, RecordedAnswer, RecordedAnswer]


def _comparable(recorded: Iterable[Recorded]) -> dict[str, list[_Pair]]:
    """Return the comparable pairs by shadow deployment: the question, its answer, and the client's answer."""
    pairs: dict[str, list[_Pair]] = defaultdict(list)
    for number, record, answer in texts_of(recorded):
        texts = answer.text, record.beside_answer or ""
        is_whole = answer.finish == "stop" and len(answer.text) == record.answer_characters
        if is_whole and not answer.calls and all(0 < len(text) <= MAX_QUOTED_CHARACTERS for text in texts):
            # The last part of a long conversation is the question.
            item = Item(str(number), "pair", "", (record.prompt or "")[-MAX_QUOTED_CHARACTERS:])
            pairs[record.deployment].append((item, answer, RecordedAnswer(texts[1])))
    return pairs


def count_pair_questions(suite: Suite, recorded: Iterable[Recorded]) -> int:
    """Return the number of questions to the judge about pairs."""
    most = suite.file.judge.pairs if suite.file.judge is not None else 0
    return sum(2 * min(most, len(pairs)) for pairs in _comparable(recorded).values()) if most else 0


def store_pair_questions(suite: Suite, recorded: Iterable[Recorded], store: RunStore) -> Mapping[str, Questions]:
    """Store the answers of the pairs, and return the questions by the axis name of their verdicts."""
    most = suite.file.judge.pairs if suite.file.judge is not None else 0
    asked: dict[str, Questions] = {}
    for name, pairs in _comparable(recorded).items() if most else ():
        for item, own, other in pairs:
            store.add(name, _AXIS, item.id, QuestionResult(Timing(0.0), own))
            store.add(ANSWERING_DEPLOYMENT, _AXIS, item.id, QuestionResult(Timing(0.0), other))
        items = tuple(item for item, _, _ in pairs)
        asked[pair_axis(name, ANSWERING_DEPLOYMENT)] = pair_questions(
            store, name, ANSWERING_DEPLOYMENT, _AXIS, items, most, suite.file.seed
        )
    return asked


def judged_pairs(store: RunStore, judge: str, shadows: Sequence[str]) -> list[JudgedPair]:
    """Return the judge's verdicts on the pairs of each shadow."""
    return pairs_of(store, judge, (*shadows, ANSWERING_DEPLOYMENT))


def describe_pair(pair: JudgedPair) -> str:
    """Return the result as sentences."""
    of = pair.won + pair.lost + pair.tied + pair.swayed
    finding = "no measurable difference, " if pair.p >= _ALPHA else ""
    return (
        f"{pair.first}: of {of} pairs, the judge preferred the shadow in {pair.won} and the deployment that answered "
        f"the client in {pair.lost} ({finding}p = {pair.p:.2g}); it had no preference in {pair.tied}, and the order "
        f"swayed it in {pair.swayed}."
    )
