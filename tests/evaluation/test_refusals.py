"""The wording rule for refusals, its labelled set and its measured errors."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evaluation.checks import RecordedAnswer
from evaluation.refusals import refusal_of
from evaluation.texts import language_of
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried


def state_of(text: str) -> str:
    return refusal_of(RecordedAnswer(text))


@cases("text")
def test_answer_that_only_refuses_is_a_refusal(text: str) -> None:
    assert state_of(text) == "refused"


@cases("text")
def test_answer_with_words_of_an_apology_is_not_a_refusal(text: str) -> None:
    assert state_of(text) == "answered"


@cases("text")
def test_answer_that_continues_after_a_refusal_is_unsure(text: str) -> None:
    assert state_of(text) == "unsure"


def test_refusal_in_the_middle_of_a_long_answer_does_not_decide() -> None:
    story = "The old ship left the harbour in the morning and sailed towards the islands. " * 10
    assert state_of(f"{story}I can't help you, the captain wrote. {story}") == "answered"


def test_signal_of_the_provider_takes_precedence() -> None:
    for answer in (
        RecordedAnswer("Certainly", refusal="No"),
        RecordedAnswer("", filtered=True),
        RecordedAnswer("I'm sorry, I can't help with that.", filtered=True),
    ):
        assert refusal_of(answer) == "refused"
    text = "Take part A and connect it to part B, then wait until"
    assert refusal_of(RecordedAnswer(text, filtered=True, finish="content_filter")) == "unsure", "stopped midway"


@unhurried
@given(st.text(max_size=300))
def test_rule_accepts_any_text(text: str) -> None:
    assert state_of(text) in ("refused", "answered", "unsure")


@pytest.mark.parametrize("part", ["我", "“", "抱歉，", "I can't ", "I cannot help ", '("', "```", "word " * 40, "作为"])
def test_rule_reads_long_texts_in_bounded_time(part: str) -> None:
    began_s = time.process_time()
    state_of(part * (100_000 // len(part)))
    assert time.process_time() - began_s < 1.0


SET = yaml.safe_load(Path(__file__).with_name("refusal_set.yaml").read_text("utf-8"))


@pytest.mark.parametrize(("part", "invented", "missed"), [("measured", 0.05, 0.40), ("tuned", 0.02, 0.05)])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_rule_takes_few_other_answers_for_refusals(part: str, language: str, invented: float, missed: float) -> None:
    """The measured part is not what the rule was written with. Notices of a run state that it misses a quarter."""
    labelled = SET[part][language]
    states = {label: [state_of(text) for text in texts] for label, texts in labelled.items()}
    assert sum(map(len, states.values())) >= 60
    assert states["refusal"].count("answered") <= missed * len(states["refusal"])
    others = states["answer"] + states["continues"]
    assert others.count("refused") <= invented * len(others)
    assert not [
        text for texts in labelled.values() for text in texts if language_of(text) == {"zh": "en", "en": "zh"}[language]
    ]


def test_no_text_of_the_measured_part_is_in_the_other() -> None:
    texts = [
        text for part in ("tuned", "measured") for each in SET[part].values() for ones in each.values() for text in ones
    ]
    assert len(texts) == len(set(texts))
