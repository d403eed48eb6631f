"""The languages of the console: every text is translated, and dates, numbers and money have the form of the locale."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from gateway.console.texts import FOLDER, LANGUAGES, language_of, texts_in
from tests.kit.console_texts import texts_to_translate


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_chinese_catalogue_has_every_text_and_no_other() -> None:
    catalogue = dict(
        re.findall(r'^msgid "(.+)"\nmsgstr "(.*)"$', (FOLDER / "zh-Hans.po").read_text("utf-8"), re.MULTILINE)
    )
    texts = texts_to_translate()
    assert {text: file for text, file in texts.items() if not catalogue.get(text)} == {}, "missing"
    assert set(catalogue) - set(texts) == set(), "left over"
    for text, translated in catalogue.items():
        assert re.search("[\u4e00-\u9fff]|Token", translated), text
        assert fields_of(text) == fields_of(translated), text


def test_every_offered_language_but_english_has_a_catalogue() -> None:
    assert {path.stem for path in FOLDER.glob("*.po")} == set(LANGUAGES) - {"en"}
    assert texts_in("zh-Hans").gettext("Requests") == "请求"
    assert texts_in("en").gettext("Requests") == "Requests"


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("", "de-DE, en;q=0.5", "en"),
        ("en", "zh-CN", "en"),
        ("xx", "", "en"),
        ("", "fr", "en"),
    ],
)
def test_language_is_the_chosen_or_the_first_accepted_one(chosen: str, accepted: str, language: str) -> None:
    assert language_of(chosen, accepted) == language


def test_times_name_their_zone_and_money_its_currency() -> None:
    english, chinese = texts_in("en"), texts_in("zh-Hans")
    assert english.time("2026-11-25T01:02:03.000+00:00").replace("\u202f", " ") == "Nov 25, 2026, 1:02:03 AM UTC"
    assert chinese.time("2026-11-25T09:02:03+08:00") == "2026年11月25日 01:02:03 UTC"
    assert (english.money("1234.5", "EUR"), chinese.money("0.000001", "USD")) == ("€1,234.50", "US$0.000001")
    assert (english.number(1234567), english.percent(0.125), english.money(None, "EUR")) == ("1,234,567", "12.5%", "–")
