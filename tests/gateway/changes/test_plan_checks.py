"""What counts as a change of a protected region, and what doesn't."""

from __future__ import annotations

import pytest

from gateway.changes.plan import changed_keys, plan_of
from gateway.changes.plan_checks import protected_changes
from gateway.config.yaml_document import parse_yaml
from tests.tables import WORLD, table_of

KEY, OTHER_KEY = ("ed25519:" + letter * 43 + "=" for letter in "AB")
PROTECTED = WORLD.replace(
    "cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [CN], boundary: [CN], protected: true}"
)
PROTECTED += f'admin_keys: ["{KEY}"]\n'
SPARE = (
    "  spare: {provider: openai-compatible, model: m, endpoint: 'http://127.0.0.1:1/v1', stores: CN, processes: CN}\n"
)
OPENED = "deployments:\n"
SHADOW = "    shadow: {cn: {deployment: spare, share: 10%}}\n"
SHADOWED = PROTECTED.replace(OPENED, f"{OPENED}{SPARE}").replace("aliases: [gpt-4o]\n", f"aliases: [gpt-4o]\n{SHADOW}")
SHOP = next(line for line in PROTECTED.splitlines() if "shop-cn" in line)
EXPORTER = "exporters: {{t: {{endpoint: 'https://{}', stores: CN, processes: CN, regions: [{}]}}}}\n"

CHANGES = {
    "another boundary": (("boundary: [CN], protected", "boundary: [CN, HK], protected"), "boundary"),
    "a part of it goes elsewhere": (("default: {territories", "bj: {territories: [CN-BJ], boundary: [CN]}\n  default: {territories"), "people"),
    "a part of it is blocked": (("blocked: [CU", "blocked: [CN-BJ, CU"), "people"),
    "approvals": (("boundary: [CN], protected", "boundary: [CN], approvals: required, protected"), "approvals required"),
    "no protection": ((", protected: true", ""), "protected"),
    "the region goes": (("  cn: {territories: [CN], boundary: [CN], protected: true}\n", ""), "removed"),
    "its route": (("deployments:\n", f"deployments:\n{SPARE}"), "the route of assistant"),
    "a deployment of its route": (("model: qwen3-max", "model: qwen-plus"), "the deployment qwen-cn"),
    "the account of one": (("${DASHSCOPE_API_KEY}", "${DASHSCOPE_INTL_API_KEY}"), "the deployment qwen-cn"),
    "a kill switch": (("endpoint: cn-beijing", "enabled: false, endpoint: cn-beijing"), "the deployment qwen-cn"),
    "where the gateway stands": (("blocked: [CU", "cell: {territory: CN, serves: [cn]}\nblocked: [CU"), "where the gateway stands"),
    "a client of it is bound elsewhere": (("region: cn}", "region: us}"), "the region of client shop-cn"),
    "a client of it is bound nowhere": ((", region: cn}", "}"), "the region of client shop-cn"),
    "another client is bound to it": (("assistants: [assistant]}", "assistants: [assistant], region: cn}"), "the region of client app"),
    "another admin": ((KEY, OTHER_KEY), "admin_keys"),
    "one admin more": ((f'"{KEY}"', f'"{KEY}", "{OTHER_KEY}"'), "admin_keys"),
}  # fmt: skip
ELSEWHERE = {
    "another region's boundary": ("us: {territories: [US], boundary: [US]}", "us: {territories: [US], boundary: [US, CA]}"),
    "another region's route": ("[gemini, qwen-intl]", "[qwen-intl, gemini]"),
    "another region's deployment": ("model: gpt-6-luna, endpoint: us", "model: gpt-4o, endpoint: us"),
    "who may call": ("app: {keys", "other: {keys"),
    "a client of it goes": (f"{SHOP}\n", ""),
    "a client of it has another name": ("shop-cn: {", "shop: {"),
    "another client is bound to another region": ("assistants: [assistant]}", "assistants: [assistant], region: us}"),
    "other people are blocked": ("blocked: [CU", "blocked: [SD, CU"),
    "a deployment that nobody asks": ("deployments:\n", f"deployments:\n{SPARE}"),
}  # fmt: skip


def judged(new: str, before: str = PROTECTED) -> dict[str, str]:
    keys = changed_keys(*(parse_yaml(text.encode(), "test.yaml").values for text in (before, new)))
    old, after = table_of(before), table_of(new)
    return protected_changes(old, after, plan_of(old, after, tuple(keys)))


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_protected_region_is_one(name: str) -> None:
    (before, after), why = CHANGES[name]
    assert before in PROTECTED
    new = PROTECTED.replace(before, after)
    if name == "its route":
        new = new.replace("cn: [qwen-cn]", "cn: [qwen-cn, spare]")
    if name == "the region goes":
        new = new.replace("      cn: [qwen-cn]\n", "").replace(", region: cn}", "}")
    assert why in judged(new)["cn"].split(", ")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_change_elsewhere_is_none(name: str) -> None:
    before, after = ELSEWHERE[name]
    assert before in PROTECTED
    assert judged(PROTECTED.replace(before, after)) == {}


def test_a_key_that_goes_to_another_client_takes_its_people_along() -> None:
    other = SHOP.replace("shop-cn", "shop").replace("region: cn", "region: us")
    assert judged(PROTECTED.replace(SHOP, other))["cn"] == "the region of client shop-cn"
    renewed = SHOP.replace("c" * 64, "e" * 64).replace("region: cn", "region: us")
    assert judged(PROTECTED.replace(SHOP, renewed))["cn"] == "the region of client shop-cn"


def test_a_region_becomes_protected_without_a_signature() -> None:
    old, new = table_of(WORLD), table_of(PROTECTED)
    assert protected_changes(old, new, plan_of(old, new)) == {}


@pytest.mark.parametrize(
    ("written", "becomes", "why"),
    [
        ("127.0.0.1:1/v1", "127.0.0.1:2/v1", "the deployment spare"),
        ("model: m,", "api_key: '${EDGE_SECRET}', model: m,", "the deployment spare"),
        (SHADOW, "", "the route of assistant"),
        ("share: 10%", "share: 20%", "the route of assistant"),
        ("share: 10%", "share: 10%, keep_text: true", "the route of assistant"),
    ],
)
def test_a_shadow_hears_the_prompts_so_it_is_protected_too(written: str, becomes: str, why: str) -> None:
    shadowed = SHADOWED.replace("blocked: [CU", "cell: {territory: CN, serves: [cn]}\nblocked: [CU")
    assert written in shadowed
    assert judged(shadowed.replace(written, becomes), shadowed) == {"cn": why}


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("", EXPORTER.format("a.example", "cn"), {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), "", {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), EXPORTER.format("b.example", "cn"), {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), EXPORTER.format("a.example/other", "cn"), {"cn": "exporters"}),
        ("", EXPORTER.format("a.example", "default"), {}),
    ],
)
def test_who_is_told_of_its_requests(before: str, after: str, why: dict[str, str]) -> None:
    assert judged(PROTECTED + after, PROTECTED + before) == why


def test_without_documents_to_compare_the_tables_tell() -> None:
    old = table_of(PROTECTED)
    new = table_of(PROTECTED.replace("model: qwen3-max", "model: qwen-plus"))
    assert protected_changes(old, new, plan_of(old, new)) == {"cn": "the deployment qwen-cn"}
