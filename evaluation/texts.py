"""Words, numbers, scripts and languages of texts; visible control characters; files that only their owner can read."""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache, partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Literal, TextIO

from gateway.undo import undone_on_failure

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
_MOST_MARKS = 30
# C0 and C1 controls without tab and line feed, soft hyphen, bidirectional controls, zero-width characters without the
# joiners, line separators, invisible operators, surrogates, annotations, the byte order mark and tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e007f]"
)


def _normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Normalise a text with at most 30 marks on a character, as UAX #15 allows: to order more takes their square."""
    if text.isascii():
        return text
    runs = (islice(run, _MOST_MARKS if is_mark else None) for is_mark, run in groupby(text, _is_mark))
    return unicodedata.normalize(form, "".join(chain.from_iterable(runs)))


@cache
def _is_mark(character: str) -> bool:
    """Return whether it is a combining mark, or becomes some."""
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) > 0


def bare(text: str) -> str:
    """Normalise a text for comparison. Width of characters, case, punctuation, articles and spaces do not count."""
    folded = _normalized("NFKC", text).casefold()
    words = "".join(one if unicodedata.category(one)[0] in "LNM" or one in "%$€¥£°+-" else " " for one in folded)
    return " ".join(_ARTICLES.sub(" ", words).split())


def words_of(text: str) -> list[str]:
    """Return the words. Each Chinese character and each kana counts as one word."""
    return _WORD.findall(_normalized("NFC", text))


def sentences_of(text: str) -> int:
    """Return the number of sentences. Text after the last full stop counts as one more."""
    ends = list(_SENTENCE.finditer(text))
    return len(ends) + bool(words_of(text[ends[-1].end() :] if ends else text))


def script_shares(text: str) -> dict[str, float]:
    """Return the share of each script among the letters. Empty for a text without letters."""
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items() if count} if total else {}


def language_of(text: str) -> str | None:
    """Detect the language from script and function words. None if it is uncertain."""
    shares = script_shares(text)
    if shares.get("kana", 0) > 0.05 and shares.get("kana", 0) + shares.get("han", 0) >= _MIN_SCRIPT_SHARE:
        return "ja"
    for script, language in (("hangul", "ko"), ("han", "zh"), ("cyrillic", "ru")):
        if shares.get(script, 0) >= _MIN_SCRIPT_SHARE:
            return language
    words = [word.casefold() for word in words_of(text)]
    counts = {language: sum(word in common for word in words) for language, common in _COMMON.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] and list(counts.values()).count(counts[best]) == 1 else None


def numbers_in(text: str) -> list[float]:
    """Return every number in the text, with any separators of thousands and decimals."""
    return [_value(found) for found in _NUMBER.findall(_normalized("NFKC", text))]


def _value(written: str) -> float:
    digits = re.sub(r"['’ \u00a0\u202f]", "", written.replace("−", "-"))
    marks = [one for one in digits if one in ".,"]
    if len(set(marks)) == 2:
        decimal = marks[-1]
        digits = digits.replace("," if decimal == "." else ".", "").replace(decimal, ".")
    elif len(marks) > 1 or (marks and re.fullmatch(r"[-+]?[1-9]\d{0,2}[.,]\d{3}", digits)):
        # Ambiguous (1.234): three digits after a single separator are read as thousands, the usual notation.
        digits = re.sub("[.,]", "", digits)
    return float(digits.replace(",", "."))


def visible_text(text: str) -> str:
    """Return the text with each control character as its code in brackets: `⟨U+001B⟩`. CR LF becomes LF.

    An answer may contain terminal sequences (ESC), or bidirectional controls that show text in another order.
    """
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """Return the text on one line, with control characters visible."""
    return " ".join(visible_text(text).split())


def open_private(path: Path, mode: str = "w", **options: str) -> TextIO:
    """Open a text file for writing that only its owner can read, also if it exists with other permissions.

    `mode` is `w` to replace a file, or `x` to refuse one that exists. The encoding is UTF-8 if none is given.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if mode == "x" else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o600)
    with undone_on_failure(partial(os.close, descriptor)):
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "w", **{"encoding": "utf-8", **options})  # type: ignore[call-overload,no-any-return]
