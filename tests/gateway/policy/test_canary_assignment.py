"""A weighted step in a decision: one member for each user, a verdict on each member, and no deployment twice."""

from collections import Counter
from dataclasses import replace

from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, RefusalCode, SkipReason, Unavailable
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.service.disclosure import disclose
from gateway.service.explain import PlainRequest, explain
from tests.gateway.decisions import planned, refused
from tests.gateway.location_reports import reported
from tests.kit.configs import BASE, table_of

ILL = Unavailable("breaker open: failing", 5.0, by_breaker=True)
US = reported(EdgeReport(("JP",)))


def routed(route: str) -> ConfigVersion:
    return table_of(BASE.merge(f"assistants: {{assistant: {{routes: {{default: {route}}}}}}}"))


CANARY = routed("[{gemini: 90, chatgpt-us: 10}, chatgpt-us]")
PAIR = routed("[{gemini: 1, chatgpt-us: 1}]")


def decided(
    table: ConfigVersion, user: str | None, health: dict[str, Unavailable] | None = None, **needs: object
) -> Decision:
    wanted = replace(NO_NEEDS, **needs) if needs else NO_NEEDS  # type: ignore[arg-type]
    person = None if user is None else lambda: named_sticky_key(user)
    found = decide(table, table.assistants["assistant"], resolve(table, None, US), wanted, health or {}, 0.0)
    return assign_variant(found, person)


def plan_of(*arguments: object, **named: object) -> list[str]:
    return [step.deployment.name for step in planned(decided(*arguments, **named)).steps]  # type: ignore[arg-type]


def side_of(*arguments: object, **named: object) -> str | None:
    return planned(decided(*arguments, **named)).variant  # type: ignore[arg-type]


PEOPLE = [f"person-{number}" for number in range(400)]
CALM = next(name for name in PEOPLE if side_of(CANARY, name) == "gemini")
BIRD = next(name for name in PEOPLE if side_of(CANARY, name) == "chatgpt-us")


def test_each_variant_is_first_for_its_users_and_planned_once() -> None:
    assert plan_of(CANARY, CALM) == ["gemini", "chatgpt-us"]
    assert plan_of(CANARY, BIRD) == ["chatgpt-us"]
    sides = Counter(side_of(CANARY, name) for name in PEOPLE)
    assert 15 < sides["chatgpt-us"] < 70


def test_a_person_stays_while_the_share_grows_and_through_other_needs_and_tables() -> None:
    grown = routed("[{gemini: 50, chatgpt-us: 50}, chatgpt-us]")
    early = {name for name in PEOPLE if side_of(CANARY, name) == "chatgpt-us"}
    late = {name for name in PEOPLE if side_of(grown, name) == "chatgpt-us"}
    assert early < late
    assert early == {n for n in PEOPLE if side_of(CANARY, n, features=frozenset({"tools"})) == "chatgpt-us"}


def test_the_decision_is_remembered_and_the_side_is_not() -> None:
    table = routed("[{gemini: 90, chatgpt-us: 10}, chatgpt-us]")
    decided(table, CALM)
    kept = len(table.memo)
    assert [plan_of(table, name) for name in (CALM, BIRD, CALM)] == [
        ["gemini", "chatgpt-us"],
        ["chatgpt-us"],
        ["gemini", "chatgpt-us"],
    ]
    assert len(table.memo) == kept


def test_every_member_is_judged_and_shown_with_its_share() -> None:
    shown = [(item.deployment, item.reason, item.share) for item in decided(CANARY, CALM).considered]
    assert shown == [("gemini", None, 0.9), ("chatgpt-us", None, 0.1)]
    ill = [(item.deployment, item.reason) for item in decided(CANARY, CALM, {"gemini": ILL}).considered]
    assert ill == [("gemini", SkipReason.HEALTH), ("chatgpt-us", None)]


def test_user_with_an_unavailable_member_gets_another_and_keeps_its_variant() -> None:
    calm = next(name for name in PEOPLE if side_of(PAIR, name) == "gemini")
    bird = next(name for name in PEOPLE if side_of(PAIR, name) == "chatgpt-us")
    assert plan_of(PAIR, bird, {"chatgpt-us": ILL}) == ["gemini"]
    assert side_of(PAIR, bird, {"chatgpt-us": ILL}) == "chatgpt-us"
    assert plan_of(PAIR, calm, {"chatgpt-us": ILL}) == ["gemini"]
    assert plan_of(PAIR, bird) == ["chatgpt-us"]


def test_request_is_refused_if_all_members_are_unavailable() -> None:
    outcome = refused(decided(PAIR, CALM, {"gemini": ILL, "chatgpt-us": ILL}))
    assert outcome.code is RefusalCode.NO_HEALTHY_DEPLOYMENT


def test_member_not_available_in_the_territory_is_assigned_to_no_user() -> None:
    table = routed("[{gemini: 1, qwen-intl: 1}]")  # qwen-intl serves Hong Kong and Macao only
    assert {side_of(table, name) for name in PEOPLE} == {"gemini"}
    reasons = {item.deployment: item.reason for item in decided(table, CALM).considered}
    assert reasons == {"gemini": None, "qwen-intl": SkipReason.AVAILABILITY}


def test_member_with_weight_0_is_skipped_with_the_reason() -> None:
    table = routed("[{gemini: 100, chatgpt-us: 0}]")
    assert {tuple(plan_of(table, name)) for name in PEOPLE} == {("gemini",)}
    assert [item.reason for item in decided(table, CALM).considered] == [None, SkipReason.WEIGHT]
    behind = routed("[{gemini: 100, chatgpt-us: 0}, chatgpt-us]")
    assert {tuple(plan_of(behind, name)) for name in PEOPLE} == {("gemini", "chatgpt-us")}


def test_second_weighted_step_adds_members_missing_in_the_first() -> None:
    table = routed("[{gemini: 1, chatgpt-us: 1}, {gemini: 1, chatgpt-us: 1}]")
    assert {tuple(sorted(plan_of(table, name))) for name in PEOPLE} == {("chatgpt-us", "gemini")}


def test_plan_with_a_plain_first_step_has_no_variant() -> None:
    table = routed("[gemini, {qwen-intl: 1, chatgpt-us: 1}]")
    assert plan_of(table, CALM) == ["gemini", "chatgpt-us"]
    assert side_of(table, CALM) is None


def test_request_without_a_user_gets_the_member_with_the_largest_weight() -> None:
    light = routed("[{gemini: 20, chatgpt-us: 80}, gemini]")
    assert plan_of(light, None) == ["chatgpt-us", "gemini"]
    assert side_of(light, None) is None


def test_explain_shows_the_variant_and_disclosure_lists_all_members() -> None:
    assistant = CANARY.assistants["assistant"]
    explanation = explain(PlainRequest(CANARY, None, US, assistant, 0.0, user=BIRD))
    assert explanation["weighted"]["side"] == "chatgpt-us"  # type: ignore[index]
    assert explanation["weighted"]["shares"] == {"gemini": 0.9, "chatgpt-us": 0.1}  # type: ignore[index]
    unknown = explain(PlainRequest(CANARY, None, US, assistant, 0.0))
    assert unknown["weighted"]["side"] is None  # type: ignore[index]
    assert [step["deployment"] for step in unknown["outcome"]["plan"]] == ["gemini", "chatgpt-us"]  # type: ignore[index]
    plain = table_of(BASE)
    assert "weighted" not in explain(PlainRequest(plain, None, US, plain.assistants["assistant"], 0.0))
    data = disclose(PlainRequest(PAIR, None, US, PAIR.assistants["assistant"], 0.0))["data"]
    assert [item["deployment"] for item in data] == ["gemini", "chatgpt-us"]  # type: ignore[attr-defined]
