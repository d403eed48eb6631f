"""Score answers by rule, and detect refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import jsonschema
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from gateway.evaluate.items import (
    Check,
    ChoiceCheck,
    Exact,
    JudgeCheck,
    Number,
    Pattern,
    RecordedAnswer,
    Same,
    Schema,
    TextRules,
    ToolCallCheck,
)
from gateway.evaluate.text_rules import bare, broken_rule, numbers_in
from providers.json_values import JsonError, loads_text

RefusedBy = Literal["provider", "rule"]


_REFUSAL_CHARACTERS = 400


_SORRY = {
    "en": r"\b(?:i(?:'m| am)(?: really| very)? sorry|i apologi[sz]e|sorry,|unfortunately)",
    "de": r"\b(?:es tut mir(?: sehr)? leid|tut mir leid|leider|entschuldigung)",
}


_UNABLE = (
    r"\bi(?:'m| am)? (?:can ?not|can't|won't|will not|unable to|not able to|must decline|not comfortable|refuse to)\b",
    r"\bi(?:'m| am) (?:unable|not able) to (?:help|assist|provide|answer|discuss|comply)",
    r"\b(?:against|violates?) (?:my|our|the) (?:guidelines|policy|policies)\b",
    r"\b(?:ich|wir) (?:kann|können|darf|werde) (?:\w+ ){0,6}nicht\b",
    r"\b(?:kann|darf) ich (?:\w+ ){0,6}nicht\b",
    r"(?:抱歉|对不起|很遗憾)[，,。！!\s]*(?:我|这|作为|您|你|但|该|关于|让我们|换)",
    r"(?:我|本助手|作为.{0,12}?)(?:暂时|目前|们)?(?:无法|不能|不会|不便|没有办法|无权)(?:回答|提供|协助|帮助|讨论|满足|生成|继续|给出|就|对|为|参与|完成|处理|支持|评论)",
    r"(?:让我们|我们)换个话题|换一个话题|不在我的(?:服务|回答)范围",
    r"(?:申し訳(?:ありません|ございません)|すみません|恐れ入りますが).{0,60}?(?:できません|できかねます|お答え(?:は)?(?:でき|いたしかね)|お手伝いできま|控え)",
    r"(?:お答え|ご提供|お手伝い|回答|対応)(?:は|を)?(?:できません|できかねます|いたしかねます|お控え)",
    r"(?:죄송(?:합니다|하지만)|미안하지만).{0,60}?(?:없습니다|어렵습니다|않습니다|못합니다)",
    r"(?:답변|제공|도움|도와)(?:을|를|해)?\s?(?:드릴|드리기|할)\s?(?:수\s?없|어렵)",
)


_SORRY_AND_UNABLE = [
    re.compile(
        rf"(?:{_SORRY['en']}).{{0,80}}?\b(?:can ?not|can't|won't|unable|not able|not possible)\b", re.I | re.DOTALL
    ),
    re.compile(rf"(?:{_SORRY['de']}).{{0,80}}?\b(?:nicht|kein(?:e|en)?|unmöglich)\b", re.I | re.DOTALL),
]


_RULES = [*(re.compile(rule, re.IGNORECASE | re.DOTALL) for rule in _UNABLE), *_SORRY_AND_UNABLE]


def refused_by(answer: RecordedAnswer) -> RefusedBy | None:
    """Return what marks the answer as a refusal: the provider's signal or a rule; None if it is not a refusal."""
    if answer.filtered or answer.refusal:
        return "provider"
    beginning = answer.text.strip()[:_REFUSAL_CHARACTERS].replace("’", "'")
    return "rule" if any(rule.search(beginning) for rule in _RULES) else None


_MAX_SHOWN_CHARACTERS = 120


_MAX_SEARCHED_CHARACTERS = 20_000


_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)\n?```\s*$", re.DOTALL)


_STATED_CHOICE = re.compile(
    r"(?:answer|option|choice|antwort|lösung|option ist|答案|选项?|选择|正解|答え|정답|답)"
    r"[^A-Za-z0-9]{0,3}(?:is|are|ist|lautet|应为|为|是|は|は、|은|는|:|：)?[\s*（(「\"'：:]*([A-J])(?![A-Za-z])",
    re.IGNORECASE,
)


_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*([A-J])\s*\}?\s*\}")


_LEADING_LETTER = re.compile(r"^[\s*（(「\[\"']*([A-Ja-j])[*）)」\]\"']*(?:\s*$|\s*\n|[.:：、,)]\s)")


_LETTERS = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z'’])")


@dataclass(frozen=True, slots=True)
class Score:
    """The score of an answer, from 0 to 1, and the reason if it is not right."""

    value: float
    why: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the answer is completely right."""
        return self.value >= 1


_RIGHT = Score(1.0)


def score(check: Check, answer: RecordedAnswer) -> Score | None:
    """Return the score of an answer, or None if only a judge can score it."""
    if isinstance(check, JudgeCheck):
        return None
    wrong = _wrong(check, answer)
    return _RIGHT if wrong is None else Score(0.0, wrong)


def _wrong(
    check: Exact | Same | ChoiceCheck | Number | Pattern | Schema | TextRules | ToolCallCheck, answer: RecordedAnswer
) -> str | None:
    text = answer.text.strip()
    if not isinstance(check, ToolCallCheck):
        if answer.filtered or answer.refusal:
            return "the provider refused"
        if not text:
            return f"has no text (it ended with {answer.finish!r})"
    match check:
        case Exact(texts):
            return None if text in texts else f"is not {_any_of(texts)}"
        case Same(texts):
            return None if any(_same(text, one) for one in texts) else f"is not {_any_of(texts)}"
        case ChoiceCheck(letter, of):
            chosen = letter_of(text, of)
            return None if chosen == letter else f"chose {chosen or 'no letter'}, not {letter}"
        case Number(value, tolerance):
            numbers = numbers_in(text)
            if not numbers:
                return f"has no number; {value:g} is right"
            return None if abs(numbers[-1] - value) <= tolerance + 1e-9 else f"gives {numbers[-1]:g}, not {value:g}"
        case Pattern(expression):
            return None if re.search(expression, text[:_MAX_SEARCHED_CHARACTERS]) else f"does not match {expression}"
        case Schema(schema):
            return _schema_error(schema, text)
        case TextRules(rules):
            return broken_rule(rules, answer.text)
        case ToolCallCheck(name, arguments):
            return _wrong_call(name, arguments, answer)
        case _:
            assert_never(check)


def _same(text: str, wanted: str) -> bool:
    """Return whether the text is the wanted one, possibly with a few more words around it."""
    answer, expected = bare(text), bare(wanted)
    if answer == expected:
        return True
    if not expected.isascii():
        return expected in answer and len(answer) <= len(expected) + 20
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer) is not None and len(answer) <= len(expected) + 60


def letter_of(text: str, of: int) -> str | None:
    """Return the letter that an answer chooses: a stated choice, else a leading letter, else the only letter."""
    known = "ABCDEFGHIJ"[:of]
    for pattern in (_BOXED, _STATED_CHOICE):
        stated = [one.upper() for one in pattern.findall(text[:_MAX_SEARCHED_CHARACTERS]) if one.upper() in known]
        if stated:
            return str(stated[-1])
    if (leading := _LEADING_LETTER.match(text)) is not None and leading[1].upper() in known:
        return leading[1].upper()
    letters = {one for one in _LETTERS.findall(text[:_MAX_SEARCHED_CHARACTERS]) if one in known}
    return letters.pop() if len(letters) == 1 else None


def check_schema(schema: Mapping[str, object]) -> None:
    """Raise ValueError if the value is not a valid JSON Schema."""
    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is not valid: {error.json_path} {error.message}") from None


def _schema_error(schema: Mapping[str, object], text: str) -> str | None:
    fenced = _FENCE.match(text)
    try:
        value = loads_text(fenced[1] if fenced else text)
    except JsonError:
        return "is not valid JSON"
    # With the empty registry, nothing is fetched for a schema that refers to another one.
    validator = jsonschema.Draft202012Validator(dict(schema), registry=EMPTY_REGISTRY)
    try:
        # Report only the path and keyword of the first problem. The library's message would repeat the whole answer.
        for problem in validator.iter_errors(value):
            return f"does not match the schema at {problem.json_path}: {problem.validator}"
    except OverflowError:
        return "has a number that is too large for the schema check"
    except RecursionError:
        return "is nested too deeply for the schema check"
    except Unresolvable as error:
        return f"can't be checked: the schema refers to {error.ref!r}, which it does not contain"
    return None


def _wrong_call(name: str | None, arguments: Mapping[str, object], answer: RecordedAnswer) -> str | None:
    called = ", ".join(call.name for call in answer.calls) or "no tool"
    if name is None:
        return None if not answer.calls else f"called {called}, but must not call a tool"
    if len(answer.calls) != 1 or answer.calls[0].name != name:
        return f"called {called}, not {name} once"
    try:
        given = loads_text(answer.calls[0].arguments or "{}")
    except JsonError:
        return "the call's arguments are not valid JSON"
    if not isinstance(given, dict):
        return "the call's arguments are not an object"
    for key, wanted in arguments.items():
        if key not in given:
            return f"the call lacks {key!r}"
        if not _equal_values(given[key], wanted):
            return f"the call's {key!r} is not {str(wanted)[:_MAX_SHOWN_CHARACTERS]!r}"
    extra = given.keys() - arguments.keys()
    names = ", ".join(sorted(map(str, extra)))[:_MAX_SHOWN_CHARACTERS]
    return f"the call has more arguments than wanted: {names}" if extra else None


def _equal_values(given: object, wanted: object) -> bool:
    """Return whether two values are equal. Case and punctuation are ignored; a wanted list allows any of its values."""
    if isinstance(wanted, list) and not isinstance(given, list):
        return any(_equal_values(given, one) for one in wanted)
    if isinstance(given, str) and isinstance(wanted, str):
        return bare(given) == bare(wanted)
    if isinstance(given, (int, float)) and isinstance(wanted, (int, float)):
        return isinstance(given, bool) == isinstance(wanted, bool) and _near(given, wanted)
    return given == wanted


def _near(given: float, wanted: float) -> bool:
    try:
        return abs(given - wanted) < 1e-9
    except OverflowError:  # an integer too large for a float
        return False


def _any_of(texts: Sequence[str]) -> str:
    return " or ".join(repr(one[:_MAX_SHOWN_CHARACTERS]) for one in texts[:3])
