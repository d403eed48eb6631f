"""Compile the profile of a region for each of its locales, with the numbers of helplines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from gateway.config.known_texts import helplines, table, units_of
from gateway.config.locales import display_name, full, locale_data
from gateway.config.problems import KeyPath, nearest
from gateway.config.schema.location import ProfileSection
from gateway.config.validation import Findings
from gateway.model.region_text import Profile
from providers.territories import Places

_UNITS = {
    "metric": "Units: metric (kilometres, kilograms, degrees Celsius).",
    "us": "Units: US customary (miles, pounds, degrees Fahrenheit).",
    "uk": "Units: metric, but miles, pints and stones where people in the United Kingdom use them.",
}
_FORMS = {"formal": "Address the user formally.", "informal": "Address the user informally."}
_KINDS = {
    "emergency": "in an emergency",
    "police": "police",
    "medical": "ambulance",
    "fire": "fire brigade",
    "crisis": "in a crisis or with thoughts of suicide",
}
_SAMPLE_DAY, _SAMPLE_NUMBER = date(2026, 3, 31), 1234.5


def read_locale(findings: Findings, path: KeyPath, tag: str) -> bool:
    """Return whether there are data for the locale. Report an error if not."""
    if full(tag) is not None and locale_data(tag) is not None:
        return True
    findings.error(path, f"no locale data for '{tag}'", "write a language tag that CLDR knows, such as de or zh-Hant")
    return False


def compile_profiles(
    findings: Findings,
    path: KeyPath,
    section: ProfileSection,
    locales: tuple[str, ...],
    territories: Places,
    today: date,
    choices: Mapping[str, Mapping[str, str]],
) -> dict[str, Profile]:
    """Return the profile in each locale. `choices` are the lines for the preferences of callers."""
    if section.timezone is not None and section.timezone not in _zones():
        near = nearest(section.timezone, _zones())
        hint = f"did you mean {near}?" if near else "write a name such as Asia/Shanghai"
        findings.error((*path, "timezone"), f"unknown time zone '{section.timezone}'", hint)
    by_territory, common = ({}, "") if section.helplines is not None else _helplines(territories)
    return {
        locale: Profile(locale, _lines(section, locale, today), by_territory, common, choices) for locale in locales
    }


def offered_choices() -> dict[str, dict[str, str]]:
    """Return the line for each value that a caller may prefer, by the name of the preference."""
    return {"units": _UNITS, "form": _FORMS, "time_zone": {zone: _zone_line(zone) for zone in _zones()}}


def _zones() -> list[str]:
    from babel.core import get_global

    return sorted(get_global("zone_territories"))


def _zone_line(zone: str) -> str:
    return f"The user's time zone is {zone}."


def _lines(section: ProfileSection, locale: str, today: date) -> tuple[tuple[str, str], ...]:
    # Units and currency depend on the territory of the profile, also for users who read another language there.
    territory, locale_territory = _territory_of(section.locale), _territory_of(locale)
    units = section.units or (units_of(territory) if territory else None)
    currency = section.currency or (_currency_of(territory, today) if territory else None)
    lines = [
        ("language", f"Language: {display_name(locale)} ({locale}), unless the user writes in another."),
        ("formats", _formats(locale) if locale_territory else ""),
        ("time_zone", _zone_line(section.timezone) if section.timezone else ""),
        ("units", _UNITS[units] if units else ""),
        ("currency", f"Currency: {_currency_name(currency)} ({currency})." if currency else ""),
        ("form", _FORMS[section.form] if section.form else ""),
        ("tone", section.tone or ""),
        ("helplines", helpline_text(section.helplines) if section.helplines else ""),
    ]
    return tuple(line for line in lines if line[1]) + tuple(("notice", notice) for notice in section.notices)


def _territory_of(locale: str) -> str | None:
    meant = full(locale)
    return meant.explicit_territory if meant is not None else None


def _formats(locale: str) -> str:
    from babel.dates import format_date
    from babel.numbers import format_decimal

    data = locale_data(locale)
    day, number = format_date(_SAMPLE_DAY, "medium", data), format_decimal(_SAMPLE_NUMBER, locale=data)
    return f"Formats: 31 March 2026 is written {day}, and 1234.5 is written {number}."


def _currency_of(territory: str, today: date) -> str | None:
    from babel.numbers import get_territory_currencies

    known: str | None = table("places")["currencies"].get(territory)
    currencies = get_territory_currencies(territory, start_date=today)
    return known or (str(currencies[0]) if currencies else None)


def _currency_name(currency: str) -> str:
    from babel.numbers import get_currency_name

    return get_currency_name(currency, locale="en")


def helpline_text(numbers: Mapping[str, str]) -> str:
    """Return the line with the numbers: known kinds first, in a fixed order."""
    kinds = [*(kind for kind in _KINDS if kind in numbers), *(kind for kind in numbers if kind not in _KINDS)]
    entries = ", ".join(f"{_KINDS.get(kind, kind)} {numbers[kind]}" for kind in kinds)
    return f"Whom to call: {entries}."


def _helplines(territories: Places) -> tuple[dict[str, str], str]:
    """Return the line of each territory of the region, and a line with the numbers that all of them share."""
    known = helplines()
    everywhere = territories.included is None
    codes = sorted(known if everywhere else territories.included or ())
    numbers = {code: known.get(code, {}) for code in codes}
    lines = {code: helpline_text(some) for code, some in numbers.items() if some}
    shared = None if everywhere or not numbers else set.intersection(*(set(some.items()) for some in numbers.values()))
    return lines, helpline_text(dict(sorted(shared))) if shared else ""
