"""The system message of a profile: its lines, the emergency numbers of the territory, and user preferences."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.profiles import offered_choices
from gateway.model.region_text import NO_PREFERENCES, Preferences, Profile
from gateway.policy.region_text import compose, with_block
from providers.chat import ChatRequest, SystemMessage, UserMessage
from tests.kit.case_files import cases

PROFILE = Profile(
    "de",
    (("language", "Language: German (de)."), ("units", "Units: metric."), ("notice", "Never guess.")),
    {"DE": "Whom to call: 112.", "US": "Whom to call: 911."},
    "Whom to call: the local number.",
    offered_choices(),
)


def text_of(territory: str | None, preferences: Preferences = NO_PREFERENCES, profile: Profile = PROFILE) -> str:
    content = compose(profile, territory, preferences).message.content
    assert isinstance(content, str)
    return content


@cases("territory", "line")
def test_the_numbers_are_those_of_the_territory_or_none(territory: str | None, line: str) -> None:
    assert text_of(territory).endswith(line)


def test_name_of_the_block_differs_between_versions() -> None:
    german = compose(PROFILE, "DE", NO_PREFERENCES).name
    assert german == compose(PROFILE, "DE", NO_PREFERENCES).name
    assert german.startswith("de@")
    assert len(german) == len("de@123456")
    assert german != compose(PROFILE, "US", NO_PREFERENCES).name
    refined = compose(PROFILE, "DE", Preferences(units="us", time_zone="Europe/Berlin")).name
    assert refined.endswith("+time_zone+units")


def test_preference_replaces_its_line() -> None:
    text = text_of("DE", Preferences(units="us", form="informal", time_zone="Asia/Tokyo"))
    assert "Units: metric" not in text
    assert text.count("- Units: US customary") == 1
    assert "- The user's time zone is Asia/Tokyo.\n" in text
    assert "- Address the user informally.\n" in text


@given(st.text(max_size=64), st.text(max_size=64), st.text(max_size=64), st.text(max_size=64))
def test_unknown_preference_is_ignored(language: str, units: str, zone: str, form: str) -> None:
    """The message contains no text of a caller: each line comes from the gateway's data."""
    lines = {line for lines in PROFILE.choices.values() for line in lines.values()}
    wishes = Preferences(language, units, zone, form)
    lines_sent = [line.removeprefix("- ") for line in text_of("DE", wishes).splitlines()[1:]]
    assert set(lines_sent) <= lines | {line for _, line in PROFILE.lines} | {"Whom to call: 112."}


def test_profile_is_a_separate_message_before_all_others() -> None:
    request = ChatRequest("a", (SystemMessage("You are a pirate."), UserMessage("Hi")))
    block = compose(PROFILE, "DE", NO_PREFERENCES)
    assert with_block(request, block).messages == (block.message, *request.messages)
