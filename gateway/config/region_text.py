"""Compile labels, profiles and refusals for each region and locale."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from typing import Any, Literal

from gateway.config.locales import best_text, canonical, display_name, full, locale_data, tags_of
from gateway.config.problems import KeyPath, choice_hint, nearest, quoted
from gateway.config.schema.location import LabelSection, ProfileSection, RegionSection
from gateway.config.validation import Draft, Findings
from gateway.model.approval import days_at
from gateway.model.endings import law_ending
from gateway.model.refusal_reason import CODES_WITHOUT_A_REGION, REASON_BY_CODE, RefusalReason
from gateway.model.region_text import SEPARATOR, Label, Locale, Profile, RegionText, Sentence, Sentences, Show
from gateway.model.units import parse_age_s
from gateway.policy.location.claim import ClaimSection
from providers.territories import Places, parse_places
from providers.value import Value

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
_MAX_LABELS = 8
_LEAST_REPEAT_S = 600.0
# TC260-PG-20252A, as far as it is known from public code of vendors (as of 2026-11-20): 00, two digits for the kind of
# organisation, its code of 18 characters, and five characters for its own model (first 1 for generation, 2 for
# distribution) or 00000.
_PROVIDER_CODE = re.compile(r"00[0-9]{2}[0-9A-Za-z]{18}(00000|[12][0-9A-Za-z]{4})")
_EXAMPLE_CODE = "001191310000MA1FL0000X00000"


class KnownLabel(Value, frozen=True):
    """A built-in label.

    Attributes:
        aigc: Whether the law requires the `AIGC` object.
        must_contain: The text must contain one word of each group.
        repeat_s: After how long it is shown again, or None if it is not.
        repeat_text: Its text where it is shown again. Empty if that is `text`.
    """

    name: str
    text: Mapping[str, str]
    show: Show
    aigc: bool = False
    must_contain: tuple[tuple[str, ...], ...] = ()
    repeat_s: float | None = None
    repeat_text: Mapping[str, str] = {}


@cache
def _table(name: str) -> dict[str, Any]:
    file = resources.files("gateway.config").joinpath("data", f"{name}.toml")
    return tomllib.loads(file.read_text("utf-8"))


@cache
def known_labels() -> dict[str, KnownLabel]:
    """Return the built-in labels by name."""
    return {
        name: KnownLabel(
            name,
            entry["text"],
            entry["show"],
            entry.get("aigc", False),
            tuple(tuple(group) for group in entry.get("must_contain", ())),
            parse_age_s(entry["repeat"]) if "repeat" in entry else None,
            entry.get("repeat_text", {}),
        )
        for name, entry in _table("labels").items()
        if isinstance(entry, dict)
    }


@cache
def law_ends() -> dict[str, tuple[date, str]]:
    """Return the first day without a law, by label, and what follows. A label with a law that does not end has none."""
    rows = _table("laws")["laws"]
    labels = {name for row in rows for name in row.get("labels", ())}
    of_label = {name: [row for row in rows if name in row.get("labels", ())] for name in labels}
    last = {name: max(some, key=lambda row: row.get("ends", date.max)) for name, some in of_label.items()}
    return {name: (row["ends"], row.get("instead", "")) for name, row in last.items() if "ends" in row}


def ends_of_laws(draft: Draft) -> dict[str, tuple[date, str]]:
    """Return the ends of the laws that the labels of the regions are for, as `law_ends` does."""
    labels = {label.name for region in draft.config.regions.values() for label in region.labels}
    return {name: end for name, end in law_ends().items() if name in labels}


@cache
def known_refusals() -> dict[str, dict[str, str]]:
    """Return the built-in texts of refusals by error code and language."""
    return {code: texts for code, texts in _table("refusals").items() if isinstance(texts, dict)}


@cache
def helplines() -> dict[str, dict[str, str]]:
    """Return the emergency numbers by territory and kind."""
    table = _table("helplines")
    lines: dict[str, dict[str, str]] = {}
    for word, numbers in table["groups"].items():
        for territory in parse_places([word]).included or ():
            lines[territory] = numbers
    lines.update(table["lines"])
    return lines


def units_of(territory: str) -> str:
    """Return the system of units of a territory: `metric`, `us` or `uk`."""
    units = _table("places")["units"]
    return next((system for system in ("us", "uk") if territory in units[system]), "metric")


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

    known: str | None = _table("places")["currencies"].get(territory)
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


class _LabelTexts(Value, frozen=True):
    """A label of a region in all its languages, with its present and former texts."""

    name: str
    texts: Mapping[str, str]
    show: Show
    producer: str | None
    present_and_former: frozenset[str]
    repeat_s: float | None = None
    repeat_texts: Mapping[str, str] = {}
    audio: Literal["file", "required", "none"] = "none"

    def in_locale(self, locale: str) -> Label:
        """Return the label in one locale."""
        text = best_text(self.texts, locale)
        repeat_text = best_text(self.repeat_texts, locale) if self.repeat_texts else text
        return Label(self.name, text, self.show, self.producer, self.repeat_s, repeat_text, None, self.audio)


class RegionTextCompiler:
    """Compiles the texts of regions. Each removes the labels of all from the history, because users travel."""

    def __init__(self, draft: Draft, findings: Findings, read_at_s: float) -> None:
        self._findings = findings
        self._today = datetime.fromtimestamp(read_at_s, UTC).date()
        self._days = days_at(read_at_s)
        claim = draft.config.location.of(ClaimSection)
        self._choices = offered_choices() if claim is not None and claim.preferences is not None else {}
        regions = draft.config.regions.items()
        self._labels = {name: self._read_labels(("regions", name, "labels"), one.labels) for name, one in regions}
        texts = {text for labels in self._labels.values() for label in labels for text in label.present_and_former}
        self._known = tuple(sorted((text + SEPARATOR for text in texts), key=lambda text: (-len(text), text)))

    def of(self, name: str, section: RegionSection, territories: Places) -> RegionText | None:
        """Return the texts of the region, or None if no region has any."""
        labels = self._labels[name]
        if not (labels or section.profile or section.refusals):
            return RegionText(Locale(""), {"": Locale("")}, known=self._known) if self._known else None
        path = ("regions", name)
        locales = self._locales(path, section, labels)
        if not locales:
            return None
        profiles: Mapping[str, Profile] = {}
        if section.profile is not None:
            profiles = compile_profiles(
                self._findings, (*path, "profile"), section.profile, locales, territories, self._today, self._choices
            )
        own = self._own_refusals((*path, "refusals"), section.refusals or {})
        refusals: dict[str, Mapping[str, str]] = {**known_refusals(), **own}
        by_locale = {
            locale: Locale(
                locale,
                tuple(one.in_locale(locale) for one in labels),
                profiles.get(locale),
                {code: best_text(texts, locale) for code, texts in refusals.items()},
                {
                    code: best_text({tag: Sentence(canonical(tag), text) for tag, text in texts.items()}, locale)
                    for code, texts in own.items()
                },
            )
            for locale in locales
        }
        tags = tags_of(locales) if len(locales) > 1 else {}
        return RegionText(by_locale[locales[0]], by_locale, tags, self._known)

    def _locales(self, path: KeyPath, section: RegionSection, labels: list[_LabelTexts]) -> tuple[str, ...]:
        """Return the locales of the profile. Without one, return the languages of the labels and refusals."""
        if section.profile is not None:
            profile = section.profile
            named = [(("locale",), profile.locale), *((("locales", i), tag) for i, tag in enumerate(profile.locales))]
            valid = [tag for key, tag in named if read_locale(self._findings, (*path, "profile", *key), tag)]
            return tuple(dict.fromkeys(map(canonical, valid)))
        languages = [tag for label in labels for tag in label.texts]
        if section.refusals is not None:
            languages += [tag for texts in section.refusals.values() for tag in texts]
        return tuple(dict.fromkeys(map(canonical, languages)))

    def _own_refusals(
        self, path: KeyPath, refusals: Mapping[str, Mapping[str, str]]
    ) -> Mapping[str, Mapping[str, str]]:
        """Return the operator's own texts of refusals by error code, and warn of those that no request gets."""
        for code in refusals:
            if code in CODES_WITHOUT_A_REGION:
                message = "has no effect: the region of a request with this error is not known"
                self._findings.warn((*path, code), message, f"write `messages.{REASON_BY_CODE[code]}`")
        return refusals

    def _read_labels(self, path: KeyPath, sections: list[LabelSection]) -> list[_LabelTexts]:
        if len(sections) > _MAX_LABELS:
            hint = "remove some: their text is put before each answer"
            self._findings.error(path, f"has more than {_MAX_LABELS} labels", hint)
        read: list[_LabelTexts] = []
        for index, section in enumerate(sections):
            label_path = (*path, index)
            if section.name in {label.name for label in read}:
                message = f"the label {quoted(section.name)} is listed twice"
                self._findings.error(label_path, message, "remove one of them")
            elif (label := self._read_label(label_path, section)) is not None:
                other = next((it.name for it in read if it.repeat_s is not None), None)
                if label.repeat_s is not None and other is not None:
                    message = f"a second label would be shown again, and {quoted(other)} is already"
                    self._findings.error(label_path, message, "remove `repeat` of one of them, or write show: always")
                read.append(label)
        return read

    def _read_label(self, path: KeyPath, section: LabelSection) -> _LabelTexts | None:
        known = known_labels().get(section.name)
        if known is None and section.text is None:
            message = f"unknown label {quoted(section.name)}, and a label of your own needs `text`"
            self._findings.error(path, message, choice_hint(section.name, known_labels()))
            return None
        self._warn_of_law(path, section.name)
        known = known or KnownLabel(section.name, section.text or {}, "always")  # one of the operator's own
        texts = section.text or known.text
        if section.text is not None and not self._has_required_words(path, known, section.text):
            return None
        if known.aigc and section.producer is None:
            message = f"{section.name} has no `producer`, so the `AIGC` object does not name a provider"
            hint = f"write {{name: {section.name}, producer: <your code>}}"
            self._findings.warn(path, message, hint)
        if known.aigc and section.producer is not None and _PROVIDER_CODE.fullmatch(section.producer) is None:
            message = "does not have the known form of a service provider's code"
            hint = f"27 characters, such as {_EXAMPLE_CODE}: 00, 11 for an organisation, its code of 18, and 00000"
            self._findings.warn((*path, "producer"), message, hint)
        if not known.aigc and section.producer is not None:
            which = section.name if section.name in known_labels() else "a label of your own"
            self._findings.error((*path, "producer"), f"{which} has no `AIGC` object", "remove it")
        producer = (section.producer or "") if known.aigc else None
        show = section.show or known.show
        # With the operator's own text, the built-in text of a repetition would be in other words.
        repeat_texts = section.repeat_text or (known.repeat_text if section.text is None else {})
        repeat_s = section.repeat if section.repeat is not None or show != "first_turn" else known.repeat_s
        all_texts = {*known.text.values(), *known.repeat_text.values(), *texts.values(), *section.earlier}
        self._check_repeat(path, section, show, repeat_s)
        return _LabelTexts(
            known.name,
            texts,
            show,
            producer,
            frozenset(all_texts | {*repeat_texts.values()}),
            repeat_s,
            repeat_texts,
            section.audio or ("file" if section.name in known_labels() else "none"),
        )

    def _warn_of_law(self, path: KeyPath, name: str) -> None:
        """Warn if the law that a built-in label is for ends soon. It is an error of `gateway check` once it has."""
        if (end := law_ends().get(name)) is not None:
            hint = f"use {end[1] or 'a label of your own'}"
            self._findings.warn_of_end(path, law_ending(name, *end, self._days), hint)

    def _check_repeat(self, path: KeyPath, section: LabelSection, show: Show, repeat_s: float | None) -> None:
        if section.repeat is not None and section.repeat < _LEAST_REPEAT_S:
            self._findings.error((*path, "repeat"), "must be 10m or more", "write 10m")
        if section.repeat is not None and show != "first_turn":
            message = f"works only with `show: first_turn`, and this label has `show: {show}`"
            self._findings.error((*path, "repeat"), message, "write show: first_turn, or remove it")
        if section.repeat_text is not None and repeat_s is None:
            self._findings.error(
                (*path, "repeat_text"), "has no effect without `repeat`", "add repeat: 3h, or remove it"
            )

    def _has_required_words(self, path: KeyPath, known: KnownLabel, texts: Mapping[str, str]) -> bool:
        """Return whether each text contains the words that the law requires. Report an error if not."""
        is_valid = True
        for language, text in texts.items():
            missing = [group for group in known.must_contain if not any(word in text for word in group)]
            if missing:
                required = " and ".join(" or ".join(group) for group in missing)
                self._findings.error(
                    (*path, "text", language), f"must contain the words that the law requires: {required}"
                )
                is_valid = False
        return is_valid


def known_messages() -> dict[RefusalReason, dict[str, str]]:
    """Return the built-in sentences for end users by reason and language."""
    return {RefusalReason(name): texts for name, texts in _table("sentences").items() if isinstance(texts, dict)}


@cache
def sentence_tags() -> dict[str, str]:
    """Return the language of the built-in sentences for each language tag, see `Sentences.tags`."""
    # The tags are generated, because most compiles need no other data of Babel, which takes long to load.
    file = resources.files("gateway.config").joinpath("data", "sentence_tags.json")
    tags: dict[str, str] = json.loads(file.read_text("utf-8"))
    return tags


def compile_messages(draft: Draft) -> dict[RefusalReason, Sentences]:
    """Return the sentences for end users by reason: the ones in `messages`, else the built-in ones."""
    known = known_messages()
    tags = sentence_tags()
    compiled = {
        reason: Sentences({"en": texts["en"], **texts}, tags)  # English is for readers of other languages
        for reason, texts in known.items()
    }
    for name, texts in draft.config.messages.items():
        compiled[RefusalReason(name)] = sentences_of(texts)
    return compiled


def built_in_sentences(name: str) -> Sentences:
    """Return a built-in sentence for end users that is not that of a reason: the name of its data file."""
    texts: dict[str, str] = _table(name)["text"]
    return Sentences({"en": texts["en"], **texts}, sentence_tags())


def sentences_of(texts: Mapping[str, str]) -> Sentences:
    """Return a text of the operator for every tag of its languages."""
    written = {canonical(tag): text for tag, text in texts.items()}
    return Sentences(written, tags_of(written))
