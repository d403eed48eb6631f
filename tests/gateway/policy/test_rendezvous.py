"""Sticky assignment: the weights are met, and a larger weight moves no user away from its variant."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.config_version import Client
from gateway.policy.canary_assignment import choose, conversation_key_of, named_sticky_key, sticky_key, sticky_key_of
from providers.chat import AssistantMessage, ChatRequest, SystemMessage, UserMessage
from providers.value import replace

PEOPLE = [sticky_key("name", str(number)) for number in range(20_000)]
keys = st.binary(min_size=32, max_size=32)
weights = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 10_000), min_size=1, max_size=5)


def test_the_weights_are_met_within_four_standard_deviations() -> None:
    for wanted in ({"a": 95, "b": 5}, {"a": 1, "b": 1}, {"a": 70, "b": 25, "c": 5}):
        found = Counter(choose(person, wanted) for person in PEOPLE)
        for name, weight in wanted.items():
            share = weight / sum(wanted.values())
            tolerance = 4 * math.sqrt(share * (1 - share) * len(PEOPLE))
            assert abs(found[name] - share * len(PEOPLE)) < tolerance, (wanted, name, found)


def test_user_in_a_variant_stays_in_it_as_its_share_grows() -> None:
    at = {share: {p for p in PEOPLE if choose(p, {"a": 100 - share, "b": share}) == "b"} for share in (0, 5, 25, 100)}
    assert at[0] < at[5] < at[25] < at[100] == set(PEOPLE)


@given(keys, weights, st.data())
def test_larger_weight_moves_users_only_to_itself(key: bytes, given: dict[str, int], data: object) -> None:
    assert isinstance(data, st.DataObject)
    name = data.draw(st.sampled_from(sorted(given)))
    before = choose(key, given)
    after = choose(key, {**given, name: given[name] + data.draw(st.integers(1, 10_000))})
    assert after in (before, name)


@given(keys, weights, st.text(min_size=1, max_size=8), st.integers(1, 10_000))
def test_one_more_moves_people_to_itself_alone(key: bytes, given: dict[str, int], name: str, weight: int) -> None:
    if name not in given:
        assert choose(key, {**given, name: weight}) in (choose(key, given), name)


@given(keys, weights)
def test_removed_member_moves_only_its_own_users(key: bytes, given: dict[str, int]) -> None:
    chosen = choose(key, given)
    for name in given.keys() - {chosen}:
        assert choose(key, {other: weight for other, weight in given.items() if other != name}) == chosen


@given(keys, weights, st.integers(1, 1000))
def test_only_the_proportion_of_the_weights_counts(key: bytes, given: dict[str, int], factor: int) -> None:
    assert choose(key, given) == choose(key, dict(reversed(given.items())))
    assert choose(key, given) == choose(
        key, {name: weight * 2 ** factor.bit_length() for name, weight in given.items()}
    )


def test_weight_of_0_gets_no_users() -> None:
    assert choose(PEOPLE[0], {"a": 0}) is None
    assert {choose(person, {"a": 0, "b": 1}) for person in PEOPLE[:100]} == {"b"}


def test_the_sides_are_the_same_in_every_version() -> None:
    # A change of the hash would move every user: these values come from the first version.
    drawn = "".join(str(choose(named_sticky_key(str(number)), {"a": 1, "b": 1})) for number in range(16))
    assert drawn == "aabaaabaaaaababa"
    nameless = [sticky_key_of(None, None, asked(str(number))) for number in range(16)]
    assert "".join(str(choose(person, {"a": 1, "b": 1})) for person in nameless) == "abbbbbbaaaaaaaab"


def asked(*turns: str, user: str | None = None, **extra: object) -> ChatRequest:
    messages = [UserMessage(turn) if place % 2 == 0 else AssistantMessage(turn) for place, turn in enumerate(turns)]
    return ChatRequest("assistant", (SystemMessage("Be kind."), *messages), user=user, extra=extra)


def test_user_is_identified_by_the_claim_then_by_the_request() -> None:
    both = asked("Hello", user="u", safety_identifier="s")
    assert sticky_key_of(None, "c", both) == named_sticky_key("c")
    assert sticky_key_of(None, None, both) == named_sticky_key("s")
    assert sticky_key_of(None, None, asked("Hello", user="u")) == named_sticky_key("u")
    assert sticky_key_of(None, "", asked("Hello", user="", safety_identifier="")) == sticky_key_of(
        None, None, asked("Hello")
    )


def test_a_conversation_without_a_name_is_known_by_its_first_words() -> None:
    first = sticky_key_of(None, None, asked("Hello"))
    assert sticky_key_of(None, None, asked("Hello", "Hi! How are you?", "Fine")) == first
    assert sticky_key_of(None, None, asked("Hello!")) != first
    assert named_sticky_key("Hello") != first


def test_a_name_may_hold_half_a_character() -> None:
    assert named_sticky_key("\ud83d") != named_sticky_key("\ud83e")


def test_conversation_is_the_session_else_the_turns_that_repeat() -> None:
    client = Client("app")
    first = conversation_key_of(client, "anna", asked("Hello"))
    assert conversation_key_of(client, "anna", asked("Hello", "Hi!", "Fine", prompt_cache_key="k")) == first
    others = [
        conversation_key_of(Client("shop"), "anna", asked("Hello")),
        conversation_key_of(client, None, asked("Hello", user="bert")),
        conversation_key_of(client, None, asked("Hello")),
        conversation_key_of(client, "anna", asked("Hello!")),
        conversation_key_of(client, "anna", with_system(asked("Hello"), "Be brief.")),
        conversation_key_of(client, "anna", asked("Hello"), "s-1"),
    ]
    assert len({first, *others}) == 7
    by_field = conversation_key_of(client, None, asked("Hello", safety_identifier="bert"))
    assert by_field == conversation_key_of(client, "bert", asked("Hello")) == others[1]
    assert conversation_key_of(client, "bert", asked("Bye"), "s-1") == others[-1]
    assert sticky_key_of(client, None, asked("Bye"), "s-1") == sticky_key_of(client, None, asked("Hello"), "s-1")
    assert sticky_key_of(client, "anna", asked("Bye"), "s-1") == named_sticky_key("anna")


def with_system(request: ChatRequest, text: str) -> ChatRequest:
    return replace(request, messages=(SystemMessage(text), *request.messages))
