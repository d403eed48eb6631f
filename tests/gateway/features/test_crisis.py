"""The crisis texts and numbers of a configuration: which one a user gets by territory, and what we have built in."""

from typing import Any

import pytest

from gateway.config.sentences import known_messages
from gateway.features.crisis.config import built_in_texts
from gateway.features.crisis.model import NUMBER, CrisisRules
from gateway.features.crisis.policy import helpline_at
from gateway.model.refusal_reason import RefusalReason
from tests.kit.configs import table_of
from tests.kit.judged_chats import CONFIG

CRISIS = {"judges": ["judge"], "categories": ["self-harm"], "then": "stop", "on_failure": "open"}


def rules_of(**region: Any) -> CrisisRules:
    patch = {"moderation": None, "crisis": CRISIS, **region}
    rules = table_of(CONFIG.merge({"regions": {"default": patch}})).regions["default"].parts.of(CrisisRules)
    assert rules is not None
    return rules


OWN = {"locale": "en-US", "helplines": {"police": "110", "crisis": "555"}}
NUMBERS: list[tuple[dict[str, Any], str | None, tuple[str, str] | None]] = [
    ({"territories": ["US", "CA"]}, "US", ("crisis", "988")),
    ({"territories": ["US", "CA"]}, "US-CA", ("crisis", "988")),
    ({"territories": ["US", "CA"]}, None, ("crisis", "988")),
    ({"territories": ["US-CA"]}, "US-CA", ("crisis", "988")),
    ({"territories": ["@EEA"]}, "DE", ("emergency", "112")),
    ({"territories": ["@EEA"]}, None, ("emergency", "112")),
    ({"territories": ["HK", "MO"]}, "HK", ("crisis", "18111")),
    ({"territories": ["HK", "MO"]}, "MO", ("emergency", "999")),
    ({"territories": ["HK", "MO"]}, None, ("emergency", "999")),
    ({"territories": ["JP"], "profile": OWN}, "JP", ("crisis", "555")),
    ({"territories": ["*"], "profile": OWN}, "JP", ("crisis", "555")),
    ({"territories": ["*"], "profile": OWN}, None, ("crisis", "555")),
    ({"territories": ["US"], "profile": {"locale": "en-US", "helplines": {"police": "110"}}}, "US", ("crisis", "988")),
    ({"territories": ["US", "GB"], "crisis": {**CRISIS, "text": {"en": "Help."}}}, None, None),
    ({"territories": ["US", "GB"], "crisis": {**CRISIS, "text": {"en": "Help."}}}, "GB", ("emergency", "999")),
    ({"territories": ["*"], "crisis": {**CRISIS, "text": {"en": "Help."}}}, "AQ", None),
]


@pytest.mark.parametrize(("region", "territory", "expected"), NUMBERS)
def test_number_of_a_user(region: dict[str, Any], territory: str | None, expected: tuple[str, str] | None) -> None:
    helpline = helpline_at(rules_of(**region), territory)
    assert (helpline and (helpline.kind, helpline.number)) == expected


def test_our_text_is_in_each_language_of_the_sentences_with_one_number() -> None:
    texts = built_in_texts()
    assert {*texts} == {*known_messages()[RefusalReason.AGE]}
    for language, text in texts.items():
        assert text.count(NUMBER) == 1, language
        assert sum(text.count(end) for end in (". ", "。", "؟ ")) + text.endswith(".") == 2, language
        assert not any(character.isdigit() for character in text)
