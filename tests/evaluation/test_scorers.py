"""Scorers and rules in five languages, with right, wrong and arbitrary texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.items import (
    Check,
    ChoiceCheck,
    Exact,
    JudgeCheck,
    Number,
    Pattern,
    RecordedAnswer,
    Same,
    Schema,
    TextRule,
    TextRules,
    ToolCallCheck,
)
from evaluation.scorers import letter_of, score
from evaluation.text_rules import (
    RULES,
    UnknownRule,
    bare,
    broken_rule,
    check_rule,
    language_of,
    numbers_in,
    sentences_of,
    words_of,
)
from providers.chat import ToolCall
from tests.kit.chat_strategies import unhurried

SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
WEATHER = ToolCallCheck("get_weather", {"city": ["上海", "Shanghai"], "day": 3})


def call(name: str, arguments: str) -> RecordedAnswer:
    return RecordedAnswer("", (ToolCall("1", name, arguments),), finish="tool_calls")


RIGHT: list[tuple[Check, RecordedAnswer]] = [
    (Exact(("110",)), RecordedAnswer(" 110\n")),
    (Same(("曹雪芹",)), RecordedAnswer("曹雪芹。")),
    (Same(("Indian Ocean",)), RecordedAnswer("It is the **Indian Ocean**.")),
    (Same(("Cafe",)), RecordedAnswer("ＣＡＦＥ")),
    (ChoiceCheck("B", 4), RecordedAnswer("B")),
    (ChoiceCheck("B", 4), RecordedAnswer("(b)")),
    (ChoiceCheck("B", 4), RecordedAnswer("答案是B")),
    (ChoiceCheck("B", 4), RecordedAnswer("B. 长江")),
    (ChoiceCheck("B", 4), RecordedAnswer("正确答案：B。因为A不对。")),
    (ChoiceCheck("C", 4), RecordedAnswer("Not A and not B. The answer is C.")),
    (ChoiceCheck("C", 4), RecordedAnswer("\\boxed{C}")),
    (ChoiceCheck("D", 4), RecordedAnswer("Die richtige Antwort lautet D")),
    (ChoiceCheck("A", 4), RecordedAnswer("正解はAです")),
    (ChoiceCheck("A", 4), RecordedAnswer("정답은 A 입니다")),
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
    (ToolCallCheck(None), RecordedAnswer("Two.")),
    (TextRules((TextRule("words", {"most": 3}), TextRule("no_comma"))), RecordedAnswer("one two three")),
]
WRONG: list[tuple[Check, RecordedAnswer, str]] = [
    (Exact(("110",)), RecordedAnswer("The number is 110"), "is not '110'"),
    (Same(("Ottawa",)), RecordedAnswer("Toronto"), "is not 'Ottawa'"),
    (Same(("Iron",)), RecordedAnswer("environment"), "is not 'Iron'"),
    (
        Same(("Mars",)),
        RecordedAnswer("Mars or Venus or Jupiter or Saturn or Uranus, I cannot tell which of them it is"),
        "is not",
    ),
    (ChoiceCheck("B", 4), RecordedAnswer("A or B"), "chose no letter"),
    (ChoiceCheck("B", 4), RecordedAnswer("The answer is C."), "chose C, not B"),
    (ChoiceCheck("B", 4), RecordedAnswer(""), "has no text"),
    (ChoiceCheck("B", 4), RecordedAnswer("B", refusal="no"), "the provider refused"),
    (Number(12), RecordedAnswer("120"), "gives 120, not 12"),
    (Number(12), RecordedAnswer("twelve"), "has no number"),
    (Schema(SCHEMA), RecordedAnswer('{"a": "1"}'), "does not match the schema at $.a: type"),
    (Schema(SCHEMA), RecordedAnswer("no"), "is not valid JSON"),
    (WEATHER, RecordedAnswer("It rains."), "called no tool"),
    (WEATHER, call("send", "{}"), "called send"),
    (WEATHER, call("get_weather", '{"city": "Bonn", "day": 3}'), "'city' is not"),
    (WEATHER, call("get_weather", '{"city": "上海"}'), "lacks 'day'"),
    (WEATHER, call("get_weather", '{"city": "上海", "day": 3, "x": 1}'), "more arguments than wanted: x"),
    (WEATHER, call("get_weather", "{"), "are not valid JSON"),
    (WEATHER, call("get_weather", "[]"), "are not an object"),
    (WEATHER, call("get_weather", '{"city": "上海", "day": true}'), "'day' is not"),
    (ToolCallCheck("f", {"x": 1.5}), call("f", f'{{"x": {"9" * 400}}}'), "'x' is not"),
    (Schema({"multipleOf": 0.5}), RecordedAnswer("9" * 400), "too large for the schema check"),
    (
        Schema({"properties": {"a": {"$ref": "#"}}}),
        RecordedAnswer('{"a":' * 900 + "1" + "}" * 900),
        "is nested too deeply",
    ),
    (Schema({"$ref": "#/$defs/none"}), RecordedAnswer("1"), "refers to '/$defs/none'"),
    (Schema({"$ref": "http://127.0.0.1:1/x"}), RecordedAnswer("1"), "refers to 'http://127.0.0.1:1/x'"),
    (ToolCallCheck(None), call("get_weather", "{}"), "but must not call a tool"),
    (TextRules((TextRule("words", {"most": 2}),)), RecordedAnswer("one two three"), "words (most 2) is not followed"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT, ids=lambda value: getattr(value, "text", None))
def test_right_answers_score_one(check: Check, answer: RecordedAnswer) -> None:
    scored = score(check, answer)
    assert scored is not None
    assert scored.is_right, scored.why


@pytest.mark.parametrize(("check", "answer", "why"), WRONG)
def test_wrong_answers_score_zero_with_a_reason(check: Check, answer: RecordedAnswer, why: str) -> None:
    scored = score(check, answer)
    assert scored is not None
    assert scored.value == 0
    assert why in scored.why


def test_rubric_is_scored_only_by_the_judge() -> None:
    assert score(JudgeCheck("polite"), RecordedAnswer("yes")) is None


@unhurried
@given(st.text(max_size=300))
def test_scorers_accept_any_text(text: str) -> None:
    for check in (Exact(("a",)), Same(("a",)), ChoiceCheck("A", 4), Number(1), Pattern("a+"), Schema(SCHEMA), WEATHER):
        scored = score(check, RecordedAnswer(text, (ToolCall("1", "get_weather", text),)))
        assert scored is not None
        assert scored.value in (0, 1)
    assert letter_of(text, 4) in (None, "A", "B", "C", "D")
    language_of(text)


GIVEN: dict[str, dict[str, object]] = {
    "first_word": {"first": "x"},
    "sections": {"text": "Part"},
    "starts_with": {"text": "x"},
    "ends_with": {"text": "x"},
    "contains": {"words": ["x", "语"]},
    "lacks": {"words": ["x", "语"]},
    "repeats": {"text": "x", "least": 1},
    "letters": {"letter": "x", "least": 1},
    "postscript": {"text": "P.S."},
    "one_of": {"choices": ["x"]},
    "language": {"code": "en"},
    "script": {"script": "zh"},
}


@unhurried
@given(st.text(max_size=200), st.sampled_from(sorted(RULES)))
def test_rules_accept_any_text(text: str, name: str) -> None:
    rule = check_rule(TextRule(name, GIVEN.get(name, {})))
    assert broken_rule([rule], text) is None or name.replace("_", " ") in (broken_rule([rule], text) or "")


@pytest.mark.parametrize(
    ("name", "given_to", "kept", "broken"),
    [
        ("words", {"least": 2, "most": 3}, "two words", "one"),
        ("words", {"most": 4}, "我很好吗", "我很好吗？是的"),
        ("characters", {"most": 4}, "四个汉 字", "五个汉字了"),
        ("sentences", {"least": 2, "most": 2}, "One. Two!", "One."),
        ("sentences", {"most": 1}, "一句。", "一句。两句。"),
        ("paragraphs", {"least": 2, "most": 2, "between": "***"}, "a\n***\nb", "a\n\nb"),
        ("first_word", {"least": 2, "most": 2, "nth": 2, "first": "Then"}, "a\n\nthen b", "a\n\nb"),
        ("lines", {"most": 1}, "a\n", "a\nb"),
        ("bullets", {"least": 2, "most": 2}, "- a\n* b", "- a"),
        ("highlights", {"least": 1}, "a *b* c", "a b c"),
        ("placeholders", {"least": 1}, "Dear [name]", "Dear name"),
        ("sections", {"text": "Part", "least": 2}, "Part 1\nx\nPart 2\ny", "Part 1\nx"),
        ("title", {}, "<<A title>>\ntext", "A title"),
        ("json", {}, '```json\n{"a": 1}\n```', "{a}"),
        ("starts_with", {"text": "So"}, "So it is", "It is so"),
        ("ends_with", {"text": "！"}, "好！", "好。"),
        ("quoted", {}, '"all of it"', 'some "of it"'),
        ("contains", {"words": ["spring", "春"]}, "Spring 春天", "springtime 春"),
        ("lacks", {"words": ["rail"]}, "railway", "by rail."),
        ("repeats", {"text": "go", "least": 2}, "go, Go", "go gopher"),
        ("letters", {"letter": "a", "most": 1}, "Apple", "banana"),
        ("capital_words", {"least": 1}, "this is SURE", "this is Sure"),
        ("capitals", {}, "ALL OF IT", "All of it"),
        ("small_letters", {}, "all of it", "All"),
        ("no_comma", {}, "一二三", "一，二"),
        ("postscript", {"text": "P.S."}, "x\np.s. y", "x"),
        ("one_of", {"choices": ["yes", "no"]}, "My answer is yes.", "perhaps"),
        ("language", {"code": "de"}, "Das ist nicht die Frage.", "That is not the question."),
        ("script", {"script": "ja"}, "海は広いです", "the sea"),
        ("two_answers", {}, "a\n******\nb", "a\n******\na"),
    ],
)
def test_each_rule_accepts_and_rejects_its_examples(
    name: str, given_to: dict[str, object], kept: str, broken: str
) -> None:
    rule = check_rule(TextRule(name, given_to))
    assert broken_rule([rule], kept) is None
    assert broken_rule([rule], broken) is not None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (TextRule("wrds"), "there is no rule 'wrds'"),
        (TextRule("words", {"more": 1}), "has no argument 'more'"),
        (TextRule("words", {"most": "3"}), "can't be '3'"),
        (TextRule("contains"), "needs words"),
    ],
)
def test_invalid_rule_is_rejected_when_read(rule: TextRule, message: str) -> None:
    with pytest.raises(UnknownRule, match=message):
        check_rule(rule)


def test_every_rule_has_examples() -> None:
    marks = test_each_rule_accepts_and_rejects_its_examples.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in marks[0].args[1]} == set(RULES)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你好，今天天气怎么样？", "zh"),
        ("今日はとても暑いです。", "ja"),
        ("오늘은 날씨가 좋습니다.", "ko"),
        ("The weather is fine and it is warm.", "en"),
        ("Das Wetter ist schön und es ist warm.", "de"),
        ("Погода хорошая", "ru"),
        ("12345", None),
        ("", None),
    ],
)
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
