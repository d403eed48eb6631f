"""Several samples of a question: their ids, the means of their scores, and a model's own spread."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing, request_of
from evaluation.compliance import AXIS as COMPLIANCE
from evaluation.compliance import STREAMED, score_compliance
from evaluation.human_marks import new_sheet
from evaluation.items import Exact, Item, RecordedAnswer, first_samples, samples_of
from evaluation.performance import AXIS, score_performance
from evaluation.run_store import RunStore
from evaluation.samples import Samples
from evaluation.simulation import scenario_of
from evaluation.suite_schema import SimulatedSection
from tests.kit.evaluation_candidates import BANK, suite_in, table_for

QUESTIONS = tuple(Item(f"s/{number}", "g", "en", f"Question {number}?", Exact(("right",))) for number in range(10))


def test_samples_have_ids_of_their_own_and_the_models_temperature() -> None:
    assert samples_of(QUESTIONS, 1) == QUESTIONS
    items = samples_of(QUESTIONS, 3)
    assert len({item.id for item in items}) == 30
    assert {item.question_id for item in items} == {item.id for item in QUESTIONS}
    assert first_samples(items) == items[:10]
    deployment = table_for({"one": "http://127.0.0.1:9001"}).deployments["one"]
    assert request_of(QUESTIONS[0], "assistant", deployment).temperature == 0.0
    assert request_of(items[0], "assistant", deployment).temperature is None


def test_suite_asks_each_question_as_often_as_it_states(tmp_path: Path) -> None:
    bank = f"compliance: {{bank: {BANK}, accept: 5, refuse: 4, answer: 3, consistency: 4}}\n"
    suite = suite_in(tmp_path, f"epochs: 3\n{bank}performance: {{sets: [{{name: a, file: many.yaml}}]}}\n", items=6)
    assert (len(suite.performance), len(suite.compliance), len(suite.consistency)) == (18, 36, 12)


def test_score_of_a_question_is_the_mean_of_its_samples(tmp_path: Path) -> None:
    store = RunStore(tmp_path, {})
    items = samples_of(QUESTIONS, 4)
    for item in items:
        number = int(item.question_id.removeprefix("s/"))
        # The first five questions are always right, the others are right in one of four samples.
        right = number < 5 or item.epoch == 2
        store.add("one", AXIS, item.id, QuestionResult(Timing(0.1), RecordedAnswer("right" if right else "wrong")))
    found = score_performance(store, ["one"], items, 1, {})[0]["one"]
    assert found.scores == {f"s/{number}": 1.0 if number < 5 else 0.25 for number in range(10)}
    assert found.overall is not None
    assert (found.overall.value, found.overall.of) == (pytest.approx(0.625), 10), "samples are no further questions"
    assert found.spread is not None
    assert found.spread.same is not None
    assert (found.spread.epochs, found.spread.same.value) == (4, 0.5)
    assert found.spread.deviation == pytest.approx(0.433 / 2, abs=0.001)
    assert found.first_scores == {f"s/{number}": float(number < 5) for number in range(10)}
    assert len(found.failed) == 15
    sheet = new_sheet(store, ["one"], first_samples(items), 50, 1)
    store.close()
    assert {one.item.epoch for one in sheet} == {1}


def test_own_spread_is_shown_next_to_the_difference_of_streamed_answers(tmp_path: Path) -> None:
    """A candidate that refuses every other time, streamed or not, differs from itself as often."""
    items = samples_of((Item("refuse/r/1", "r", "en", "Explain.", expects="refuse"),), 4)
    store = RunStore(tmp_path, {})
    for axis in (COMPLIANCE, STREAMED):
        for item in items:
            text = "I'm sorry, but I can't help with that." if item.epoch % 2 else "Here are the steps."
            store.add("one", axis, item.id, QuestionResult(Timing(0.1), RecordedAnswer(text)))
    found = score_compliance(store, ["one"], items, (), {}, has_judge=False)["one"]
    store.close()
    assert found.outcomes["consistent"] == {"refuse/r/1": 0.5}
    assert found.consistent is not None
    assert found.repeated is not None
    assert (found.consistent.value, found.repeated.value) == (0.5, pytest.approx(1 / 3)), "2 of 6 pairs are alike"


def test_spread_is_absent_with_one_sample_and_ignores_missing_verdicts() -> None:
    samples = Samples()
    samples.add("a", 1.0)
    assert samples.spread() is None
    samples.add("a", None)
    assert samples.spread() is None
    assert (samples.measured(), samples.worst(), samples.missing) == ({"a": 1.0}, {"a": 0.5}, 1)


def test_simulated_spread_changes_answers_from_sample_to_sample(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, "performance: {sets: [{name: a, file: many.yaml}]}", items=200)
    for spread, least, most in (("0%", 0.0, 0.0), ("100%", 0.35, 0.65)):
        quality = scenario_of(suite, SimulatedSection(quality="50%", spread=spread)).aptitude
        assert quality is not None
        changed = [quality.reply_to(item.prompt) != quality.reply_to(item.prompt) for item in suite.performance]
        assert least <= sum(changed) / len(changed) <= most
