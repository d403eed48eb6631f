"""What can be told of a text without understanding it: its words, sentences, script and language; what it says bare.

Chinese, Japanese and Korean write without spaces or with their own punctuation, so that counting is by script.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["bare", "language_of", "numbers_in", "script_shares", "sentences_of", "words_of"]

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
_LEAST_SHARE = 0.3


def bare(text: str) -> str:
    """The text as it is compared: one width, no case, no punctuation, no articles, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(one if unicodedata.category(one)[0] in "LNM" or one in "%$€¥£°+-" else " " for one in folded)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def words_of(text: str) -> list[str]:
    """The words; each Chinese character and each kana counts as one."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


def sentences_of(text: str) -> int:
    """How many sentences there are; text behind the last full stop is one more."""
    ends = list(_SENTENCE.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(words_of(rest))


def script_shares(text: str) -> dict[str, float]:
    """Which share of the letters each script has; empty for a text without letters."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count} if total else {}


def language_of(text: str) -> str | None:
    """The language, as far as script and function words tell; None in doubt."""
    shares = script_shares(text)
    if not shares:
        return None
    if shares.get("hangul", 0) >= _LEAST_SHARE:
        return "ko"
    if shares.get("kana", 0) > 0.05 and shares.get("kana", 0) + shares.get("han", 0) >= _LEAST_SHARE:
        return "ja"
    if shares.get("han", 0) >= _LEAST_SHARE:
        return "zh"
    if shares.get("cyrillic", 0) >= _LEAST_SHARE:
        return "ru"
    words = [word.casefold() for word in words_of(text)]
    found = {language: sum(word in common for word in words) for language, common in _COMMON.items()}
    best = max(found, key=lambda language: found[language])
    return best if found[best] and list(found.values()).count(found[best]) == 1 else None


def numbers_in(text: str) -> list[float]:
    """Every number in the text, however its thousands and decimals are marked."""
    return [_value(found) for found in _NUMBER.findall(unicodedata.normalize("NFKC", text))]


def _value(written: str) -> float:
    digits = re.sub(r"['’ \u00a0\u202f]", "", written.replace("−", "-"))
    marks = [one for one in digits if one in ".,"]
    if len(set(marks)) == 2:
        decimal = marks[-1]
        digits = digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    elif len(marks) > 1 or (marks and re.fullmatch(r"[-+]?[1-9]\d{0,2}[.,]\d{3}", digits)):
        # Ambiguous (1.234): three digits behind a single mark are read as thousands, as people write them.
        digits = re.sub("[.,]", "", digits)
    else:
        digits = digits.replace(",", ".")
    return float(digits)
