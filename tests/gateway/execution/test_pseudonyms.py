"""Pseudonyms: the same for one person at one provider, another at another, and no way back without the key."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.upstream_client import pseudonymous
from providers.auth import Secret
from providers.chat import ChatRequest, UserMessage

KEY = Secret("k" * 32)
REQUEST = ChatRequest("a", (UserMessage("hello"),))
names = st.text(min_size=1, max_size=30)


def named(user: str, **extra: object) -> ChatRequest:
    return ChatRequest("a", (UserMessage("hello"),), user=user, extra=extra)


@given(names, names)
def test_one_person_is_told_from_another_and_found_again(one: str, other: str) -> None:
    first = pseudonymous(named(one), "openai", KEY).user
    assert first == pseudonymous(named(one), "openai", KEY).user
    assert (first == pseudonymous(named(other), "openai", KEY).user) == (one == other)


@given(names)
def test_two_providers_or_keys_have_nothing_in_common(user: str) -> None:
    told = {
        pseudonymous(named(user), "openai", KEY).user,
        pseudonymous(named(user), "anthropic", KEY).user,
        pseudonymous(named(user), "openai", Secret("x" * 32)).user,
        f"p_{hashlib.sha256(user.encode()).hexdigest()[:32]}",
    }
    assert len(told) == 4


def test_every_field_that_says_who_asks_gets_one_and_no_other_field() -> None:
    said = named("anna", safety_identifier="anna", prompt_cache_key="anna-1", verbosity="low", metadata={"a": "anna"})
    sent = pseudonymous(said, "openai", KEY)
    assert sent.user == sent.extra["safety_identifier"]
    assert sent.extra["prompt_cache_key"] not in ("anna-1", sent.user)
    assert (sent.extra["verbosity"], sent.extra["metadata"]) == ("low", {"a": "anna"})
    assert sent.messages == said.messages
    assert said.user == "anna"


def test_what_is_let_through_by_name_is_sent_as_it_is() -> None:
    said = named("anna", safety_identifier="anna", prompt_cache_key="recipes")
    sent = pseudonymous(said, "openai", KEY, frozenset({"prompt_cache_key"}))
    assert sent.extra["prompt_cache_key"] == "recipes"
    assert sent.user == sent.extra["safety_identifier"] == pseudonymous(said, "openai", KEY).user
    assert pseudonymous(said, "openai", KEY, frozenset({"user"})).user == "anna"


def test_what_was_not_said_is_not_made_up() -> None:
    assert pseudonymous(REQUEST, "openai", KEY) == REQUEST
