"""Test the decisions of an adapter: through its simulator, and against any bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.conformance.subject import Subject
from providers.conformance.test_inputs import needed, target_of, thorough
from providers.failures import FailureKind, ProviderFailed
from providers.inputs.decisions.values import DecisionAnswer, DecisionQuestion, DecisionRequest, DecisionResult, Option
from providers.json_values import dumps, loads
from providers.testkit.simulator import RequestRejected
from providers.value import replace
from providers.wire import WireResponse

_MODELS = ("some-decision-model", "gpt-6-luna", "gemini-decision-1", "decision-model-preview")
PREDICATE = DecisionQuestion("predicate", "Is it one?", name="named-0Qx")
CHOICE = DecisionQuestion(
    "choice", "Which one?", (Option("one", "the first"), Option(True), Option("zwei \N{SNOWMAN}"))
)
SCORE = DecisionQuestion("score", "How much?", (Option("none"), Option("some", "a little"), Option("all")))


class Deciding:
    """The decisions of a subject, by a model that its wire format accepts. Without any, the test is skipped."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.form = subject, needed(subject, "decisions")
        self.target = target_of(subject, next(model for model in _MODELS if self.form.accepts(model)))
        self.facts: Any = self.form.facts(self.target.model)

    def respond(self, *questions: DecisionQuestion, text: str = "one \N{SNOWMAN}") -> WireResponse:
        """Return the answer of the simulator."""
        wire = self.form.build_request(DecisionRequest("assistant", text, questions), self.target)
        assert b"0Qx" not in wire.body, "names of questions must not be sent"
        answers = getattr(self.subject.simulator, "answer_decisions", None)
        assert answers is not None, "add `answer_decisions` to the simulator"
        found: WireResponse | None = answers(self.subject.incoming(wire))
        assert found is not None, f"the simulator does not know the path {wire.path}"
        return found

    def read(self, response: WireResponse, *questions: DecisionQuestion) -> tuple[DecisionAnswer, ...]:
        """Return an answer as the adapter reads it, after the comparison with its questions."""
        sent = self.form.parse_response(response, self.target)
        result: DecisionResult = DecisionRequest("assistant", "one", questions).checked(sent, self.facts)
        return result.decisions

    def expect_malformed(self, response: WireResponse, *questions: DecisionQuestion) -> None:
        """Check that an answer is not one to these questions."""
        with pytest.raises(ProviderFailed) as caught:
            self.read(response, *questions)
        kind = caught.value.failure.kind
        assert kind is FailureKind.MALFORMED, "raise `malformed` for an answer that does not fit the questions"


@pytest.fixture
def deciding(subject: Subject) -> Deciding:
    return Deciding(subject)


def test_each_kind_is_answered_by_position(deciding: Deciding) -> None:
    for question in (PREDICATE, CHOICE, SCORE):
        (decision,) = deciding.read(deciding.respond(question), question)
        assert decision.kind == question.kind, "an answer must be of the kind of its question"
    _, choice, score = deciding.read(deciding.respond(PREDICATE, CHOICE, SCORE), PREDICATE, CHOICE, SCORE)
    assert choice.chosen == max(range(3), key=choice.probabilities.__getitem__), "keep the order of the options"
    assert score.score == pytest.approx(score.probabilities[1] + 2 * score.probabilities[2]), "count levels from 0"
    stated = deciding.read(deciding.respond(PREDICATE, text="simulated-p-0.37"), PREDICATE)
    assert stated == (DecisionAnswer("predicate", 0.37),), "numbers must arrive as the provider sent them"


def test_most_questions_are_answered_and_one_more_is_refused(deciding: Deciding) -> None:
    most = (PREDICATE,) * deciding.facts.most_questions
    found = deciding.read(deciding.respond(*most), *most)
    assert len(found) == len(most), "answer as many questions as the facts state"
    with pytest.raises(RequestRejected):
        deciding.respond(*most, PREDICATE)


def test_options_of_one_text_and_two_types_are_distinct_or_lacking(deciding: Deciding) -> None:
    question = replace(CHOICE, options=(Option(True), Option("true")))
    limits = DecisionRequest("assistant", "one", (question,)).needs().limits
    if all(deciding.facts.fits(feature, size) for feature, size in limits):
        (decision,) = deciding.read(deciding.respond(question), question)
        assert len({*decision.probabilities}) == 2, "a boolean and a text must stay distinct"


def test_refusal_is_an_answer(deciding: Deciding) -> None:
    asked = PREDICATE, replace(PREDICATE, instructions="simulated-refusal")
    one, every = deciding.respond(*asked), deciding.respond(*asked, text="simulated-refusal")
    assert [it.kind for it in deciding.read(one, *asked)] == ["predicate", "refusal"], "keep the other answers"
    assert [it.kind for it in deciding.read(every, *asked)] == ["refusal", "refusal"], "refuse each question"


def test_answer_to_other_questions_is_a_failure(deciding: Deciding) -> None:
    response = deciding.respond(PREDICATE, CHOICE)
    for asked in ((PREDICATE,), (PREDICATE, CHOICE, SCORE), (CHOICE, PREDICATE), (PREDICATE, SCORE)):
        deciding.expect_malformed(response, *asked)


def test_probabilities_that_do_not_add_up_are_a_failure(deciding: Deciding) -> None:
    response = deciding.respond(CHOICE)
    for factor in (0.5, 1.5, -1):
        deciding.expect_malformed(replace(response, body=dumps(_scaled(loads(response.body), factor))), CHOICE)


def _scaled(value: object, factor: float) -> object:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        scaled = {name: _scaled(item, factor) for name, item in items}
        return scaled if isinstance(value, dict) else [*scaled.values()]
    return value * factor if isinstance(value, float) else value


@given(body=st.binary(max_size=300))
@thorough
def test_any_bytes_are_no_answer(subject: Subject, body: bytes) -> None:
    Deciding(subject).expect_malformed(WireResponse(200, {"content-type": "application/json"}, body, 0), PREDICATE)
