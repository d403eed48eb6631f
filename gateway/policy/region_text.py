"""Choose the locale of a caller, compose the region's system message, and add it to a request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from gateway.model.age import AgeBand
from gateway.model.config_version import ConfigVersion, remember
from gateway.model.help import Help
from gateway.model.location import Location
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.model.region_text import NO_PREFERENCES, Locale, Preferences, Profile, RegionText, Sentence, Sentences
from gateway.policy.labels import without_labels
from providers.chat import ChatRequest, SystemMessage
from providers.failures import Failure
from providers.territories import parent
from providers.value import Value, replace

_MAX_LANGUAGES = 20
_MAX_CHARACTERS = 512
_NO_LOCALE = Locale("")
_VERSION_DIGITS = 6
_OPENING = "You speak with somebody in a certain place. Keep to this unless the user asks for something else:"
# The path of a message in OpenAI's form. Providers with another form, such as Anthropic, count the system message
# separately.
_MESSAGE = re.compile(r"\bmessages\[(?:0\][\w.\[\]]*|([1-9]\d{0,8})\])")


def choose_locale(region_text: RegionText, accept_language: str | None, preferences: Preferences) -> Locale:
    """Return the locale for this caller: by the preferred language, else by `accept-language`, else the default."""
    if len(region_text.locales) == 1:
        return region_text.default_locale
    languages = [preferences.language] if preferences.language else []
    if accept_language:
        languages += _languages(accept_language)
    for language in languages:
        if (locale := find_locale(region_text.tags, language)) is not None:
            return region_text.locales[locale]
    return region_text.default_locale


def sentence_for(
    config: ConfigVersion,
    location: Location | None,
    accept_language: str | None,
    code: str,
    built_in: Sentences | None = None,
) -> Sentence | None:
    """Return the sentence for the end user of a request that is not answered.

    It is the region's own for the error code, else the one for the reason: that of `messages` or the built-in one. A
    refusal may have a sentence of its own in place of that of the reason.
    """
    preferences = location.preferences if location is not None else NO_PREFERENCES
    texts = location.region.texts if location is not None and location.region is not None else None
    locale = choose_locale(texts, accept_language, preferences) if texts is not None else _NO_LOCALE
    if code in locale.sentences:
        return locale.sentences[code]
    sentences = built_in or config.messages.get(REASON_BY_CODE[code])
    return said(sentences, location, accept_language) if sentences is not None else None


def said(sentences: Sentences, location: Location | None, accept_language: str | None) -> Sentence:
    """Return a sentence in the user's language, or else in the region's, or else in the first one that it has.

    A region's profile limits the languages. Without one, each language of the sentence may be used.
    """
    preferences = location.preferences if location is not None else NO_PREFERENCES
    texts = location.region.texts if location is not None and location.region is not None else None
    locale = choose_locale(texts, accept_language, preferences) if texts is not None else _NO_LOCALE
    languages = [preferences.language] if preferences.language else []
    languages += _languages(accept_language) if accept_language else []
    if locale.profile is not None:
        languages = [locale.locale]  # a profile limits the choice
    elif texts is not None:
        languages.append(texts.default_locale.locale)
    found = next(filter(None, (find_locale(sentences.tags, one) for one in languages)), next(iter(sentences.texts)))
    return Sentence(found, sentences.texts[found])


def find_locale(tags: Mapping[str, str], language: str) -> str | None:
    """Return the locale for a language tag, or None if no locale is in this language and script.

    The longest known prefix of the tag counts (RFC 4647, section 3.4).
    """
    tag = language.lower().replace("_", "-")
    while tag:
        if tag in tags:
            return tags[tag] or None
        tag = tag.rpartition("-")[0]
    return None


def _languages(header: str) -> list[str]:
    """Return the language tags of the header, the preferred first (RFC 9110, section 12.5.4). `*` has no effect."""
    weighted: list[tuple[float, str]] = []
    for item in header[:_MAX_CHARACTERS].split(",")[:_MAX_LANGUAGES]:
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


class Block(Value, frozen=True):
    """The system message of a region.

    Its name is its version: the locale, a part of its hash, the preferences that the caller set, and the age band that
    has instructions.
    """

    name: str
    message: SystemMessage


def compose(
    profile: Profile | None,
    territory: str | None,
    preferences: Preferences,
    age: AgeBand | None = None,
    of_help: str = "",
) -> Block:
    """Return the block for a caller in this territory.

    It is the profile, the instructions of the user's age band, and those for a user who gets help (`of_help`).
    """
    text, names = _profile_text(profile, territory, preferences) if profile is not None else ("", [])
    if age is not None and age.instructions:
        text, names = f"{text}\n\n{age.instructions}".strip(), [*names, age.name]
    if of_help:
        text, names = f"{text}\n\n{of_help}".strip(), [*names, "crisis"]
    version = hashlib.sha256(text.encode()).hexdigest()[:_VERSION_DIGITS]
    return Block("+".join([f"{names[0]}@{version}", *names[1:]]), SystemMessage(text, own=""))


def _profile_text(profile: Profile, territory: str | None, preferences: Preferences) -> tuple[str, list[str]]:
    """Return the text of a profile, and the names of its locale and of the preferences that the caller set."""
    chosen = {
        about: line
        for about, value in (
            ("time_zone", preferences.time_zone),
            ("units", preferences.units),
            ("form", preferences.form),
        )
        if (line := profile.choices.get(about, {}).get(value or "")) is not None
    }
    lines = [chosen.get(about, line) for about, line in profile.lines]
    lines += [line for about, line in chosen.items() if all(about != written for written, _ in profile.lines)]
    lines.append(_helpline(profile, territory))
    return "\n".join([_OPENING, *(f"- {line}" for line in lines if line)]), [profile.locale, *chosen]


def _helpline(profile: Profile, territory: str | None) -> str:
    """Return the line with the emergency numbers of the territory, or an empty text.

    Numbers of another territory are never stated: calling them would cost time.
    """
    if territory is None:
        return profile.common
    return profile.helplines.get(territory) or profile.helplines.get(parent(territory) or "", "")


def with_block(request: ChatRequest, block: Block) -> ChatRequest:
    """Return the request with the block as a separate message before all others."""
    return replace(request, messages=(block.message, *request.messages))


def with_region_text(
    config: ConfigVersion, location: Location, locale: Locale | None, request: ChatRequest, help: Help | None = None
) -> tuple[ChatRequest, str | None]:
    """Return the request for a deployment, and the name of the version of its system message, or None without one.

    Our labels in its history are left out, and it has the region's system message. The help for its user has
    instructions for the model.
    """
    region, age = location.region, location.age
    if region is None:
        return request, None
    if region.texts is not None:
        messages = without_labels(request.messages, region.texts)
        if messages is not request.messages:
            request = replace(request, messages=messages)
    profile = locale.profile if locale is not None else None
    of_help = help.instructions if help is not None else ""
    if profile is None and (age is None or not age.instructions) and not of_help:
        return request, None
    name = locale.locale if locale is not None else ""
    block = remember(
        config,
        ("profile", region.name, name, location.territory, location.preferences, age, of_help),
        lambda: compose(profile, location.territory, location.preferences, age, of_help),
    )
    return with_block(request, block), block.name


def without_profile_message(failure: Failure) -> Failure:
    """Return the failure with its message indexes counted without the system message that the gateway added first."""
    param = failure.param and _MESSAGE.sub(_index_before, failure.param)
    return replace(failure, param=param, detail=_MESSAGE.sub(_index_before, failure.detail))


def _index_before(match: re.Match[str]) -> str:
    return f"messages[{int(match[1]) - 1}]" if match[1] else "messages"
