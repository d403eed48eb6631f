"""A further attempt of a running request is judged again by the config that is active now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.caller import RequestHeaders
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.consent import Consents
from gateway.model.decision import Plan, Step
from gateway.model.location import AddressReport, ClaimReport, EdgeReport, Location, Reports
from gateway.policy.location.resolution import location_inputs, location_key, resolve
from gateway.policy.revalidation import RunningRequest, why_not_now
from gateway.policy.routing import decide
from providers.matching.requirements import Requirements
from tests.kit.configs import BASE, Config, table_of
from tests.kit.location_reports import reported

NEEDS = Requirements(frozenset(), frozenset(), frozenset())
TABLE = table_of(BASE)
BOUND, APP, NEW, BACKEND = "c" * 64, "a" * 64, "d" * 64, "b" * 64
Patch = str | Mapping[str, Any]
Edge = dict[str, Any]


def planned(table: ConfigVersion, territory: str | None, key: str | None) -> tuple[Step, Client | None, Location]:
    client = table.clients[key] if key else None
    location = resolve(table, client, reported(EdgeReport((territory,)) if territory else None))
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan), outcome
    return outcome.steps[0], client, location


def changed(*patches: Patch, config: Config = BASE) -> ConfigVersion:
    """Compile another version of a configuration, with these merge patches."""
    return table_of(config.merge(*patches, "resilience: {idle: 31s}"))


def verdict(
    current: ConfigVersion,
    territory: str | None = "DE",
    key: str | None = APP,
    *,
    table: ConfigVersion = TABLE,
    agreed: Iterable[str] = (),
) -> str | None:
    def under(asked: ConfigVersion, region: Region) -> Consents:
        assert asked is current
        assert region is current.regions[region.name]
        return Consents(confirmed=frozenset(agreed))

    step, client, location = planned(table, territory, key)
    return why_not_now(RunningRequest(table, "assistant", client, location, NEEDS, under), step, current, 0.0)


def test_step_is_allowed_by_the_config_that_planned_it() -> None:
    assert verdict(TABLE) is None


@pytest.mark.parametrize("key", [APP, None])
@pytest.mark.parametrize("territory", ["DE", "CN", "US", "JP"])
def test_step_is_allowed_after_an_unrelated_change(territory: str, key: str | None) -> None:
    assert verdict(changed(), territory, key) is None


def test_request_without_key_is_allowed_where_no_config_asks_for_one() -> None:
    keyless = BASE.without("clients")
    assert verdict(changed(config=keyless), key=None, table=table_of(keyless)) is None


def split(places: str) -> str:
    """Return a patch that makes California a region with this boundary."""
    return f"regions: {{ca: {{territories: [US-CA], boundary: [{places}]}}}}"


def test_split_country_is_another_place_while_the_part_is_unknown() -> None:
    for places in ("US", "US-CA", "CA"):
        assert verdict(changed(split(places)), "US") == OTHER_RULES, places
        assert verdict(changed(split(places)), "US-NY") == OTHER_RULES, places
    accepting = "location: {accept_country_only: [US]}"
    assert verdict(changed(split("US"), accepting), "US") == OTHER_RULES


def self_hosted(places: str) -> str:
    """Return a patch with a deployment of the operator's own in these places."""
    return f"""
        deployments:
          house:
            {{provider: openai-compatible, model: m, endpoint: "https://h.example", stores: {places}, processes: {places}, api_key: k}}
    """


def test_caller_of_the_stricter_region_of_a_split_country_keeps_it() -> None:
    strict = BASE.merge(split("US-CA"), self_hosted("US-CA"), "assistants: {assistant: {routes: {ca: [house]}}}")
    assert verdict(changed(config=strict), "US", table=table_of(strict)) is None


NOT_THIS_CLIENT = "the current config does not allow this client to use the assistant"
OTHER_RULES = "the current config has other rules for the location of a caller"
CLAIM = {"issuer": "i", "audience": "a", "algorithms": ["HS256"], "secret": "01234567890123456789012345678901"}


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (f"clients: {{app: null, app-2: {{keys: ['sha256:{APP}'], assistants: [assistant]}}}}", NOT_THIS_CLIENT),
        ("regions: {eu: {territories: ['@EU', CH]}}", OTHER_RULES),
        ("regions: {eu: {territories: [FR, CH]}}", OTHER_RULES),
        ("deployments: {chatgpt-eu: {enabled: false}}", "disabled in the current config"),
        ("deployments: {chatgpt-eu: {model: gpt-4o}}", "permit"),
        ("deployments: {chatgpt-eu: {attests: []}}", "not allowed by the current config: site 'eu' requires"),
        ("deployments: {chatgpt-eu: {consent: {mode: standing}}}", "consent to openai is missing"),
    ],
)
def test_step_is_refused_with_the_reason_after_a_change(patch: str, reason: str) -> None:
    assert reason in str(verdict(changed(patch)))


TWO_KEYS = BASE.merge({"clients": {"app": {"keys": [f"sha256:{APP}", f"sha256:{NEW}"]}}})


def test_revoked_key_is_refused_though_its_client_has_another() -> None:
    both = table_of(TWO_KEYS)
    assert verdict(changed(config=TWO_KEYS), key=NEW, table=both) is None
    assert verdict(changed(), key=APP, table=both) is None
    assert verdict(changed(), key=NEW, table=both) == NOT_THIS_CLIENT
    # The key belongs to another client now.
    moved = {"clients": {"backend": {"keys": [f"sha256:{BACKEND}", f"sha256:{NEW}"]}}}
    assert verdict(changed(moved), key=NEW, table=both) == NOT_THIS_CLIENT


def test_all_keys_of_a_client_are_the_same_client() -> None:
    both = table_of(TWO_KEYS)
    one, other = both.clients[APP], both.clients[NEW]
    assert one == other
    assert hash(one) == hash(other)
    assert APP not in repr(one)


def test_client_that_lost_its_assistant_is_refused() -> None:
    other = "assistants: {other: {routes: {us: [chatgpt-us]}}}"
    assert verdict(changed(other)) is None
    assert verdict(changed(other, "clients: {app: {assistants: [other]}}")) == NOT_THIS_CLIENT


def test_blocked_territory_is_refused() -> None:
    blocked = "{regions: {eu: {territories: [FR, CH]}}, blocked: [DE, CU, IR, KP, SY]}"
    assert verdict(changed(blocked)) == OTHER_RULES
    # This holds for every region to which the key is bound.
    assert verdict(changed(blocked), "DE", BOUND) == OTHER_RULES


def test_step_of_a_changed_route_is_refused() -> None:
    wider = "regions: {eu: {boundary: ['@EEA', CH, US]}}"
    assert verdict(changed(wider)) == OTHER_RULES
    reason = verdict(changed(wider, "assistants: {assistant: {routes: {eu: [chatgpt-us]}}}"))
    assert reason == "the current config no longer routes there"


LESS = "the current config sends less of this request to it"
SECRETS = "secrets: {identity: 'an-identity-secret-of-32-characters'}\n"


@pytest.mark.parametrize(
    ("before", "after", "fields", "reason"),
    [
        # A boundary decides how strict a region is, and so between two signals: no location survives its change.
        ('boundary: ["*"]', "boundary: [US]", {"strict_tools"}, OTHER_RULES),
        ("boundary: [US]", 'boundary: ["*"]', {"strict_tools"}, OTHER_RULES),
        ('boundary: ["*"]', "boundary: [US]", {"seed"}, OTHER_RULES),
        # The identity of the person who asks.
        ("identity: pass", "identity: strip", {"user"}, LESS),
        ("identity: pass", "identity: hash", {"user"}, LESS),
        ("identity: pass", "identity: hash", {"seed"}, None),
        ("identity: hash", "identity: strip", {"safety_identifier"}, LESS),
        ("identity: strip", "identity: pass", {"user"}, None),
        ("identity: hash", "identity: pass", {"user"}, None),
        ("identity: strip, passthrough: [user]", "identity: hash", {"user"}, LESS),
        ("identity: strip, passthrough: [user]", "identity: hash, passthrough: [user]", {"user"}, None),
        ("identity: pass", "identity: hash, passthrough: [user]", {"user"}, None),
    ],
)
def test_step_is_refused_where_the_new_config_sends_less_of_the_request(
    before: str, after: str, fields: set[str], reason: str | None
) -> None:
    def table_with_us(words: str) -> ConfigVersion:
        boundary = words if words.startswith("boundary") else "boundary: [US]"
        identity = words if words.startswith("identity") else "identity: strip"
        changes = f"{{regions: {{us: {{{boundary}}}}}, deployments: {{chatgpt-us: {{{identity}}}}}}}"
        return table_of(BASE.merge(changes, SECRETS))

    old, now = table_with_us(before), table_with_us(after)
    needs = Requirements(frozenset(), frozenset(fields), frozenset())
    location = resolve(old, None, reported(EdgeReport(("US",))))
    outcome = decide(old, old.assistants["assistant"], location, needs, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    assert why_not_now(RunningRequest(old, "assistant", None, location, needs), outcome.steps[0], now, 0.0) == reason


def test_another_site_at_the_same_host_is_a_different_deployment() -> None:
    """The running request does not contain what the new site pins: where the provider may compute."""
    claude = "deployments: {chatgpt-us: {provider: anthropic, model: claude-sonnet-5}}"
    anywhere = BASE.merge(claude, "{deployments: {chatgpt-us: {endpoint: global}}, regions: {us: {boundary: ['*']}}}")
    pinned = BASE.merge(claude, "deployments: {chatgpt-us: {endpoint: us, attests: [us-workspace]}}")
    assert verdict(changed(config=anywhere), "US", table=table_of(anywhere)) is None
    reason = verdict(changed(config=pinned), "US", table=table_of(anywhere))
    assert reason == "the current config no longer permits it"


def test_deployment_on_another_host_is_a_different_deployment() -> None:
    config = BASE.merge(self_hosted("DE"), "assistants: {assistant: {routes: {eu: [house]}}}")
    moved = changed("deployments: {house: {endpoint: 'https://b.example'}}", config=config)
    assert verdict(moved, table=table_of(config)) == "the current config no longer permits it"


def test_consent_that_was_given_counts_where_the_new_config_asks_for_it() -> None:
    asking = changed("deployments: {chatgpt-eu: {consent: {mode: per_request}}}")
    assert verdict(asking, agreed=["chatgpt-eu"]) is None
    assert verdict(asking, agreed=["chatgpt-us"]) is not None


def test_consent_is_missing_where_the_old_config_did_not_ask_for_it() -> None:
    asking = changed("deployments: {chatgpt-eu: {consent: {mode: standing}}}")
    step, client, location = planned(TABLE, "DE", APP)
    assert why_not_now(RunningRequest(TABLE, "assistant", client, location, NEEDS), step, asking, 0.0) is not None


def test_step_is_judged_alone_where_another_step_needs_consent() -> None:
    config = BASE.merge("assistants: {assistant: {routes: {default: [gemini, chatgpt-us]}}}")
    asking = changed("deployments: {gemini: {consent: {mode: standing}}}", config=config)
    table = table_of(config)
    location = resolve(table, None, reported(EdgeReport(("JP",))))
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    first, second = outcome.steps
    running = RunningRequest(table, "assistant", None, location, NEEDS)
    assert why_not_now(running, first, asking, 0.0) is not None
    assert why_not_now(running, second, asking, 0.0) is None


def test_bound_key_is_in_the_region_of_the_new_config() -> None:
    assert verdict(changed(), None, BOUND) is None
    assert verdict(changed("clients: {shop-cn: {region: us}}"), None, BOUND) == OTHER_RULES
    # The key is not bound any more, and no other signal has a location.
    assert verdict(changed("clients: {shop-cn: {region: null}}"), None, BOUND) == OTHER_RULES


def test_caller_bound_to_the_default_region_is_refused_once_no_region_names_its_territory() -> None:
    """It has no territory while another region has that territory. Otherwise its prompts must stay at home."""
    routed = "{assistants: {assistant: {routes: {default: [house]}}}, clients: {shop-cn: {region: default}}}"
    config = BASE.merge(self_hosted("any"), routed)
    unnamed = "regions: {cn: {territories: [MO]}}"
    assert verdict(changed(config=config), "CN", BOUND, table=table_of(config)) is None
    assert verdict(changed(unnamed, config=config), "CN", BOUND, table=table_of(config)) == OTHER_RULES


def test_assumed_region_must_still_be_assumed() -> None:
    assuming = BASE.merge("location: {unknown: us}")
    table = table_of(assuming)
    assert verdict(changed(config=assuming), None, APP, table=table) is None
    for unknown in ("eu", "refuse"):
        current = changed({"location": {"unknown": unknown}}, config=assuming)
        assert verdict(current, None, APP, table=table) == OTHER_RULES, unknown


def test_schema_is_not_sent_where_the_gateway_now_asks_in_words() -> None:
    own = {"chatgpt-us": {"structured_output": "emulate", "capabilities": ["json_schema"]}}
    config = BASE.merge({"deployments": own}, "regions: {us: {boundary: ['*']}}")
    old, new = table_of(config), changed("deployments: {chatgpt-us: {capabilities: []}}", config=config)
    location = resolve(old, None, reported(EdgeReport(("US",))))
    needs = Requirements(frozenset({"json_schema"}), frozenset(), frozenset())
    plan = decide(old, old.assistants["assistant"], location, needs, {}, 0.0).outcome
    assert isinstance(plan, Plan)
    running = RunningRequest(old, "assistant", old.clients[BACKEND], location, needs)
    assert why_not_now(running, plan.steps[0], old, 0.0) is None
    assert why_not_now(running, plan.steps[0], new, 0.0) == "the current config sends less of this request to it"


# A backend asserts Germany and the edge reports the United States: Europe is the stricter of the two.
TWO_SIGNALS = BASE.merge("regions: {us: {boundary: [US, '@EEA', CH]}}")
NARROWER = "regions: {us: {boundary: [US]}}"
NO_ASSERTION = "clients: {backend: {may_assert: []}}"


def signals(*names: str) -> Patch:
    """Return a patch that sets the signals."""
    return {"location": {"signals": [*names]}}


def reason_and_region(*patches: Patch, reports: Reports, config: Config = TWO_SIGNALS) -> tuple[str | None, str | None]:
    """Return why a step in Europe may not be tried, and the region of the same request under the new config."""
    old, new = table_of(config), changed(*patches, config=config)
    client = old.clients[BACKEND]
    location = resolve(old, client, reports)
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    assert outcome.region.name == "eu"
    region = resolve(new, new.clients[BACKEND], reports).region
    reason = why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), outcome.steps[0], new, 0.0)
    return reason, region.name if region is not None else None


@pytest.mark.parametrize(
    ("patches", "region"),
    [
        ([], "eu"),
        ([NARROWER], None),
        (["location: {conflict: refuse}"], None),
        ([NO_ASSERTION], "us"),
        ([signals("api_key", "edge_header")], "us"),
        ([signals("api_key", "assertion")], "eu"),
    ],
)
def test_step_is_refused_after_any_change_of_the_location_rules(patches: list[Patch], region: str | None) -> None:
    reports = reported(EdgeReport(("US",)), asserted=("DE",))
    assert reason_and_region(*patches, reports=reports) == (OTHER_RULES if patches else None, region)


def test_signal_after_an_anonymous_one_still_does_not_count() -> None:
    config = TWO_SIGNALS.merge(signals("claim", "edge_header", "assertion"), {"location": {"claim": CLAIM}})
    reports = reported(EdgeReport(("T1",)), asserted=("US",), claim=ClaimReport("DE"))
    assert reason_and_region(reports=reports, config=config) == (None, "eu")
    assert reason_and_region(NARROWER, reports=reports, config=config) == (OTHER_RULES, "eu")


@pytest.mark.parametrize(
    ("edge", "asserted", "region"),
    [("T1", "US", "us"), ("T1", "DE", "eu"), ("DE", "FR", "eu")],
)
def test_signals_are_weighed_in_the_order_of_the_new_config(edge: str, asserted: str, region: str) -> None:
    """An anonymous caller's later signals do not count, and the first of the signals that agree has the territory."""
    config = BASE.merge(signals("edge_header", "assertion"), "location: {unknown: eu}")
    reordered = signals("assertion", "edge_header")
    reports = reported(EdgeReport((edge,)), asserted=(asserted,))
    assert reason_and_region(reordered, reports=reports, config=config) == (OTHER_RULES, region)
    new = changed(reordered, config=config)
    assert resolve(new, new.clients[BACKEND], reports).territory == asserted


EDGE = {"from": ["127.0.0.0/8"], "country": "CF-IPCountry"}
ELSEWHERE = {"from": ["10.0.0.0/8"], "country": "X-Country"}
RENAMED = EDGE | {"country": "X-Country"}
OLD_SECRET = EDGE | {"secret": {"header": "X-Edge", "value": "the old secret of this edge, 32 characters"}}
NEW_SECRET = EDGE | {"secret": {"header": "X-Edge", "value": "the new secret of this edge, 32 characters"}}


def refusal_after(old: ConfigVersion, new: ConfigVersion, reports: Reports) -> str | None:
    """Return why the first step of a request of the client `app` may not be tried under the new config."""
    client = old.clients[APP]
    location = resolve(old, client, reports)
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    return why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), outcome.steps[0], new, 0.0)


@pytest.mark.parametrize(
    ("before", "now", "still_trusted"),
    [
        ([EDGE], [EDGE], True),
        ([EDGE], [EDGE, ELSEWHERE], False),
        ([EDGE], [], False),
        ([EDGE], [EDGE | {"from": ["10.0.0.0/8"]}], False),
        ([EDGE], [RENAMED], False),
        ([EDGE], [NEW_SECRET], False),
        ([OLD_SECRET], [NEW_SECRET], True),
    ],
)
def test_header_of_a_removed_edge_is_not_trusted(before: list[Edge], now: list[Edge], still_trusted: bool) -> None:
    """An operator removes an edge that clients can bypass: running requests follow at their next attempt. A renewed
    secret refuses no request."""
    old, new = table_of(BASE.merge({"location": {"edges": before}})), changed({"location": {"edges": now}})
    reason = refusal_after(old, new, reported(EdgeReport(("DE",))))
    assert reason == (None if still_trusted else OTHER_RULES)


CLAIMS_FIRST = BASE.merge(signals("claim", "api_key", "assertion", "edge_header"), {"location": {"claim": CLAIM}})


@pytest.mark.parametrize(
    ("patch", "still_trusted"),
    [
        ({"secret": "98765432109876543210987654321098"}, True),
        ({"issuer": "j"}, False),
        ({"audience": "b"}, False),
        ({"territory": "where"}, False),
    ],
)
def test_claim_of_a_removed_issuer_is_not_trusted(patch: dict[str, str], still_trusted: bool) -> None:
    config = CLAIMS_FIRST.merge("location: {claim: {territory: place}}")
    new = changed({"location": {"claim": patch}}, config=config)
    reason = refusal_after(table_of(config), new, reported(claim=ClaimReport("DE")))
    assert reason == (None if still_trusted else OTHER_RULES)


@pytest.mark.parametrize(
    "patches",
    [["location: {claim: {audience: b}}"], [signals("api_key", "assertion", "edge_header"), "location: {claim: null}"]],
)
@pytest.mark.parametrize("territory", ["DE", None])
def test_claim_that_is_not_trusted_any_more_is_not_ignored(patches: list[Patch], territory: str | None) -> None:
    """Another signal may have the same region: a new request with that claim is refused all the same. A config without
    claims does not read it."""
    reports = reported(EdgeReport(("DE",)), claim=ClaimReport(territory))
    assert refusal_after(table_of(CLAIMS_FIRST), changed(*patches, config=CLAIMS_FIRST), reports) == OTHER_RULES


@pytest.mark.parametrize(("edges", "still_trusted"), [([EDGE], True), ([EDGE, ELSEWHERE], False)])
def test_address_is_not_trusted_after_a_change_of_the_edges(edges: list[Edge], still_trusted: bool) -> None:
    """A peer that has become an edge reports another address than its own."""
    geoip = {"location": {"geoip": {"path": "/nowhere.mmdb", "max_age": "30d"}}}
    config = BASE.merge(signals("api_key", "assertion", "edge_header", "geoip"), geoip)
    new = changed({"location": {"edges": edges}}, config=config)
    reason = refusal_after(table_of(config), new, reported(address=AddressReport("DE")))
    assert reason == (None if still_trusted else OTHER_RULES)


ALL_SIGNALS = {
    "signals": ["api_key", "claim", "assertion", "edge_header", "geoip"],
    "claim": CLAIM,
    "geoip": {"path": "/nowhere.mmdb", "max_age": "30d"},
}
SPLIT_COUNTRY = split("US-CA")
CONFIGS = [
    TWO_SIGNALS.merge({"location": ALL_SIGNALS}, patch, {"location": rule}).text
    for patch in (
        {},
        NARROWER,
        NO_ASSERTION,
        SPLIT_COUNTRY,
        "{regions: {cn: {territories: [MO]}}, clients: {shop-cn: {region: default}}}",
    )
    for rule in ({}, {"conflict": "refuse"}, {"unknown": "eu"}, {"accept_country_only": ["US"]})
    if patch == SPLIT_COUNTRY or "accept_country_only" not in rule
]
territories = st.sampled_from([None, "DE", "FR", "US", "US-CA", "US-NY", "CN", "JP", "XX", "T1"])
compiled_once = lru_cache(table_of)


@given(
    st.sampled_from(CONFIGS),
    st.sampled_from(CONFIGS),
    st.tuples(territories, territories, territories, territories),
    st.sampled_from([None, BACKEND, BOUND]),
)
def test_kept_location_equals_the_one_that_the_new_config_decides(
    before: str, now: str, reported_territories: tuple[str | None, ...], key: str | None
) -> None:
    claim, asserted, edge, address = reported_territories
    reports = reported(
        EdgeReport((edge,)) if edge else None,
        asserted=(asserted,) if asserted else (),
        claim=ClaimReport(claim) if claim else None,
        address=AddressReport(address, hidden=address == "T1", note="hidden: Tor") if address else None,
    )
    old, new = compiled_once(before), compiled_once(now)
    was, client = old.clients[key] if key else None, new.clients[key] if key else None
    if location_inputs(old, was) == location_inputs(new, client):
        kept, fresh = resolve(old, was, reports), resolve(new, client, reports)
        assert (kept.region, kept.territory, kept.why) == (fresh.region, fresh.territory, fresh.why)
        assert (kept.assumed, kept.evidence) == (fresh.assumed, fresh.evidence)


CONSENT_FOR_EU = "deployments: {chatgpt-eu: {consent: {mode: standing}}}"


@pytest.mark.parametrize(("now", "still_agreed"), [(["territory", "consent"], True), (["territory"], False)])
def test_consent_of_a_backend_is_void_once_it_may_not_assert_consent(now: list[str], still_agreed: bool) -> None:
    config = BASE.merge(CONSENT_FOR_EU, "clients: {backend: {may_assert: [territory, consent]}}")
    old, new = table_of(config), changed({"clients": {"backend": {"may_assert": now}}}, config=config)
    client, agreed = old.clients[BACKEND], Consents(asserted=True)
    location = resolve(old, client, reported(asserted=("DE",)))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0, consents=agreed).outcome
    assert isinstance(outcome, Plan)
    running = RunningRequest(old, "assistant", client, location, NEEDS, lambda *_: agreed)
    assert (why_not_now(running, outcome.steps[0], new, 0.0) is None) == still_agreed


def test_consent_of_a_claim_is_void_once_claims_are_not_read() -> None:
    without_claims, with_claims = BASE.merge(CONSENT_FOR_EU), CLAIMS_FIRST.merge(CONSENT_FOR_EU)
    old, agreed = table_of(with_claims), Consents(standing=frozenset({"openai"}))
    location = resolve(old, None, reported(EdgeReport(("DE",))))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0, consents=agreed).outcome
    assert isinstance(outcome, Plan)
    for new, still_agreed in ((changed(config=with_claims), True), (changed(config=without_claims), False)):
        running = RunningRequest(old, "assistant", None, location, NEEDS, lambda *_: agreed)
        assert (why_not_now(running, outcome.steps[0], new, 0.0) is None) == still_agreed


def test_repeated_equal_assertions_are_one_territory() -> None:
    assert reason_and_region(reports=reported(asserted=("DE", "de"))) == (None, "eu")
    # An assertion that was ignored before and counts now: otherwise the caller would stay where the edge reports it.
    ignored = TWO_SIGNALS.merge(NO_ASSERTION)
    reports = reported(EdgeReport(("DE",)), asserted=("CN",))
    asserting = "clients: {backend: {may_assert: [territory]}}"
    assert reason_and_region(asserting, reports=reports, config=ignored) == (OTHER_RULES, None)


FRANCE = b"cf-ipcountry", b"FR"
CLAIM_HEADER = b"x-gateway-claim", b"a.b.c"


def table_with(signals: str, edges: Iterable[Edge] = (), **sections: object) -> ConfigVersion:
    """Compile a config with only these signals, edges and sections of `location`."""
    location = {"signals": signals.split(), "edges": [*edges], **sections}
    return table_of(BASE.replace(location={name: value for name, value in location.items() if value}))


def secret_header(edge: Edge) -> tuple[bytes, bytes]:
    """Return the header with which an edge proves itself."""
    return b"x-edge", edge["secret"]["value"].encode()


BY_EDGE = table_with("edge_header", [EDGE])
BY_ADDRESS = table_with("geoip", geoip={"path": "/nowhere.mmdb"})


@pytest.mark.parametrize(
    ("before", "now", "sent", "more"),
    [
        (BY_EDGE, BY_EDGE, [FRANCE], False),
        (table_with("api_key"), BY_EDGE, [FRANCE], True),
        (table_with("api_key"), BY_EDGE, [], False),
        (BY_EDGE, table_with("api_key"), [FRANCE], False),
        (table_with("api_key", [EDGE]), BY_EDGE, [FRANCE], True),
        # An edge of another network is added or removed; the peer becomes an edge; the edge gets another header.
        (BY_EDGE, table_with("edge_header", [EDGE, ELSEWHERE]), [FRANCE], False),
        (table_with("edge_header", [EDGE, ELSEWHERE]), BY_EDGE, [FRANCE], False),
        (table_with("edge_header", [EDGE, ELSEWHERE]), BY_EDGE, [], False),
        (table_with("edge_header", [EDGE, ELSEWHERE]), table_with("edge_header", [ELSEWHERE]), [FRANCE], False),
        (table_with("edge_header", [ELSEWHERE]), table_with("edge_header", [EDGE, ELSEWHERE]), [FRANCE], True),
        (BY_EDGE, table_with("edge_header", [EDGE | {"subdivision": "X-Part"}]), [FRANCE], True),
        # The edge's secret: absent before; present and right, or wrong, now; and one that was only replaced.
        (BY_EDGE, table_with("edge_header", [NEW_SECRET]), [FRANCE], False),
        (BY_EDGE, table_with("edge_header", [NEW_SECRET]), [FRANCE, secret_header(NEW_SECRET)], True),
        (BY_EDGE, table_with("edge_header", [NEW_SECRET]), [FRANCE, (b"x-edge", b"wrong")], True),
        (
            table_with("edge_header", [OLD_SECRET]),
            table_with("edge_header", [NEW_SECRET]),
            [FRANCE, secret_header(OLD_SECRET)],
            False,
        ),
        (BY_EDGE, table_with("claim edge_header", [EDGE], claim=CLAIM), [FRANCE, CLAIM_HEADER], True),
        (BY_EDGE, table_with("claim edge_header", [EDGE], claim=CLAIM), [FRANCE], False),
        (BY_EDGE, table_with("assertion edge_header", [EDGE]), [FRANCE, (b"x-gateway-territory", b"DE")], True),
        (BY_EDGE, table_with("assertion edge_header", [EDGE]), [FRANCE], False),
        (BY_EDGE, table_with("edge_header geoip", [EDGE], geoip={"path": "/nowhere.mmdb"}), [FRANCE], True),
        (BY_ADDRESS, table_with("geoip", geoip={"path": "/nowhere.mmdb"}), [], False),
        (BY_ADDRESS, table_with("geoip", [EDGE], geoip={"path": "/nowhere.mmdb"}), [], True),
    ],
)
def test_request_with_a_header_that_only_the_new_config_reads_gets_no_further_attempt(
    before: ConfigVersion, now: ConfigVersion, sent: list[tuple[bytes, bytes]], more: bool
) -> None:
    """The old config did not judge it. A header that only the new config reads is never in the location that is kept."""
    request = RequestHeaders(dict(sent), 100, "127.0.0.1", "")
    if location_inputs(before, None) == location_inputs(now, None):
        assert {*location_key(before, None, request)} == {*location_key(now, None, request)}
    if more:
        assert location_inputs(before, None) != location_inputs(now, None)
    if before is now:
        assert location_inputs(before, None) == location_inputs(now, None)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ([], [], True),
        ([EDGE], [EDGE], True),
        ([EDGE], [], False),
        ([], [EDGE], False),
        ([EDGE, ELSEWHERE], [EDGE], False),
        ([EDGE, ELSEWHERE], [ELSEWHERE, EDGE], True),
        ([EDGE, ELSEWHERE], [ELSEWHERE], False),
        ([ELSEWHERE], [], False),
        ([EDGE, ELSEWHERE], [RENAMED, ELSEWHERE], False),
        ([EDGE], [NEW_SECRET], False),
        ([OLD_SECRET, ELSEWHERE], [NEW_SECRET], False),
        ([OLD_SECRET], [NEW_SECRET], True),
    ],
)
def test_location_is_kept_only_while_every_edge_is_the_same(before: list[Edge], now: list[Edge], same: bool) -> None:
    """A rotated secret changes nothing. An edge that was added or removed may have changed the location."""
    old, new = table_with("edge_header api_key", before), table_with("edge_header api_key", now)
    assert (location_inputs(old, None) == location_inputs(new, None)) is same
