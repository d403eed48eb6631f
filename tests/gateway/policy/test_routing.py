"""Routing: the plan, each reason to skip a deployment, and the one refusal for several reasons."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Exclusion, Plan, Refusal, RefusalCode, SkipReason, Step, Unavailable
from gateway.model.location import ClaimProblem, ClaimReport, Location, Reports
from gateway.policy.canary_assignment import assign_variant
from gateway.policy.fence import prompt_permit
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.refusals import refusal_text, refuse_location
from gateway.policy.routing import decide, decide_evaluation, judge_alone
from providers.chat import ChatRequest, UserMessage
from providers.matching.requirements import FEATURES, Requirements, requirements_of
from providers.territories import parse_places
from tests.gateway.decisions import place_of, planned, refused
from tests.gateway.location_reports import reported
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, table_of

NOTHING: frozenset[str] = frozenset()


def asked(*features: str, parameters: tuple[str, ...] = (), moving: tuple[str, ...] = ()) -> Requirements:
    return Requirements(frozenset(features), frozenset(parameters) | frozenset(moving), frozenset(moving))


def decision(
    table: ConfigVersion,
    territory: str,
    needs: Requirements | None = None,
    health: dict[str, Unavailable] | None = None,
) -> Decision:
    location = place_of(table, territory)
    return decide(table, table.assistants["assistant"], location, needs or asked(), health or {}, 0.0)


def plan_of(*arguments: object, **named: object) -> list[str]:
    return [step.deployment.name for step in planned(decision(*arguments, **named)).steps]  # type: ignore[arg-type]


def refusal_of(*arguments: object, **named: object) -> Refusal:
    return refused(decision(*arguments, **named))  # type: ignore[arg-type]


TABLE = table_of(BASE)


@cases("territory", "plan")
def test_region_and_availability_choose_the_deployment(territory: str, plan: list[str]) -> None:
    assert plan_of(TABLE, territory) == plan


def test_a_permit_names_the_deployments_origin() -> None:
    outcome = planned(decision(TABLE, "CN"))
    permit = outcome.steps[0].permit
    assert (permit.origin, permit.region, permit.site) == ("https://dashscope.aliyuncs.com", "cn", "cn-beijing")


def test_route_without_an_allowed_deployment_is_refused_by_law() -> None:
    refusal = refusal_of(TABLE, "RU")
    assert refusal.code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT
    assert "does not serve Russia" in refusal.message


NO_CN = BASE.merge(
    "{regions: {cn: null}, assistants: {assistant: {routes: {cn: null}}}, clients: {shop-cn: {region: default}}}"
)
ROUTED = NO_CN.merge("assistants: {assistant: {routes: {default: [house]}}}")


def self_hosted(place: str) -> dict[str, Any]:
    """A deployment of the operator's own that stores and processes in this place."""
    site = {"endpoint": "https://h.example", "stores": place, "processes": place}
    return {"deployments": {"house": {"provider": "openai-compatible", "model": "m", "api_key": "k", **site}}}


@pytest.mark.parametrize("territory", ["CN", "CN-BJ", "RU"])
def test_default_region_keeps_prompts_in_their_territory(territory: str) -> None:
    """`*` never contains such a territory in silence: it has a region, is blocked, or is passed over with the reason."""
    abroad = table_of(ROUTED.merge(self_hosted("any")))
    found = decision(abroad, territory)
    assert refused(found).code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT
    (skipped,) = found.considered
    country = {"C": "mainland China", "R": "Russia"}[territory[0]]
    assert (skipped.reason, skipped.detail) == (
        SkipReason.BOUNDARY,
        f"prompts must not leave {country}, and no region lists it",
    )
    at_home = table_of(ROUTED.merge(self_hosted(territory[:2])))
    assert plan_of(at_home, territory) == ["house"]
    for other in ("HK", "TW", "JP"):
        assert plan_of(abroad, other) == ["house"]


@pytest.mark.parametrize("cell", ["CN", "CN-SH", "DE", "HK"])
def test_gateway_location_counts_for_prompts_that_must_stay_in_their_territory(cell: str) -> None:
    here = table_of(ROUTED.merge(self_hosted("CN"), f"cell: {{territory: {cell}, serves: [default]}}"))
    if cell.startswith("CN"):
        assert plan_of(here, "CN") == ["house"]
        return
    refusal = refuse_location(here, place_of(here, "CN"))
    assert refusal is not None  # by the headers alone: the body is not read, and not logged
    assert refusal.code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT
    assert refusal.message == ("prompts must not leave mainland China, and this gateway is outside it")
    assert decision(here, "CN").outcome == refusal
    assert plan_of(here, "JP") == ["house"]


def test_region_that_names_a_territory_overrides_the_default_rule() -> None:
    far = (
        '{regions: {far: {territories: [CN, RU], boundary: ["*"]}}, assistants: {assistant: {routes: {far: [house]}}}}'
    )
    table = table_of(NO_CN.merge(far, self_hosted("any")))
    assert plan_of(table, "CN") == plan_of(table, "RU") == ["house"]


def test_a_region_without_a_route_is_refused() -> None:
    table = table_of(BASE.merge("assistants: {assistant: {routes: {us: null}}}"))
    assert refusal_of(table, "US").code is RefusalCode.REGION_BLOCKED


def test_excepted_feature_of_a_site_counts_only_inside_a_boundary() -> None:
    assert refusal_of(TABLE, "US", asked("json_schema")).code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT
    open_world = BASE.merge('regions: {us: {boundary: ["*"]}}')
    assert plan_of(table_of(open_world), "US", asked("json_schema")) == ["chatgpt-us"]


def test_only_a_plan_emulates_a_schema() -> None:
    """Shadows and evaluations send a request as it is, so there the deployment lacks schemas."""
    table = table_of(BASE.merge("deployments: {chatgpt-us: {structured_output: emulate}}"))
    needs, deployment = asked("json_schema"), table.deployments["chatgpt-us"]
    assert plan_of(table, "US", needs) == ["chatgpt-us"]
    location = place_of(table, "US")
    assert isinstance(judge_alone(table, location, deployment, needs, {}, 0.0), Exclusion)
    evaluated = decide_evaluation(table, table.assistants["assistant"], location, needs, deployment, 0.0)
    assert isinstance(evaluated.outcome, Refusal)


def test_excepted_feature_of_a_site_counts_if_prompts_must_stay_in_the_territory() -> None:
    table = table_of(ROUTED.merge(self_hosted("CN")))
    (own,) = table.assistants["assistant"].routes["default"]
    own = replace(own, excepts=frozenset({"tools", "strict_tools"}))
    assistant = replace(table.assistants["assistant"], routes={"default": (own,)})
    table = replace(table, assistants={"assistant": assistant}, deployments={**table.deployments, "house": own})
    assert decision(table, "CN", asked("tools")).considered[0].reason is SkipReason.EXCEPTED
    outcome = planned(decision(table, "CN", asked(parameters=("strict_tools",))))
    assert outcome.steps[0].dropped == {"strict_tools"}
    assert plan_of(table, "JP", asked("tools")) == plan_of(table, "CN") == ["house"]


def test_a_field_that_moves_data_is_refused() -> None:
    found = decision(TABLE, "JP", asked(moving=("enable_search",)))
    assert found.considered[0].reason is SkipReason.MOVES_DATA
    assert refused(found).code is RefusalCode.UNSUPPORTED_CAPABILITY


@cases("own", "field")
def test_data_moving_field_inside_a_passed_through_field_is_refused(own: dict[str, object], field: str) -> None:
    """Bedrock takes what is the model's own in an object: MCP servers among it, which are anywhere."""
    body = {"additionalModelRequestFields": own}
    request = ChatRequest("assistant", (UserMessage("hi"),), extra=body)
    through = {
        "provider": "bedrock",
        "model": "us.anthropic.claude-sonnet-5",
        "endpoint": "us-east-1",
        "api_key": "${AWS_KEY}",
        "passthrough": ["additionalModelRequestFields"],
    }
    table = table_of(BASE.merge({"deployments": {"chatgpt-us": through}}), {"AWS_KEY": "id:secret"})
    found = decision(table, "US", requirements_of(request))
    assert isinstance(found.outcome, Refusal)
    assert found.considered[0].reason is SkipReason.MOVES_DATA
    assert f"`additionalModelRequestFields.{field}` connects the model to " in found.outcome.message


def test_parameters_are_dropped_and_named_or_refused() -> None:
    outcome = planned(decision(TABLE, "US", asked(parameters=("temperature", "seed", "made_up"))))
    assert outcome.steps[0].dropped == {"temperature", "made_up"}
    strict = table_of(BASE.merge("deployments: {chatgpt-us: {unsupported: refuse}}"))
    found = decision(strict, "US", asked(parameters=("temperature",)))
    assert found.considered[0].reason is SkipReason.PARAMETER
    assert plan_of(strict, "US", asked(parameters=("seed",))) == ["chatgpt-us"]


def test_a_parameter_outside_a_sites_promise_is_dropped_inside_a_boundary_only() -> None:
    open_world = table_of(BASE.merge('regions: {us: {boundary: ["*"]}}'))
    for table, dropped in ((TABLE, {"strict_tools"}), (open_world, set())):
        outcome = planned(decision(table, "US", asked(parameters=("strict_tools",))))
        assert outcome.steps[0].dropped == dropped


@pytest.mark.parametrize(
    ("features", "missing"),
    [
        (("vision",), "vision"),
        (("vision", "tools", "json_object"), "vision"),
        (("prefill", "vision"), "prefill, vision"),
    ],
)
def test_refusal_names_only_missing_capabilities_that_the_request_can_change(
    features: tuple[str, ...], missing: str
) -> None:
    refusal = refusal_of(TABLE, "HK", asked(*features))
    assert (refusal.code, refusal.param) == (RefusalCode.UNSUPPORTED_CAPABILITY, "messages")
    assert refusal.message.endswith(f"supports this request (qwen-intl: does not support {missing}): see `messages`")


# Where in a request each feature is asked for.
WHERE = {
    "tools": "tools",
    "tool_choice_named": "tool_choice",
    "tool_choice_required": "tool_choice",
    "vision": "messages",
    "image_url": "messages",
    "audio": "messages",
    "file": "messages",
    "prefill": "messages",
    "json_object": "response_format",
    "json_schema": "response_format",
    "n": "n",
    "logprobs": "logprobs",
    "reasoning": "reasoning_effort",
}


MUTE = table_of(BASE.merge("deployments: {qwen-cn: {capabilities: []}}"))


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_refusal_names_the_field_of_the_unsupported_feature(feature: str) -> None:
    assert refusal_of(MUTE, "CN", asked(feature)).param == WHERE[feature]


def test_field_in_the_details_is_not_repeated() -> None:
    assert refusal_of(MUTE, "CN", asked("tools")).message.endswith("(qwen-cn: does not support tools)")


def test_prefill_refusal_explains_the_fix() -> None:
    refusal = refusal_of(TABLE, "HK", asked("prefill"))
    assert refusal.param == "messages"
    assert "the last message has the role `assistant`" in refusal.message


FLUENT = BASE.merge(
    "assistants: {assistant: {routes: {us: [chatgpt-us, house, fluent]}}}",
    """
    deployments:
      house: {provider: openai-compatible, model: h, endpoint: "https://h.example/v1", stores: US, processes: US}
      fluent:
        {provider: openai-compatible, model: f, endpoint: "https://f.example/v1", stores: US, processes: US,
         capabilities: [prefill]}
    """,
)


def test_prefill_falls_back_to_a_deployment_that_answers_anew() -> None:
    assert plan_of(TABLE, "US", asked("prefill")) == ["chatgpt-us"]
    assert plan_of(TABLE, "US", asked("prefill", "vision")) == ["chatgpt-us"]
    assert plan_of(table_of(FLUENT), "US", asked("prefill")) == ["fluent"], "it goes on, as the message may mean"
    stiff = FLUENT.merge("deployments: {fluent: {capabilities: []}}")
    assert plan_of(table_of(stiff), "US", asked("prefill")) == ["chatgpt-us"], "`house` may refuse it"


def test_prefill_refusal_depends_on_the_other_requirements() -> None:
    unwell = {"chatgpt-us": Unavailable("benched", 5)}
    assert refusal_of(TABLE, "US", asked("prefill"), unwell).code is RefusalCode.NO_HEALTHY_DEPLOYMENT
    # No other deployment continues the message, and one that would is only unavailable.
    fluent = {"fluent": Unavailable("benched", 5)}
    assert refusal_of(table_of(FLUENT), "US", asked("prefill"), fluent).code is RefusalCode.NO_HEALTHY_DEPLOYMENT
    refusal = refusal_of(TABLE, "US", asked("prefill", "audio"))
    assert refusal.code is RefusalCode.UNSUPPORTED_CAPABILITY
    assert "does not support audio, prefill" in refusal.message


def test_a_message_names_as_much_as_fits() -> None:
    assert refusal_text(frozenset({"b", "a"})) == "a, b"
    assert refusal_text(frozenset({"x" * 1000})) == "x" * 300


def test_deployment_with_an_unmet_requirement_is_skipped() -> None:
    found = decision(table_of(BASE.merge("deployments: {chatgpt-eu: {attests: null}}")), "DE")
    assert found.considered[0].reason is SkipReason.REQUIREMENT
    assert refused(found).code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT


@pytest.mark.parametrize(
    ("patch", "key", "reason", "detail"),
    [
        ("{enabled: false}", "k", SkipReason.DISABLED, "disabled in the config"),
        ("{}", "", SkipReason.CREDENTIAL, "no credential: DASHSCOPE_API_KEY is not set"),
        ("{api_key: null}", "k", SkipReason.CREDENTIAL, "no credential: api_key is not set"),
    ],
)
def test_unavailable_deployment_is_refused_with_503(patch: str, key: str, reason: SkipReason, detail: str) -> None:
    table = table_of(BASE.merge(f"deployments: {{qwen-cn: {patch}}}"), {**KEYS, "DASHSCOPE_API_KEY": key})
    found = decision(table, "CN")
    assert [(item.reason, item.detail) for item in found.considered] == [(reason, detail)]
    assert refused(found).code is RefusalCode.NO_HEALTHY_DEPLOYMENT


def test_unavailable_deployment_is_skipped() -> None:
    both = BASE.merge("assistants: {assistant: {routes: {default: [gemini, chatgpt-us]}}}")
    table = table_of(both)
    assert plan_of(table, "JP") == ["gemini", "chatgpt-us"]
    refused, limited = Unavailable("refused", 300), Unavailable("limited", 20, is_rate_limit=True)
    assert plan_of(table, "JP", health={"gemini": refused}) == ["chatgpt-us"]
    refusal = refusal_of(table, "JP", health={"gemini": refused, "chatgpt-us": limited})
    assert (refusal.code, refusal.retry_after_s) == (RefusalCode.NO_HEALTHY_DEPLOYMENT, 20)
    assert refusal.message.endswith("is available: they are failing or disabled")
    refusal = refusal_of(table, "JP", health={"gemini": limited, "chatgpt-us": limited})
    assert (refusal.code, refusal.retry_after_s) == (RefusalCode.RATE_LIMITED, 20)
    assert refusal.message.endswith("is available: their providers limit the request rate")


def test_law_is_reported_before_capability_and_capability_before_health() -> None:
    table = table_of(BASE.merge("deployments: {qwen-cn: {enabled: false}}"))
    assert decision(table, "CN", asked("vision")).considered[0].reason is SkipReason.CAPABILITY


@pytest.mark.parametrize(
    ("place", "served"), [("UA", True), ("UA-30", True), ("UA-43", False), ("UA-40", False), ("UA-14", False)]
)
def test_a_part_that_a_vendor_leaves_out_does_not_close_the_country(place: str, served: bool) -> None:
    table = table_of(BASE.merge("assistants: {assistant: {routes: {default: [chatgpt-us]}}}"))
    found = decision(table, place, asked())
    assert isinstance(found.outcome, Plan) is served
    assert [one.reason for one in found.considered if one.reason] == ([] if served else [SkipReason.AVAILABILITY])


def test_an_unknown_territory_needs_availability_in_the_whole_region() -> None:
    client = next(client for client in TABLE.clients.values() if client.region == "cn")
    location = resolve(TABLE, client, reported())
    assert location.territory is None
    assert isinstance(decide(TABLE, TABLE.assistants["assistant"], location, asked(), {}, 0.0).outcome, Plan)
    wider = table_of(BASE.merge("regions: {cn: {territories: [CN, HK]}}"))
    client = next(client for client in wider.clients.values() if client.region == "cn")
    found = decide(wider, wider.assistants["assistant"], resolve(wider, client, reported()), asked(), {}, 0.0)
    assert found.considered[0].reason is SkipReason.AVAILABILITY


def test_an_unknown_territory_is_not_judged_where_the_region_names_none() -> None:
    """A region of `*` names no territory, and one that is taken for want of evidence may have none of its people."""
    bound = table_of(BASE.merge({"clients": {"shop": {"keys": [f"sha256:{'d' * 64}"], "region": "default"}}}))
    client = bound.clients["d" * 64]
    found = decide(bound, bound.assistants["assistant"], resolve(bound, client, reported()), asked(), {}, 0.0)
    assert [step.deployment.name for step in planned(found).steps] == ["gemini", "qwen-intl"]
    narrow = BASE.merge("regions: {us: {territories: [US, CU, PR]}}", "blocked: [IR, KP, SY]")
    assumed = table_of(narrow.merge("location: {unknown: us}"))
    place = resolve(assumed, None, reported())
    assert place.assumed
    assert isinstance(decide(assumed, assumed.assistants["assistant"], place, asked(), {}, 0.0).outcome, Plan)


def test_refused_location_has_no_plan() -> None:
    nowhere = Location(None, None, "x", ())
    for table in (TABLE, table_of(BASE.merge("cell: {territory: DE, serves: [eu, default]}"))):
        outcome = decide(table, table.assistants["assistant"], nowhere, asked(), {}, 0.0).outcome
        assert outcome == Refusal(RefusalCode.REGION_UNKNOWN, "no region")


def test_single_deployment_is_checked_only_for_accepted_callers() -> None:
    cell = table_of(BASE.merge("cell: {territory: DE, serves: [eu, default]}"))
    gemini = cell.deployments["gemini"]
    no_answer = Exclusion(SkipReason.BOUNDARY, "requests of this caller are refused")
    for place in (Location(None, None, "x", ()), place_of(cell, "CN")):
        assert judge_alone(cell, place, gemini, asked(), {}, 0.0) == no_answer
    japan = place_of(cell, "JP")
    step = judge_alone(cell, japan, gemini, asked(), {}, 0.0)
    assert isinstance(step, Step)
    assert step.permit == prompt_permit(cell, cell.regions["default"], gemini, 0.0)


def test_step_outside_its_boundary_is_skipped_at_run_time() -> None:
    narrow = replace(TABLE.regions["us"], boundary=parse_places(["US-CA"]))
    table = replace(TABLE, regions={**TABLE.regions, "us": narrow}, region_by_territory={"US": narrow})
    found = decision(table, "US")
    assert refused(found).code is RefusalCode.NO_ELIGIBLE_DEPLOYMENT
    (skipped,) = found.considered
    assert (skipped.reason, skipped.detail) == (SkipReason.BOUNDARY, "it would leave the boundary of the region 'us'")


def test_words_of_a_callers_own_are_not_remembered() -> None:
    table = table_of(BASE)
    decision(table, "US")
    size = len(table.memo)
    for number in range(5):
        decision(table, "US", asked(parameters=(f"made_up_{number}",)))
    assert len(table.memo) == size
    decision(table, "US", asked(parameters=("seed",)))
    assert len(table.memo) == size + 1


def test_identity_fields_are_stripped_hashed_or_passed_through() -> None:
    request = asked(parameters=("user", "safety_identifier", "metadata"))
    secret = "secrets: {identity: 'an-identity-secret-of-32-characters'}\n"
    for identity, dropped in (
        ("identity: strip", {"user", "safety_identifier", "metadata"}),
        ("identity: strip, passthrough: [user]", {"safety_identifier", "metadata"}),
        ("identity: hash", {"metadata"}),
        ("identity: hash, passthrough: [metadata]", set()),
        ("identity: pass", {"metadata"}),  # which this adapter doesn't know
        ("identity: pass, passthrough: [metadata]", set()),
    ):
        table = table_of(BASE.merge(f"deployments: {{chatgpt-us: {{{identity}}}}}", secret))
        assert planned(decision(table, "US", request)).steps[0].dropped == dropped, identity


def test_metadata_is_dropped_instead_of_hashed() -> None:
    """Nothing of it is a person's name alone, so that no pseudonym can stand for it."""
    first = TABLE.deployments["chatgpt-us"]
    knowing = replace(first.capabilities, parameters=first.capabilities.parameters | {"metadata", "user"})
    location = place_of(TABLE, "US")
    needs = asked(parameters=("metadata", "user"))
    for identity, dropped in (("strip", {"metadata", "user"}), ("hash", {"metadata"}), ("pass", set())):
        deployment = replace(first, capabilities=knowing, identity=identity)  # type: ignore[arg-type]
        step = judge_alone(TABLE, location, deployment, needs, {}, 0.0)
        assert isinstance(step, Step), step
        assert step.dropped == dropped, identity


def test_user_key_is_not_computed_without_weighted_steps() -> None:
    def person() -> bytes:
        raise AssertionError("asked for nothing")

    location = place_of(TABLE, "US")
    found = assign_variant(decide(TABLE, TABLE.assistants["assistant"], location, asked(), {}, 0.0), person)
    assert isinstance(found.outcome, Plan)


def test_region_of_another_cell_is_refused_with_its_home() -> None:
    table = table_of(
        BASE.merge('cell: {territory: DE, serves: [eu, default], homes: {cn: "https://cn.assistant.example"}}')
    )
    refusal = refusal_of(table, "CN")
    assert (refusal.code, refusal.home) == (RefusalCode.WRONG_CELL, "https://cn.assistant.example")
    assert refusal.message == "this cell does not serve the region 'cn'; use https://cn.assistant.example instead"
    assert plan_of(table, "DE") == ["chatgpt-eu"]
    homeless = refusal_of(table, "US")
    assert (homeless.message, homeless.home) == ("this cell does not serve the region 'us'", None)


def test_cell_without_regions_serves_every_region() -> None:
    table = table_of(BASE.merge("regions: {us: {transit: [CN]}, eu: {transit: [CN]}}", "cell: {territory: CN}"))
    assert [plan_of(table, territory) for territory in ("CN", "US")] == [["qwen-cn"], ["chatgpt-us"]]


def test_demo_refusal_names_the_header_for_the_location() -> None:
    demo = replace(TABLE, demo=True)
    refusal = refuse_location(demo, resolve(demo, None, reported()))
    assert refusal.code is RefusalCode.REGION_UNKNOWN
    assert "`cf-ipcountry: DE`" in refusal.message


@pytest.mark.parametrize(
    ("demo", "fix"), [(True, "in this demo, send `cf-ipcountry: US-CA`"), (False, "the edge must report it")]
)
def test_country_of_several_regions_is_refused_with_the_part_that_is_missing(demo: bool, fix: str) -> None:
    routes = {"eu": None, "default": None, "us": ["chatgpt-us"]}
    config = BASE.merge(
        {"regions": {"us": {"territories": ["US-CA"]}, "default": None}, "clients": None},
        {"assistants": {"assistant": {"routes": routes}}},
    )
    table = replace(table_of(config), demo=demo)
    refusal = refuse_location(table, place_of(table, "US"))
    assert refusal.message == (
        "the location of this request is unknown: the region depends on the part of United States, such as US-CA; "
        + fix
    )


PROBLEMS = {
    "unknown": (
        reported(),
        RefusalCode.REGION_UNKNOWN,
        "the location of this request is unknown: send the request through the edge that sets the country header, "
        "or use a key that is bound to a region",
    ),
    "conflict": (
        # A claim without a territory is silent.
        reported(EdgeReport(("US",)), asserted=("CN",), claim=ClaimReport(None)),
        RefusalCode.REGION_CONFLICT,
        "the location signals of this request contradict each other: edge_header reports us, assertion reports cn",
    ),
    "blocked": (reported(EdgeReport(("CU",))), RefusalCode.REGION_BLOCKED, "the assistant is not available in Cuba"),
    "expired claim": (
        reported(EdgeReport(("US",)), claim=ClaimReport(problem=ClaimProblem.EXPIRED)),
        RefusalCode.PERMISSION_DENIED,
        "`x-gateway-claim` is not accepted: it has expired",
    ),
    "unchecked claim": (
        reported(EdgeReport(("US",)), claim=ClaimReport(problem=ClaimProblem.UNCHECKED)),
        RefusalCode.NO_HEALTHY_DEPLOYMENT,
        "`x-gateway-claim` is not accepted: the issuer's keys cannot be read at the moment",
    ),
}


@pytest.mark.parametrize(("sighting", "code", "message"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_refused_location_is_explained(sighting: Reports, code: RefusalCode, message: str) -> None:
    claim = "claim: {issuer: i, audience: a, algorithms: [HS256], secret: 'a-secret-of-thirty-two-characters'}"
    table = table_of(BASE.merge(f"location: {{signals: [edge_header, claim, assertion], {claim}}}"))
    location = resolve(table, table.clients["b" * 64], sighting)
    refusal = refuse_location(table, location)
    assert (refusal.code, refusal.message) == (code, message)
    assert refusal.retry_after_s == (10.0 if code is RefusalCode.NO_HEALTHY_DEPLOYMENT else None)
    assert decide(table, table.assistants["assistant"], location, asked(), {}, 0.0) == Decision(refusal)
