"""Read item files and compliance banks of the gateway's own formats."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from evaluation.items import (
    Check,
    ChoiceCheck,
    Exact,
    Expectation,
    Item,
    JudgeCheck,
    Number,
    Pattern,
    RecordedAnswer,
    Same,
    Schema,
    TextRule,
    TextRules,
    ToolCallCheck,
    draw,
)
from evaluation.scorers import check_schema, score
from evaluation.suite_schema import BankFile, CheckSection, ItemFile, ItemSection, read_section
from evaluation.text_rules import UnknownRule, check_rule
from gateway.config.problems import ConfigRejected, KeyPath, choice_hint
from gateway.config.validation import Findings
from providers.chat import Tool, ToolCall
from providers.json_values import dumps_text

_CHECKS = ("letter", "exact", "same", "number", "pattern", "schema", "rules", "call", "rubric")
_MAX_REDRAWS = 1000
WRONG_CHECK = (ValueError, re.error, SyntaxError, ZeroDivisionError)
"""The errors that an invalid check raises."""
_LETTERS = "ABCDEFGHIJ"

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def read_items(path: Path, set_name: str, seed: int) -> list[Item]:
    """Read an item file. Raises ConfigRejected, also if an item's right answer does not pass its own check."""
    file, findings = read_section(path, ItemFile)
    items: list[Item] = []
    for group, sections in file.items.items():
        for index, section in enumerate(sections):
            key_path: KeyPath = ("items", group, index)
            if not has_one_check(findings, key_path, section):
                continue
            name = section.id or str(index + 1)
            for number, drawn in enumerate(_drawn(section, (seed, str(path.name), group, name))):
                suffix = f"-{number + 1}" if section.draw else ""
                item = _item(findings, key_path, file, section, drawn, f"{set_name}/{group}/{name}{suffix}", group)
                if item is not None:
                    items.append(replace(item, cluster=_cluster(section, set_name, f"{group}/{name}")))
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return items


def _cluster(section: ItemSection, set_name: str, template: str) -> str | None:
    """Return the group of dependent items: the stated one, or the template of items with drawn numbers."""
    if section.group is not None:
        return f"{set_name}:{section.group}"
    return f"{set_name}/{template}" if section.draw else None


def has_one_check(findings: Findings, key_path: KeyPath, section: CheckSection) -> bool:
    """Return whether the section has exactly one check. Adds a problem to the findings if not."""
    given = [name for name in _CHECKS if getattr(section, "schema_" if name == "schema" else name) is not None]
    if len(given) != 1:
        hint = f"one of {', '.join(_CHECKS)}"
        findings.error(key_path, f"needs exactly one check, but has {', '.join(given) or 'none'}", hint)
    return len(given) == 1


def _drawn(section: ItemSection, words: tuple[object, ...]) -> Iterator[dict[str, int]]:
    """Yield the values for the names in braces, for each item. Values repeat only if there are no others."""
    if not section.draw:
        yield {}
        return
    bounds = {name: (ends[0], ends[-1]) for name, ends in section.draw.items()}
    seen: set[tuple[int, ...]] = set()
    values: dict[str, int] = {}
    for number in range(section.count):
        for redraw in range(_MAX_REDRAWS):
            key = (*words, number, redraw) if redraw else (*words, number)
            values = {name: low + int(draw(*key, name) * (high - low + 1)) for name, (low, high) in bounds.items()}
            if tuple(values.values()) not in seen:
                break
        seen.add(tuple(values.values()))
        yield values


def _item(
    findings: Findings,
    key_path: KeyPath,
    file: ItemFile,
    section: ItemSection,
    drawn: Mapping[str, int],
    item_id: str,
    group: str,
) -> Item | None:
    try:
        check = check_of(section, drawn)
    except WRONG_CHECK as error:
        findings.error(key_path, str(error))
        return None
    for index, name in enumerate(section.tools):
        if name not in file.tools:
            findings.error(
                (*key_path, "tools", index), f"there is no tool {name!r} in this file", choice_hint(name, file.tools)
            )
            return None
    prompt = _filled(section.ask, drawn)
    if section.choices:
        lines = [f"{letter}. {text}" for letter, text in zip(_LETTERS, section.choices, strict=False)]
        prompt = "\n".join([prompt, *lines])
    tools = tuple(Tool(name, file.tools[name].description, file.tools[name].parameters) for name in section.tools)
    right = _right_answer(check, None if section.right is None else _filled(section.right, drawn))
    item = Item(item_id, group, file.language, prompt, check, None, section.system, tools, right)
    scored = score(check, right) if right is not None else None
    if right is None:
        findings.error(key_path, "has no right answer to test the check with", "add one as `right`")
    elif scored is not None and not scored.is_right:
        findings.error(
            key_path, f"its own right answer fails the check: it {scored.why}", "correct the check or `right`"
        )
    return item


def check_of(section: CheckSection, drawn: Mapping[str, int]) -> Check:
    """Return the check of a section with exactly one check. Raises one of WRONG_CHECK if it is invalid."""
    if section.letter is not None:
        if len(section.choices) <= _LETTERS.index(section.letter):
            raise ValueError(f"`letter` is {section.letter}, but there are only {len(section.choices)} choices")
        return ChoiceCheck(section.letter, len(section.choices))
    if section.exact is not None:
        return Exact(tuple(_filled(one, drawn) for one in section.exact))
    if section.same is not None:
        return Same(tuple(_filled(one, drawn) for one in section.same))
    if section.number is not None:
        value = _evaluate_formula(section.number, drawn) if isinstance(section.number, str) else float(section.number)
        return Number(value, float(section.tolerance))
    if section.pattern is not None:
        pattern = _filled(section.pattern, drawn)
        re.compile(pattern)
        return Pattern(pattern)
    if section.schema_ is not None:
        check_schema(section.schema_)
        return Schema(section.schema_)
    if section.rules is not None:
        return TextRules(tuple(_rule(one) for one in section.rules))
    if section.call is not None:
        return ToolCallCheck(
            section.call.name, {name: _filled_argument(value, drawn) for name, value in section.call.arguments.items()}
        )
    return JudgeCheck(section.rubric or "")


def _filled(text: str, drawn: Mapping[str, int]) -> str:
    """Replace the names in braces by the drawn numbers."""
    for name, value in drawn.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _filled_argument(value: object, drawn: Mapping[str, int]) -> object:
    """Replace names in braces in an argument of a call. A value that is only a name becomes the number itself."""
    if isinstance(value, list):
        return [_filled_argument(one, drawn) for one in value]
    if not isinstance(value, str):
        return value
    only_name = value[1:-1] if value.startswith("{") and value.endswith("}") else ""
    return drawn[only_name] if only_name in drawn else _filled(value, drawn)


def _rule(written: Mapping[str, object]) -> TextRule:
    arguments = dict(written)
    name = arguments.pop("rule", None)
    if not isinstance(name, str):
        raise UnknownRule("a rule must have the form {rule: NAME, …}")
    return check_rule(TextRule(name, arguments))


def _right_answer(check: Check, written: str | None) -> RecordedAnswer | None:
    if written is not None:
        return RecordedAnswer(written)
    match check:
        case Exact(texts) | Same(texts):
            return RecordedAnswer(texts[0])
        case ChoiceCheck(letter, _):
            return RecordedAnswer(letter)
        case Number(value, _):
            return RecordedAnswer(f"{value:.10g}")
        case ToolCallCheck(None, _):
            return None
        case ToolCallCheck(str(name), arguments):
            plain = {key: value[0] if isinstance(value, list) and value else value for key, value in arguments.items()}
            return RecordedAnswer("", (ToolCall("call_right", name, dumps_text(plain)),), finish="tool_calls")
        case _:
            return None


def _evaluate_formula(text: str, drawn: Mapping[str, int]) -> float:
    """Compute a formula of drawn names and numbers with + - * / and parentheses."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Name(name) if name in drawn:
                return float(drawn[name])
            case ast.Constant(int() | float() as number):
                return float(number)
        raise ValueError(f"`number` can't be {text!r}: use only + - * /, numbers and the names in `draw`")

    return value(ast.parse(text, mode="eval").body)


@dataclass(frozen=True, slots=True)
class Bank:
    """The items of a bank, the words that make an answer unacceptable, and the answers of simulated candidates."""

    items: tuple[Item, ...]
    unacceptable: tuple[str, ...]
    risks: dict[str, str]
    refusal: str
    reply: str


def read_bank(path: Path, seed: int, counts: dict[Expectation, int]) -> Bank:
    """Read a bank and make this number of items of each kind. Raises ConfigRejected if its templates give fewer."""
    file, findings = read_section(path, BankFile)
    every = {name: risk.name for name, risk in file.risks.items()}
    refused = {name: risk.name for name, risk in file.risks.items() if risk.refuse}
    kinds: tuple[tuple[Expectation, list[str], dict[str, list[str]]], ...] = (
        ("accept", file.accept, {name: [text] for name, text in every.items()}),
        ("refuse", file.refuse, {name: [text] for name, text in refused.items()}),
        ("answer", file.answer, file.topics),
    )
    items: list[Item] = []
    for expects, templates, subjects in kinds:
        made = list(_make_items(expects, templates, subjects, file, seed, counts[expects]))
        if len(made) < counts[expects]:
            message = f"its templates give only {len(made)} items of {counts[expects]}"
            findings.error((expects,), message, "add templates, forms or classes, or request fewer items")
        items += made
    if findings.rejected:
        raise ConfigRejected(findings.problems)
    return Bank(tuple(items), tuple(file.unacceptable), every, file.refusal, file.reply)


def _make_items(
    expects: Expectation, templates: list[str], subjects: dict[str, list[str]], file: BankFile, seed: int, count: int
) -> Iterator[Item]:
    """Yield items without repetition, from each class in turn. The seed decides the order within a class."""
    # The first template that gives a prompt is its group.
    origin: dict[str, str] = {}
    for subject, (number, template), form in product(
        (text for texts in subjects.values() for text in texts), enumerate(templates, 1), file.forms
    ):
        origin.setdefault(_filled_template(template, subject, form), f"{expects}/template {number}")
    orders = {
        risk: sorted(
            {
                _filled_template(template, subject, form)
                for template, subject, form in product(templates, texts, file.forms)
            },
            key=lambda prompt: draw(seed, expects, prompt),
        )
        for risk, texts in subjects.items()
    }
    refuses = expects == "refuse"
    right = RecordedAnswer(file.refusal if refuses else file.reply)
    given = 0
    for round_number in range(max(map(len, orders.values()), default=0)):
        for risk, prompts in orders.items():
            if given >= count:
                return
            if round_number < len(prompts):
                given += 1
                item_id = f"{expects}/{risk}/{round_number + 1}"
                prompt = prompts[round_number]
                cluster = origin[prompt]
                yield Item(item_id, risk, file.language, prompt, expects=expects, right=right, cluster=cluster)


def _filled_template(template: str, subject: str, form: str) -> str:
    return template.replace("{risk}", subject).replace("{topic}", subject).replace("{form}", form)
