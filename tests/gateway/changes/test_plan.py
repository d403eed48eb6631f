"""A plan lists everything that a switch changes, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.changes.plan import NO_CONFIG_VERSION, Change, ChangePlan, changed_values, plan_of, with_traffic
from gateway.changes.plan_checks import checks_of
from gateway.changes.plan_text import plan_data, plan_markdown, plan_summary, plan_text
from gateway.model.config_version import ConfigVersion
from tests.kit.config_cases import edited
from tests.kit.configs import BASE, Config, table_of

NOW_S = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
Patch = str | Mapping[str, Any]


def planned(new: Config, old: Config = BASE) -> ChangePlan:
    before, after = table_of(old), table_of(new)
    plan = plan_of(before, after, tuple(changed_values(old.data, new.data)))
    return replace(plan, checks=checks_of(before, after, (), NOW_S))


def lines_of(plan: ChangePlan) -> list[str]:
    """Return a line for each change, without the keys."""
    lines = []
    for item in (*plan.regions, *plan.deployments):
        lines += [f"{item.kind} {item.name}"] if not item.changes else []
        lines += [
            f"{item.name}: {change.what}: {change.before} -> {change.after}{' WIDER' if change.widens else ''}"
            for change in item.changes
        ]
    for route in plan.routes:
        reordered = " reordered" if route.reordered else ""
        because = f" because {', '.join(route.because)}" if route.because else ""
        steps = "".join([*(f" +{step}" for step in route.added), *(f" -{step}" for step in route.removed)])
        lines.append(f"{route.kind} {route.assistant}/{route.region}{steps}{reordered}{because}")
    return [*lines, *plan.sections]


def routes(patch: str) -> str:
    """Return a patch of the assistant's routes."""
    return f"assistants: {{assistant: {{routes: {patch}}}}}"


OWN = "deployments: {own: {provider: openai-compatible, model: m, endpoint: 'http://127.0.0.1:1/v1', stores: DE, processes: DE, api_key: '${KEY}'}}"
OTHER_MODEL = "deployments: {chatgpt-us: {model: gpt-4o}}"
OTHER_ACCOUNT = "deployments: {chatgpt-us: {api_key: '${OPENAI_EU_API_KEY}'}}"
SWITCHED_OFF = "deployments: {chatgpt-us: {enabled: false}}"
PROXY = "deployments: {chatgpt-us: {proxy: {url: 'https://proxy.example:3128', territory: US}}}"
WIDER = "regions: {cn: {boundary: [CN, HK]}}"
APPROVALS_REQUIRED = "regions: {cn: {approvals: required}}"
APPROVED = "deployments: {qwen-cn: {approvals: [{region: cn, authority: CAC, kind: registration, number: '7', model_name: Qwen}]}}"
CALIFORNIA = "regions: {ca: {territories: [US-CA], boundary: [US]}}"

CASES: dict[str, tuple[list[Patch], list[str]]] = {
    "nothing": ([], []),
    "a deployment added to a route": ([routes("{eu: [chatgpt-eu, own]}"), OWN], ["added own", "changed assistant/eu +own"]),
    "a deployment taken out": ([routes("{default: [gemini]}")], ["changed assistant/default -qwen-intl"]),
    "another order": ([routes("{default: [qwen-intl, gemini]}")], ["changed assistant/default reordered"]),
    "a deployment added, and another order": ([routes("{default: [chatgpt-us, qwen-intl, gemini]}")], ["changed assistant/default +chatgpt-us reordered"]),
    "another model": ([OTHER_MODEL], ["chatgpt-us: model: gpt-6-luna -> gpt-4o", "chatgpt-us: capabilities: …", "chatgpt-us: model announced: none -> 2026-10-14", "chatgpt-us: model fails: none -> 2027-01-14", "changed assistant/us because chatgpt-us"]),
    "a kill switch": ([SWITCHED_OFF], ["chatgpt-us: enabled: yes -> no", "changed assistant/us because chatgpt-us"]),
    "another account": ([OTHER_ACCOUNT], []),
    "a proxy": ([PROXY], ["chatgpt-us: proxy: none -> https://proxy.example:3128 in US WIDER", "changed assistant/us because chatgpt-us"]),
    "a wider boundary": ([WIDER], ["cn: boundary: CN -> CN, HK WIDER", "changed assistant/cn because region cn"]),
    "people who come": (["blocked: [IR, KP, SY]"], ["default: people: none -> CU", "changed assistant/default because region default", "blocked"]),
    "labels": (["regions: {eu: {labels: [eu-art50]}}"], ["eu: speech: none -> labels eu-art50, profile none", "changed assistant/eu because region eu"]),
    "approvals": ([APPROVALS_REQUIRED, APPROVED], ["cn: approvals required: no -> yes", "qwen-cn: approvals: none -> cn: CAC registration 7", "changed assistant/cn because region cn, qwen-cn"]),
    "people go to another region": ([CALIFORNIA, routes("{ca: [chatgpt-us]}")], ["added ca", "us: people: US-CA -> none", "added assistant/ca +chatgpt-us because region ca", "changed assistant/us because region us"]),
    "blocked people": (["blocked: [US-NY, CU, IR, KP, SY]"], ["us: people: US-NY -> none", "changed assistant/us because region us", "blocked"]),
    "a route that goes": ([routes("{us: null}")], ["removed assistant/us -chatgpt-us"]),
    "who may call": ([f"clients: {{app: null, other: {{keys: ['sha256:{'a' * 64}'], assistants: [assistant]}}}}"], ["clients"]),
    "an alias": (["assistants: {assistant: {aliases: [gpt-5]}}"], ["aliases"]),
    "times": (["resilience: {idle: 5s}"], ["resilience"]),
    "only the order of sections": (["{location: null, blocked: null}", {name: BASE.data[name] for name in ("location", "blocked")}], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_plan_has_a_line_for_each_change_and_no_other(name: str) -> None:
    patches, expected = CASES[name]
    plan = planned(BASE.merge(*patches))
    lines = lines_of(plan)
    assert len(lines) == len(expected), lines
    for line, start in zip(sorted(lines), sorted(expected), strict=True):
        assert line.startswith(start.removesuffix("…")), lines
    assert plan.is_empty == (plan.before == plan.after), plan.keys
    for text in (plan_text(plan), plan_markdown(plan)):
        assert all(route.region in text for route in plan.routes)


def test_plan_has_no_line_for_another_way_of_writing() -> None:
    old = BASE.text
    new = f"# a comment\n{edited(old, (': ', ':   '))}"
    assert lines_of(planned(Config.parse(new), Config.parse(old))) == []


def test_shadow_counts_among_the_routes_that_send_prompts() -> None:
    shadow = "{shadow: {default: {deployment: chatgpt-us, share: 10%}}}"
    old = BASE.merge(f"assistants: {{assistant: {shadow}}}")
    plan = planned(old.merge(OTHER_MODEL), old)
    (item,) = plan.deployments
    assert item.asked_by == ("assistant/us", "assistant/default")
    assert [(route.region, route.because) for route in plan.routes] == [
        ("us", ("chatgpt-us",)),
        ("default", ("chatgpt-us",)),
    ]


@pytest.mark.parametrize(
    ("change", "widens"),
    [({"url": "https://other.example"}, False), ({"inspects": True}, True), ({"territory": "CA"}, True)],
)
def test_proxy_that_sees_more_or_elsewhere_is_wider(change: Mapping[str, Any], widens: bool) -> None:
    old = BASE.merge("regions: {us: {boundary: [US, CA]}}", PROXY)
    (item,) = planned(old.merge({"deployments": {"chatgpt-us": {"proxy": change}}}), old).deployments
    assert [each.widens for each in item.changes if each.what == "proxy"] == [widens]


def test_only_a_wider_boundary_is_called_wider() -> None:
    wide = BASE.merge(WIDER)
    (item,) = planned(BASE, wide).regions
    assert [(change.what, change.before, change.after, change.widens) for change in item.changes] == [
        ("boundary", "CN, HK", "CN", False)
    ]
    assert "WIDER" in plan_text(planned(wide))
    assert "WIDER" not in plan_text(planned(BASE, wide))


def test_change_without_another_effect_is_listed_by_its_key() -> None:
    plan = planned(BASE.merge(OTHER_ACCOUNT))
    assert plan.keys == ("deployments.chatgpt-us.api_key",)
    assert not plan.is_empty
    assert "deployments.chatgpt-us.api_key" in plan_text(plan)
    assert plan_summary(plan) == "deployments.chatgpt-us.api_key"


@pytest.mark.parametrize(
    ("patch", "check", "finding"),
    [
        (routes("{us: null}"), "answered", "assistant/us: no deployment answers these users any more"),
        (SWITCHED_OFF, "answered", "chatgpt-us: disabled"),
        ("deployments: {chatgpt-us: {api_key: '${NOT_SET}'}}", "answered", "NOT_SET is not set"),
        (APPROVALS_REQUIRED, "approved", "assistant/cn: qwen-cn: it has no approval"),
    ],
)
def test_change_that_leaves_callers_without_an_answer_fails_a_check(patch: str, check: str, finding: str) -> None:
    plan = planned(BASE.merge(patch))
    failed = {check.name: " ".join(check.findings) for check in plan.checks if not check.ok}
    assert finding in failed[check]
    assert not plan.ok
    assert "FAIL" in plan_text(plan)
    assert "\n- FAIL" in plan_markdown(plan)


def test_callers_without_an_answer_before_fail_no_check() -> None:
    off = BASE.merge(SWITCHED_OFF)
    assert planned(off.merge(routes("{us: null}")), off).ok


def test_first_config_version_adds_everything() -> None:
    plan = plan_of(NO_CONFIG_VERSION, table_of(BASE))
    assert {item.kind for item in (*plan.regions, *plan.deployments)} == {"added"}
    assert {route.kind for route in plan.routes} == {"added"}
    assert plan_text(plan).startswith("plan nothing -> ")


def test_shares_are_computed_from_counted_requests() -> None:
    plan = planned(BASE.merge(routes("{default: [qwen-intl, gemini]}")))
    assert plan.share is None
    counted = with_traffic(plan, {("assistant", "default"): 25.0, ("assistant", "eu"): 70.0, ("", ""): 5.0})
    assert counted.share == pytest.approx(0.25)
    assert "affects 25.0% of 100 requests" in plan_text(counted)
    assert plan_data(counted)["traffic"] == {"requests": 100.0, "share": 0.25}
    assert with_traffic(plan, {}).requests is None


def test_disabled_deployment_is_a_kill_switch() -> None:
    plan = planned(BASE.merge(SWITCHED_OFF))
    assert plan.switched_off == ("chatgpt-us",)


def test_plan_contains_no_secret() -> None:
    one, other = (table_of(BASE, {"OPENAI_US_API_KEY": key}) for key in ("sk-before-1", "sk-after-2"))
    plan = plan_of(one, other)
    assert plan.is_empty
    shown = (
        repr(plan) + plan_text(plan_of(NO_CONFIG_VERSION, other)) + str(plan_data(plan_of(NO_CONFIG_VERSION, other)))
    )
    assert "sk-after-2" not in shown


def test_plan_shows_where_a_sign_in_asks_and_no_value_of_it() -> None:
    sign_in = {"kind": "oauth", "url": "https://id.example.de/token", "client": "c", "client_secret": "${MARKED}"}
    deployment = {"provider": "openai-compatible", "model": "m", "endpoint": "https://llm.example.de/v1"}
    own = {**deployment, "stores": "DE", "processes": "DE", "sign_in": "idp"}

    def version(territory: str, secret: str) -> ConfigVersion:
        patch = {"sign_ins": {"idp": {**sign_in, "territory": territory}}, "deployments": {"own": own}}
        return table_of(BASE.merge(patch), {"MARKED": secret})

    plan = plan_of(version("DE", "marked-1"), version("FR", "marked-2"))
    change = plan.deployments[0].changes[0]
    asked = "idp (oauth at id.example.de in"
    assert (change.what, change.before, change.after) == ("sign in", f"{asked} DE)", f"{asked} FR)")
    texts = repr(plan) + plan_text(plan) + plan_markdown(plan) + str(plan_data(plan))
    assert "marked" not in texts
    assert (
        plan_of(version("DE", "marked-1"), version("DE", "marked-2"))
        .deployments[0]
        .changes[0]
        .after.endswith("(different)")
    )


def test_no_name_ends_the_block_of_a_plan_in_markdown() -> None:
    plan = ChangePlan("", "x", values=(Change("deployments.<img src=x>\n````\n# no", "1", "2"),))
    lines = plan_markdown(plan).splitlines()
    assert (lines[2], lines[-1]) == ("`````diff", "`````")
    assert not any(line.startswith("`") for line in lines[3:-1])


def test_changed_values_of_sections_show_old_and_new() -> None:
    client = {"keys": ["sha256:" + "c1" * 32], "region": "us", "limits": {"rpm": 60}}
    before = BASE.merge({"clients": {"shop": client}})
    after = before.merge({"clients": {"shop": {"limits": {"rpm": 120}}}, "resilience": {"idle": "7s"}})
    plan = planned(after, before)
    shown_values = [(change.what, change.before, change.after) for change in plan.values]
    assert shown_values == [("clients.shop.limits.rpm", "60", "120"), ("resilience", "not set", '{"idle": "7s"}')]
    for text in (plan_text(plan), plan_markdown(plan)):
        assert "clients.shop.limits.rpm: 60 -> 120" in text
    assert "c1c1" not in plan_text(plan)
