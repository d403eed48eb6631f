"""The languages of the views: translated texts, and dates, numbers and money by locale."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal, format_percent

from providers.value import Value

_MOST_CACHED = 4096
"""The texts of numbers and times that are kept: CLDR's formats take longer than the rest of a page."""
FOLDER = Path(__file__).parent / "locale"
LANGUAGES = {"en": "English", "zh-Hans": "简体中文"}
"""The languages with their own names."""
WORDS: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
"""The English words for codes, names and results, by table. They are translated when they are shown."""


def _(message: str) -> str:
    """Mark a text for translation. It is translated when it is shown."""
    return message


def language_of(chosen: str, accepted: str) -> str:
    """Return the language of a page, which the visitor may have chosen."""
    if chosen in LANGUAGES:
        return chosen
    for item in accepted.split(","):
        tag = item.partition(";")[0].strip().lower()
        if tag == "zh" or tag.startswith("zh-"):
            return "zh-Hans"
        if tag == "en" or tag.startswith("en-"):
            return "en"
    return "en"


class ViewTexts(Value, frozen=True):
    """The texts and formats of one language."""

    language: str
    locale: Locale

    def gettext(self, message: str) -> str:
        return _catalogue(self.language).get(message) or message

    @property
    def comma(self) -> str:
        """The separator of the members of a list."""
        return "、" if self.locale.language == "zh" else ", "

    def with_note(self, text: str, note: str) -> str:
        """Return a text with a note in brackets."""
        return f"{text}{self.gettext(_(' ('))}{note}{self.gettext(_(')'))}"

    def code(self, kind: str, code: object, own: str = "") -> str:
        """Return the words for a code of this kind, such as `error`, or the gateway's `own` (English) words."""
        words = _catalogue(self.language).get(f"{kind}\4{code}")
        return words.replace("{detail}", own) if words else own or str(code)

    def number(self, value: object) -> str:
        """Return a number, or a dash if it is not known."""
        return "–" if value is None else _number(str(value), self.locale)

    def percent(self, value: object) -> str:
        """Return a share (0 to 1), or a dash if it is not known."""
        return "–" if value is None else format_percent(_decimal(value), "#,##0.#%", locale=self.locale)

    def money(self, amount: object, currency: object) -> str:
        """Return an amount, or a dash if it is not known."""
        if amount is None or not currency:
            return "–"
        return _money(str(amount), str(currency), self.locale)

    def time(self, value: object) -> str:
        """Return a time with its zone, or a dash if there is none. It is in ISO 8601, or Unix time."""
        if not value:
            return "–"
        return _time(value if isinstance(value, int | float) else str(value), self.locale)

    def day(self, value: object) -> str:
        """Return a day (`2026-11-25`), or a dash if there is none."""
        return format_date(date.fromisoformat(str(value)), "medium", locale=self.locale) if value else "–"


@lru_cache(_MOST_CACHED)
def _number(value: str, locale: Locale) -> str:
    return format_decimal(_decimal(value), locale=locale)


@lru_cache(_MOST_CACHED)
def _money(amount: str, currency: str, locale: Locale) -> str:
    return format_currency(_decimal(amount), currency, locale=locale, decimal_quantization=False)


@lru_cache(_MOST_CACHED)
def _time(value: float | str, locale: Locale) -> str:
    at = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    return f"{format_datetime(at.astimezone(UTC), 'medium', locale=locale)} UTC"


def _decimal(value: object) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)


@cache
def texts_in(language: str) -> ViewTexts:
    return ViewTexts(language, Locale.parse(language.replace("-", "_")))


@cache
def _catalogue(language: str) -> dict[str, str]:
    path = FOLDER / f"{language}.po"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        return {
            f"{message.context}\4{message.id}" if message.context else str(message.id): str(message.string)
            for message in read_po(file)
            if message.id and not message.fuzzy
        }
