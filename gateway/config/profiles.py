"""`regions.X.profile` -> how an assistant speaks in each of its locales: lines of a system message, made by Babel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from gateway.config.findings import Findings
from gateway.config.locales import display_name, full, locale_data
from gateway.config.problems import Path, nearest
from gateway.config.sections.speech import ProfileSection
from gateway.config.tables import helplines, known_currencies, units_of
from gateway.model.speech import Profile
from providers.territories import Places

__all__ = ["compile_profiles", "read_locale"]

_UNITS = {
    "metric": "Units: metric (kilometres, kilograms, degrees Celsius).",
    "us": "Units: US customary (miles, pounds, degrees Fahrenheit).",
    "uk": "Units: metric, but miles, pints and stones where people in the United Kingdom use them.",
}
_FORMS = {
    "formal": "Address the user formally.",
    "informal": "Address the user informally.",
}
_KINDS = {
    "emergency": "in an emergency",
    "police": "police",
    "medical": "ambulance",
    "fire": "fire brigade",
    "crisis": "in a crisis or with thoughts of suicide",
}
_A_DAY, _A_NUMBER = date(2026, 3, 31), 1234.5


def read_locale(findings: Findings, path: Path, tag: str) -> bool:
    """Whether the tag is a locale that there are data for; an error if not."""
    if full(tag) is not None and locale_data(tag) is not None:
        return True
    findings.error(path, f"there are no data for the locale '{tag}'", "write a language of CLDR, such as de or zh-Hant")
    return False


def compile_profiles(
    findings: Findings,
    path: Path,
    section: ProfileSection,
    locales: tuple[str, ...],
    territories: Places,
    today: date,
    choices: Mapping[str, Mapping[str, str]],
) -> dict[str, Profile]:
    """The profile in each locale. choices: what callers may prefer."""
    if section.timezone is not None and not _is_zone(section.timezone):
        near = nearest(section.timezone, _zones())
        hint = f"did you mean {near}?" if near else "write a name such as Asia/Shanghai"
        findings.error((*path, "timezone"), f"there is no time zone '{section.timezone}'", hint)
    by_territory, common = ({}, "") if section.helplines is not None else _helplines(territories)
    return {
        locale: Profile(locale, _lines(section, locale, today), by_territory, common, choices) for locale in locales
    }


def offered_choices() -> dict[str, dict[str, str]]:
    """The line for everything that a caller may prefer, by what it is about."""
    return {"units": _UNITS, "form": _FORMS, "time_zone": {zone: _zone_line(zone) for zone in _zones()}}


def _zones() -> list[str]:
    from babel.core import get_global

    return sorted(get_global("zone_territories"))


def _is_zone(name: str) -> bool:
    return name in _zones()


def _zone_line(zone: str) -> str:
    return f"The user's time zone is {zone}."


def _lines(section: ProfileSection, locale: str, today: date) -> tuple[tuple[str, str], ...]:
    # Who reads another language in a place pays and measures as everybody there.
    territory, written = _territory_of(section.locale), _territory_of(locale)
    units = section.units or (units_of(territory) if territory else None)
    currency = section.currency or (_currency_of(territory, today) if territory else None)
    lines = [
        ("language", f"Language: {display_name(locale)} ({locale}), unless the user writes in another."),
        ("formats", _formats(locale) if written else ""),
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
    return meant.said_territory if meant is not None else None


def _formats(locale: str) -> str:
    from babel.dates import format_date
    from babel.numbers import format_decimal

    data = locale_data(locale)
    day, number = format_date(_A_DAY, "medium", data), format_decimal(_A_NUMBER, locale=data)
    return f"Formats: 31 March 2026 is written {day}, and 1234.5 is written {number}."


def _currency_of(territory: str, today: date) -> str | None:
    from babel.numbers import get_territory_currencies

    known = known_currencies().get(territory)
    found = get_territory_currencies(territory, start_date=today)
    return known or (str(found[0]) if found else None)


def _currency_name(currency: str) -> str:
    from babel.numbers import get_currency_name

    return get_currency_name(currency, locale="en")


def helpline_text(numbers: Mapping[str, str]) -> str:
    """The line with the numbers: those that are known first, in this order."""
    kinds = [*(kind for kind in _KINDS if kind in numbers), *(kind for kind in numbers if kind not in _KINDS)]
    told = ", ".join(f"{_KINDS.get(kind, kind)} {numbers[kind]}" for kind in kinds)
    return f"Whom to call: {told}."


def _helplines(territories: Places) -> tuple[dict[str, str], str]:
    """The line of each territory of the region, and what holds in all of them."""
    known = helplines()
    everywhere = territories.included is None
    places = sorted(known if everywhere else territories.included or ())
    numbers = {place: known.get(place, {}) for place in places}
    lines = {place: helpline_text(some) for place, some in numbers.items() if some}
    shared = None if everywhere or not numbers else set.intersection(*(set(some.items()) for some in numbers.values()))
    return lines, helpline_text(dict(sorted(shared))) if shared else ""
