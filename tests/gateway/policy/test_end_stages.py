"""The stages of a model's end: each one second before and after both moments of its day, in each place that reads it."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from gateway.api.admin_control import readiness
from gateway.api.admin_deployments import deployments_document
from gateway.api.admin_status import status_document
from gateway.changes.change_log import plan_with_checks
from gateway.changes.compile_job import CompiledState
from gateway.changes.plan_checks import protected_changes
from gateway.config.loading import load_document, parse_document
from gateway.config.problems import Problem
from gateway.config.routes import ineligible_now
from gateway.execution.upstream_client import StillActive
from gateway.features.configuration import compile_config
from gateway.model.approval import begun_everywhere, begun_somewhere, days_at
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, SkipReason
from gateway.model.endings import StageEnding, endings_of
from gateway.model.record import AttemptRecord
from gateway.model.status import Overview
from gateway.policy.fence import answers_elsewhere, evaluation_permit, lacking_approval, prompt_permit
from gateway.policy.location.resolution import resolve, suppose
from gateway.policy.routing import config_exclusion, decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.service.disclosure import disclose
from gateway.service.explain import PlainRequest, explain
from gateway.telemetry.exposition import expose
from gateway.telemetry.request_log import add_fields
from providers.compatible.adapter import adapter_of
from providers.registry import Registry, load_registry
from providers.value import replace as change
from tests.gateway.admin_calls import AdminCallbacks
from tests.kit.case_files import cases
from tests.kit.configs import Config
from tests.kit.request_records import record_with

ON = date(2027, 3, 1)
EARLY, LATE = begun_somewhere(ON), begun_everywhere(ON)
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
[[sites.oslo.scopes]]
models = ["*-us"]
stores = ["US"]
processes = ["US"]
[[sites.oslo.scopes]]
models = ["wide"]
stores = ["NO"]
processes = ["NO", "SE"]
[[prices]]
models = ["*"]
input = 1
output = 2
currency = "EUR"
as_of = 2026-11-01
source = "https://acme.example"
"""
PAGE = "as_of = 2026-11-01\nsource = 'https://acme.example/ends'\n"
CONFIG = Config.parse("""
version: 1
cell: {territory: "NO"}
assistants: {assistant: {routes: {no: [d]}}}
regions: {no: {territories: ["NO"], boundary: ["NO", "US", "SE"]}}
deployments: {d: {provider: acme, model: m, endpoint: oslo, api_key: k}}
""")
RECORD = {"region": "no", "authority": "A", "kind": "registration", "number": "N", "model_name": "M"}
REQUIRED: dict[str, Any] = {"regions": {"no": {"approvals": "required"}}}
REDIRECT = f"redirects = {ON}\nto = 'new'\n"


def row(days: str, *, unconfirmed: bool = False, model: str = "m") -> str:
    doubt = "unconfirmed = 'a rumour'\n" if unconfirmed else "quote = 'it ends'\n"
    return f"[[retirements]]\nmodels = ['{model}']\n{days}\n{PAGE}{doubt}"


def registry_of(rows: str) -> Registry:
    registry = load_registry()
    return replace(registry, adapters={**registry.adapters, "acme": adapter_of(TOML + rows)})


def compiled(rows: str, now_s: float, *patches: Any) -> tuple[ConfigVersion, tuple[Problem, ...]]:
    document = parse_document(CONFIG.merge(*patches).text.encode(), "gateway.yaml", {}, clock=lambda: now_s)
    done = compile_config(document, registry=registry_of(rows))
    return done.config, done.warnings


def decided(config: ConfigVersion, now_s: float) -> dict[str, Any]:
    request = PlainRequest(config, None, suppose("NO"), config.assistants["assistant"], now_s)
    return explain(request)


def is_kept(config: ConfigVersion, now_s: float) -> bool:
    return "plan" in decided(config, now_s)["outcome"]


STAGES: dict[str, tuple[str, dict[str, Any], float | None, float, str, str]] = {
    "firm end": (row(f"on = {ON}"), {}, LATE, LATE, "is retired on", "is RETIRED since"),
    "rumoured end": (row(f"on = {ON}", unconfirmed=True), {}, None, LATE, "may be retired on", "may be retired on"),
    "earliest end": (row(f"on = {ON}\nearliest = true"), {}, None, LATE, "is retired not before", ""),
    "firm redirect": (row(REDIRECT), {}, None, EARLY, "is answered by new from", "is answered by new since"),
    "rumoured redirect": (row(REDIRECT, unconfirmed=True), {}, None, LATE, "may be answered by new", "may be answered by new"),
    "redirect elsewhere": (row(REDIRECT.replace("new", "x-us")), {}, EARLY, EARLY, "is answered by x-us from", "is answered by x-us since"),
    "rumoured redirect elsewhere": (
        row(REDIRECT.replace("new", "x-us"), unconfirmed=True), {}, EARLY, EARLY, "is answered by x-us from", "is answered by x-us since"
    ),
    "redirect to a wider place": (row(REDIRECT.replace("new", "wide")), {}, EARLY, EARLY, "is answered by wide from", "is answered by wide since"),
    "rumoured price": (row(f"dearer = {ON}", unconfirmed=True), {}, None, LATE, "may cost more from", "may cost more from"),
    "lone notice": (row(f"announced = {ON}"), {}, None, LATE, "was announced on", "was announced on"),
}  # fmt: skip
"""Its row, a patch, when routes pass it over, when it has begun, and the words before and after that."""


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("now_s", [EARLY - 1, EARLY, LATE - 1, LATE])
def test_each_place_has_one_truth_at_one_moment(kind: str, now_s: float) -> None:
    rows, patch, passes_s, begins_s, before, after = STAGES[kind]
    config, warnings = compiled(rows, now_s, patch)
    is_passed, has_begun = passes_s is not None and now_s >= passes_s, now_s >= begins_s
    words = after if has_begun else before
    found = [it for it in warnings if it.path[:2] == ("deployments", "d") and words and words in it.message]
    assert [it.fails_check for it in found] == [is_passed] * bool(words), "check, exit status"
    deployment = config.deployments["d"]
    excluded = config_exclusion(deployment, now_s)
    assert (excluded is not None, bool(ineligible_now(deployment, None, days_at(now_s)))) == (is_passed, is_passed)
    assert excluded is None or excluded.reason is SkipReason.ENDED
    explained = decided(config, now_s)
    assert ("plan" in explained["outcome"]) == (not is_passed), "routes"
    [considered] = explained["considered"]
    assert bool(considered.get("stages")) == (not is_passed)
    status = change(AdminCallbacks().now, config=config, at_s=now_s)
    ready: Any = readiness(status)
    [stage] = ready["stages"]
    left = -(-(LATE - now_s) // 86_400)
    assert (stage["deployment"], stage["model"], stage["days_left"]) == ("d", "m", left)
    assert (stage["acts_at"] is not None) == (
        ("rumoured" not in kind and "earliest" not in kind and kind != "lone notice") or "elsewhere" in kind
    )
    is_retirement = kind == "firm end"
    assert len(ready["retirements"]) == is_retirement
    document: Any = status_document(status, Overview("a", "1", 0))
    assert [(it["kind"], it["stage"]) for it in document["ends"]] == [("model", stage["stage"])]
    assert len(document["retirements"]) == is_retirement
    text = expose(status, (), "")[0].decode()
    firm = "earliest" if "earliest" in kind else str(stage["firm"]).lower()
    line = (
        f'gateway_model_stage_days_left{{deployment="d",firm="{firm}",model="m",stage="{stage["stage"]}"}} {left:.1f}'
    )
    labels = f'{{deployment="d",model="m",stage="{stage["stage"]}",firm="{firm}"}}'
    assert line in text or f"gateway_model_stage_days_left{labels} {left:.1f}" in text
    assert ('gateway_model_days_left{deployment="d",model="m"}' in text) == is_retirement
    view: Any = deployments_document(status, ())
    [shown] = view["deployments"][0]["stages"]
    assert (shown["source"], shown["as_of"], shown["stage"]) == (
        "https://acme.example/ends",
        "2026-11-01",
        stage["stage"],
    )
    [ending] = [it for it in endings_of(config, days_at(now_s)) if isinstance(it, StageEnding)]
    assert ending.begun == has_begun


@pytest.mark.parametrize("kind", ["redirect elsewhere", "rumoured redirect elsewhere", "redirect to a wider place"])
def test_no_byte_leaves_for_a_model_elsewhere(kind: str) -> None:
    """Neither a prompt of a user nor a question of an evaluation, and no word of the operator's keeps it."""
    config, _ = compiled(STAGES[kind][0], EARLY, {"deployments": {"d": {"accept_ended": True}}})
    region, deployment = config.regions["no"], config.deployments["d"]
    for permit in (prompt_permit, evaluation_permit):
        assert permit(config, region, deployment, EARLY - 1) is not None
        assert permit(config, region, deployment, EARLY) is None
    assert "computed elsewhere" in decided(config, EARLY)["considered"][0]["detail"]
    to = deployment.leaving.to if deployment.leaving is not None else ""
    assert str(answers_elsewhere(deployment, EARLY)).startswith(f"{to} is computed elsewhere")
    assert str(answers_elsewhere(deployment, EARLY, reveal_model=False)).startswith("another model is computed")


def test_old_rumour_changes_nothing() -> None:
    config, warnings = compiled(row("on = 2025-01-01", unconfirmed=True), LATE)
    assert is_kept(config, LATE)
    assert not [it for it in warnings if it.fails_check]


@pytest.mark.parametrize(
    ("source", "own", "is_firm"),
    [("", "quote = 'w'\n", True), ("unconfirmed = 'not read'", "", False), ("unconfirmed = 'not read'", "quote = 'w'\n", True),
     ("quote = 'of the page'\nunconfirmed = 'not read'", "", False), ("quote = 'of the page'", "", True),
     ("quote = 'of the page'", "unconfirmed = 'the day'\n", False)],
)  # fmt: skip
def test_row_is_firm_by_words_of_its_own(source: str, own: str, is_firm: bool) -> None:
    sources = f"[sources.page]\nurl = 'https://acme.example'\nas_of = 2026-11-01\n{source}\n"
    config, _ = compiled(f"{sources}[[retirements]]\nmodels = ['m']\non = {ON}\nsource = 'page'\n{own}", LATE)
    assert [it.firm for it in config.deployments["d"].stages] == [is_firm]
    assert is_kept(config, LATE) == (not is_firm)


OLD, NEW, THIRD = {**RECORD}, {**RECORD, "model": "new"}, {**RECORD, "model": "third"}


@pytest.mark.parametrize(
    ("approvals", "before", "between", "after"),
    [([OLD], True, False, False), ([NEW], False, False, True), ([OLD, NEW], True, True, True), ([THIRD], False, False, False),
     ([{**RECORD, "model": "m"}, THIRD], True, False, False)],
)  # fmt: skip
def test_approval_is_for_the_model_that_may_answer(
    approvals: list[Any], before: bool, between: bool, after: bool
) -> None:
    patch = {"deployments": {"d": {"approvals": approvals, "accept_ended": True}}}
    for now_s, is_approved in ((EARLY - 1, before), (EARLY, between), (LATE - 1, between), (LATE, after)):
        config, warnings = compiled(row(REDIRECT), now_s, patch, REQUIRED)
        assert (lacking_approval(config.regions["no"], config.deployments["d"], now_s) is None) == is_approved, now_s
        explained = decided(config, now_s)
        assert ("plan" in explained["outcome"]) == is_approved
        if not is_approved:
            assert explained["outcome"]["refusal"]["code"] == "no_approved_deployment"
        failing = [it for it in warnings if it.fails_check]
        assert bool(failing) == (not is_approved and now_s >= EARLY), "check"
        assert (THIRD in approvals) == any("never counts" in it.message for it in warnings)


def test_reason_names_both_models_and_hides_them_where_the_assistant_does() -> None:
    patch = {"deployments": {"d": {"approvals": [OLD]}}}
    config, warnings = compiled(row(REDIRECT), EARLY, patch, REQUIRED)
    detail = decided(config, EARLY)["considered"][0]["detail"]
    assert f"is for m; new may answer since {ON}" in detail
    assert "new may answer" in str(lacking_approval(config.regions["no"], config.deployments["d"], EARLY))
    hidden = {"assistants": {"assistant": {"reveal_model": False}}}
    config, _ = compiled(row(REDIRECT), EARLY, patch, REQUIRED, hidden)
    explained = decided(config, EARLY)
    assert "new" not in str(explained["outcome"])
    assert "its approvals in no do not count from 2027-02-28 10:00 UTC" in str([it.message for it in warnings])
    _, warnings = compiled(row(REDIRECT, unconfirmed=True), EARLY, patch, REQUIRED)
    assert "if so, its approvals are for another model" in str([it.message for it in warnings])


def test_redirect_is_named_from_early_on_unless_the_model_is_hidden() -> None:
    for now_s, name in ((EARLY - 1, None), (EARLY, "new"), (LATE, "new")):
        config, _ = compiled(row(REDIRECT), now_s)
        request = PlainRequest(config, None, suppose("NO"), config.assistants["assistant"], now_s)
        shown: Any = explain(request)["outcome"]
        assert shown["plan"][0]["redirected_to"] == name
        data: Any = disclose(request)["data"]
        assert data[0]["redirected_to"] == name
        hidden: Any = explain(request, reveal_model=False, to_operator=False)
        assert hidden["outcome"]["plan"][0]["redirected_to"] is None
        assert [it["to"] for it in hidden["considered"][0]["stages"]] == [None]
    config, _ = compiled(row(REDIRECT, unconfirmed=True), LATE)
    assert config.deployments["d"].redirected_to(LATE + 1e9) is None


@cases("own", "stages")
def test_own_catalogue_replaces_a_stage_and_makes_it_firm(
    tmp_path: Any, own: dict[str, Any], stages: list[str]
) -> None:
    lines = "".join(f", {key}: {value}" for key, value in own.items())
    (tmp_path / "models.yaml").write_text(f"version: 1\nmodels: {{acme: {{m: {{{lines[2:]}}}}}}}\n")
    text = CONFIG.merge({"catalogue": {"models": str(tmp_path / "models.yaml")}}).text.encode()
    path = tmp_path / "gateway.yaml"
    path.write_bytes(text)
    document = load_document(path, {}, clock=lambda: LATE)
    rows = row(f"{REDIRECT}on = 2027-04-01", unconfirmed=True)
    config = compile_config(document, registry=registry_of(rows)).config
    assert [f"{it.stage} {it}" for it in config.deployments["d"].stages] == stages


@pytest.mark.parametrize(
    ("days", "is_kept_s"),
    [(f"on = {ON}", True), (f"announced = 2026-01-01\ndearer = 2026-02-01\non = {ON}", True), (REDIRECT, True)],
)
def test_accepted_end_leaves_only_the_redirect(days: str, is_kept_s: bool) -> None:
    config, warnings = compiled(row(days), LATE, {"deployments": {"d": {"accept_ended": True}}})
    assert is_kept(config, LATE) == is_kept_s
    assert [it.stage for it in config.deployments["d"].stages] == (["redirects"] if "redirects" in days else [])
    assert not [it for it in warnings if it.fails_check or it.path[-1] == "accept_ended"]


def test_dearer_model_without_a_later_price_has_a_price_that_ends() -> None:
    config, warnings = compiled(row(f"dearer = {ON}"), EARLY)
    assert [it.fails_check for it in warnings if it.message.startswith("its price ended on")] == [True]
    price = config.deployments["d"].price_at(LATE)
    assert price is not None, "the old price is used"
    later = "[[prices]]\nmodels = ['*']\ninput = 2\noutput = 4\ncurrency = 'EUR'\n" + PAGE + f"valid_from = {ON}\n"
    _, warnings = compiled(later + row(f"dearer = {ON}"), EARLY)
    assert not [it for it in warnings if it.fails_check]
    _, warnings = compiled(row(f"dearer = {ON}", unconfirmed=True), EARLY)
    assert not [it for it in warnings if it.fails_check]


@pytest.mark.parametrize(
    ("before", "after", "what", "is_signed"),
    [
        ("", f"on = {ON}", "model fails", True),
        (f"on = {ON}", f"on = {ON + timedelta(1)}", "model fails", True),
        (f"on = {ON}\nearliest = true", f"on = {ON}", "model fails", True),
        ("", f"on = {ON}\nearliest = true", "model fails", False),
        ("", f"dearer = {ON}", "model dearer", False),
        ("", REDIRECT, "model redirects", True),
        (REDIRECT, "", "model redirects", True),
        (REDIRECT, REDIRECT.replace("new", "newer"), "model redirects", True),
    ],
)
def test_plan_has_each_stage_that_differs_and_asks_for_a_signature_where_it_acts(
    before: str, after: str, what: str, is_signed: bool
) -> None:
    old, new = (compiled(row(it) if it else "", EARLY - 1e8)[0] for it in (before, after))
    regions = {"no": change(old.regions["no"], protected=True)}
    old, new = change(old, regions=regions), change(new, regions=regions)
    plan = plan_with_checks(CompiledState(old, None, ()), CompiledState(new, None, ()), EARLY - 1e8)
    assert [it.what for item in plan.deployments for it in item.changes] == [what]
    assert bool(protected_changes(old, new, plan)) == is_signed


@pytest.mark.parametrize(("reveals", "shown"), [(True, "x-us"), (False, "another model")])
def test_step_that_waited_is_not_taken_once_the_model_leaves(reveals: bool, shown: str) -> None:
    config, _ = compiled(STAGES["redirect elsewhere"][0], EARLY - 1)
    now = [EARLY - 1]
    location = resolve(config, None, suppose("NO"))
    outcome = decide(config, config.assistants["assistant"], location, NO_NEEDS, {}, now[0]).outcome
    assert isinstance(outcome, Plan)
    allowed = StillActive(lambda: config, config, config.regions["no"], lambda: now[0], reveals)
    assert allowed(outcome.steps[0]) is None
    now[0] = EARLY
    assert allowed(outcome.steps[0]) == f"{shown} is computed elsewhere, and may answer since {ON}"


def test_step_that_waited_is_not_taken_once_its_approval_is_for_another_model() -> None:
    config, _ = compiled(row(REDIRECT), EARLY - 1, {"deployments": {"d": {"approvals": [OLD]}}}, REQUIRED)
    now = [EARLY - 1]
    location = resolve(config, None, suppose("NO"))
    outcome = decide(config, config.assistants["assistant"], location, NO_NEEDS, {}, now[0]).outcome
    assert isinstance(outcome, Plan)
    allowed = StillActive(lambda: config, config, config.regions["no"], lambda: now[0])
    assert allowed(outcome.steps[0]) is None
    now[0] = EARLY
    assert "is for m; new may answer since" in (allowed(outcome.steps[0]) or "")


def test_log_names_the_model_of_a_redirect_next_to_that_of_the_attempt() -> None:
    attempt = AttemptRecord("d", "acme", "m", 0.1, redirected_to="new")
    fields: dict[str, Any] = {}
    add_fields(fields, record_with(attempts=[attempt]))
    assert fields["attempts"] == [{"deployment": "d", "ms": 100.0, "model": "m", "redirected_to": "new"}]
    plain: dict[str, Any] = {}
    add_fields(plain, record_with(attempts=[change(attempt, redirected_to=None)]))
    assert "attempts" not in plain
