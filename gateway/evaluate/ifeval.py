"""The instructions of IFEval in the words of our rules. Names and arguments as its input data writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.evaluate.instructions import UnknownRule, check_rule
from gateway.evaluate.items import Rule

__all__ = ["rules_of"]

_Given = Mapping[str, object]


def rules_of(ids: Sequence[object], given: Sequence[object]) -> tuple[Rule, ...] | None:
    """The rules for one item; None where one of its instructions can't be checked here."""
    rules: list[Rule] = []
    for name, arguments in zip(ids, given, strict=True):
        made = _RULES.get(str(name))
        if made is None or not isinstance(arguments, dict):
            return None
        try:
            rules += [check_rule(rule) for rule in made(arguments)]
        except (UnknownRule, KeyError, TypeError, ValueError):
            return None
    return tuple(rules)


def _bounds(given: _Given, count: str, relation: str = "relation", least: str = "at least") -> dict[str, object]:
    """`relation` is "at least" or "less than"."""
    number = given[count]
    if not isinstance(number, (int, float)):
        raise TypeError(count)
    return {"least": int(number)} if given.get(relation) == least else {"most": int(number) - 1}


def _least(given: _Given, count: str) -> dict[str, object]:
    return {"least": given[count]}


def _exactly(given: _Given, count: str) -> dict[str, object]:
    return {"least": given[count], "most": given[count]}


def _nth(given: _Given) -> list[Rule]:
    arguments = {**_exactly(given, "num_paragraphs"), "nth": given["nth_paragraph"], "first": given["first_word"]}
    return [Rule("first_word", arguments)]


_CONSTRAINED = ["My answer is yes.", "My answer is no.", "My answer is maybe."]
# fmt: off
_RULES: Mapping[str, Callable[[_Given], list[Rule]]] = {
    "punctuation:no_comma": lambda given: [Rule("no_comma")],
    "length_constraints:number_words": lambda given: [Rule("words", _bounds(given, "num_words"))],
    "length_constraints:number_sentences": lambda given: [Rule("sentences", _bounds(given, "num_sentences"))],
    "length_constraints:number_paragraphs":
        lambda given: [Rule("paragraphs", {**_exactly(given, "num_paragraphs"), "between": "***"})],
    "length_constraints:nth_paragraph_first_word": _nth,
    "detectable_format:number_bullet_lists": lambda given: [Rule("bullets", _exactly(given, "num_bullets"))],
    "detectable_format:number_highlighted_sections":
        lambda given: [Rule("highlights", _least(given, "num_highlights"))],
    "detectable_format:multiple_sections":
        lambda given: [Rule("sections", {**_least(given, "num_sections"), "text": given["section_spliter"]})],
    "detectable_format:title": lambda given: [Rule("title")],
    "detectable_format:json_format": lambda given: [Rule("json")],
    "detectable_format:constrained_response": lambda given: [Rule("one_of", {"choices": _CONSTRAINED})],
    "detectable_content:number_placeholders": lambda given: [Rule("placeholders", _least(given, "num_placeholders"))],
    "detectable_content:postscript": lambda given: [Rule("postscript", {"text": given["postscript_marker"]})],
    "keywords:existence": lambda given: [Rule("contains", {"words": given["keywords"]})],
    "keywords:forbidden_words": lambda given: [Rule("lacks", {"words": given["forbidden_words"]})],
    "keywords:frequency":
        lambda given: [Rule("repeats", {**_bounds(given, "frequency"), "text": given["keyword"]})],
    "keywords:letter_frequency":
        lambda given: [Rule("letters", {**_bounds(given, "let_frequency", "let_relation"), "letter": given["letter"]})],
    "startend:end_checker": lambda given: [Rule("ends_with", {"text": given["end_phrase"]})],
    "startend:quotation": lambda given: [Rule("quoted")],
    "change_case:english_capital": lambda given: [Rule("capitals"), Rule("language", {"code": "en"})],
    "change_case:english_lowercase": lambda given: [Rule("small_letters"), Rule("language", {"code": "en"})],
    "change_case:capital_word_frequency":
        lambda given: [Rule("capital_words", _bounds(given, "capital_frequency", "capital_relation"))],
    "language:response_language": lambda given: [Rule("language", {"code": _told(given["language"])})],
    "combination:two_responses": lambda given: [Rule("two_answers")],
    "combination:repeat_prompt": lambda given: [Rule("starts_with", {"text": given["prompt_to_repeat"]})],
}
# fmt: on
_TOLD = frozenset({"zh", "en", "de", "ja", "ko", "ru", "fr", "es"})


def _told(code: object) -> str:
    """A language that `language_of` can tell; raises ValueError for another."""
    if code not in _TOLD:
        raise ValueError(str(code))
    return str(code)
