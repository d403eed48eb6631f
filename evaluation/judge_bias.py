"""Measure what may bias a judge: the length of answers, the vendor of a candidate, and the distance to people's marks.

Judges tend to prefer long answers and answers of their own family. So the report has the length of the answers, how
often the judge preferred the longer of two, and, if people marked answers, how the judge's scores differ from marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from evaluation.human_marks import GOOD_MARK, HIGHEST, Marks, mark_of
from evaluation.items import Item, JudgeCheck
from evaluation.judge import JudgedPair, preferences_of
from evaluation.performance import Verdicts
from evaluation.run_store import RunStore
from evaluation.statistics import Estimate, corrected, share, sign_test, t_mean
from evaluation.text_rules import words_of
from gateway.model.deployment import Deployment
from providers.adapter import known_models

# Two answers are of similar length if the longer one has at most this many times the words of the other.
_SIMILAR_RATIO = 1.25
_ALPHA = 0.05

# The vendor of a model by its name, because many providers host models of several vendors.
_VENDORS = {
    "Alibaba": r"qwen|qwq|tongyi",
    "Anthropic": r"claude",
    "Baidu": r"ernie|wenxin",
    "ByteDance": r"doubao|\bseed\b",
    "Cohere": r"\bcommand\b|\baya\b",
    "DeepSeek": r"deepseek",
    "Google": r"gemini|gemma",
    "Huawei": r"pangu",
    "Meta": r"llama",
    "Microsoft": r"\bphi\b",
    "MiniMax": r"minimax|abab",
    "Mistral": r"mistral|mixtral|magistral|codestral|ministral",
    "Moonshot": r"kimi|moonshot",
    "OpenAI": r"gpt|\bo[1-9]\b|openai",
    "Tencent": r"hunyuan",
    "xAI": r"grok",
    "Zhipu": r"\bglm|chatglm|zhipu",
}


@dataclass(frozen=True, slots=True)
class LengthPreference:
    """How often the judge preferred the longer of two answers to the same question.

    Attributes:
        by: The source of the preference: the comparison of a "pair" of answers, or the "scores" of both.
        longer: The share of decisions for the longer answer.
        p: The corrected p value of no preference by length.
        similar: The share of decisions for the first candidate among answers of similar length.
    """

    first: str
    second: str
    by: str
    longer: Estimate | None
    p: float
    similar: Estimate | None

    @property
    def is_measurable(self) -> bool:
        """Whether the judge measurably prefers the longer answers."""
        return self.longer is not None and self.longer.value > 1 / 2 and self.p < _ALPHA


@dataclass(frozen=True, slots=True)
class Calibration:
    """The judge's scores of one candidate, compared with people's marks of the same answers, on the scale of marks.

    Attributes:
        higher_by: The mean of score minus mark. It is above 0 if the judge is milder than people.
        agrees: The share of answers that both find good (4 or 5) or both find not good.
        corrected: The candidate's mean mark, estimated from all scores and corrected by `higher_by`.
    """

    higher_by: Estimate | None
    agrees: Estimate | None
    corrected: Estimate | None


@dataclass(frozen=True, slots=True)
class JudgeBias:
    """Measures of the judge's bias. `lengths` are the mean words of each candidate's answers to performance items."""

    lengths: dict[str, Estimate] = field(default_factory=dict)
    preferences: tuple[LengthPreference, ...] = ()
    vendors: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)


def vendor_of(deployment: Deployment) -> str | None:
    """Return the vendor of the deployment's model, or None if it is unknown.

    For a model whose name states no vendor, it is the vendor of all models that the catalogue knows of the provider.
    """
    named = _vendor_by_name(deployment.model)
    if named is not None:
        return named
    vendors = {_vendor_by_name(model) for model in known_models(deployment.adapter)}
    return vendors.pop() if len(vendors) == 1 else None


def _vendor_by_name(model: str) -> str | None:
    words = re.sub(r"[._:/*-]+", " ", model.lower())
    return next((vendor for vendor, pattern in _VENDORS.items() if re.search(pattern, words)), None)


def measure_bias(
    store: RunStore,
    axis: str,
    items: Sequence[Item],
    candidates: Sequence[Deployment],
    judge: Deployment | None,
    verdicts: Mapping[str, Verdicts],
    marks: Marks | None,
) -> JudgeBias:
    """Measure the lengths of the answers, and what may bias the judge.

    `verdicts` are the judge's scores by candidate and item, and `marks` those that people gave.
    """
    names = [one.name for one in candidates]
    words = _words(store, names, axis, {item.id for item in items})
    means = {name: t_mean(list(counts.values())) for name, counts in words.items()}
    lengths = {name: one for name, one in means.items() if one is not None}
    if judge is None:
        return JudgeBias(lengths)
    judged = {item.id for item in items if isinstance(item.check, JudgeCheck)}
    scores = {
        name: {item: one.value for item, one in verdicts.get(name, {}).items() if item in judged} for name in names
    }
    vendor = vendor_of(judge)
    return JudgeBias(
        lengths,
        tuple(
            corrected(
                [one for pair in combinations(names, 2) for one in _preferences(store, judge.name, pair, words, scores)]
            )
        ),
        {one.name: vendor for one in candidates if vendor is not None and vendor_of(one) == vendor},
        {name: one for name in names if (one := _calibrate(scores[name], (marks or {}).get(name, {}))) is not None},
    )


def _words(store: RunStore, names: Iterable[str], axis: str, known: set[str]) -> dict[str, dict[str, int]]:
    return {
        name: {
            row.item: len(words_of(row.answer.text))
            for row in store.rows(name, axis)
            if row.item in known and row.answer is not None and row.answer.text
        }
        for name in names
    }


def _preferences(
    store: RunStore,
    judge: str,
    pair: tuple[str, str],
    words: Mapping[str, Mapping[str, int]],
    scores: Mapping[str, Mapping[str, float]],
) -> Iterable[LengthPreference]:
    first, second = pair
    by_pairs = {item: 1 if is_first else -1 for item, is_first in preferences_of(store, judge, first, second).items()}
    by_scores = {item: scores[first][item] - scores[second][item] for item in scores[first] if item in scores[second]}
    for by, differences in (("pair", by_pairs), ("scores", by_scores)):
        decided = {item: one > 0 for item, one in differences.items() if one}
        lengths = {
            item: (words[first][item], words[second][item])
            for item in decided
            if item in words[first] and item in words[second]
        }
        unequal = {item: own > other for item, (own, other) in lengths.items() if own != other}
        longer = sum(decided[item] == is_longer for item, is_longer in unequal.items())
        similar = [decided[item] for item, both in lengths.items() if max(both) <= _SIMILAR_RATIO * min(both)]
        if lengths:
            p = sign_test(longer, len(unequal))
            counted = share(sum(similar), len(similar))
            yield LengthPreference(first, second, by, share(longer, len(unequal)), p, counted)


def _calibrate(scores: Mapping[str, float], marks: Mapping[str, int]) -> Calibration | None:
    both = [(mark_of(scores[item]), mark) for item, mark in marks.items() if item in scores]
    if not both:
        return None
    higher_by = t_mean([score - mark for score, mark in both])
    agrees = share(sum((score >= GOOD_MARK) == (mark >= GOOD_MARK) for score, mark in both), len(both))
    every = t_mean([mark_of(one) for one in scores.values()])
    return Calibration(higher_by, agrees, _prediction_powered(every, higher_by))


def _prediction_powered(every: Estimate | None, higher_by: Estimate | None) -> Estimate | None:
    """Return the mean of all scores, corrected by the difference that was measured on the marked answers.

    Both errors are treated as independent (prediction-powered inference, Angelopoulos et al. 2023).
    """
    if every is None or higher_by is None:
        return None
    value = every.value - higher_by.value
    half = ((every.high - every.value) ** 2 + (higher_by.high - higher_by.value) ** 2) ** 0.5
    return Estimate(value, value - half, value + half, higher_by.of)


def bias_notices(judge: str, bias: JudgeBias, pairs: Iterable[JudgedPair]) -> list[str]:
    """Return what a reader must know about the judge before its verdicts, as sentences."""
    notices = [
        f"The judge {judge} and {name} are models of the same vendor ({vendor}). Judges prefer answers of their own "
        "family: name a judge of another vendor, or have people mark answers."
        for name, vendor in bias.vendors.items()
    ]
    for one in (each for each in bias.preferences if each.is_measurable):
        assert one.longer is not None, "a measurable preference has a share"  # noqa: S101  # for mypy
        lengths = [
            f"{name} {bias.lengths[name].value:.0f} words" for name in (one.first, one.second) if name in bias.lengths
        ]
        verdicts = "scores" if one.by == "scores" else "choices between two answers"
        similar = "no answers of similar length were decided"
        if one.similar is not None:
            similar = (
                f"among answers of similar length it preferred {one.first} in {one.similar.value:.1%} "
                f"({one.similar.low:.1%} to {one.similar.high:.1%}) of {one.similar.of:,}"
            )
        notices.append(
            f"The judge {judge} preferred the longer answer in {one.longer.value:.1%} of {one.longer.of:,} {verdicts} "
            f"(p = {one.p:.2g}; mean lengths: {', '.join(lengths)}); {similar}. A preference for length "
            "and better quality look alike here: have people mark answers (--marks)."
        )
    notices += [
        f"On {one.higher_by.of:,} marked answers of {name}, the judge {judge} scores {abs(one.higher_by.value):.2f} of "
        f"{HIGHEST} points {'higher' if one.higher_by.value > 0 else 'lower'} than people."
        for name, one in bias.calibration.items()
        if one.higher_by is not None and (one.higher_by.low > 0 or one.higher_by.high < 0)
    ]
    if any(pair.p < _ALPHA for pair in pairs) and not bias.calibration:
        notices.append(f"The preferences of the judge {judge} are not checked against marks of people (--marks).")
    return notices
