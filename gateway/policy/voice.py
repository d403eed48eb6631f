"""In which of a region's locales a caller is spoken to: by its own preference, else by `accept-language`, else the
region's own. A language never says where somebody is."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model.speech import Preferences, Speech, Voice

__all__ = ["choose_voice", "find_locale"]

_MOST_LANGUAGES = 20
_MOST_CHARACTERS = 512


def choose_voice(speech: Speech, accept_language: str | None, preferences: Preferences) -> Voice:
    """The voice for this caller."""
    if len(speech.voices) == 1:
        return speech.voice
    wanted = [preferences.language] if preferences.language else []
    if accept_language:
        wanted += _languages(accept_language)
    for language in wanted:
        if (locale := find_locale(speech.tags, language)) is not None:
            return speech.voices[locale]
    return speech.voice


def find_locale(tags: Mapping[str, str], language: str) -> str | None:
    """The locale for a language tag, None where there is none that its speakers read: the longest beginning of the tag
    that is known counts (RFC 4647, section 3.4)."""
    tag = language.lower().replace("_", "-")
    while tag:
        if tag in tags:
            return tags[tag] or None
        tag = tag.rpartition("-")[0]
    return None


def _languages(header: str) -> list[str]:
    """The language tags of the header, the most wanted first (RFC 9110, section 12.5.4); `*` asks for nothing."""
    weighted: list[tuple[float, str]] = []
    for item in header[:_MOST_CHARACTERS].split(",")[:_MOST_LANGUAGES]:
        tag, _, parameter = item.partition(";")
        weight = _weight(parameter.strip())
        if weight > 0:
            weighted.append((-weight, tag.strip()))
    return [tag for _, tag in sorted(weighted, key=lambda pair: pair[0])]


def _weight(parameter: str) -> float:
    if not parameter:
        return 1.0
    name, _, value = parameter.partition("=")
    digits = value.strip()
    if name.strip().lower() != "q" or not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        return 0.0
    return min(float(digits), 1.0)
