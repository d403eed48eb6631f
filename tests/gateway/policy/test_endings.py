"""One rule for all facts that end: reported from 90 days before it, an error of `gateway check` after it, and kept.

The table is each kind of fact × each place where operators look.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.api.admin_control import is_ready
from gateway.api.admin_deployments import deployments_document
from gateway.api.admin_status import status_document
from gateway.changes.change_log import plan_with_checks
from gateway.changes.compile_job import CompiledState
from gateway.cli.admin_client import AdminAnswer
from gateway.cli.operations import status_lines
from gateway.config import known_texts, region_text, sign_ins
from gateway.config.fact_ages import relied_facts
from gateway.config.loading import parse_document
from gateway.config.problems import Problem
from gateway.config.routes import ineligible_now
from gateway.features.configuration import compile_config
from gateway.model.approval import begun_everywhere, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.endings import endings_of
from gateway.model.status import Overview
from gateway.policy.routing import config_exclusion
from providers.compatible.adapter import adapter_of
from providers.registry import Registry, load_registry
from providers.sign_in.kinds import vendor_hosts
from providers.value import replace as change
from scripts import facts
from tests.gateway.admin_calls import AdminCallbacks
from tests.kit.configs import Config

ON = date(2027, 3, 1)
TOML = """
name = "acme"
[dialect]
features = []
parameters = ["max_tokens"]
[sites.oslo]
origin = "https://api.acme.example"
base_path = "/v2"
stores = ["NO"]
processes = ["NO"]
"""
ROW = f"on = {ON}\nas_of = 2026-11-01\nsource = 'https://acme.example/ends'\n"
PRICE = "[[prices]]\nmodels = ['m']\ninput = 1\noutput = 2\ncurrency = 'EUR'\nas_of = 2026-11-01\nsource = 'https://acme.example'\n"
CONFIG = Config.parse("""
version: 1
cell: {territory: "NO"}
assistants: {assistant: {routes: {no: [d]}}}
regions: {no: {territories: ["NO"], boundary: ["NO"]}}
deployments: {d: {provider: acme, model: m, endpoint: oslo, api_key: k}}
""")
RECORD = {"region": "no", "authority": "A", "kind": "registration", "number": "N", "model_name": "M"}
APPROVED = {"deployments": {"d": {"approvals": [{**RECORD, "valid_until": str(ON - timedelta(1))}]}}}
SIGNED_IN = {
    "sign_ins": {
        "pod": {"kind": "azure_workload", "tenant": "t", "client": "c", "token_file": "/t", "global_host": "accepted"}
    },
    "deployments": {
        "d": {
            "provider": "azure", "model": "m", "endpoint": "https://x.openai.azure.com", "stores": "NO",
            "processes": "NO", "sign_in": "pod", "api_key": None,
        }
    },
}  # fmt: skip
HOST = "login.microsoftonline.com"
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "model": (f"[[retirements]]\nmodels = ['m']\n{ROW}", {}, "its model 'm' "),
    "site": (f"[[retirements]]\nmodels = ['*']\nsites = ['oslo']\n{ROW}", {}, "its model 'm' "),
    "API version": (f"[[retirements]]\nmodels = ['*']\npaths = ['/v2']\n{ROW}", {}, "the API version of its endpoint "),
    "API": (f"[[retirements]]\nmodels = ['*']\n{ROW}", {}, "its model 'm' "),
    "token host": ("", SIGNED_IN, f"its token host {HOST} "),
    "price": (f"{PRICE}ends = {ON}\n", {}, "its price "),
    "approval": ("", APPROVED, "its approval for region 'no' "),
    "law": ("", {"regions": {"no": {"labels": ["eu-art50"]}}}, "the law of the label "),
}
"""The facts of the provider, the patch of the configuration, and the beginning of the words, by kind."""
ENDS_A_DEPLOYMENT = ("model", "site", "API version", "API", "token host")
SOON, FAR, OVER = -2, -93, 0
"""Days after the first day without the fact."""


def registry_of(kind: str) -> Registry:
    registry = load_registry()
    return replace(registry, adapters={**registry.adapters, "acme": adapter_of(TOML + KINDS[kind][0])})


def compiled(kind: str, days: int, *patches: Any) -> tuple[ConfigVersion, tuple[Problem, ...]]:
    text = CONFIG.merge(KINDS[kind][1], *patches).text.encode()
    now_s = begun_everywhere(ON + timedelta(days))
    document = parse_document(text, "gateway.yaml", {}, clock=lambda: now_s)
    done = compile_config(document, registry=registry_of(kind))
    return done.config, done.warnings


@pytest.fixture(autouse=True)
def law_and_host_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_text, "law_ends", lambda: {"eu-art50": (ON, "eu-art50-new")})
    hosts = {**vendor_hosts(), HOST: change(vendor_hosts()[HOST], ends=ON, as_of=ON, source="https://x.example")}
    monkeypatch.setattr(sign_ins, "vendor_hosts", lambda: hosts)
    monkeypatch.setattr(facts, "vendor_hosts", lambda: hosts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("days", [FAR, SOON, OVER])
def test_each_kind_is_shown_in_each_place(kind: str, days: int) -> None:
    config, warnings = compiled(kind, days)
    words, now_s = KINDS[kind][2], begun_everywhere(ON + timedelta(days))
    shown, fails = days != FAR, days == OVER
    named = "eu-art50" if kind == "law" else "d"
    found = [it for it in warnings if it.message.startswith(words)]
    assert [it.fails_check for it in found] == [fails] * shown, "check, check --at"
    status = change(AdminCallbacks().now, config=config, at_s=now_s)
    document = status_document(status, Overview("berlin-1", "1", 0))
    ends: Any = document["ends"]
    assert [(it.get("deployment") or it["label"], it["detail"].startswith(words)) for it in ends] == [
        (named, True)
    ] * shown, "status --json"
    lines = [line for line in status_lines(AdminAnswer(document)) if line.startswith(f"{named}: {words}")]
    assert len(lines) == shown, "status"
    state = CompiledState(config, None, ())
    notes = [it for it in plan_with_checks(state, state, now_s).notes if it.startswith(f"{named}: {words}")]
    assert len(notes) == shown, "plan"
    view: Any = deployments_document(status, ())
    of_console = [*view["laws"], *view["deployments"][0]["approvals"]]
    of_console += filter(None, (view["deployments"][0][it] for it in ("retirement", "price_end")))
    assert is_ready(status), "/readyz"
    # The console shows the end of a deployment's facts however far away it is.
    assert [it["days_left"] < (kind != "approval") for it in of_console] == [fails] * (shown or kind != "law"), (
        "the console"
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "approval"])
def test_each_fact_of_the_tree_is_listed_and_fails_a_release_once_it_has_ended(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "load_registry", lambda: registry_of(kind))
    (tmp_path / "laws.toml").write_text(f'[[laws]]\nduty = "Notice"\nends = {ON}\n' if kind == "law" else "laws = []")
    monkeypatch.setattr(facts, "LAWS", tmp_path / "laws.toml")
    if kind != "token host":
        monkeypatch.setattr(facts, "vendor_hosts", vendor_hosts)
    whose = {"law": "law", "token host": "token host", "price": "acme: price"}.get(kind, "acme")
    of_kind = [line for line in facts.ending(ON - timedelta(1)) if line.startswith(f"{ON}  {whose}  ")]
    assert len(of_kind) == 1
    assert len([line for line in facts.ended(tmp_path, ON) if line.startswith(f"{whose}: ")]) == 1
    assert not [line for line in facts.ended(tmp_path, ON - timedelta(1)) if line.startswith(f"{whose}: ")]


@pytest.mark.parametrize("kind", KINDS)
def test_deployment_ends_with_its_model_and_all_that_serves_it_and_with_nothing_else(kind: str) -> None:
    config, _ = compiled(kind, OVER)
    excluded = config_exclusion(config.deployments["d"], begun_everywhere(ON))
    assert (excluded is not None and excluded.reason) == (kind in ENDS_A_DEPLOYMENT and "ended")
    assert excluded is None or str(ON) in excluded.detail
    assert config_exclusion(config.deployments["d"], begun_everywhere(ON) - 1) is None


@pytest.mark.parametrize("kind", ENDS_A_DEPLOYMENT)
@pytest.mark.parametrize("hours", [-27, -25, -1 / 3600, 0, 1])
def test_retirement_is_reported_as_over_from_the_second_in_which_routes_pass_over(kind: str, hours: float) -> None:
    """The day begins in the first place on Earth 26 hours before it has begun in the last one."""
    now_s = begun_everywhere(ON) + hours * 3600
    document = parse_document(CONFIG.merge(KINDS[kind][1]).text.encode(), "gateway.yaml", {}, clock=lambda: now_s)
    done = compile_config(document, registry=registry_of(kind))
    is_over = config_exclusion(done.config.deployments["d"], now_s) is not None
    (found,) = [it for it in done.warnings if it.message.startswith(KINDS[kind][2])]
    words = (
        f"is RETIRED since {ON}: routes pass it over"
        if is_over
        else f"is retired on {ON}, in {1 if hours > -24 else 2} day{'s' * (hours <= -24)}; routes pass it over from {ON} 12:00 UTC"
    )
    assert is_over == (hours >= 0)
    assert (found.message, found.fails_check) == (KINDS[kind][2] + words, is_over)
    (ending,) = endings_of(done.config, days_at(now_s))
    assert (ending.is_over, ending.days_left <= 0) == (is_over, is_over), "status, /readyz, metric, log"
    route = ineligible_now(done.config.deployments["d"], None, days_at(now_s))
    assert bool(route) == is_over, "the matrix of check"


@pytest.mark.parametrize("kind", ENDS_A_DEPLOYMENT)
def test_end_of_a_deployment_is_a_fact_of_its_vendor(kind: str) -> None:
    config, _ = compiled(kind, SOON)
    (fact,) = [it for it in relied_facts(config.deployments["d"], 0) if it.subject.startswith("the retirement of ")]
    assert fact.is_vendors
    assert fact.citation.as_of is not None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "law"])
def test_operator_keeps_what_has_ended(kind: str) -> None:
    """An approval that has ended stays a warning: without a valid one, the region still gets no answer."""
    config, warnings = compiled(kind, OVER, {"deployments": {"d": {"accept_ended": True}}})
    found = [it for it in warnings if it.message.startswith(KINDS[kind][2]) or it.path[-1] == "accept_ended"]
    assert [it.fails_check for it in found] == [False] * (kind == "approval")
    assert config_exclusion(config.deployments["d"], begun_everywhere(ON) + 1e8) is None


def test_api_version_of_another_path_does_not_end() -> None:
    own = {"deployments": {"d": {"endpoint": "https://h.example/v3", "stores": "NO", "processes": "NO"}}}
    config, warnings = compiled("API version", OVER, own)
    assert config.deployments["d"].retirement is None
    assert not [it for it in warnings if it.fails_check]


def test_later_price_replaces_one_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    later = f"{PRICE}ends = {ON}\n{PRICE}valid_from = {ON}\n"
    monkeypatch.setitem(KINDS, "price", (later, {}, "its price "))
    config, _ = compiled("price", OVER)
    assert not endings_of(config, days_at(begun_everywhere(ON)))


def test_price_is_used_after_its_end() -> None:
    config, _ = compiled("price", OVER)
    price = config.deployments["d"].price_at(begun_everywhere(ON) + 1e8)
    assert price.rates.input == 1_000_000


def test_label_of_a_law_that_goes_on_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = [
        {"labels": ["a", "b"], "ends": ON, "instead": "c"},
        {"labels": ["b"]},
        {"labels": ["a"], "ends": date(2027, 1, 1)},
    ]
    monkeypatch.setattr(known_texts, "table", lambda _: {"laws": rows})
    known_texts.law_ends.cache_clear()
    try:
        assert known_texts.law_ends() == {"a": (ON, "c")}
    finally:
        known_texts.law_ends.cache_clear()
