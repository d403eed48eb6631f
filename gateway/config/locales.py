"""Language tags by Babel's data (CLDR): what a tag means in full, which text fits it, who is spoken to in which locale.

Babel's own `negotiate_locale` compares tags letter by letter: `zh-TW` doesn't find `zh-Hant-TW`, and does find `zh`,
which is another script. Here two tags fit where language and script agree once both are written in full ("likely
subtags", UTS 35). Babel is imported on first use: a process that serves has no need of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from babel import Locale


_T = TypeVar("_T")
# Norwegian as browsers write it is Bokmål, which has an entry of its own.
_SAME = {"no": "nb"}


@dataclass(frozen=True, slots=True)
class FullTag:
    """A tag written in full. said_territory: the territory that the tag itself names."""

    language: str
    script: str
    territory: str
    said_territory: str | None

    def speaks_like(self, other: FullTag) -> bool:
        """Whether somebody who reads one reads the other."""
        return (self.language, self.script) == (other.language, other.script)


def full(tag: str) -> FullTag | None:
    """The tag in full; None for a language that CLDR doesn't know."""
    from babel.core import get_global

    language, script, territory = _parts(tag)
    language = _SAME.get(language, language)
    likely: Mapping[str, str] = get_global("likely_subtags")
    names = [f"{language}_{part}" for part in (territory, script) if part]
    found = next((likely[name] for name in (*names, language) if name in likely), None)
    if found is None:
        return None
    known, likely_script, likely_territory = found.split("_")
    return FullTag(known, script or likely_script, territory or likely_territory, territory)


def _parts(tag: str) -> tuple[str, str | None, str | None]:
    """Language, script and territory of a tag, each as it is written by convention (RFC 5646, section 2.1.1)."""
    from babel.core import get_global

    language, *rest = tag.replace("_", "-").split("-")
    aliases: Mapping[str, str] = get_global("language_aliases")
    language = aliases.get(language.lower(), language.lower()).partition("_")[0]
    script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), None)
    territory = next((part.upper() for part in rest if len(part) == 2 and part.isalpha()), None)
    return language, script, territory


def canonical(tag: str) -> str:
    """The tag as it is written by convention: `zh-Hans-CN`."""
    return "-".join(part for part in _parts(tag) if part)


def display_name(tag: str) -> str:
    """The tag in English words: `Chinese (Simplified, China)`; the script where the language has more than one."""
    from babel import Locale

    meant, usual = full(tag), full(tag.partition("-")[0])
    if meant is None or usual is None:
        return tag
    english = Locale.parse("en")
    _, said_script, _ = _parts(tag)
    script = said_script or (meant.script if not usual.speaks_like(meant) or meant.language == "zh" else None)
    details = [
        *([english.scripts.get(script, script)] if script else []),
        *([english.territories.get(meant.said_territory, meant.said_territory)] if meant.said_territory else []),
    ]
    name = english.languages.get(meant.language, meant.language)
    return f"{name} ({', '.join(details)})" if details else str(name)


def locale_data(tag: str) -> Locale | None:
    """Babel's data for the tag: of its territory where there are some, else of its script or language."""
    from babel import Locale, UnknownLocaleError

    meant = full(tag)
    if meant is None:
        return None
    plain = f"{meant.language}_{meant.territory}"
    scripted = f"{meant.language}_{meant.script}"
    for name in (f"{scripted}_{meant.territory}", plain, scripted, meant.language):
        try:
            found = Locale.parse(name, resolve_likely_subtags=False)
        except (UnknownLocaleError, ValueError):
            continue
        # The language alone is written in its usual script.
        same = full(str(found))
        if same is not None and same.speaks_like(meant):
            return found
    return None


def best_text(texts: Mapping[str, _T], tag: str) -> _T:
    """The text for the locale: in its language, script and territory, else without the territory, else in its language
    in any script, else the first."""
    wanted = full(tag)
    entries = [(full(language), text) for language, text in texts.items()]
    if wanted is not None:
        known = [(one, text) for one, text in entries if one is not None and one.language == wanted.language]
        alike = [(one, text) for one, text in known if one.speaks_like(wanted)]
        here = [(one, text) for one, text in alike if one.said_territory == wanted.territory]
        for some in (here, [pair for pair in alike if pair[0].said_territory is None], alike, known):
            if some:
                return some[0][1]
    return entries[0][1]


def tags_of(locales: Iterable[str]) -> dict[str, str]:
    """For each tag in lower case the offered locale that fits it best, empty where none does (`zh-tw` where only
    simplified Chinese is offered). A tag that isn't there is looked up without its last part."""
    from babel.core import get_global

    offered = [(locale, meant) for locale in locales if (meant := full(locale)) is not None]
    asked = {locale for locale, _ in offered}
    for _, meant in offered:
        asked |= {meant.language, f"{meant.language}-{meant.script}", f"{meant.language}-{meant.territory}"}
        asked.add(f"{meant.language}-{meant.script}-{meant.territory}")
    languages = {meant.language for _, meant in offered}
    likely: Mapping[str, str] = get_global("likely_subtags")
    asked |= {name.replace("_", "-") for name in likely if name.partition("_")[0] in languages}
    aliases: Mapping[str, str] = {**get_global("language_aliases"), **_SAME}
    for alias, meant_by in aliases.items():
        if (language := meant_by.partition("_")[0]) in languages:
            asked |= {alias + tag[len(language) :] for tag in asked if tag.partition("-")[0] == language}
    tags: dict[str, str] = {}
    for tag in sorted(asked):
        wanted = full(tag)
        if wanted is None:
            continue
        fit = [(locale, meant) for locale, meant in offered if meant.speaks_like(wanted)]
        here = [locale for locale, meant in fit if meant.territory == wanted.territory]
        tags[tag.lower()] = (here or [locale for locale, _ in fit] or [""])[0]
    return tags
