"""Instructions that a rule can check: how long an answer is, in which language, script, case and format, what stands
in it. Each rule is a function of the text and its arguments; what a rule can't read, it holds to be not followed.

The kinds are those of "Instruction-Following Evaluation for Large Language Models" (Zhou et al. 2023, table 4), and
those for scripts besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from gateway.evaluate.items import Rule
from gateway.evaluate.texts import language_of, script_shares, sentences_of, words_of
from providers.json_values import JsonError, loads_text

__all__ = ["RULES", "UnknownRule", "broken_rule", "check_rule"]

Arguments = Mapping[str, object]


class UnknownRule(ValueError):
    """There is no such rule, or it can't be given that; the message says which and what."""


def broken_rule(rules: Sequence[Rule], text: str) -> str | None:
    """The first rule that the text breaks, in words; None where it follows all."""
    for rule in rules:
        if not RULES[rule.name][0](text, rule.arguments):
            given = ", ".join(f"{name} {value}" for name, value in rule.arguments.items())
            return f"{rule.name.replace('_', ' ')}{f' ({given})' if given else ''} is not followed"
    return None


def check_rule(rule: Rule) -> Rule:
    """The rule; raises UnknownRule where it doesn't exist or its arguments aren't its own."""
    if rule.name not in RULES:
        raise UnknownRule(f"there is no rule {rule.name!r}; there are: {', '.join(RULES)}")
    known = RULES[rule.name][1]
    for name, value in rule.arguments.items():
        if name not in known:
            raise UnknownRule(f"the rule {rule.name!r} has no {name!r}; it has: {', '.join(known) or 'nothing'}")
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise UnknownRule(f"`{name}` of the rule {rule.name!r} can't be {value!r}")
    needed = set(known) & {"text", "words", "letter", "code", "script", "choices", "first"}
    if needed - rule.arguments.keys():
        raise UnknownRule(f"the rule {rule.name!r} needs {', '.join(sorted(needed))}")
    return rule


def _counted(count: int, arguments: Arguments) -> bool:
    least, most = arguments.get("least"), arguments.get("most")
    return (not isinstance(least, int) or count >= least) and (not isinstance(most, int) or count <= most)


def _words(arguments: Arguments) -> list[str]:
    words = arguments["words"]
    return [str(word).casefold() for word in words] if isinstance(words, list) else []


def _text(arguments: Arguments, name: str = "text") -> str:
    return str(arguments[name]).strip()


def _paragraphs(text: str, arguments: Arguments) -> list[str]:
    mark = arguments.get("between")
    parts = text.split(str(mark)) if mark else re.split(r"\n\s*\n", text)
    return [part.strip() for part in parts if part.strip()]


def _count_of(text: str, word: str) -> int:
    """How often a word stands in a text; a Chinese word has no edges to look for."""
    if word.isascii():
        return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))
    return text.casefold().count(word.casefold())


def _is_json(text: str, _: Arguments) -> bool:
    try:
        loads_text(re.sub(r"^```(?:json|JSON)?\s*|\s*```$", "", text.strip()))
    except JsonError:
        return False
    return True


def _has_one(text: str, arguments: Arguments) -> bool:
    choices = arguments["choices"]
    return isinstance(choices, list) and any(str(choice) in text for choice in choices)


def _only_script(text: str, arguments: Arguments) -> bool:
    """Chinese and Japanese share ideographs; anything else in between is foreign, apart from one name or unit."""
    allowed = {"zh": {"han"}, "ja": {"han", "kana"}, "ko": {"hangul"}}.get(_text(arguments, "script"))
    shares = script_shares(text)
    allowed = allowed or {_text(arguments, "script")}
    return bool(shares) and sum(share for name, share in shares.items() if name in allowed) >= 0.9


def _cased(text: str, cased: Callable[[str], str]) -> bool:
    return any(one.isalpha() for one in text) and cased(text) == text


def _first_word(text: str, arguments: Arguments) -> bool:
    paragraphs = _paragraphs(text, arguments)
    nth = arguments.get("nth", 1)
    if not isinstance(nth, int) or not 0 < nth <= len(paragraphs):
        return False
    words = words_of(paragraphs[nth - 1])
    return (
        _counted(len(paragraphs), arguments)
        and bool(words)
        and words[0].casefold() == _text(arguments, "first").casefold()
    )


_Rule = Callable[[str, Arguments], bool]
_COUNT: Mapping[str, type | tuple[type, ...]] = {"least": int, "most": int}
# fmt: off
RULES: Mapping[str, tuple[_Rule, Mapping[str, type | tuple[type, ...]]]] = {
    "words": (lambda text, given: _counted(len(words_of(text)), given), _COUNT),
    "characters": (lambda text, given: _counted(len(re.sub(r"\s", "", text)), given), _COUNT),
    "sentences": (lambda text, given: _counted(sentences_of(text), given), _COUNT),
    "paragraphs": (
        lambda text, given: _counted(len(_paragraphs(text, given)), given), {**_COUNT, "between": str}),
    "first_word": (_first_word, {**_COUNT, "first": str, "nth": int, "between": str}),
    "lines": (lambda text, given: _counted(sum(bool(line.strip()) for line in text.splitlines()), given), _COUNT),
    "bullets": (
        lambda text, given: _counted(len(re.findall(r"^\s*(?:[*\-•]|\d+[.、)])\s*\S", text, re.M)), given), _COUNT),
    "highlights": (lambda text, given: _counted(len(re.findall(r"\*[^\n*]+\*", text)), given), _COUNT),
    "placeholders": (lambda text, given: _counted(len(re.findall(r"\[[^\]\n]+\]", text)), given), _COUNT),
    "sections": (
        lambda text, given: _counted(len(re.findall(rf"^\s*{re.escape(_text(given))}\s*\d+", text, re.M)), given),
        {**_COUNT, "text": str}),
    "title": (lambda text, given: bool(re.search(r"<<[^\n<>]+>>", text)), {}),
    "json": (_is_json, {}),
    "starts_with": (lambda text, given: text.strip().startswith(_text(given)), {"text": str}),
    "ends_with": (lambda text, given: text.strip().strip('"”').casefold().endswith(_text(given).casefold()),
                  {"text": str}),
    "quoted": (lambda text, given: bool(re.fullmatch('["“「].+["”」]', text.strip(), re.DOTALL)), {}),
    "contains": (lambda text, given: all(_count_of(text, word) for word in _words(given)), {"words": list}),
    "lacks": (lambda text, given: not any(_count_of(text, word) for word in _words(given)), {"words": list}),
    "repeats": (lambda text, given: _counted(_count_of(text, _text(given)), given), {**_COUNT, "text": str}),
    "letters": (
        lambda text, given: _counted(text.casefold().count(_text(given, "letter").casefold()), given),
        {**_COUNT, "letter": str}),
    "capital_words": (
        lambda text, given: _counted(sum(word.isupper() for word in words_of(text)), given), _COUNT),
    "capitals": (lambda text, given: _cased(text, str.upper), {}),
    "small_letters": (lambda text, given: _cased(text, str.lower), {}),
    "no_comma": (lambda text, given: not re.search("[,，、]", text), {}),
    "postscript": (lambda text, given: _text(given).casefold() in text.casefold(), {"text": str}),
    "one_of": (_has_one, {"choices": list}),
    "language": (lambda text, given: language_of(text) == _text(given, "code"), {"code": str}),
    "script": (_only_script, {"script": str}),
    "two_answers": (lambda text, given: len({part.strip() for part in text.split("******")}) == 2, {}),
}
# fmt: on
"""Every rule by its name, with the arguments that it takes."""
