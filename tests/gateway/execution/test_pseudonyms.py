"""Pseudonyms: the same for one person at one provider, another at another, and no way back without the key."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.pseudonyms import pseudonymous
from providers.auth import Secret
from providers.chat import ChatRequest, UserMessage

KEY = Secret("k" * 32)
REQUEST = ChatRequest("a", (UserMessage("hello"),))
names = st.text(min_size=1, max_size=30)


def named(user: str, **extra: object) -> ChatRequest:
    return ChatRequest("a", (UserMessage("hello"),), user=user, extra=extra)


@given(names, names)
def test_pseudonym_is_stable_and_differs_between_users(one: str, other: str) -> None:
    first = pseudonymous(named(one), "openai", KEY).user
    assert first == pseudonymous(named(one), "openai", KEY).user
    assert (first == pseudonymous(named(other), "openai", KEY).user) == (one == other)


@given(names)
def test_pseudonyms_differ_between_providers_and_keys(user: str) -> None:
    pseudonyms = {
        pseudonymous(named(user), "openai", KEY).user,
        pseudonymous(named(user), "anthropic", KEY).user,
        pseudonymous(named(user), "openai", Secret("x" * 32)).user,
        f"p_{hashlib.sha256(user.encode()).hexdigest()[:32]}",
    }
    assert len(pseudonyms) == 4


def test_exactly_the_identity_fields_get_a_pseudonym() -> None:
    request = named("anna", safety_identifier="anna", verbosity="low", metadata={"a": "anna"})
    sent = pseudonymous(request, "openai", KEY)
    assert sent.user == sent.extra["safety_identifier"]
    assert (sent.extra["verbosity"], sent.extra["metadata"]) == ("low", {"a": "anna"})
    assert sent.messages == request.messages
    assert request.user == "anna"


def test_passed_through_identity_field_is_sent_unchanged() -> None:
    request = named("anna", safety_identifier="anna", prompt_cache_key="recipes")
    sent = pseudonymous(request, "openai", KEY, frozenset({"safety_identifier"}))
    assert (sent.extra["safety_identifier"], sent.extra["prompt_cache_key"]) == ("anna", "recipes")
    assert sent.user == pseudonymous(request, "openai", KEY).user
    assert pseudonymous(request, "openai", KEY, frozenset({"user"})).user == "anna"


def test_missing_identity_fields_are_not_added() -> None:
    assert pseudonymous(REQUEST, "openai", KEY) == REQUEST
