"""A plan says everything that a switch changes, and nothing that it doesn't."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.changes.plan import NO_CONFIG_VERSION, ChangePlan, changed_keys, plan_of, with_traffic
from gateway.changes.plan_checks import checks_of
from gateway.changes.plan_text import in_short, plan_data, plan_markdown, plan_text
from gateway.config.yaml_document import parse_yaml
from tests.kit.configs import WORLD, table_of

NOW_S = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
APPROVED = "approvals: [{region: cn, authority: CAC, kind: registration, number: '7', model_name: Qwen"
OLD = WORLD


def changed(*pairs: tuple[str, str], text: str = OLD) -> str:
    for before, after in pairs:
        assert before in text, before
        text = text.replace(before, after)
    return text


def planned(new: str, old: str = OLD) -> ChangePlan:
    values = [parse_yaml(text.encode(), "test.yaml").values for text in (old, new)]
    before, after = table_of(old), table_of(new)
    plan = plan_of(before, after, tuple(changed_keys(values[0], values[1])))
    return replace(plan, checks=checks_of(before, after, (), NOW_S))


def told(plan: ChangePlan) -> list[str]:
    """Every change in a line, without the keys."""
    lines = []
    for item in (*plan.regions, *plan.deployments):
        lines += [f"{item.kind} {item.name}"] if not item.changes else []
        lines += [
            f"{item.name}: {it.what}: {it.before} -> {it.after}{' WIDER' if it.widens else ''}" for it in item.changes
        ]
    for route in plan.routes:
        reordered = " reordered" if route.reordered else ""
        because = f" because {', '.join(route.because)}" if route.because else ""
        steps = "".join([*(f" +{step}" for step in route.added), *(f" -{step}" for step in route.removed)])
        lines.append(f"{route.kind} {route.assistant}/{route.region}{steps}{reordered}{because}")
    return [*lines, *plan.sections]


CASES = {
    "nothing": ([], []),
    "a deployment added to a route": ([("eu: [chatgpt-eu]", "eu: [chatgpt-eu, own]"), ("deployments:\n", "deployments:\n  own: {provider: openai-compatible, model: m, endpoint: 'http://127.0.0.1:1/v1', stores: DE, processes: DE, api_key: '${KEY}'}\n")], ["added own", "changed assistant/eu +own"]),
    "a deployment taken out": ([("[gemini, qwen-intl]", "[gemini]")], ["changed assistant/default -qwen-intl"]),
    "another order": ([("[gemini, qwen-intl]", "[qwen-intl, gemini]")], ["changed assistant/default reordered"]),
    "one in the place of another, and another order": ([("us: [chatgpt-us]", "us: [chatgpt-us]"), ("[gemini, qwen-intl]", "[chatgpt-us, qwen-intl, gemini]")], ["changed assistant/default +chatgpt-us reordered"]),
    "another model": ([("chatgpt-us: {provider: openai, model: gpt-6-luna", "chatgpt-us: {provider: openai, model: gpt-4o")], ["chatgpt-us: model: gpt-6-luna -> gpt-4o", "chatgpt-us: capabilities: …", "changed assistant/us because chatgpt-us"]),
    "a kill switch": ([('api_key: "${OPENAI_US_API_KEY}"', 'api_key: "${OPENAI_US_API_KEY}", enabled: false')], ["chatgpt-us: enabled: yes -> no", "changed assistant/us because chatgpt-us"]),
    "another account": ([("${OPENAI_US_API_KEY}", "${OPENAI_EU_API_KEY}")], []),
    "a wider boundary": ([("cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [CN], boundary: [CN, HK]}")], ["cn: boundary: CN -> CN, HK WIDER", "changed assistant/cn because region cn"]),
    "people who come": ([('blocked: [CU, IR', 'blocked: [IR')], ["default: people: none -> CU", "changed assistant/default because region default", "blocked"]),
    "labels": ([("eu: {territories", "eu: {labels: [eu-art50], territories")], ["eu: speech: none -> labels eu-art50, profile none", "changed assistant/eu because region eu"]),
    "approvals": ([("cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [CN], boundary: [CN], approvals: required}"), ("endpoint: cn-beijing", f"endpoint: cn-beijing, {APPROVED}}}]")], ["cn: approvals required: no -> yes", "qwen-cn: approvals: none -> cn: CAC registration 7", "changed assistant/cn because region cn, qwen-cn"]),
    "an approval's end": ([], []),
    "people go to another region": ([("  us: {terr", "  ca: {territories: [US-CA], boundary: [US]}\n  us: {terr"), ("      us: [chatgpt-us]", "      us: [chatgpt-us]\n      ca: [chatgpt-us]")], ["added ca", "us: people: US-CA -> none", "added assistant/ca +chatgpt-us because region ca", "changed assistant/us because region us"]),
    "blocked people": ([("blocked: [CU", "blocked: [US-NY, CU")], ["us: people: US-NY -> none", "changed assistant/us because region us", "blocked"]),
    "a route that goes": ([("      us: [chatgpt-us]\n", "")], ["removed assistant/us -chatgpt-us"]),
    "who may call": ([("app: {keys", "other: {keys")], ["clients"]),
    "an alias": ([("aliases: [gpt-4o]", "aliases: [gpt-5]")], ["aliases"]),
    "times": ([("location:", "resilience: {idle: 5s}\nlocation:")], ["resilience"]),
    "only how it is written": ([("cn: [qwen-cn]", "cn:   [ 'qwen-cn' ]  # the same")], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_changes_is_told_and_nothing_else(name: str) -> None:
    pairs, expected = CASES[name]
    plan = planned(changed(*pairs))
    found = told(plan)
    assert len(found) == len(expected), found
    for line, wanted in zip(sorted(found), sorted(expected), strict=True):
        assert line.startswith(wanted.removesuffix("…")), found
    assert plan.is_empty == (plan.before == plan.after), plan.keys
    for text in (plan_text(plan), plan_markdown(plan)):
        assert all(route.region in text for route in plan.routes)


def test_a_shadow_counts_among_those_who_get_prompts() -> None:
    shadow = "aliases: [gpt-4o]\n    shadow: {default: {deployment: chatgpt-us, share: 10%}}"
    old = changed(("aliases: [gpt-4o]", shadow))
    plan = planned(
        old.replace("chatgpt-us: {provider: openai, model: gpt-6-luna", "chatgpt-us: {provider: openai, model: gpt-4o"),
        old,
    )
    (item,) = plan.deployments
    assert item.asked_by == ("assistant/us", "assistant/default")
    assert [(route.region, route.because) for route in plan.routes] == [
        ("us", ("chatgpt-us",)),
        ("default", ("chatgpt-us",)),
    ]


def test_only_a_wider_boundary_is_called_wider() -> None:
    wide = changed(("cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [CN], boundary: [CN, HK]}"))
    (item,) = planned(OLD, wide).regions
    assert [(it.what, it.before, it.after, it.widens) for it in item.changes] == [("boundary", "CN, HK", "CN", False)]
    assert "WIDER" in plan_text(planned(wide))
    assert "WIDER" not in plan_text(planned(OLD, wide))


def test_a_change_that_no_table_shows_is_told_by_its_key() -> None:
    plan = planned(changed(("${OPENAI_US_API_KEY}", "${OPENAI_EU_API_KEY}")))
    assert plan.keys == ("deployments.chatgpt-us.api_key",)
    assert not plan.is_empty
    assert "deployments.chatgpt-us.api_key" in plan_text(plan)
    assert in_short(plan) == "deployments.chatgpt-us.api_key"


@pytest.mark.parametrize(
    ("pairs", "check", "finding"),
    [
        ([("      us: [chatgpt-us]\n", "")], "answered", "assistant/us: nobody answers these people any more"),
        ([("${OPENAI_US_API_KEY}\"", "${OPENAI_US_API_KEY}\", enabled: false")], "answered", "chatgpt-us: disabled"),
        ([("${OPENAI_US_API_KEY}", "${NOT_SET}")], "answered", "NOT_SET is not set"),
        ([("cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [CN], boundary: [CN], approvals: required}")], "approved", "assistant/cn: qwen-cn: it has no approval"),
    ],
)  # fmt: skip
def test_who_was_answered_must_be_answered_still(pairs: list[tuple[str, str]], check: str, finding: str) -> None:
    plan = planned(changed(*pairs))
    failed = {it.name: " ".join(it.findings) for it in plan.checks if not it.ok}
    assert finding in failed[check]
    assert not plan.ok
    assert "FAIL" in plan_text(plan)
    assert "❌" in plan_markdown(plan)


def test_who_was_answered_by_nobody_before_fails_no_check() -> None:
    off = changed(('${OPENAI_US_API_KEY}"', '${OPENAI_US_API_KEY}", enabled: false'))
    assert planned(changed(("blocked: [CU", "blocked: [SD, CU"), text=off), off).ok


def test_the_first_table_adds_it_all() -> None:
    plan = plan_of(NO_CONFIG_VERSION, table_of(OLD))
    assert {item.kind for item in (*plan.regions, *plan.deployments)} == {"added"}
    assert {route.kind for route in plan.routes} == {"added"}
    assert plan_text(plan).startswith("plan nothing -> ")


def test_shares_are_of_what_was_counted() -> None:
    plan = planned(changed(("[gemini, qwen-intl]", "[qwen-intl, gemini]")))
    assert plan.share is None
    counted = with_traffic(plan, {("assistant", "default"): 25.0, ("assistant", "eu"): 70.0, ("", ""): 5.0})
    assert counted.share == pytest.approx(0.25)
    assert "touches 25.0% of 100 requests" in plan_text(counted)
    assert plan_data(counted)["traffic"] == {"requests": 100.0, "share": 0.25}
    assert with_traffic(plan, {}).requests is None


def test_a_kill_switch_is_known_as_one() -> None:
    plan = planned(changed(('${OPENAI_US_API_KEY}"', '${OPENAI_US_API_KEY}", enabled: false')))
    assert plan.switched_off == ("chatgpt-us",)


def test_no_secret_is_in_a_plan() -> None:
    one, other = (table_of(OLD, {"OPENAI_US_API_KEY": key}) for key in ("sk-before-1", "sk-after-2"))
    plan = plan_of(one, other)
    assert plan.is_empty
    shown = (
        repr(plan) + plan_text(plan_of(NO_CONFIG_VERSION, other)) + str(plan_data(plan_of(NO_CONFIG_VERSION, other)))
    )
    assert "sk-after-2" not in shown


def test_markup_in_a_name_is_only_text() -> None:
    plan = ChangePlan("", "x", keys=("deployments.<img src=x>|`a`",))
    assert "\\<img src=x\\>\\|\\`a\\`" in plan_markdown(plan)
