"""Compile the texts of each region for its locales: labels and refusals, with the profile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Literal

from gateway.config.known_texts import KnownLabel, known_labels, known_refusals, law_ends
from gateway.config.locales import best_text, canonical, tags_of
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.profiles import compile_profiles, offered_choices, read_locale
from gateway.config.schema.location import LabelSection, RegionSection
from gateway.config.validation import Draft
from gateway.model.approval import days_at
from gateway.model.endings import law_ending
from gateway.model.refusal_reason import CODES_WITHOUT_A_REGION, REASON_BY_CODE
from gateway.model.region_text import SEPARATOR, Label, Locale, Profile, RegionText, Sentence, Show
from gateway.policy.location.claim import ClaimSection
from providers.territories import Places
from providers.value import Value

_MAX_LABELS = 8
_LEAST_REPEAT_S = 600.0
# TC260-PG-20252A, as far as it is known from public code of vendors (as of 2026-11-20): 00, two digits for the kind of
# organisation, its code of 18 characters, and five characters for its own model (first 1 for generation, 2 for
# distribution) or 00000.
_PROVIDER_CODE = re.compile(r"00[0-9]{2}[0-9A-Za-z]{18}(00000|[12][0-9A-Za-z]{4})")
_EXAMPLE_CODE = "001191310000MA1FL0000X00000"


def ends_of_laws(draft: Draft) -> dict[str, tuple[date, str]]:
    """Return the ends of the laws that the labels of the regions are for, as `law_ends` does."""
    labels = {label.name for region in draft.config.regions.values() for label in region.labels}
    return {name: end for name, end in law_ends().items() if name in labels}


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

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._today = datetime.fromtimestamp(draft.document.read_at_s, UTC).date()
        self._days = days_at(draft.document.read_at_s)
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
                self._draft, (*path, "profile"), section.profile, locales, territories, self._today, self._choices
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
            valid = [tag for key, tag in named if read_locale(self._draft, (*path, "profile", *key), tag)]
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
                self._draft.warn((*path, code), message, f"write `messages.{REASON_BY_CODE[code]}`")
        return refusals

    def _read_labels(self, path: KeyPath, sections: list[LabelSection]) -> list[_LabelTexts]:
        if len(sections) > _MAX_LABELS:
            hint = "remove some: their text is put before each answer"
            self._draft.error(path, f"has more than {_MAX_LABELS} labels", hint)
        read: list[_LabelTexts] = []
        for index, section in enumerate(sections):
            label_path = (*path, index)
            if section.name in {label.name for label in read}:
                message = f"the label {quoted(section.name)} is listed twice"
                self._draft.error(label_path, message, "remove one of them")
            elif (label := self._read_label(label_path, section)) is not None:
                other = next((it.name for it in read if it.repeat_s is not None), None)
                if label.repeat_s is not None and other is not None:
                    message = f"a second label would be shown again, and {quoted(other)} is already"
                    self._draft.error(label_path, message, "remove `repeat` of one of them, or write show: always")
                read.append(label)
        return read

    def _read_label(self, path: KeyPath, section: LabelSection) -> _LabelTexts | None:
        known = known_labels().get(section.name)
        if known is None and section.text is None:
            message = f"unknown label {quoted(section.name)}, and a label of your own needs `text`"
            self._draft.error(path, message, choice_hint(section.name, known_labels()))
            return None
        self._warn_of_law(path, section.name)
        known = known or KnownLabel(section.name, section.text or {}, "always")  # one of the operator's own
        texts = section.text or known.text
        if section.text is not None and not self._has_required_words(path, known, section.text):
            return None
        if known.aigc and section.producer is None:
            message = f"{section.name} has no `producer`, so the `AIGC` object does not name a provider"
            hint = f"write {{name: {section.name}, producer: <your code>}}"
            self._draft.warn(path, message, hint)
        if known.aigc and section.producer is not None and _PROVIDER_CODE.fullmatch(section.producer) is None:
            message = "does not have the known form of a service provider's code"
            hint = f"27 characters, such as {_EXAMPLE_CODE}: 00, 11 for an organisation, its code of 18, and 00000"
            self._draft.warn((*path, "producer"), message, hint)
        if not known.aigc and section.producer is not None:
            which = section.name if section.name in known_labels() else "a label of your own"
            self._draft.error((*path, "producer"), f"{which} has no `AIGC` object", "remove it")
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
            self._draft.warn_of_end(path, law_ending(name, *end, self._days), hint)

    def _check_repeat(self, path: KeyPath, section: LabelSection, show: Show, repeat_s: float | None) -> None:
        if section.repeat is not None and section.repeat < _LEAST_REPEAT_S:
            self._draft.error((*path, "repeat"), "must be 10m or more", "write 10m")
        if section.repeat is not None and show != "first_turn":
            message = f"works only with `show: first_turn`, and this label has `show: {show}`"
            self._draft.error((*path, "repeat"), message, "write show: first_turn, or remove it")
        if section.repeat_text is not None and repeat_s is None:
            self._draft.error((*path, "repeat_text"), "has no effect without `repeat`", "add repeat: 3h, or remove it")

    def _has_required_words(self, path: KeyPath, known: KnownLabel, texts: Mapping[str, str]) -> bool:
        """Return whether each text contains the words that the law requires. Report an error if not."""
        is_valid = True
        for language, text in texts.items():
            missing = [group for group in known.must_contain if not any(word in text for word in group)]
            if missing:
                required = " and ".join(" or ".join(group) for group in missing)
                message = f"must contain the words that the law requires: {required}"
                self._draft.error((*path, "text", language), message)
                is_valid = False
        return is_valid
