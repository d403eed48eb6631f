"""Which locale a caller is spoken to in: a table of headers, wishes and offers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.locales import tags_of
from gateway.model.region_text import NO_PREFERENCES, Locale, Preferences, RegionText
from gateway.policy.region_text import choose_locale

CHINA = ("zh-Hans-CN", "en")
GREATER = ("zh-Hans-CN", "zh-Hant-TW", "zh-Hant-HK", "en-US", "en-GB")
NORTH = ("en", "nb", "sr-Latn", "pt-BR", "pt-PT")


def speech_of(*locales: str) -> RegionText:
    voices = {locale: Locale(locale) for locale in locales}
    return RegionText(voices[locales[0]], voices, tags_of(locales))


@pytest.mark.parametrize(
    ("offered", "header", "locale"),
    [
        (CHINA, None, "zh-Hans-CN"),
        (CHINA, "en", "en"),
        (CHINA, "en-AU,zh;q=0.9", "en"),
        (CHINA, "EN-au", "en"),
        (CHINA, "zh-CN", "zh-Hans-CN"),
        (CHINA, "fr, en;q=0.5", "en"),
        (CHINA, "fr", "zh-Hans-CN"),
        (CHINA, "zh-TW, en;q=0.8", "en"),  # no simplified Chinese for readers of traditional Chinese
        (CHINA, "zh-Hant, en;q=0.8", "en"),
        (CHINA, "zh-SG", "zh-Hans-CN"),
        (CHINA, "yue, en;q=0.1", "en"),
        (CHINA, "en;q=0, zh", "zh-Hans-CN"),
        (CHINA, "en;q=0", "zh-Hans-CN"),
        (CHINA, "fr, en;q=0.0", "zh-Hans-CN"),
        (CHINA, "*", "zh-Hans-CN"),
        (CHINA, "*, en;q=0.5", "en"),
        (CHINA, "zh;q=0.2, en;q=0.9", "en"),
        (CHINA, "en;q=x, zh", "zh-Hans-CN"),
        (CHINA, "en;level=1, zh", "zh-Hans-CN"),
        (CHINA, ",,;q=1,en", "en"),
        (CHINA, "en;q=², zh", "zh-Hans-CN"),
        (CHINA, "en;q=0.5., zh", "zh-Hans-CN"),
        (CHINA, "e" * 5000, "zh-Hans-CN"),
        (CHINA, ",".join(["fr"] * 19 + ["en"]), "en"),
        (CHINA, ",".join(["fr"] * 20 + ["en"]), "zh-Hans-CN"),
        (CHINA, f"{'fr,':<510}en", "en"),
        (CHINA, f"{'fr,':<511}en", "zh-Hans-CN"),
        (GREATER, "zh-TW", "zh-Hant-TW"),
        (GREATER, "zh-Hant-TW", "zh-Hant-TW"),
        (GREATER, "zh-HK", "zh-Hant-HK"),
        (GREATER, "zh-Hant-HK", "zh-Hant-HK"),
        (GREATER, "zh-MO", "zh-Hant-TW"),
        (GREATER, "zh-Hant", "zh-Hant-TW"),
        (GREATER, "zh-hans-hk", "zh-Hans-CN"),
        (GREATER, "zh", "zh-Hans-CN"),
        (GREATER, "cmn-Hant", "zh-Hant-TW"),
        (GREATER, "en-GB", "en-GB"),
        (GREATER, "en-GB;q=0.2, zh-TW;q=0.9", "zh-Hant-TW"),
        (GREATER, "en-GB;q=1, zh-TW", "en-GB"),
        (GREATER, "zh-TW, en-GB;q=7", "zh-Hant-TW"),  # no more than wholly
        (GREATER, "en-NZ", "en-US"),
        (NORTH, "no", "nb"),
        (NORTH, "nb-NO", "nb"),
        (NORTH, "no-NO", "nb"),
        (NORTH, "nn", "en"),
        (NORTH, "sr", "en"),  # Cyrillic
        (NORTH, "sr-ME", "sr-Latn"),
        (NORTH, "sr-Latn-RS", "sr-Latn"),
        (NORTH, "pt", "pt-BR"),
        (NORTH, "pt-PT", "pt-PT"),
        (NORTH, "pt-AO", "pt-BR"),
        (("zh-Hant-TW", "en"), "zh-CN, en;q=0.1", "en"),
    ],
)
def test_a_header_chooses_among_what_is_offered(offered: tuple[str, ...], header: str | None, locale: str) -> None:
    assert choose_locale(speech_of(*offered), header, NO_PREFERENCES).locale == locale


@pytest.mark.parametrize(
    ("wish", "locale"),
    [("en", "en"), ("en_GB", "en"), ("fr", "zh-Hans-CN"), ("zh-Hant", "zh-Hans-CN"), ("", "zh-Hans-CN")],
)
def test_a_wish_goes_before_the_header(wish: str, locale: str) -> None:
    assert choose_locale(speech_of(*CHINA), "zh", Preferences(language=wish)).locale == locale


def test_a_wish_may_be_written_as_systems_write_it() -> None:
    assert choose_locale(speech_of(*GREATER), "zh", Preferences(language="en_GB")).locale == "en-GB"


def test_single_offered_locale_ignores_preferences() -> None:
    assert choose_locale(speech_of("zh-Hans-CN"), "en", Preferences(language="en")).locale == "zh-Hans-CN"


@given(st.text(alphabet="zhentwZH-_;q=0.19, *\x00é", max_size=80))
def test_any_accept_language_header_is_handled(header: str) -> None:
    assert choose_locale(speech_of(*GREATER), header, NO_PREFERENCES).locale in GREATER
