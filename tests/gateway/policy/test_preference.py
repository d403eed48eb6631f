"""Intents and users' choices: which route, in which order, and the reason that is reported."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.decision import Decision, Plan, SkipReason, Unavailable
from gateway.model.preference import Preference
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.preference import _WHY_SKIPPED, decide_preferring, intent_of, preferred_name
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.service.capabilities import capabilities, offer_of
from providers.failures import InvalidRequest
from tests.gateway.decisions import names, place_of, planned
from tests.kit.case_files import cases
from tests.kit.config_cases import rejected
from tests.kit.configs import BASE, KEYS, table_of

CHOICES = {
    "qwen": {"deployments": ["qwen-cn", "qwen-intl"], "title": {"en": "Qwen", "zh-Hans": "通义千问"}},
    "chatgpt": {"deployments": ["chatgpt-us", "chatgpt-eu"], "title": {"en": "ChatGPT"}},
    "gemini": {"deployments": ["gemini"], "title": {"en": "Gemini"}},
}
ROUTES: dict[str, Any] = {
    "cn": ["qwen-cn"],
    "eu": ["chatgpt-eu"],
    "us": ["chatgpt-us"],
    "default": ["gemini", "qwen-intl", "chatgpt-us"],
}
HOME = BASE.merge({"assistants": {"assistant": {"routes": ROUTES, "choices": CHOICES}}})
# Qwen also in Japan.
WIDE = HOME.merge("deployments: {qwen-intl: {available: [HK, MO, JP, BR]}}")


def preferring(
    config: ConfigVersion,
    territory: str,
    name: str,
    user: str = "u",
    health: dict[str, Unavailable] | None = None,
    assistant: Assistant | None = None,
) -> tuple[Decision, Preference]:
    location = place_of(config, territory)
    assert location.region is not None

    def sticky() -> bytes:
        return named_sticky_key(user)

    def decided(view: Assistant) -> Decision:
        return assign_variant(decide(config, view, location, NO_NEEDS, health or {}, 0.0), sticky)

    return decide_preferring(assistant or config.assistants["assistant"], location.region.name, name, decided, sticky)


@cases("territory", "choice", "plan", "reason")
def test_preference_changes_the_order_only(territory: str, choice: str, plan: list[str], reason: str | None) -> None:
    config = table_of(HOME)
    decision, preference = preferring(config, territory, choice)
    assert names(decision) == plan
    assert preference.reason == reason
    assert preference.why_not_used(names(decision)[0]) == reason


def test_every_reason_to_skip_a_deployment_has_its_place() -> None:
    assert {*_WHY_SKIPPED} == {*SkipReason}


def test_failed_preference_has_its_reason() -> None:
    _, preference = preferring(table_of(HOME), "HK", "qwen")
    assert preference.why_not_used("gemini") == "failed"
    assert preference.fields("qwen-intl") == {"choice": "qwen", "used": True, "reason": None}


def test_unhealthy_choice_is_not_used() -> None:
    health = {"qwen-intl": Unavailable("it fails", 5.0)}
    decision, preference = preferring(table_of(WIDE), "JP", "qwen", health=health)
    assert "qwen-intl" not in names(decision)
    assert preference.reason == "health"


def test_consent_decides_as_for_any_first_step() -> None:
    asking = WIDE.merge("deployments: {qwen-intl: {consent: {mode: per_request, recipient: Alibaba}}}")
    decision, preference = preferring(table_of(asking), "JP", "qwen")
    assert preference.reason == "consent"
    assert getattr(decision.outcome, "code", None) == "consent_required"
    skipping = asking.merge("deployments: {qwen-intl: {consent: {on_missing: skip}}}")
    decision, preference = preferring(table_of(skipping), "JP", "qwen")
    assert names(decision)[0] == "gemini"
    assert preference.reason == "consent"


def test_choice_that_changes_no_step_keeps_the_variant() -> None:
    """A weighted step that becomes the first one of the route is not a variant if the steps stay the same."""
    route = ["qwen-intl", {"gemini": 1, "qwen-cn": 0}, "chatgpt-us"]
    config = table_of(HOME.merge({"assistants": {"assistant": {"routes": {"default": route}}}}))
    plain, _ = preferring(config, "JP", "claude")
    decision, preference = preferring(config, "JP", "gemini")
    assert names(decision) == names(plain) == ["gemini", "chatgpt-us"]
    assert isinstance(plain.outcome, Plan)
    assert isinstance(decision.outcome, Plan)
    assert (decision.outcome.variant, preference.is_reordered) == (plain.outcome.variant, False)


def test_weighted_step_belongs_to_the_choice_of_the_users_member() -> None:
    config = table_of(
        WIDE.merge(
            {"assistants": {"assistant": {"routes": {"default": ["chatgpt-us", {"gemini": 50, "qwen-intl": 50}]}}}}
        )
    )
    seen: dict[str, set[str | None]] = {}
    for number in range(60):
        decision, preference = preferring(config, "JP", "qwen", user=f"user-{number}")
        member = next(name for name in names(decision) if name != "chatgpt-us")
        seen.setdefault(member, set()).add(preference.reason)
        assert (names(decision)[0] == "qwen-intl") == (member == "qwen-intl")
    assert seen == {"qwen-intl": {None}, "gemini": {"route"}}


def test_changed_order_counts_for_no_canary() -> None:
    config = table_of(
        WIDE.merge(
            {"assistants": {"assistant": {"routes": {"default": [{"gemini": 50, "chatgpt-us": 50}, "qwen-intl"]}}}}
        )
    )
    decision, preference = preferring(config, "JP", "qwen")
    assert (planned(decision).variant, preference.is_reordered) == (None, True)


@cases("territory", "route", "reason")
def test_member_of_a_weighted_step_without_users_keeps_its_reason(
    territory: str, route: list[Any], reason: str | None
) -> None:
    patch = {"assistants": {"assistant": {"routes": {"us": None, "default": route}}}, "regions": {"us": None}}
    _, preference = preferring(table_of(WIDE.merge(patch)), territory, "qwen")
    assert preference.reason == reason


# --- intents ---------------------------------------------------------------------------------------

INTENTS = HOME.merge(
    {
        "assistants": {
            "assistant": {
                "intents": {"control": {"tools": ["vehicle_*", "seat"]}, "chat": {}},
                "routes": {"default": {"control": ["chatgpt-us"], "default": ["gemini"]}},
            }
        }
    }
)
TRUSTED = Client("car", may_assert=frozenset({"intent"}))
OTHER = Client("app")


@pytest.mark.parametrize(
    ("client", "asserted", "tools", "intent"),
    [
        (TRUSTED, ("chat",), ["vehicle_doors"], "chat"),
        (TRUSTED, ("unheard",), ["vehicle_doors"], "default"),
        (TRUSTED, (), ["vehicle_doors"], "control"),
        (OTHER, ("chat",), ["vehicle_doors"], "control"),
        (None, ("chat",), [], "default"),
        (OTHER, (), ["Vehicle_doors"], "default"),
        (OTHER, (), ["weather", "seat"], "control"),
        (OTHER, (), [], "default"),
    ],
)
def test_intent_follows_the_header_of_a_trusted_key_then_the_tools(
    client: Client | None, asserted: tuple[str, ...], tools: list[str], intent: str
) -> None:
    assistant = table_of(INTENTS).assistants["assistant"]
    assert intent_of(assistant, client, asserted, tools) == intent


@pytest.mark.parametrize(
    "read", [preferred_name, lambda values: intent_of(table_of(INTENTS).assistants["assistant"], TRUSTED, values, ())]
)
def test_two_values_are_refused(read: Callable[[tuple[str, ...]], str]) -> None:
    with pytest.raises(InvalidRequest, match="more than once"):
        read(("a", "b"))


def test_each_intent_has_its_route_and_others_the_default() -> None:
    config = table_of(INTENTS)
    assistant = config.assistants["assistant"]
    for intent, plan in (("control", ["chatgpt-us"]), ("chat", ["gemini"]), ("default", ["gemini"])):
        view = assistant.for_intent(intent)
        location = place_of(config, "JP")
        assert names(decide(config, view, location, NO_NEEDS, {}, 0.0)) == plan
        # A region without routes by intent is the same for all.
        location = place_of(config, "DE")
        assert names(decide(config, view, location, NO_NEEDS, {}, 0.0)) == ["chatgpt-eu"]


@cases("patch", "message")
def test_mistakes_are_reported(patch: str, message: str) -> None:
    found = list(map(str, rejected(HOME.merge(patch).text, KEYS)))
    assert any(message in line for line in found), found


# --- capabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("territory", ["CN", "DE", "HK", "JP", "US"])
def test_capabilities_agree_with_the_decision(territory: str) -> None:
    config = table_of(HOME, KEYS)
    location = place_of(config, territory)
    document: Any = capabilities(config, config.assistants["assistant"], location, 0.0, "zh-CN")
    plain = decide(config, config.assistants["assistant"], location, NO_NEEDS, {}, 0.0)
    assert set(document["by_all"]) <= set(document["supported"])
    for choice in document["choices"]:
        decision, preference = preferring(config, territory, choice["id"])
        assert choice["available"] == (preference.reason not in ("route", "boundary", "availability", "approval"))
        if choice["available"]:
            assert names(decision)[0] in preference.deployments
        else:
            assert choice["reason"] == preference.reason
    (title,) = (it["title"] for it in document["choices"] if it["id"] == "qwen")
    assert title == "通义千问"
    assert names(plain)


def test_assistant_without_chats_in_a_region_is_listed_for_its_other_uses() -> None:
    embeddings = "{provider: openai, model: text-embedding-3-small, endpoint: us, api_key: '${OPENAI_US_API_KEY}'}"
    config = table_of(
        BASE.merge(
            f"deployments: {{vectors: {embeddings}}}",
            "assistants: {assistant: {routes: {us: null}, embeddings: {us: [vectors]}}}",
        )
    )
    location = place_of(config, "US")
    assert offer_of(config, config.assistants["assistant"], location, 0.0)
