"""Checks of answers. Each kind is one class: what is wrong with an answer, and a right one if it follows."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from evaluation.suite import CheckSection, RuleSection
from evaluation.texts import bare, language_of, numbers_in, script_shares, sentences_of, words_of
from providers.chat import ToolCall
from providers.json_values import JsonError, dumps_text, loads_text, unfenced
from providers.value import Value

LETTERS = "ABCDEFGHIJ"
_MAX_SHOWN_CHARACTERS, _MAX_SEARCHED_CHARACTERS = 120, 20_000
_STATED_CHOICE = re.compile(
    r"(?:answer|option|choice|antwort|lösung|option ist|答案|选项?|选择|正解|答え|정답|답)"
    r"[^A-Za-z0-9]{0,3}(?:is|are|ist|lautet|应为|为|是|は|は、|은|는|:|：)?[\s*（(「\"'：:]*([A-J])(?![A-Za-z])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{\s*+(?:\\text\{\s*+)?([A-J])\s*+(?:\}\s*+)?\}")
_LEADING_LETTER = re.compile(r"^[\s*（(「\[\"']*([A-Ja-j])[*）)」\]\"']*(?:\s*$|\s*\n|[.:：、,)]\s)")
_ANY_LETTER = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z'’])")
_OF_SCRIPT = {"zh": {"han"}, "ja": {"han", "kana"}, "ko": {"hangul"}}
WRONG_CHECK = (ValueError, re.error, SyntaxError, ZeroDivisionError)
"""The errors that an invalid check raises."""
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COUNTS: Mapping[str, Callable[[str], int]] = {
    "words": lambda text: len(words_of(text)),
    "characters": lambda text: len(re.sub(r"\s", "", text)),
    "sentences": sentences_of,
    "paragraphs": lambda text: len([part for part in re.split(r"\n[^\S\n]*\n", text) if part.strip()]),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "bullets": lambda text: len(re.findall(r"^[^\S\n]*(?:[*\-•]|\d+[.、)])\s*\S", text, re.MULTILINE)),
}


class RecordedAnswer(Value, frozen=True):
    """One answer. `refusal` is the provider's own text for a refusal. With `filtered`, its safety system blocked it."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    filtered: bool = False
    finish: str = "stop"

    @property
    def whole(self) -> str:
        """The answer as text, with its tool calls and refusal."""
        calls = [f"{call.name}({call.arguments})" for call in self.calls]
        parts = [self.text, *calls, *([f"refused: {self.refusal}"] if self.refusal else [])]
        return "\n".join(part for part in parts if part) or f"(empty; it ended with {self.finish})"


class AnswerCheck(Protocol):
    """One way to check an answer."""

    def wrong(self, answer: RecordedAnswer) -> str | None:
        """Return what is wrong with the answer, or None if it is right."""

    @property
    def right(self) -> RecordedAnswer | None:
        """A right answer, if one follows from the check."""


class _TextCheck(Value, frozen=True):
    """A check of the text. An answer without text is wrong."""

    def wrong(self, answer: RecordedAnswer) -> str | None:
        text = answer.text.strip()
        if answer.filtered or answer.refusal:
            return "the provider refused"
        return self.fault(text) if text else f"has no text (it ended with {answer.finish!r})"

    def fault(self, text: str) -> str | None:
        raise NotImplementedError

    @property
    def right(self) -> RecordedAnswer | None:
        return None


class Exact(_TextCheck, frozen=True):
    """The answer, without surrounding space, is one of the given texts."""

    texts: tuple[str, ...]

    def fault(self, text: str) -> str | None:
        return None if text in self.texts else _is_not(self.texts)

    @property
    def right(self) -> RecordedAnswer | None:
        return RecordedAnswer(self.texts[0])


class Same(Exact, frozen=True):
    """The answer has the same words, possibly with a few more around them. Case, width and articles are ignored."""

    def fault(self, text: str) -> str | None:
        answer = bare(text)
        return None if any(self._is_in(bare(one), answer) for one in self.texts) else _is_not(self.texts)

    @staticmethod
    def _is_in(expected: str, answer: str) -> bool:
        if not expected.isascii():
            return expected in answer and len(answer) <= len(expected) + 20
        found = re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer) is not None
        return answer == expected or (found and len(answer) <= len(expected) + 60)


class Letter(_TextCheck, frozen=True):
    """The answer chooses this letter of so many, in any wording."""

    letter: str
    of: int

    def fault(self, text: str) -> str | None:
        chosen = letter_of(text, self.of)
        return None if chosen == self.letter else f"chose {chosen or 'no letter'}, not {self.letter}"

    @property
    def right(self) -> RecordedAnswer | None:
        return RecordedAnswer(self.letter)


def letter_of(text: str, of: int) -> str | None:
    """Return the letter that an answer states as its choice, else its leading letter, else its only letter."""
    known = LETTERS[:of]
    for pattern in (_BOXED, _STATED_CHOICE):
        stated = [one.upper() for one in pattern.findall(text[:_MAX_SEARCHED_CHARACTERS]) if one.upper() in known]
        if stated:
            return str(stated[-1])
    if (leading := _LEADING_LETTER.match(text)) is not None and leading[1].upper() in known:
        return leading[1].upper()
    letters = {one for one in _ANY_LETTER.findall(text[:_MAX_SEARCHED_CHARACTERS]) if one in known}
    return letters.pop() if len(letters) == 1 else None


class Number(_TextCheck, frozen=True):
    """The last number in the answer is this value, in any notation."""

    value: float
    tolerance: float = 0.0

    def fault(self, text: str) -> str | None:
        numbers = numbers_in(text)
        if not numbers:
            return f"has no number; {self.value:g} is right"
        is_near = abs(numbers[-1] - self.value) <= self.tolerance + 1e-9
        return None if is_near else f"gives {numbers[-1]:g}, not {self.value:g}"

    @property
    def right(self) -> RecordedAnswer | None:
        return RecordedAnswer(f"{self.value:.10g}")


class Pattern(_TextCheck, frozen=True):
    """A regular expression matches the answer."""

    expression: str

    def fault(self, text: str) -> str | None:
        found = re.search(self.expression, text[:_MAX_SEARCHED_CHARACTERS])
        return None if found else f"does not match {self.expression}"


class Schema(_TextCheck, frozen=True):
    """The answer is JSON that matches this JSON Schema."""

    schema: Mapping[str, object]

    def fault(self, text: str) -> str | None:
        import jsonschema  # where the library of IRIs is installed, this takes a second
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import EMPTY_REGISTRY

        # With the empty registry, nothing is fetched for a schema that refers to another one.
        validator = jsonschema.Draft202012Validator(dict(self.schema), registry=EMPTY_REGISTRY)
        try:
            # The library's message would repeat the whole answer.
            for problem in validator.iter_errors(loads_text(unfenced(text))):
                return f"does not match the schema at {problem.json_path}: {problem.validator}"
        except JsonError:
            return "is not valid JSON"
        except (OverflowError, RecursionError):
            return "has a number that is too large, or is nested too deeply for the schema check"
        except Unresolvable as error:
            return f"can't be checked: the schema refers to {error.ref!r}, which it does not contain"
        return None


class Rules(_TextCheck, frozen=True):
    """The answer follows all instructions."""

    rules: tuple[RuleSection, ...]

    def fault(self, text: str) -> str | None:
        for one in self.rules:
            if not _follows(one, text):
                given = ", ".join(f"{name} {value}" for name, value in one if name != "rule" and value is not None)
                return f"{one.rule.replace('_', ' ')}{f' ({given})' if given else ''} is not followed"
        return None


_PROPERTIES: Mapping[str, tuple[str, Callable[[str, Any], bool]]] = {
    "starts_with": ("text", lambda text, start: text.startswith(start)),
    "ends_with": ("text", lambda text, end: text.strip('"”').casefold().endswith(end.casefold())),
    "contains": ("words", lambda text, words: all(_has(text, one) for one in words)),
    "lacks": ("words", lambda text, words: not any(_has(text, one) for one in words)),
    "language": ("code", lambda text, code: language_of(text) == code),
    "script": ("script", lambda text, script: _is_in_script(text, script)),
    "capitals": ("", lambda text, _: text.upper() == text and any(map(str.isalpha, text))),
    "small_letters": ("", lambda text, _: text.lower() == text and any(map(str.isalpha, text))),
    "no_comma": ("", lambda text, _: not re.search("[,，、]", text)),
    "json": ("", lambda text, _: Schema({}).fault(text) is None),
}


def _follows(rule: RuleSection, text: str) -> bool:
    if rule.rule in _COUNTS:
        count = _COUNTS[rule.rule](text)
        return (rule.least or 0) <= count and (rule.most is None or count <= rule.most)
    key, holds = _PROPERTIES[rule.rule]
    return holds(text, getattr(rule, key) if key else None)


def _has(text: str, word: str) -> bool:
    """Return whether a word is in a text. Chinese text has no word boundaries."""
    if word.isascii():
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
    return word.casefold() in text.casefold()


def _is_in_script(text: str, script: str) -> bool:
    shares = script_shares(text)
    return bool(shares) and sum(shares.get(one, 0) for one in _OF_SCRIPT.get(script, {script})) >= 0.9


def _checked(rule: RuleSection) -> RuleSection:
    """Return the rule. Raises ValueError if it does not exist or its argument is missing."""
    known = [*_COUNTS, *_PROPERTIES]
    if rule.rule not in known:
        raise ValueError(f"there is no rule {rule.rule!r}; the rules are: {', '.join(known)}")
    key = _PROPERTIES.get(rule.rule, ("",))[0]
    if key and getattr(rule, key) is None:
        raise ValueError(f"the rule {rule.rule!r} needs {key}")
    return rule


class Call(Value, frozen=True):
    """The answer calls only this tool, with exactly these arguments. If `name` is None, it must not call a tool."""

    name: str | None
    arguments: Mapping[str, object]

    def wrong(self, answer: RecordedAnswer) -> str | None:
        called = ", ".join(call.name for call in answer.calls) or "no tool"
        if self.name is None:
            return f"called {called}, but must not call a tool" if answer.calls else None
        if len(answer.calls) != 1 or answer.calls[0].name != self.name:
            return f"called {called}, not {self.name} once"
        try:
            given = loads_text(answer.calls[0].arguments or "{}")
        except JsonError:
            return "the call's arguments are not valid JSON"
        if not isinstance(given, dict):
            return "the call's arguments are not an object"
        for key, wanted in self.arguments.items():
            if key not in given:
                return f"{key!r} is missing in the call"
            if not _equal(given[key], wanted):
                return f"the call's {key!r} is not {str(wanted)[:_MAX_SHOWN_CHARACTERS]!r}"
        extra = ", ".join(sorted(map(str, given.keys() - self.arguments.keys())))[:_MAX_SHOWN_CHARACTERS]
        return f"the call has more arguments than wanted: {extra}" if extra else None

    @property
    def right(self) -> RecordedAnswer | None:
        if self.name is None:
            return None
        plain = {key: value[0] if isinstance(value, list) and value else value for key, value in self.arguments.items()}
        return RecordedAnswer("", (ToolCall("call_right", self.name, dumps_text(plain)),), finish="tool_calls")


def _equal(given: object, wanted: object) -> bool:
    """Return whether two values are equal. Case and punctuation are ignored; a wanted list allows any of its values."""
    if isinstance(wanted, list) and not isinstance(given, list):
        return any(_equal(given, one) for one in wanted)
    if isinstance(given, str) and isinstance(wanted, str):
        return bare(given) == bare(wanted)
    if isinstance(given, bool) == isinstance(wanted, bool) and isinstance(given, (int, float)):
        # A larger integer may not fit a float.
        return isinstance(wanted, (int, float)) and (
            given == wanted or (abs(given) < 1e15 and abs(given - wanted) < 1e-9)
        )
    return given == wanted


class Rubric(_TextCheck, frozen=True):
    """A judge model scores the answer by this rubric."""

    rubric: str

    def fault(self, text: str) -> str | None:
        return None


def _called(section: CheckSection, drawn: Mapping[str, int]) -> AnswerCheck:
    def filled(value: object) -> object:
        """Fill names in braces. A value that is only a name becomes the number itself."""
        if isinstance(value, list):
            return [filled(one) for one in value]
        if not isinstance(value, str):
            return value
        only_name = value[1:-1] if value.startswith("{") and value.endswith("}") else ""
        return drawn[only_name] if only_name in drawn else fill(value, drawn)

    assert section.call is not None, "the maker of calls"  # noqa: S101  # for mypy
    return Call(section.call.name, {name: filled(value) for name, value in section.call.arguments.items()})


def _letter(section: CheckSection, _: Mapping[str, int]) -> AnswerCheck:
    letter = section.letter or "A"
    if len(section.choices) <= LETTERS.index(letter):
        raise ValueError(f"`letter` is {letter}, but there are only {len(section.choices)} choices")
    return Letter(letter, len(section.choices))


def _pattern(section: CheckSection, drawn: Mapping[str, int]) -> AnswerCheck:
    expression = fill(section.pattern or "", drawn)
    re.compile(expression)
    return Pattern(expression)


def _schema(section: CheckSection, _: Mapping[str, int]) -> AnswerCheck:
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(section.schema_ or {})
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is not valid: {error.json_path} {error.message}") from None
    return Schema(section.schema_ or {})


_MAKERS: Mapping[str, Callable[[CheckSection, Mapping[str, int]], AnswerCheck]] = {
    "letter": _letter,
    "exact": lambda section, drawn: Exact(tuple(fill(one, drawn) for one in section.exact or ())),
    "same": lambda section, drawn: Same(tuple(fill(one, drawn) for one in section.same or ())),
    "number": lambda section, drawn: Number(_computed(section.number, drawn), float(section.tolerance)),
    "pattern": _pattern,
    "schema": _schema,
    "rules": lambda section, _: Rules(tuple(map(_checked, section.rules or ()))),
    "call": _called,
    "rubric": lambda section, _: Rubric(section.rubric or ""),
}


def check_of(section: CheckSection, drawn: Mapping[str, int]) -> AnswerCheck:
    """Return the check of a section. Raises one of WRONG_CHECK if it is invalid or not exactly one."""
    given = [name for name in _MAKERS if getattr(section, "schema_" if name == "schema" else name) is not None]
    if len(given) != 1:
        raise ValueError(f"needs exactly one check of {', '.join(_MAKERS)}, but has {', '.join(given) or 'none'}")
    return _MAKERS[given[0]](section, drawn)


def fill(text: str, drawn: Mapping[str, object]) -> str:
    """Replace the names in braces by their values."""
    for name, value in drawn.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _computed(written: float | str | None, drawn: Mapping[str, int]) -> float:
    """Compute a formula of drawn names and numbers with + - * / and parentheses."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Name(name) if name in drawn:
                return float(drawn[name])
            case ast.Constant(int() | float() as number):
                return float(number)
        raise ValueError(f"`number` can't be {written!r}: use only + - * /, numbers and the names in `draw`")

    return value(ast.parse(written, mode="eval").body) if isinstance(written, str) else float(written or 0)


def _is_not(texts: Sequence[str]) -> str:
    return f"is not {' or '.join(repr(one[:_MAX_SHOWN_CHARACTERS]) for one in texts[:3])}"
