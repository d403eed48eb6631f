"""Compare language tags with the data of Babel (CLDR), and choose texts and locales by them.

Babel's own `negotiate_locale` compares tags character by character: `zh-TW` does not match `zh-Hant-TW`, but matches
`zh`, which is another script. Here, two tags match if their languages and scripts are equal after expansion ("likely
subtags", UTS 35). Babel is imported on first use, because a serving process does not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from providers.value import Value

if TYPE_CHECKING:
    from babel import Locale


_T = TypeVar("_T")
# Browsers send `no` for Norwegian Bokmål, which CLDR calls `nb`.
_SAME = {"no": "nb"}


class FullTag(Value, frozen=True):
    """An expanded language tag. `explicit_territory` is the territory that the tag itself names."""

    language: str
    script: str
    territory: str
    explicit_territory: str | None

    def has_same_script(self, other: FullTag) -> bool:
        """Whether both tags have the same language and script, so that readers of one can read the other."""
        return (self.language, self.script) == (other.language, other.script)


def full(tag: str) -> FullTag | None:
    """Return the expanded tag, or None for a language that is not in CLDR."""
    from babel.core import get_global

    language, script, territory = _parts(tag)
    language = _SAME.get(language, language)
    likely: Mapping[str, str] = get_global("likely_subtags")
    names = [f"{language}_{part}" for part in (territory, script) if part]
    expanded = next((likely[name] for name in (*names, language) if name in likely), None)
    if expanded is None:
        return None
    known, likely_script, likely_territory = expanded.split("_")
    return FullTag(known, script or likely_script, territory or likely_territory, territory)


def _parts(tag: str) -> tuple[str, str | None, str | None]:
    """Return the language, script and territory of a tag in their conventional case (RFC 5646, section 2.1.1)."""
    from babel.core import get_global

    language, *rest = tag.replace("_", "-").split("-")
    aliases: Mapping[str, str] = get_global("language_aliases")
    language = aliases.get(language.lower(), language.lower()).partition("_")[0]
    script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), None)
    territory = next((part.upper() for part in rest if len(part) == 2 and part.isalpha()), None)
    return language, script, territory


def canonical(tag: str) -> str:
    """Return the tag in its conventional case: `zh-Hans-CN`."""
    return "-".join(part for part in _parts(tag) if part)


def display_name(tag: str) -> str:
    """Return the English name of the tag: `Chinese (Simplified, China)`, with a script if there are several."""
    from babel import Locale

    meant, usual = full(tag), full(tag.partition("-")[0])
    if meant is None or usual is None:
        return tag
    english = Locale.parse("en")
    _, explicit_script, _ = _parts(tag)
    script = explicit_script or (meant.script if not usual.has_same_script(meant) or meant.language == "zh" else None)
    details = [
        *([english.scripts.get(script, script)] if script else []),
        *([english.territories.get(territory, territory)] if (territory := meant.explicit_territory) else []),
    ]
    name = english.languages.get(meant.language, meant.language)
    return f"{name} ({', '.join(details)})" if details else str(name)


def locale_data(tag: str) -> Locale | None:
    """Return Babel's data for the territory of the tag, else for its script or language, or None."""
    from babel import Locale, UnknownLocaleError

    meant = full(tag)
    if meant is None:
        return None
    plain = f"{meant.language}_{meant.territory}"
    scripted = f"{meant.language}_{meant.script}"
    for name in (f"{scripted}_{meant.territory}", plain, scripted, meant.language):
        try:
            locale = Locale.parse(name, resolve_likely_subtags=False)
        except (UnknownLocaleError, ValueError):
            continue
        # Data for a language alone are in its usual script, which may be another one.
        expanded = full(str(locale))
        if expanded is not None and expanded.has_same_script(meant):
            return locale
    return None


def best_text(texts: Mapping[str, _T], tag: str) -> _T:
    """Return the best text for a locale.

    The order of preference is: same language, script and territory; same language and script without a territory; same
    language and script; same language; the first text.
    """
    target = full(tag)
    entries = [(full(language), text) for language, text in texts.items()]
    if target is not None:
        same_language = [(one, text) for one, text in entries if one is not None and one.language == target.language]
        same_script = [(one, text) for one, text in same_language if one.has_same_script(target)]
        same_territory = [(one, text) for one, text in same_script if one.explicit_territory == target.territory]
        no_territory = [(one, text) for one, text in same_script if one.explicit_territory is None]
        for candidates in (same_territory, no_territory, same_script, same_language):
            if candidates:
                return candidates[0][1]
    return entries[0][1]


def tags_of(locales: Iterable[str]) -> dict[str, str]:
    """Return the best of the offered locales for each tag that a caller may send, in lower case.

    The locale is empty if none matches (`zh-tw` if only simplified Chinese is offered). A tag that is not in the result
    is looked up without its last part.
    """
    from babel.core import get_global

    offered = [(locale, meant) for locale in locales if (meant := full(locale)) is not None]
    candidates = {locale for locale, _ in offered}
    for _, meant in offered:
        candidates |= {meant.language, f"{meant.language}-{meant.script}", f"{meant.language}-{meant.territory}"}
        candidates.add(f"{meant.language}-{meant.script}-{meant.territory}")
    languages = {meant.language for _, meant in offered}
    likely: Mapping[str, str] = get_global("likely_subtags")
    candidates |= {name.replace("_", "-") for name in likely if name.partition("_")[0] in languages}
    aliases: Mapping[str, str] = {**get_global("language_aliases"), **_SAME}
    for alias, meant_by in aliases.items():
        if (language := meant_by.partition("_")[0]) in languages:
            same_language = {tag for tag in candidates if tag.partition("-")[0] == language}
            candidates |= {alias + tag[len(language) :] for tag in same_language}
    tags: dict[str, str] = {}
    for tag in sorted(candidates):
        target = full(tag)
        if target is None:
            continue
        matches = [(locale, meant) for locale, meant in offered if meant.has_same_script(target)]
        same_territory = [locale for locale, meant in matches if meant.territory == target.territory]
        tags[tag.lower()] = (same_territory or [locale for locale, _ in matches] or [""])[0]
    return tags
