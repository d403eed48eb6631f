"""The sentence for an end user: which text, in which language."""

import re
from typing import Any

import pytest

from gateway.config.known_texts import known_refusals
from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from gateway.model.refusal_reason import REASON_BY_CODE, RefusalReason
from gateway.model.region_text import Preferences
from gateway.policy.region_text import sentence_for
from tests.kit.case_files import cases
from tests.kit.configs import BASE, Config, table_of

VENDORS = re.compile(r"openai|chatgpt|gemini|google|qwen|alibaba|claude|anthropic|deepseek", re.IGNORECASE)


def config_with(*patches: str) -> ConfigVersion:
    config: Config = BASE
    for patch in patches:
        config = config.merge(patch)
    return table_of(config)


def located(config: ConfigVersion, region: str, language: str | None = None) -> Location:
    return Location(config.regions[region], None, "", (), preferences=Preferences(language=language))


def shown(config: ConfigVersion, code: str, accept: str | None, location: Location | None = None) -> tuple[str, str]:
    sentence = sentence_for(config, location, accept, code)
    return sentence.language, sentence.text


def test_every_reason_has_a_sentence_in_every_language_of_the_refusals_and_in_arabic() -> None:
    languages = {tag if tag != "zh" else "zh-Hans" for tag in known_refusals()["content_filter"]} | {"ar"}
    messages = config_with().messages
    assert set(messages) == set(RefusalReason)
    for reason, sentences in messages.items():
        assert set(sentences.texts) == languages, reason
        assert next(iter(sentences.texts)) == "en"
        assert len(set(sentences.texts.values())) == len(languages), reason
        for language, text in sentences.texts.items():
            assert text.strip() == text
            assert len(text) <= 90, (reason, language)
            assert text[-1] in ".。", (reason, language)
            assert not VENDORS.search(text)


@cases("accept", "language")
def test_language_follows_the_header(accept: str | None, language: str) -> None:
    assert shown(config_with(), "region_blocked", accept)[0] == language


@pytest.mark.parametrize("code", sorted(REASON_BY_CODE))
def test_every_code_has_a_sentence_without_a_location(code: str) -> None:
    assert shown(config_with(), code, "fr")[0] == "fr"


def test_claim_is_preferred_to_the_header() -> None:
    config = config_with()
    assert shown(config, "provider_error", "de", located(config, next(iter(config.regions)), "ja"))[0] == "ja"


PROFILE = "regions: {default: {profile: {locale: zh-Hans-CN, locales: [en]}}}"


@pytest.mark.parametrize(("accept", "language"), [(None, "zh-Hans"), ("en", "en"), ("de", "zh-Hans")])
def test_profile_limits_the_languages(accept: str | None, language: str) -> None:
    config = config_with(PROFILE)
    assert shown(config, "provider_error", accept, located(config, "default"))[0] == language


MESSAGES = "messages: {outage: {en: Acme is away., de-CH: Acme ist weg.}}"


@cases("code", "accept", "expected")
def test_messages_of_the_file_replace_the_built_in_ones(
    code: str, accept: str, expected: tuple[str, str] | None
) -> None:
    config = config_with(MESSAGES)
    found = shown(config, code, accept)
    assert found == (expected or shown(config_with(), code, accept))


def test_refusals_of_the_region_come_first() -> None:
    own: dict[str, Any] = {"en": "Not here.", "zh": "这里不行。"}
    config = config_with(
        "messages: {moderation: {en: Acme cannot answer this.}}",
        f"regions: {{default: {{refusals: {{content_filter: {{en: {own['en']}, zh: {own['zh']}}}}}}}}}",
    )
    here = located(config, "default")
    assert shown(config, "content_filter", "zh-CN", here) == ("zh", own["zh"])
    assert shown(config, "content_filter", None, here) == ("en", own["en"])
    assert shown(config, "content_filter", "en", None) == ("en", "Acme cannot answer this.")
