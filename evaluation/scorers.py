"""Score answers by rule."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import jsonschema
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

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
    TextRules,
    ToolCallCheck,
)
from evaluation.text_rules import bare, broken_rule, numbers_in
from providers.json_values import JsonError, loads_text

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
