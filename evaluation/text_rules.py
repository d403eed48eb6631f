"""Rules for texts: length, language, script and format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from evaluation.items import TextRule
from providers.json_values import JsonError, loads_text

_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_KANA = "\u3040-\u30ff\u31f0-\u31ff"
_HANGUL = "\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f"

_SCRIPTS = {
    "han": re.compile(f"[{_IDEOGRAPHS}]"),
    "kana": re.compile(f"[{_KANA}]"),
    "hangul": re.compile(f"[{_HANGUL}]"),
    "latin": re.compile("[A-Za-z\u00c0-\u024f]"),
    "cyrillic": re.compile("[\u0400-\u04ff]"),
}

_WORD = re.compile(rf"[{_IDEOGRAPHS}{_KANA}]|[{_HANGUL}]+|[^\W_]+(?:['’\-][^\W_]+)*")
_SENTENCE = re.compile(r"[.!?](?:[\"'”’)]*)(?=\s|$)|[。！？]+")
_ARTICLES = re.compile(r"\b(?:a|an|the|der|die|das|ein|eine)\b")
_GROUPED = r"\d{1,3}(?:[,.'’ \u00a0\u202f]\d{3})+"
_NUMBER = re.compile(rf"(?<![A-Za-z0-9_.,])[-+−]?(?:{_GROUPED}|\d+)(?:[.,]\d+)?(?![\d])")

# Function words: frequent in one of these languages and absent from the others.
_COMMON = {
    "en": frozenset("the and is of to in that it was for with are you this not have be on".split()),
    "de": frozenset("der die und das ist nicht ein eine zu den mit auf für im dem sich auch es ich sie von".split()),
    "fr": frozenset("le la les et est un une des du que pas pour dans sur avec vous je il elle au".split()),
    "es": frozenset("el los las y es un una del que por para con se su al lo como más pero".split()),
}

_MIN_SCRIPT_SHARE = 0.3


def bare(text: str) -> str:
    """Normalise a text for comparison: no character width, case, punctuation or articles, and single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(one if unicodedata.category(one)[0] in "LNM" or one in "%$€¥£°+-" else " " for one in folded)
    return " ".join(_ARTICLES.sub(" ", words).split())


def words_of(text: str) -> list[str]:
    """Return the words. Each Chinese character and each kana counts as one word."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def sentences_of(text: str) -> int:
    """Return the number of sentences. Text after the last full stop counts as one more."""
    ends = list(_SENTENCE.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(words_of(rest))


def script_shares(text: str) -> dict[str, float]:
    """Return the share of each script among the letters. Empty for a text without letters."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count} if total else {}


def language_of(text: str) -> str | None:
    """Detect the language from script and function words. None if it is uncertain."""
    shares = script_shares(text)
    if not shares:
        return None
    if shares.get("hangul", 0) >= _MIN_SCRIPT_SHARE:
        return "ko"
    if shares.get("kana", 0) > 0.05 and shares.get("kana", 0) + shares.get("han", 0) >= _MIN_SCRIPT_SHARE:
        return "ja"
    if shares.get("han", 0) >= _MIN_SCRIPT_SHARE:
        return "zh"
    if shares.get("cyrillic", 0) >= _MIN_SCRIPT_SHARE:
        return "ru"
    words = [word.casefold() for word in words_of(text)]
    counts = {language: sum(word in common for word in words) for language, common in _COMMON.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] and list(counts.values()).count(counts[best]) == 1 else None


def numbers_in(text: str) -> list[float]:
    """Return every number in the text, with any separators of thousands and decimals."""
    return [_value(found) for found in _NUMBER.findall(unicodedata.normalize("NFKC", text))]


def _value(written: str) -> float:
    digits = re.sub(r"['’ \u00a0\u202f]", "", written.replace("−", "-"))
    marks = [one for one in digits if one in ".,"]
    if len(set(marks)) == 2:
        decimal = marks[-1]
        digits = digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    elif len(marks) > 1 or (marks and re.fullmatch(r"[-+]?[1-9]\d{0,2}[.,]\d{3}", digits)):
        # Ambiguous (1.234): three digits after a single separator are read as thousands, the usual notation.
        digits = re.sub("[.,]", "", digits)
    else:
        digits = digits.replace(",", ".")
    return float(digits)


Arguments = Mapping[str, object]


class UnknownRule(ValueError):
    """A rule does not exist, or has a wrong argument. The message names both."""


def broken_rule(rules: Sequence[TextRule], text: str) -> str | None:
    """Return the first rule that the text breaks, in words, or None."""
    for rule in rules:
        if not RULES[rule.name][0](text, rule.arguments):
            given = ", ".join(f"{name} {value}" for name, value in rule.arguments.items())
            return f"{rule.name.replace('_', ' ')}{f' ({given})' if given else ''} is not followed"
    return None


def check_rule(rule: TextRule) -> TextRule:
    """Return the rule. Raises UnknownRule if it does not exist or has a wrong argument."""
    if rule.name not in RULES:
        raise UnknownRule(f"there is no rule {rule.name!r}; the rules are: {', '.join(RULES)}")
    known = RULES[rule.name][1]
    for name, value in rule.arguments.items():
        if name not in known:
            raise UnknownRule(
                f"the rule {rule.name!r} has no argument {name!r}; its arguments are: {', '.join(known) or 'none'}"
            )
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise UnknownRule(f"`{name}` of the rule {rule.name!r} can't be {value!r}")
    required = set(known) & {"text", "words", "letter", "code", "script", "choices", "first"}
    if required - rule.arguments.keys():
        raise UnknownRule(f"the rule {rule.name!r} needs {', '.join(sorted(required))}")
    return rule


def _is_within(count: int, arguments: Arguments) -> bool:
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
    """Return how often a word is in a text. Chinese text has no word boundaries."""
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
    """Return whether 90 % of the letters have the script. Chinese and Japanese share ideographs."""
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
        _is_within(len(paragraphs), arguments)
        and bool(words)
        and words[0].casefold() == _text(arguments, "first").casefold()
    )


_Rule = Callable[[str, Arguments], bool]
_COUNT: Mapping[str, type | tuple[type, ...]] = {"least": int, "most": int}

# fmt: off
RULES: Mapping[str, tuple[_Rule, Mapping[str, type | tuple[type, ...]]]] = {
    "words": (lambda text, given: _is_within(len(words_of(text)), given), _COUNT),
    "characters": (lambda text, given: _is_within(len(re.sub(r"\s", "", text)), given), _COUNT),
    "sentences": (lambda text, given: _is_within(sentences_of(text), given), _COUNT),
    "paragraphs": (
        lambda text, given: _is_within(len(_paragraphs(text, given)), given), {**_COUNT, "between": str}),
    "first_word": (_first_word, {**_COUNT, "first": str, "nth": int, "between": str}),
    "lines": (lambda text, given: _is_within(sum(bool(line.strip()) for line in text.splitlines()), given), _COUNT),
    "bullets": (
        lambda text, given: _is_within(len(re.findall(r"^\s*(?:[*\-•]|\d+[.、)])\s*\S", text, re.M)), given), _COUNT),
    "highlights": (lambda text, given: _is_within(len(re.findall(r"\*[^\n*]+\*", text)), given), _COUNT),
    "placeholders": (lambda text, given: _is_within(len(re.findall(r"\[[^\]\n]+\]", text)), given), _COUNT),
    "sections": (
        lambda text, given: _is_within(len(re.findall(rf"^\s*{re.escape(_text(given))}\s*\d+", text, re.M)), given),
        {**_COUNT, "text": str}),
    "title": (lambda text, given: bool(re.search(r"<<[^\n<>]+>>", text)), {}),
    "json": (_is_json, {}),
    "starts_with": (lambda text, given: text.strip().startswith(_text(given)), {"text": str}),
    "ends_with": (lambda text, given: text.strip().strip('"”').casefold().endswith(_text(given).casefold()),
                  {"text": str}),
    "quoted": (lambda text, given: bool(re.fullmatch('["“「].+["”」]', text.strip(), re.DOTALL)), {}),
    "contains": (lambda text, given: all(_count_of(text, word) for word in _words(given)), {"words": list}),
    "lacks": (lambda text, given: not any(_count_of(text, word) for word in _words(given)), {"words": list}),
    "repeats": (lambda text, given: _is_within(_count_of(text, _text(given)), given), {**_COUNT, "text": str}),
    "letters": (
        lambda text, given: _is_within(text.casefold().count(_text(given, "letter").casefold()), given),
        {**_COUNT, "letter": str}),
    "capital_words": (
        lambda text, given: _is_within(sum(word.isupper() for word in words_of(text)), given), _COUNT),
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
"""The function and arguments of each rule, by name."""
