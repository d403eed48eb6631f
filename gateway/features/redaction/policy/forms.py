"""The forms of numbers by country, from `forms.toml`, and their check digits. Pure: the file is read once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from providers.value import Value

SEPARATOR = "[ .\\-/\u00a0\u202f]"
"""A character between the groups of a number, as `re` writes it."""
_SPACE = "[ \u00a0\u202f\u2009]"
_END = "(?![A-Za-z0-9])"
_EDGE = r"\b"


class Form(Value, frozen=True):
    """One way to write a number."""

    country: str
    kind: str
    begins: str
    """The characters with which it may begin."""
    text: str
    """It, as a pattern of `re` with at most one group; `pattern` has the boundary after it, for `match`."""
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None
    """Returns whether the number, without separators and in upper case, has the right check digits."""
    context: re.Pattern[str] | None
    """Matches a word that must stand before it, or None if no word has to."""


@cache
def _data() -> Mapping[str, Any]:
    import tomllib  # no process loads it that finds nothing

    return tomllib.loads(files("gateway.features.redaction").joinpath("forms.toml").read_text("utf-8"))


@cache
def forms() -> tuple[Form, ...]:
    return tuple(
        _form(country, kind.upper(), entry)
        for country, kinds in _data()["forms"].items()
        for kind, entries in kinds.items()
        for entry in entries
    )


def _form(country: str, kind: str, entry: Mapping[str, Any]) -> Form:
    # A space of the file is any space, and is the same one where the form refers back to it.
    text = re.sub(r"\[([^\]]*) ([^\]]*)\]", lambda it: f"[{it[1]}{_SPACE[1:-1]}{it[2]}]", entry["form"])
    context = re.compile(entry["context"], re.I) if "context" in entry else None
    check = _CHECKS[entry["check"]] if "check" in entry else None
    pattern = re.compile(f"(?:{text}){_END}", re.A)
    return Form(country, kind, entry["begins"], text, pattern, check, context)


@cache
def _secret_forms() -> tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]:
    return tuple(
        (re.compile(entry["form"], re.ASCII), _IS_RANDOM[entry.get("check", "")]) for entry in _data()["secrets"]
    )


@cache
def secrets() -> str:
    """Return the pattern of all keys in RE2's syntax, some of which may be words: see `is_secret`."""
    return "|".join(entry["form"] for entry in _data()["secrets"])


def is_secret(text: str) -> bool:
    """Return whether a text that has the form of a key is one, and no words."""
    return any(form.fullmatch(text) is not None and is_random(text) for form, is_random in _secret_forms())


@cache
def countries() -> frozenset[str]:
    return frozenset(_data()["forms"])


@cache
def iban_lengths() -> Mapping[str, int]:
    """Return the length of an IBAN by country."""
    return {entry[:2]: int(entry[2:]) for entry in _data()["iban"]["lengths"].split()}


def any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return one pattern that matches where one of these does, with the boundary after it; None without one."""
    numbered, groups = [], 0
    for text in texts:
        numbered.append(text.replace("\\1", f"\\{groups + 1}"))
        groups += re.compile(text).groups
    return re.compile(f"(?:{'|'.join(numbered)}){_END}", re.ASCII) if numbered else None


@cache
def telephone_words() -> str:
    """Return the pattern of words for a telephone in RE2's syntax. A word of ASCII letters stands by itself."""
    words = _data()["telephone"]
    # RE2 knows boundaries of ASCII words only.
    latin = [
        f"{_EDGE if word[0].isascii() else ''}{word}{_EDGE if word[-1].isascii() else ''}"
        for word in sorted(words["latin"], key=len, reverse=True)
    ]
    return f"(?i)(?:{'|'.join([*latin, *words['other']])})"


def _is_card(digits: str) -> bool:
    return 14 <= len(digits) <= 19 and digits != digits[0] * len(digits) and luhn(digits)


CARDS = tuple(
    Form("", "CARD", "23456", text, re.compile(f"(?:{text}){_END}"), _is_card, None)
    for text in (
        "[2-6][0-9]{13,18}",
        f"[2-6][0-9]{{3}}({SEPARATOR})[0-9]{{4}}\\1[0-9]{{4}}\\1[0-9]{{2,7}}",
        f"[2-6][0-9]{{3}}({SEPARATOR})[0-9]{{4}}\\1[0-9]{{4}}\\1[0-9]{{4}}\\1[0-9]{{1,3}}",
        f"[2-6][0-9]{{3}}({SEPARATOR})[0-9]{{6}}\\1[0-9]{{4,5}}",
    )
)
"""The ways to write the number of a payment card, with one and the same separator. They are those of any country."""


_DOUBLED = str.maketrans("0123456789", "0246813579")


def luhn(digits: str) -> bool:
    """Return whether the digits have the check digit of payment cards."""
    return (sum(map(int, digits[::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))) % 10 == 0


def mod_97(text: str) -> bool:
    """Return whether an IBAN has the right check digits."""
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    return sum(weight * int(digit) for weight, digit in zip(weights, digits, strict=False))


def _is_day(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _cn_resident(text: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return _is_day(text[10:12], text[12:14]) and "10X98765432"[_weighted(text, weights) % 11] == text[17]


def _iso7064_11_10(digits: str) -> bool:
    product = 10
    for digit in digits[:-1]:
        product = (((int(digit) + product) % 10 or 10) * 2) % 11
    return (11 - product) % 10 == int(digits[-1])


def _de_insurance(text: str) -> bool:
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    digits = f"{text[:8]}{ord(text[8]) - 64:02}{text[9:11]}"
    total = sum(sum(divmod(weight * int(digit), 10)) for weight, digit in zip(weights, digits, strict=True))
    return _is_day(text[4:6], str(int(text[2:4]) % 50 or 1)) and total % 10 == int(text[11])


def _fr_insurance(text: str) -> bool:
    number = text[:13].replace("2A", "19").replace("2B", "18") if not text.isdigit() else text[:13]
    return 97 - int(number) % 97 == int(text[13:])


def _gb_nhs(digits: str) -> bool:
    return (11 - _weighted(digits[:9], (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11) % 11 == int(digits[9])


def _jp_individual(digits: str) -> bool:
    rest = _weighted(digits[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if rest <= 1 else 11 - rest) == int(digits[11])


def _kr_resident(digits: str) -> bool:
    # Numbers that were issued since October 2020 have no check digit.
    return _is_day(digits[2:4], digits[4:6]) and digits[6] in "012345678"


def _sg_identity(text: str) -> bool:
    first, rest = text[0], _weighted(text[1:8], (2, 7, 6, 5, 4, 3, 2))
    if first == "M":
        return "KLJNPQRTUWX"[10 - (rest + 3) % 11] == text[8]
    letters = "JZIHGFEDCBA" if first in "ST" else "XWUTRQPNMLK"
    return letters[(rest + (4 if first in "TG" else 0)) % 11] == text[8]


_DIGIT, _CAPITAL = re.compile("[0-9]"), re.compile("[A-Z]")
_IS_RANDOM: Mapping[str, Callable[[str], bool]] = {
    "": lambda _: True,
    "digit": lambda text: _DIGIT.search(text) is not None,
    "mixed": lambda text: _DIGIT.search(text) is not None or _CAPITAL.search(text) is not None,
    "both": lambda text: _DIGIT.search(text) is not None and _CAPITAL.search(text) is not None,
}
_CHECKS: Mapping[str, Callable[[str], bool]] = {
    check.__name__[1:]: check
    for check in (
        _cn_resident,
        _iso7064_11_10,
        _de_insurance,
        _fr_insurance,
        _gb_nhs,
        _jp_individual,
        _kr_resident,
        _sg_identity,
    )
}
