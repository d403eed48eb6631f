"""What each region says by itself, from `labels`, `profile` and `refusals`: one voice for each of its locales."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.config.findings import Findings
from gateway.config.locales import best_text, canonical, tags_of
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.profiles import compile_profiles, offered_choices, read_locale
from gateway.config.sections.place import RegionSection
from gateway.config.sections.speech import LabelSection
from gateway.config.tables import KnownLabel, known_labels, known_refusals
from gateway.config.validate import Draft
from gateway.model.speech import SEPARATOR, Label, Profile, Show, Speech, Voice
from providers.territories import Places

__all__ = ["Speaking"]

_MOST_LABELS = 8
# TC260-PG-20252A as public code of vendors has it (as of 2026-11-20): 00, two digits for the kind of subject, its code,
# and either a model of one's own (1 generation, 2 distribution) or nothing.
_PROVIDER_CODE = re.compile(r"00[0-9]{2}[0-9A-Za-z]{18}(00000|[12][0-9A-Za-z]{4})")
_SUCH_AS = "001191310000MA1FL0000X00000"


@dataclass(frozen=True, slots=True)
class _Written:
    """A label of a region in all its languages, with everything that it says or has said."""

    name: str
    texts: Mapping[str, str]
    show: Show
    producer: str | None
    said: frozenset[str]


class Speaking:
    """The speech of each region of one draft. A region takes off what any of them has said: people travel."""

    def __init__(self, draft: Draft, findings: Findings, read_at_s: float) -> None:
        self._findings = findings
        self._today = datetime.fromtimestamp(read_at_s, UTC).date()
        claim = draft.config.location.claim
        self._choices = offered_choices() if claim is not None and claim.preferences is not None else {}
        regions = draft.config.regions.items()
        self._labels = {name: self._read_labels(("regions", name, "labels"), one.labels) for name, one in regions}
        said = {text for labels in self._labels.values() for label in labels for text in label.said}
        self._known = tuple(sorted((text + SEPARATOR for text in said), key=lambda text: (-len(text), text)))

    def of(self, name: str, section: RegionSection, territories: Places) -> Speech | None:
        """What this region says; None where neither it nor any other says anything."""
        labels = self._labels[name]
        if not (labels or section.profile or section.refusals):
            return Speech(Voice(""), {"": Voice("")}, known=self._known) if self._known else None
        path = ("regions", name)
        locales = self._locales(path, section, labels)
        if not locales:
            return None
        profiles: Mapping[str, Profile] = {}
        if section.profile is not None:
            profiles = compile_profiles(
                self._findings,
                (*path, "profile"),
                section.profile,
                locales,
                territories,
                self._today,
                self._choices,
            )
        refusals = _refusals(section)
        voices = {
            locale: Voice(
                locale,
                tuple(Label(one.name, best_text(one.texts, locale), one.show, one.producer) for one in labels),
                profiles.get(locale),
                {code: best_text(texts, locale) for code, texts in refusals.items()},
            )
            for locale in locales
        }
        tags = tags_of(locales) if len(locales) > 1 else {}
        return Speech(voices[locales[0]], voices, tags, self._known)

    def _locales(self, path: Path, section: RegionSection, labels: list[_Written]) -> tuple[str, ...]:
        """Those of the profile; without one, every language that the labels or refusals are written in."""
        if section.profile is not None:
            profile = section.profile
            named = [(("locale",), profile.locale), *((("locales", i), tag) for i, tag in enumerate(profile.locales))]
            sound = [tag for place, tag in named if read_locale(self._findings, (*path, "profile", *place), tag)]
            return tuple(dict.fromkeys(map(canonical, sound)))
        written = [tag for label in labels for tag in label.texts]
        if section.refusals is not None:
            written += [tag for texts in section.refusals.model_dump(exclude_none=True).values() for tag in texts]
        return tuple(dict.fromkeys(map(canonical, written)))

    def _read_labels(self, path: Path, sections: list[LabelSection]) -> list[_Written]:
        if len(sections) > _MOST_LABELS:
            self._findings.error(path, f"has more than {_MOST_LABELS} labels", "their words stand before an answer")
        read: list[_Written] = []
        for index, section in enumerate(sections):
            here = (*path, index)
            if section.name in {label.name for label in read}:
                self._findings.error(here, f"the label {quoted(section.name)} is there twice", "remove one of them")
            elif (label := self._read_label(here, section)) is not None:
                read.append(label)
        return read

    def _read_label(self, path: Path, section: LabelSection) -> _Written | None:
        known = known_labels().get(section.name)
        if known is None:
            return self._read_own(path, section)
        texts = section.text or known.text
        if section.text is not None and not self._says_it(path, known, section.text):
            return None
        if known.aigc and section.producer is None:
            message = f"{section.name} has no `producer`, so that the `AIGC` object names nobody"
            hint = f"write {{name: {section.name}, producer: <your code>}}"
            self._findings.warn(path, message, hint)
        if known.aigc and section.producer is not None and _PROVIDER_CODE.fullmatch(section.producer) is None:
            message = "is not the code of a provider of a service, as far as is known"
            hint = f"27 characters, such as {_SUCH_AS}: 00, 11 for an organisation, its code of 18, and 00000"
            self._findings.warn((*path, "producer"), message, hint)
        if not known.aigc and section.producer is not None:
            self._findings.error((*path, "producer"), f"{section.name} has no `AIGC` object", "remove it")
        producer = (section.producer or "") if known.aigc else None
        said = {*known.text.values(), *texts.values(), *section.earlier}
        return _Written(known.name, texts, section.show or known.show, producer, frozenset(said))

    def _read_own(self, path: Path, section: LabelSection) -> _Written | None:
        if section.text is None:
            message = f"unknown label {quoted(section.name)}, and a label of your own needs `text`"
            self._findings.error(path, message, choice_hint(section.name, known_labels()))
            return None
        if section.producer is not None:
            self._findings.error((*path, "producer"), "a label of your own has no `AIGC` object", "remove it")
        said = frozenset({*section.text.values(), *section.earlier})
        return _Written(section.name, section.text, section.show or "always", None, said)

    def _says_it(self, path: Path, known: KnownLabel, texts: Mapping[str, str]) -> bool:
        """Whether the words have what the law wants in them."""
        sound = True
        for language, text in texts.items():
            lacking = [group for group in known.must_contain if not any(word in text for word in group)]
            if lacking:
                wanted = " and ".join(" or ".join(group) for group in lacking)
                self._findings.error((*path, "text", language), f"lacks what the law wants in it: {wanted}")
                sound = False
        return sound


def _refusals(section: RegionSection) -> dict[str, Mapping[str, str]]:
    """By error code: the operator's own texts, else ours."""
    own: dict[str, Mapping[str, str]] = section.refusals.model_dump(exclude_none=True) if section.refusals else {}
    return {**known_refusals(), **own}
