"""Words that decide what an error is about, at any provider: an account, a content policy, a refusal, the operator.

`words.toml` next to this module has them. A message may repeat a part of the prompt. Words of an account take the key
from everybody, so they do not count in what a message quotes: all from its first quotation mark to its last one, or to
the end, because the prompt may contain others. Words of a refusal count only for a request that is refused as invalid
or with 403 alone, of which they name the cause. Words of the server's state count where the model is not known, too.

Words of the operator's side are about models, deployments, accounts, plans and versions of the API, in a sentence about
nothing that a request has. They count last, and only if a request is refused as invalid without another reason.

A phrase is a list of words in their order. Vendors write the same in many orders, so that the words of a subject, a
state and a bound also count wherever they stand in one sentence (`sentences`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, cast

from providers.catalogue import FactsFile
from providers.failures import FailureKind

WORDS = FactsFile("providers.reading", "words")
RULE_OF_A_REFUSAL = "words of a refusal"
RULE_OF_THE_OPERATOR = "words of the operator's side"
_RULES = {
    "account": "words of an account",
    "content": "words of a content policy",
    "refusal": RULE_OF_A_REFUSAL,
    "operator": RULE_OF_THE_OPERATOR,
}
_NO_PHRASES: Mapping[str, list[str]] = {}
_MOST_TEXT = 2000
_GAP = r"[^.!?;。！？；\n]{0,80}?"
_OPENING = r"""(?<![^\s(\[{:=,，：])["'`“‘«「『《{\[].*"""
_QUOTED = re.compile(rf"""{_OPENING}["'`”’»」』》}}\]](?!\w)|{_OPENING}""", re.DOTALL)
_SPANS = re.compile(r"""(?<!\w)["'`“‘「『《][^"'`”’」』》\n]{1,120}["'`”’」』》](?!\w)""")
"""A name in a message. The name is empty where a quoted text begins or ends with a quotation mark."""
_MARK = re.compile(r"""(?<!\w)["'`“‘「『《]|["'`”’」』》](?!\w)""")
_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[\s._/:-]+")
_NAMES = re.compile(r"(?=[!-~]*[0-9])(?=[!-~]*-)[!-~]+")
"""Names such as those of models, whose words do not describe a request: `deepseek-v4-flash-vision-exp`."""
_SPACES = re.compile(r"[ \t]+")
_ENDS = re.compile(r"[.!?;](?:\s|$)|[。！？；\n]")


def judged_by_words(
    words: Iterable[str], message: str, *, is_invalid: bool = False, is_unexplained: bool = False
) -> tuple[FailureKind, str] | None:
    """Return the kind by the words of an error, and the rule; None if no word decides.

    `words` are its codes and types. Words of a refusal count only for a request that is refused without another known
    reason (`is_invalid`), and those of the operator's side only if nothing else shows why (`is_unexplained`).
    """
    codes = ". ".join(_SEPARATORS.sub(" ", _CASES.sub(" ", word[:200])) for word in words)
    message = message[:_MOST_TEXT]
    told = _SPACES.sub(" ", _QUOTED.sub(" ", message, count=1))
    texts = [("account", told, told), ("content", message, told)]
    if is_invalid:
        texts.append(("refusal", told, told))
    if is_unexplained:
        rest = _SPANS.sub(" ", message)
        # A quotation mark that is left shows a quoted text with others in it, whose parts were taken for names.
        rest = _NAMES.sub(" ", told if _MARK.search(rest) else _QUOTED.sub(" ", rest))
        texts.append(("operator", rest, rest))
    for name, text, spoken in texts:
        whole = f"{codes}. {text}".lower()
        for kind, pattern in _patterns(name).items():
            if pattern.search(whole):
                return kind, _RULES[name]
        for sentence in filter(None, _ENDS.split(f"{codes}. {spoken}".lower())):
            for kind, words_of, unless in _sentences(name):
                if all(pattern.search(sentence) for pattern in words_of) and not unless.search(sentence):
                    return kind, _RULES[name]
    return None


def phrases() -> Iterator[tuple[str, FailureKind]]:
    """Yield each phrase and its kind, in the order in which they count."""
    for name in _RULES:
        table = cast("Mapping[str, list[str]]", WORDS.read().get(name, _NO_PHRASES))
        yield from ((words, FailureKind(kind)) for kind, listed in table.items() for words in listed)
        for rule in _rules_of_sentences(name):
            yield " + ".join("/".join(listed) for listed in rule["words"]), FailureKind(rule["kind"])


@cache
def _patterns(name: str) -> Mapping[FailureKind, re.Pattern[str]]:
    table = cast("Mapping[str, list[str]]", WORDS.read().get(name, _NO_PHRASES))
    return {FailureKind(kind): _any_of(words) for kind, words in table.items()}


@cache
def _sentences(name: str) -> tuple[tuple[FailureKind, tuple[re.Pattern[str], ...], re.Pattern[str]], ...]:
    return tuple(
        (FailureKind(rule["kind"]), tuple(map(_any_of, rule["words"])), _any_of(_unless(rule["unless"])))
        for rule in _rules_of_sentences(name)
    )


def _unless(words: list[str] | str) -> list[str]:
    """Return the words of a rule, or the list that it names."""
    return cast("list[str]", WORDS.read()[words]) if isinstance(words, str) else words


def _rules_of_sentences(name: str) -> list[dict[str, Any]]:
    return cast("dict[str, list[dict[str, Any]]]", WORDS.read()["sentences"]).get(name, [])


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of any phrase. Words of Latin letters are whole words, and may have an s at their end."""
    latin: list[str] = []
    others: list[str] = []
    for phrase in words:
        listed = latin if phrase.isascii() or phrase[0].isascii() else others
        listed.append(_GAP.join(map(re.escape, phrase.split("…"))))
    whole = [rf"(?<![a-z0-9_])(?:{'|'.join(latin)})s?(?![a-z0-9_])"] if latin else []
    return re.compile("|".join([*whole, *others]))
