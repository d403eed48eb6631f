"""Scorers and rules in five languages, with right, wrong and arbitrary texts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.checks import (
    AnswerCheck,
    Call,
    Exact,
    Letter,
    Number,
    Pattern,
    RecordedAnswer,
    Rubric,
    Same,
    Schema,
    check_of,
    letter_of,
)
from evaluation.suite import CheckSection
from evaluation.texts import bare, language_of, numbers_in, sentences_of, words_of
from providers.chat import ToolCall
from tests.kit.case_files import cases, tables_of
from tests.kit.chat_strategies import unhurried

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
WEATHER = Call("get_weather", {"city": ["上海", "Shanghai"], "day": 3})


def call(name: str, arguments: str) -> RecordedAnswer:
    return RecordedAnswer("", (ToolCall("1", name, arguments),), finish="tool_calls")


def rules(*given: dict) -> AnswerCheck:
    return check_of(CheckSection(rules=list(given)), {})


RIGHT: list[tuple[AnswerCheck, RecordedAnswer]] = [
    (Exact(("110",)), RecordedAnswer(" 110\n")),
    (Same(("曹雪芹",)), RecordedAnswer("曹雪芹。")),
    (Same(("Indian Ocean",)), RecordedAnswer("It is the **Indian Ocean**.")),
    (Same(("Cafe",)), RecordedAnswer("ＣＡＦＥ")),
    (Letter("B", 4), RecordedAnswer("B")),
    (Letter("B", 4), RecordedAnswer("(b)")),
    (Letter("B", 4), RecordedAnswer("答案是B")),
    (Letter("B", 4), RecordedAnswer("B. 长江")),
    (Letter("B", 4), RecordedAnswer("正确答案：B。因为A不对。")),
    (Letter("C", 4), RecordedAnswer("Not A and not B. The answer is C.")),
    (Letter("C", 4), RecordedAnswer("\\boxed{C}")),
    (Letter("D", 4), RecordedAnswer("Die richtige Antwort lautet D")),
    (Letter("A", 4), RecordedAnswer("正解はAです")),
    (Letter("A", 4), RecordedAnswer("정답은 A 입니다")),
    (Number(1234.5), RecordedAnswer("Das macht 1.234,50 €")),
    (Number(1234.5), RecordedAnswer("= $1,234.50")),
    (Number(-7), RecordedAnswer("The result is −7")),
    (Number(47), RecordedAnswer("47")),
    (Number(3.3, 0.05), RecordedAnswer("約3.31平方メートル")),
    (Number(1200), RecordedAnswer("1 200")),
    (Pattern(r"0?5\.\s?0?3\.\s?2026"), RecordedAnswer("05.03.2026")),
    (Schema(SCHEMA), RecordedAnswer('{"a": 1}')),
    (Schema(SCHEMA), RecordedAnswer('```json\n{"a": 1}\n```')),
    (WEATHER, call("get_weather", '{"city": "shanghai", "day": 3}')),
    (Call(None, {}), RecordedAnswer("Two.")),
    (rules({"rule": "words", "most": 3}, {"rule": "no_comma"}), RecordedAnswer("one two three")),
]
WRONG: list[tuple[AnswerCheck, RecordedAnswer, str]] = [
    (Exact(("110",)), RecordedAnswer("The number is 110"), "is not '110'"),
    (Same(("Ottawa",)), RecordedAnswer("Toronto"), "is not 'Ottawa'"),
    (Same(("Iron",)), RecordedAnswer("environment"), "is not 'Iron'"),
    (
        Same(("Mars",)),
        RecordedAnswer("Mars or Venus or Jupiter or Saturn or Uranus, I cannot tell which of them it is"),
        "is not",
    ),
    (Letter("B", 4), RecordedAnswer("A or B"), "chose no letter"),
    (Letter("B", 4), RecordedAnswer("The answer is C."), "chose C, not B"),
    (Letter("B", 4), RecordedAnswer(""), "has no text"),
    (Letter("B", 4), RecordedAnswer("B", refusal="no"), "the provider refused"),
    (Number(12), RecordedAnswer("120"), "gives 120, not 12"),
    (Number(12), RecordedAnswer("twelve"), "has no number"),
    (Schema(SCHEMA), RecordedAnswer('{"a": "1"}'), "does not match the schema at $.a: type"),
    (Schema(SCHEMA), RecordedAnswer("no"), "is not valid JSON"),
    (WEATHER, RecordedAnswer("It rains."), "called no tool"),
    (WEATHER, call("send", "{}"), "called send"),
    (WEATHER, call("get_weather", '{"city": "Bonn", "day": 3}'), "'city' is not"),
    (WEATHER, call("get_weather", '{"city": "上海"}'), "'day' is missing"),
    (WEATHER, call("get_weather", '{"city": "上海", "day": 3, "x": 1}'), "more arguments than wanted: x"),
    (WEATHER, call("get_weather", "{"), "are not valid JSON"),
    (WEATHER, call("get_weather", "[]"), "are not an object"),
    (WEATHER, call("get_weather", '{"city": "上海", "day": true}'), "'day' is not"),
    (Call("f", {"x": 1.5}), call("f", f'{{"x": {"9" * 400}}}'), "'x' is not"),
    (Schema({"multipleOf": 0.5}), RecordedAnswer("9" * 400), "a number that is too large"),
    (
        Schema({"properties": {"a": {"$ref": "#"}}}),
        RecordedAnswer('{"a":' * 900 + "1" + "}" * 900),
        "is nested too deeply",
    ),
    (Schema({"$ref": "#/$defs/none"}), RecordedAnswer("1"), "refers to '/$defs/none'"),
    (Schema({"$ref": "http://127.0.0.1:1/x"}), RecordedAnswer("1"), "refers to 'http://127.0.0.1:1/x'"),
    (Call(None, {}), call("get_weather", "{}"), "but must not call a tool"),
    (rules({"rule": "words", "most": 2}), RecordedAnswer("one two three"), "words (most 2) is not followed"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda value: getattr(value, "text", None))
def test_right_answers_pass(check: AnswerCheck, answer: RecordedAnswer) -> None:
    assert check.wrong(answer) is None


@pytest.mark.parametrize(("check", "answer", "why"), WRONG)
def test_wrong_answers_fail_with_a_reason(check: AnswerCheck, answer: RecordedAnswer, why: str) -> None:
    assert why in (check.wrong(answer) or "")


@unhurried
@given(st.text(max_size=300))
def test_checks_accept_any_text(text: str) -> None:
    for check in (
        Exact(("a",)),
        Same(("a",)),
        Letter("A", 4),
        Number(1),
        Pattern("a+"),
        Schema(SCHEMA),
        WEATHER,
        *EVERY,
    ):
        check.wrong(RecordedAnswer(text, (ToolCall("1", "get_weather", text),)))  # type: ignore[attr-defined]
    assert letter_of(text, 4) in (None, "A", "B", "C", "D")
    language_of(text)


_TABLES = tables_of(__file__)
RULES = msgspec.convert(_TABLES["rules"], list[tuple[dict, str, str]])
EVERY = [rules(given) for given, _, _ in RULES]


@pytest.mark.parametrize(("given", "kept", "broken"), RULES)
def test_each_rule_accepts_and_rejects_its_examples(given: dict, kept: str, broken: str) -> None:
    assert rules(given).wrong(RecordedAnswer(kept)) is None
    assert "is not followed" in (rules(given).wrong(RecordedAnswer(broken)) or "")


@pytest.mark.parametrize(
    ("given", "message"),
    [({"rule": "wrds"}, "there is no rule 'wrds'"), ({"rule": "contains"}, "'contains' needs words")],
)
def test_invalid_rule_is_rejected_when_read(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules(given)


@cases("section", "message")
def test_invalid_check_is_rejected_when_read(section: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_of(CheckSection(**section), {})


def test_rubric_needs_an_answer_and_a_judge() -> None:
    assert Rubric("polite").wrong(RecordedAnswer("yes")) is None
    assert Rubric("polite").wrong(RecordedAnswer("")) == "has no text (it ended with 'stop')"


@cases("text", "language")
def test_language_is_detected(text: str, language: str | None) -> None:
    assert language_of(text) == language


@unhurried
@given(st.text(max_size=100))
def test_bare_is_idempotent(text: str) -> None:
    assert bare(bare(text)) == bare(text)


def test_words_sentences_and_numbers_are_counted() -> None:
    assert len(words_of("It's well-known: 我们 go")) == 5
    assert sentences_of("Dr. Who? Yes. 你好。") >= 3
    assert numbers_in("1,234 and 1.234,5 and 3,5 and 12.500 and ４２") == [1234, 1234.5, 3.5, 12500, 42]
