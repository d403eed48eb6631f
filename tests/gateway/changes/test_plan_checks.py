"""The changes that count as changes of a protected region."""

from typing import Any

import pytest

from gateway.changes.plan import changed_values, plan_of
from gateway.changes.plan_checks import protected_changes
from tests.kit.case_files import cases
from tests.kit.configs import BASE, Config, table_of

KEY, OTHER_KEY = ("ed25519:" + letter * 43 + "=" for letter in "AB")
PROTECTED = BASE.merge("regions: {cn: {protected: true}}", {"admin_keys": [KEY]})
ENDPOINT = "http://127.0.0.1:{}/v1"
SPARE = {
    "spare": {
        "provider": "openai-compatible", "model": "m", "endpoint": ENDPOINT.format(1), "stores": "CN", "processes": "CN"
    }
}  # fmt: skip
JUDGE = {**SPARE["spare"], "model": "qwen3guard"}
CLAIM = {"issuer": "i", "audience": "g", "algorithms": ["ES256"], "jwks": "https://i.example/jwks", "age_band": "age"}
MODERATION = {"output": ["judge"], "on_failure": "closed"}
CRISIS = {"judges": ["judge"], "categories": ["self-harm"], "then": "stop", "on_failure": "open"}
IN_CRISIS = {"deployments": {"judge": JUDGE}, "regions": {"cn": {"crisis": CRISIS}}}
JUDGED = {"deployments": {"judge": JUDGE}, "regions": {"cn": {"moderation": MODERATION}}}
SPARED = PROTECTED.merge({"deployments": SPARE})
SHADOWED = SPARED.merge(
    "assistants: {assistant: {shadow: {cn: {deployment: spare, share: 10%}}}}", "cell: {territory: CN, serves: [cn]}"
)
EXPORTER = "exporters: {{t: {{endpoint: 'https://{}', stores: CN, processes: CN, regions: [{}]}}}}"
NO_REGION = "{regions: {cn: null}, assistants: {assistant: {routes: {cn: null}}}, clients: {shop-cn: {region: null}}}"

CHANGES = {
    "another boundary": ("regions: {cn: {boundary: [CN, HK]}}", "boundary"),
    "a part of it goes elsewhere": ("regions: {bj: {territories: [CN-BJ], boundary: [CN]}}", "people"),
    "a part of it is blocked": ("blocked: [CN-BJ, CU, IR, KP, SY]", "people"),
    "approvals": ("regions: {cn: {approvals: required}}", "approvals required"),
    "no protection": ("regions: {cn: {protected: null}}", "protected"),
    "the region goes": (NO_REGION, "removed"),
    "its route": ({"deployments": SPARE, "assistants": {"assistant": {"routes": {"cn": ["qwen-cn", "spare"]}}}}, "the route of assistant"),
    "a deployment of its route": ("deployments: {qwen-cn: {model: qwen3.7-plus}}", "the deployment qwen-cn"),
    "the account of one": ("deployments: {qwen-cn: {api_key: '${DASHSCOPE_INTL_API_KEY}'}}", "the deployment qwen-cn"),
    "a kill switch": ("deployments: {qwen-cn: {enabled: false}}", "the deployment qwen-cn"),
    "where the gateway stands": ("cell: {territory: CN, serves: [cn]}", "where the gateway stands"),
    "a client of it is bound elsewhere": ("clients: {shop-cn: {region: us}}", "the region of client shop-cn"),
    "a client of it is bound nowhere": ("clients: {shop-cn: {region: null}}", "the region of client shop-cn"),
    "another client is bound to it": ("clients: {app: {region: cn}}", "the region of client app"),
    "another admin": ({"admin_keys": [OTHER_KEY]}, "admin_keys"),
    "fewer receipts": ("receipts: {sample: 0.1}", "receipts.sample"),
    "one admin more": ({"admin_keys": [KEY, OTHER_KEY]}, "admin_keys"),
    "moderation": (JUDGED, "moderation"),
    "a band": ({"regions": {"cn": {"age_bands": {"child": {}}, "age_missing": "refuse"}}}, "age bands"),
    "the age of a claim": ({"location": {"claim": CLAIM}}, "location.claim.age_band"),
    "another issuer of claims": ({"location": {"claim": CLAIM}}, "location.claim"),
    "another edge": ("location: {unknown: us}", "location.unknown"),
    "no WebSocket": ("regions: {cn: {websocket: false}}", "websocket"),
    "a judge": (JUDGED, "the deployment judge"),
    "help in a crisis": (IN_CRISIS, "crisis"),
    "a judge of a crisis": (IN_CRISIS, "the deployment judge"),
    "forbidden claims": ({"regions": {"cn": {"profile": {"locale": "zh-Hans-CN"}, "claims": {"forbidden": ["health-licence"]}}}}, "claims"),
}  # fmt: skip
ELSEWHERE = {
    "another region's boundary": "regions: {us: {boundary: [US, CA]}}",
    "another region's route": "assistants: {assistant: {routes: {default: [qwen-intl, gemini]}}}",
    "another region's deployment": "deployments: {chatgpt-us: {model: gpt-4o}}",
    "who may call": {"clients": {"app": None, "other": PROTECTED.data["clients"]["app"]}},
    "a client of it goes": "clients: {shop-cn: null}",
    "a client of it has another name": {"clients": {"shop-cn": None, "shop": PROTECTED.data["clients"]["shop-cn"]}},
    "another client is bound to another region": "clients: {app: {region: us}}",
    "other people are blocked": "blocked: [SD, CU, IR, KP, SY]",
    "a deployment that nobody asks": {"deployments": SPARE},
    "no WebSocket anywhere": "websocket: false",
}  # fmt: skip


def protected_changes_of(new: Config, before: Config = PROTECTED) -> dict[str, str]:
    keys = changed_values(*(config.data for config in (before, new)))
    old, after = table_of(before), table_of(new)
    return protected_changes(old, after, plan_of(old, after, tuple(keys)))


@pytest.mark.parametrize("name", CHANGES)
def test_change_of_a_protected_region_is_found(name: str) -> None:
    change, why = CHANGES[name]
    assert why in protected_changes_of(PROTECTED.merge(change))["cn"].split(", ")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_change_elsewhere_is_not_a_protected_change(name: str) -> None:
    assert protected_changes_of(PROTECTED.merge(ELSEWHERE[name])) == {}


def test_key_moved_to_a_client_of_another_region_changes_both_regions() -> None:
    shop = {**PROTECTED.data["clients"]["shop-cn"], "region": "us"}
    assert (
        protected_changes_of(PROTECTED.merge({"clients": {"shop-cn": None, "shop": shop}}))["cn"]
        == "the region of client shop-cn"
    )
    renewed = PROTECTED.merge({"clients": {"shop-cn": {"keys": [f"sha256:{'e' * 64}"], "region": "us"}}})
    assert protected_changes_of(renewed)["cn"] == "the region of client shop-cn"


def test_protecting_a_region_needs_no_signature() -> None:
    old, new = table_of(BASE), table_of(PROTECTED)
    assert protected_changes(old, new, plan_of(old, new)) == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"deployments": {"spare": {"endpoint": ENDPOINT.format(2)}}}, "the deployment spare"),
        ("deployments: {spare: {api_key: '${EDGE_SECRET}'}}", "the deployment spare"),
        ("assistants: {assistant: {shadow: null}}", "the route of assistant"),
        ("assistants: {assistant: {shadow: {cn: {share: 20%}}}}", "the route of assistant"),
        ("assistants: {assistant: {shadow: {cn: {keep_text: true}}}}", "the route of assistant"),
    ],
)
def test_change_of_a_shadow_is_a_protected_change(change: str | dict[str, Any], why: str) -> None:
    assert protected_changes_of(SHADOWED.merge(change), SHADOWED) == {"cn": why}


VERDICTS = SPARED.merge(
    {
        "deployments": {"spare": {"provider": "vllm", "verdicts": {"violence": 0.6, "hate": 0.5}}},
        "regions": {"cn": {"moderation": {"output": ["spare"], "on_failure": "closed"}}},
    }
)


@pytest.mark.parametrize("verdicts", [{"violence": 0.7}, {"hate": None}, {"violence": {"at": 0.6, "ask": "So."}}])
def test_change_of_what_a_judge_asks_or_of_its_thresholds_is_a_protected_change(verdicts: dict[str, Any]) -> None:
    changed = VERDICTS.merge({"deployments": {"spare": {"verdicts": verdicts}}})
    assert protected_changes_of(changed, VERDICTS) == {"cn": "moderation, the deployment spare"}
    (shown,) = plan_of(table_of(VERDICTS), table_of(changed)).deployments
    assert [(one.what, one.before) for one in shown.changes] == [("verdicts", "violence 0.6, hate 0.5; statements 1")]


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("{}", EXPORTER.format("a.example", "cn"), {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), "{}", {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), EXPORTER.format("b.example", "cn"), {"cn": "exporters"}),
        (EXPORTER.format("a.example", "cn"), EXPORTER.format("a.example/other", "cn"), {"cn": "exporters"}),
        ("{}", EXPORTER.format("a.example", "default"), {}),
    ],
)
def test_change_of_exporters_is_a_protected_change(before: str, after: str, why: dict[str, str]) -> None:
    assert protected_changes_of(PROTECTED.merge(after), PROTECTED.merge(before)) == why


BY_INTENT = SPARED.merge(
    {
        "assistants": {
            "assistant": {
                "intents": {"control": {"tools": ["car_*"]}, "chat": {}},
                "routes": {"cn": {"control": ["spare"], "default": ["qwen-cn"]}},
                "choices": {"qwen": {"deployments": ["qwen-cn"], "title": {"en": "Qwen"}}},
            },
            "other": {"routes": {"us": ["chatgpt-us"]}, "intents": {"chat": {}}},
        },
        "clients": {"car": {"keys": [f"sha256:{'d' * 64}"], "assistants": ["assistant", "other"]}},
    }
)


@cases("change", "why")
def test_change_of_who_answers_which_request_is_a_protected_change(change: str, why: str | None) -> None:
    assert protected_changes_of(BY_INTENT.merge(change), BY_INTENT) == ({"cn": why} if why else {})


def test_protected_changes_are_found_without_documents() -> None:
    old = table_of(PROTECTED)
    new = table_of(PROTECTED.merge("deployments: {qwen-cn: {model: qwen3.7-plus}}"))
    assert protected_changes(old, new, plan_of(old, new)) == {"cn": "the deployment qwen-cn"}
