"""A step that one config has planned, and what another one that has become active says of it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

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
from tests.kit.configs import BASE, WORLD, table_of
from tests.kit.location_reports import reported

NEEDS = Requirements(frozenset(), frozenset(), frozenset())
TABLE = table_of(WORLD)
BOUND, APP, NEW = "c" * 64, "a" * 64, "d" * 64


def planned(table: ConfigVersion, territory: str | None, key: str | None) -> tuple[Step, Client | None, Location]:
    client = table.clients[key] if key else None
    location = resolve(table, client, reported(EdgeReport((territory,)) if territory else None))
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan), outcome
    return outcome.steps[0], client, location


def changed(*changes: tuple[str, str], of: str = WORLD) -> ConfigVersion:
    for before, after in changes:
        assert before in of
        of = of.replace(before, after)
    return table_of(f"{of}resilience: {{idle: 31s}}\n")


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


def test_the_same_table_allows_what_it_planned() -> None:
    assert verdict(TABLE) is None


@pytest.mark.parametrize("key", [APP, None])
@pytest.mark.parametrize("territory", ["DE", "CN", "US", "JP"])
def test_a_change_of_something_else_allows_it(territory: str, key: str | None) -> None:
    assert verdict(changed(), territory, key) is None


def test_where_no_config_asks_for_a_key_none_is_missed() -> None:
    keyless = WORLD[: WORLD.index("clients:")] + WORLD[WORLD.index("location:") :]
    assert verdict(changed(of=keyless), key=None, table=table_of(keyless)) is None


CALIFORNIA = ("  us: {terr", "  ca: {territories: [US-CA], boundary: [PLACES]}\n  us: {terr")


def split(places: str) -> tuple[str, str]:
    return CALIFORNIA[0], CALIFORNIA[1].replace("PLACES", places)


def test_a_country_that_has_been_split_is_another_place_where_the_part_is_not_known() -> None:
    for places in ("US", "US-CA", "CA"):
        assert verdict(changed(split(places)), "US") == OTHER_RULES, places
        assert verdict(changed(split(places)), "US-NY") == OTHER_RULES, places
    accepting = ("location:\n", "location:\n  accept_country_only: [US]\n")
    assert verdict(changed(split("US"), accepting), "US") == OTHER_RULES


def test_who_was_given_the_stricter_region_of_a_split_country_keeps_it() -> None:
    routed = ("      us: [chatgpt-us]", "      us: [chatgpt-us]\n      ca: [house]")
    house = "  house: {provider: openai-compatible, model: m, endpoint: 'https://h.example', stores: US-CA, processes: US-CA, api_key: k}"
    strict = WORLD.replace(*split("US-CA")).replace(*routed).replace("clients:\n", f"{house}\nclients:\n")
    assert verdict(changed(of=strict), "US", table=table_of(strict)) is None


NOT_THIS_CLIENT = "the current config doesn't let this client ask"
OTHER_RULES = "the current config has other rules for where a caller is"
CLAIMS = '  claim: {issuer: i, audience: a, algorithms: [HS256], secret: "01234567890123456789012345678901"}'
GERMAN = '["@EEA", CH], boundary'


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("  app: {", "  app-2: {", NOT_THIS_CLIENT),
        (GERMAN, '["@EU", CH], boundary', OTHER_RULES),
        (GERMAN, "[FR, CH], boundary", OTHER_RULES),
        ("endpoint: eu,", "endpoint: eu, enabled: false,", "disabled in the current config"),
        ("chatgpt-eu: {provider: openai, model: gpt-6-luna", "chatgpt-eu: {provider: openai, model: gpt-4o", "permit"),
        ("attests: [zdr]", "attests: []", "not by the current config: site 'eu' requires"),
        ("endpoint: eu,", "endpoint: eu, consent: {mode: standing},", "consent to openai is missing"),
    ],
)
def test_what_a_change_takes_away(before: str, after: str, reason: str | None) -> None:
    told = verdict(changed((before, after)))
    assert (told is None) == (reason is None)
    assert reason is None or reason in str(told)


def test_a_key_that_was_revoked_opens_nothing_though_its_client_has_another() -> None:
    both = WORLD.replace(f'["sha256:{APP}"]', f'["sha256:{APP}", "sha256:{NEW}"]')
    assert both != WORLD
    assert verdict(changed(of=both), key=NEW, table=table_of(both)) is None
    assert verdict(changed(), key=APP, table=table_of(both)) is None
    assert verdict(changed(), key=NEW, table=table_of(both)) == NOT_THIS_CLIENT
    # It is another's now.
    moved = WORLD.replace(f'["sha256:{"b" * 64}"]', f'["sha256:{"b" * 64}", "sha256:{NEW}"]')
    assert verdict(changed(of=moved), key=NEW, table=table_of(both)) == NOT_THIS_CLIENT


def test_all_keys_of_a_client_are_the_same_client() -> None:
    both = table_of(WORLD.replace(f'["sha256:{APP}"]', f'["sha256:{APP}", "sha256:{NEW}"]'))
    one, other = both.clients[APP], both.clients[NEW]
    assert one == other
    assert hash(one) == hash(other)
    assert APP not in repr(one)


def test_who_may_not_ask_this_assistant_any_more() -> None:
    other = ("assistants:\n  assistant:", "assistants:\n  other: {routes: {us: [chatgpt-us]}}\n  assistant:")
    assert verdict(changed(other)) is None
    assert verdict(changed(other, ("assistants: [assistant]}", "assistants: [other]}"))) == NOT_THIS_CLIENT


def test_a_territory_that_is_blocked_now() -> None:
    shut = ((GERMAN, "[FR, CH], boundary"), ("blocked: [CU,", "blocked: [DE, CU,"))
    assert verdict(changed(*shut)) == OTHER_RULES
    # Whatever the key is bound to.
    assert verdict(changed(*shut), "DE", BOUND) == OTHER_RULES


def test_a_route_that_leads_elsewhere_now() -> None:
    wider = (GERMAN + ': ["@EEA", CH]}', GERMAN + ': ["@EEA", CH, US]}')
    assert verdict(changed(wider)) == OTHER_RULES
    told = verdict(changed(wider, ("eu: [chatgpt-eu]", "eu: [chatgpt-us]")))
    assert told == "the current config doesn't route there any more"


LESS = "the current config sends it less of this request"
SECRETS = "secrets: {identity: 'an-identity-secret-of-32-characters'}\n"


@pytest.mark.parametrize(
    ("before", "after", "words", "told"),
    [
        # A boundary says how strict a region is, which decides between two signals: no location survives its change.
        ('boundary: ["*"]', "boundary: [US]", {"strict_tools"}, OTHER_RULES),
        ("boundary: [US]", 'boundary: ["*"]', {"strict_tools"}, OTHER_RULES),
        ('boundary: ["*"]', "boundary: [US]", {"seed"}, OTHER_RULES),
        # Who asks.
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
def test_no_step_tells_a_provider_what_the_new_config_keeps_from_it(
    before: str, after: str, words: set[str], told: str | None
) -> None:
    def saying(words: str) -> ConfigVersion:
        boundary = words if words.startswith("boundary") else "boundary: [US]"
        identity = words if words.startswith("identity") else "identity: strip"
        changes = f"{{regions: {{us: {{{boundary}}}}}, deployments: {{chatgpt-us: {{{identity}}}}}}}"
        return table_of(BASE.merge(changes, SECRETS))

    old, now, needs = saying(before), saying(after), Requirements(frozenset(), frozenset(words), frozenset())
    location = resolve(old, None, reported(EdgeReport(("US",))))
    outcome = decide(old, old.assistants["assistant"], location, needs, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    assert why_not_now(RunningRequest(old, "assistant", None, location, needs), outcome.steps[0], now, 0.0) == told


def test_another_site_at_the_same_host_is_another_place() -> None:
    """The running request doesn't say what the new site pins: where the provider may compute."""
    clause = "provider: openai, model: gpt-6-luna, endpoint: us, "
    claude = "provider: anthropic, model: claude-sonnet-5, endpoint: SITE, "
    world = WORLD.replace(clause, claude)
    anywhere = world.replace("SITE", "global").replace("boundary: [US]", 'boundary: ["*"]')
    pinned = world.replace("endpoint: SITE", "attests: [us-workspace], endpoint: us")
    assert verdict(changed(of=anywhere), "US", table=table_of(anywhere)) is None
    assert (
        verdict(changed(of=pinned), "US", table=table_of(anywhere)) == "the current config doesn't permit it any more"
    )


def test_another_host_of_the_same_model_is_another_place() -> None:
    house = 'h: {provider: openai-compatible, model: m, endpoint: "https://a.example/v1", stores: DE, processes: DE}'
    world = WORLD.replace("eu: [chatgpt-eu]", "eu: [h]").replace("deployments:\n", f"deployments:\n  {house}\n")
    told = verdict(changed(("https://a.example", "https://b.example"), of=world), table=table_of(world))
    assert told == "the current config doesn't permit it any more"


def test_a_consent_that_the_new_config_asks_for_may_have_been_given() -> None:
    asking = changed(("endpoint: eu,", "endpoint: eu, consent: {mode: per_request},"))
    assert verdict(asking, agreed=["chatgpt-eu"]) is None
    assert verdict(asking, agreed=["chatgpt-us"]) is not None


def test_nobody_has_agreed_where_nobody_was_asked() -> None:
    asking = changed(("endpoint: eu,", "endpoint: eu, consent: {mode: standing},"))
    step, client, location = planned(TABLE, "DE", APP)
    assert why_not_now(RunningRequest(TABLE, "assistant", client, location, NEEDS), step, asking, 0.0) is not None


def test_a_step_is_judged_by_itself_where_the_person_would_be_asked_for_another() -> None:
    world = WORLD.replace("default: [gemini, qwen-intl]", "default: [gemini, chatgpt-us]")
    asking = changed(
        ('api_key: "${GEMINI_API_KEY}"', 'api_key: "${GEMINI_API_KEY}", consent: {mode: standing}'), of=world
    )
    location = resolve(table_of(world), None, reported(EdgeReport(("JP",))))
    table = table_of(world)
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    first, second = outcome.steps
    running = RunningRequest(table, "assistant", None, location, NEEDS)
    assert why_not_now(running, first, asking, 0.0) is not None
    assert why_not_now(running, second, asking, 0.0) is None


def test_a_key_that_is_bound_is_where_it_is_bound_now() -> None:
    assert verdict(changed(), None, BOUND) is None
    assert verdict(changed(("region: cn}", "region: us}")), None, BOUND) == OTHER_RULES
    # Not bound any more, and nothing else tells.
    assert verdict(changed((", region: cn}", "}")), None, BOUND) == OTHER_RULES


def test_who_is_bound_to_the_rest_of_the_world_is_in_a_territory_that_no_region_names_any_more() -> None:
    """It has no territory while a region of its own has it, and one whose prompts must stay at home without."""
    house = "  house: {provider: openai-compatible, model: m, endpoint: 'https://h.example', stores: any, processes: any, api_key: k}"
    routed = WORLD.replace("[gemini, qwen-intl]", "[house]").replace("clients:\n", f"{house}\nclients:\n")
    world = routed.replace(", region: cn", ", region: default")
    nobody_names_it = ("cn: {territories: [CN], boundary: [CN]}", "cn: {territories: [MO], boundary: [CN]}")
    assert verdict(changed(of=world), "CN", BOUND, table=table_of(world)) is None
    assert verdict(changed(nobody_names_it, of=world), "CN", BOUND, table=table_of(world)) == OTHER_RULES


def test_a_region_that_was_assumed_must_still_be_assumed() -> None:
    assuming = WORLD + "  unknown: us\n"
    table = table_of(assuming)
    assert verdict(changed(of=assuming), None, APP, table=table) is None
    assert verdict(changed(("unknown: us", "unknown: eu"), of=assuming), None, APP, table=table) == OTHER_RULES
    assert verdict(changed(("unknown: us", "unknown: refuse"), of=assuming), None, APP, table=table) == OTHER_RULES


# Of Germany, says a backend, and of the United States, says the edge: the stricter of the two is Europe.
TWO_VOICES = WORLD.replace("boundary: [US]", 'boundary: [US, "@EEA", CH]')
BACKEND = "b" * 64
NARROWER = ('boundary: [US, "@EEA", CH]', "boundary: [US]")


def after(*changes: tuple[str, str], said: Reports, of: str = TWO_VOICES) -> tuple[str | None, str | None]:
    """What becomes of a step in Europe, and the region that the new config has for the same request."""
    old, new = table_of(of), changed(*changes, of=of)
    client = old.clients[BACKEND]
    location = resolve(old, client, said)
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    assert outcome.region.name == "eu"
    fresh = resolve(new, new.clients[BACKEND], said).region
    told = why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), outcome.steps[0], new, 0.0)
    return told, fresh.name if fresh is not None else None


@pytest.mark.parametrize(
    ("changes", "region"),
    [
        ((), "eu"),
        ((NARROWER,), None),
        ((("  edges:", "  conflict: refuse\n  edges:"),), None),
        ((("may_assert: [territory]", "may_assert: []"),), "us"),
        ((("signals: [api_key, assertion, edge_header]", "signals: [api_key, edge_header]"),), "us"),
        ((("signals: [api_key, assertion, edge_header]", "signals: [api_key, assertion]"),), "eu"),
    ],
)
def test_a_location_is_not_decided_again_by_other_rules(
    changes: tuple[tuple[str, str], ...], region: str | None
) -> None:
    told, fresh = after(*changes, said=reported(EdgeReport(("US",)), asserted=("DE",)))
    assert fresh == region
    assert told == (OTHER_RULES if changes else None)


def test_what_a_signal_that_hides_keeps_from_counting_still_does_not_count() -> None:
    order = ("signals: [api_key, assertion, edge_header]", "signals: [claim, edge_header, assertion]")
    claims = f"{CLAIMS}\n  edges:"
    world = TWO_VOICES.replace(*order).replace("  edges:", claims, 1)
    said = reported(EdgeReport(("T1",)), asserted=("US",), claim=ClaimReport("DE"))
    assert after(said=said, of=world) == (None, "eu")
    assert after(NARROWER, said=said, of=world) == (OTHER_RULES, "eu")


@pytest.mark.parametrize(
    ("edge", "asserted", "region"),
    [("T1", "US", "us"), ("T1", "DE", "eu"), ("DE", "FR", "eu")],
)
def test_signals_are_weighed_in_the_order_that_holds_now(edge: str, asserted: str, region: str) -> None:
    """Who hides keeps from counting what stands behind it, and the first of those that agree tells the territory."""
    before = "signals: [edge_header, assertion]"
    world = WORLD.replace("signals: [api_key, assertion, edge_header]", f"{before}\n  unknown: eu")
    change = (before, "signals: [assertion, edge_header]")
    said = reported(EdgeReport((edge,)), asserted=(asserted,))
    assert after(change, said=said, of=world) == (OTHER_RULES, region)
    new = changed(change, of=world)
    assert resolve(new, new.clients[BACKEND], said).territory == asserted


TRUSTED = "{from: [127.0.0.0/8], country: CF-IPCountry}"
SECRET = "{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge, value: %s}}"


@pytest.mark.parametrize(
    ("before", "now", "heard"),
    [
        (TRUSTED, TRUSTED, True),
        (TRUSTED, f"{TRUSTED}, {{from: [10.0.0.0/8], country: X-Country}}", False),
        (TRUSTED, "", False),
        (TRUSTED, TRUSTED.replace("127.", "10."), False),
        (TRUSTED, TRUSTED.replace("CF-IPCountry", "X-Country"), False),
        (TRUSTED, SECRET % ("0123456789abcdef" * 2), False),
        (SECRET % ("0123456789abcdef" * 2), SECRET % ("fedcba9876543210" * 2), True),
    ],
)
def test_an_edge_that_is_none_any_more_is_not_heard(before: str, now: str, heard: bool) -> None:
    """An edge that somebody has seen through is taken out of the config: running requests follow at their next
    attempt. A secret that is renewed is no reason to."""
    old = table_of(WORLD.replace(TRUSTED, before))
    new = changed((TRUSTED, now))
    client = old.clients[APP]
    location = resolve(old, client, reported(EdgeReport(("DE",))))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    told = why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), outcome.steps[0], new, 0.0)
    assert told == (None if heard else OTHER_RULES)


@pytest.mark.parametrize(
    ("change", "heard"),
    [
        (("0123456789", "9876543210"), True),
        (("issuer: i", "issuer: j"), False),
        (("audience: a", "audience: b"), False),
        (("territory: place", "territory: where"), False),
    ],
)
def test_a_claim_of_an_issuer_that_is_none_any_more_is_not_heard(change: tuple[str, str], heard: bool) -> None:
    claims = CLAIMS.replace("secret:", "territory: place, secret:")
    world = WORLD.replace("signals: [api_key,", "signals: [claim, api_key,").replace("  edges:", f"{claims}\n  edges:")
    old, new = table_of(world), changed(change, of=world)
    client = old.clients[APP]
    location = resolve(old, client, reported(claim=ClaimReport("DE")))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    step = outcome.steps[0]
    told = why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), step, new, 0.0)
    assert told == (None if heard else OTHER_RULES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((("audience: a", "audience: b"),), OTHER_RULES),
        ((("signals: [claim, api_key,", "signals: [api_key,"), (f"{CLAIMS}\n", "")), OTHER_RULES),
    ],
)
@pytest.mark.parametrize("territory", ["DE", None])
def test_a_claim_that_is_not_believed_any_more_is_not_taken_for_none(
    changes: tuple[tuple[str, str], ...], told: str | None, territory: str | None
) -> None:
    """Another signal may say the same region: a new request with that claim is refused all the same. Where claims
    aren't asked for any more, nobody looks at it."""
    world = WORLD.replace("signals: [api_key,", "signals: [claim, api_key,").replace("  edges:", f"{CLAIMS}\n  edges:")
    old, new = table_of(world), changed(*changes, of=world)
    client = old.clients[APP]
    location = resolve(old, client, reported(EdgeReport(("DE",)), claim=ClaimReport(territory)))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    assert why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), outcome.steps[0], new, 0.0) == told


@pytest.mark.parametrize(("more", "heard"), [("", True), (", {from: [10.0.0.0/8], country: X-Country}", False)])
def test_an_address_is_not_heard_where_who_tells_it_has_changed(more: str, heard: bool) -> None:
    """A peer that is an edge by now tells another address than its own."""
    geoip = "  geoip: {path: /nowhere.mmdb, max_age: 30d}"
    world = WORLD.replace("edge_header]", "edge_header, geoip]").replace("  edges:", f"{geoip}\n  edges:")
    old, new = table_of(world), changed((TRUSTED, TRUSTED + more), of=world)
    location = resolve(old, old.clients[APP], reported(address=AddressReport("DE")))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    step, client = outcome.steps[0], old.clients[APP]
    told = why_not_now(RunningRequest(old, "assistant", client, location, NEEDS), step, new, 0.0)
    assert told == (None if heard else OTHER_RULES)


SIGNALS = ("api_key", "claim", "assertion", "edge_header", "geoip")
WORLDS = [
    text.replace("signals: [api_key, assertion, edge_header]", f"signals: [{', '.join(SIGNALS)}]").replace(
        "  edges:", f"{CLAIMS}\n  geoip: {{path: /nowhere.mmdb, max_age: 30d}}\n{more}  edges:", 1
    )
    for text in (
        TWO_VOICES,
        TWO_VOICES.replace(*NARROWER),
        TWO_VOICES.replace("may_assert: [territory]", "may_assert: []"),
        TWO_VOICES.replace(*split("US-CA")),
        TWO_VOICES.replace("territories: [CN]", "territories: [MO]").replace("region: cn", "region: default"),
    )
    for more in ("", "  conflict: refuse\n", "  unknown: eu\n", "  accept_country_only: [US]\n")
]
WORLDS = [text for text in WORLDS if "US-CA" in text or "accept" not in text]
words = st.sampled_from([None, "DE", "FR", "US", "US-CA", "US-NY", "CN", "JP", "XX", "T1"])


@given(
    st.sampled_from(WORLDS),
    st.sampled_from(WORLDS),
    st.tuples(words, words, words, words),
    st.sampled_from([None, BACKEND, BOUND]),
)
def test_a_location_that_is_kept_is_the_one_that_the_new_config_would_decide(
    before: str, now: str, said: tuple[str | None, ...], key: str | None
) -> None:
    claim, asserted, edge, address = said
    sighting = reported(
        EdgeReport((edge,)) if edge else None,
        asserted=(asserted,) if asserted else (),
        claim=ClaimReport(claim) if claim else None,
        address=AddressReport(address, hidden=address == "T1", note="hidden: Tor") if address else None,
    )
    old, new = cached(before), cached(now)
    was, client = old.clients[key] if key else None, new.clients[key] if key else None
    if location_inputs(old, was) == location_inputs(new, client):
        kept, fresh = resolve(old, was, sighting), resolve(new, client, sighting)
        assert (kept.region, kept.territory, kept.why) == (fresh.region, fresh.territory, fresh.why)
        assert (kept.assumed, kept.evidence) == (fresh.assumed, fresh.evidence)


cached = lru_cache(table_of)


@pytest.mark.parametrize(
    ("before", "after_it", "still"),
    [("", "", True), ("may_assert: [territory, consent]", "may_assert: [territory]", False)],
)
def test_who_may_not_speak_for_the_person_any_more_has_not_agreed_for_it(
    before: str, after_it: str, still: bool
) -> None:
    asking = WORLD.replace("endpoint: eu,", "endpoint: eu, consent: {mode: standing},")
    asking = asking.replace("may_assert: [territory]", "may_assert: [territory, consent]")
    old = table_of(asking)
    new = changed((before, after_it), of=asking)
    client, agreed = old.clients[BACKEND], Consents(asserted=True)
    location = resolve(old, client, reported(asserted=("DE",)))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0, consents=agreed).outcome
    assert isinstance(outcome, Plan)
    running = RunningRequest(old, "assistant", client, location, NEEDS, lambda *_: agreed)
    told = why_not_now(running, outcome.steps[0], new, 0.0)
    assert (told is None) == still


def test_a_claim_that_is_not_heard_any_more_has_not_agreed_for_anybody() -> None:
    asking = WORLD.replace("endpoint: eu,", "endpoint: eu, consent: {mode: standing},")
    hearing = asking.replace("[api_key, assertion,", "[claim, api_key, assertion,").replace(
        "  edges:", f"{CLAIMS}\n  edges:"
    )
    old, agreed = table_of(hearing), Consents(standing=frozenset({"openai"}))
    location = resolve(old, None, reported(EdgeReport(("DE",))))
    outcome = decide(old, old.assistants["assistant"], location, NEEDS, {}, 0.0, consents=agreed).outcome
    assert isinstance(outcome, Plan)
    for new, still in ((changed(of=hearing), True), (changed(of=asking), False)):
        running = RunningRequest(old, "assistant", None, location, NEEDS, lambda *_: agreed)
        told = why_not_now(running, outcome.steps[0], new, 0.0)
        assert (told is None) == still


def test_two_assertions_of_one_place_are_still_that_place() -> None:
    said = reported(asserted=("DE", "de"))
    assert after(said=said) == (None, "eu")
    # Ignored before, and believed now: were it not weighed, the caller would stay where the edge alone has it.
    ignored = TWO_VOICES.replace("may_assert: [territory]", "may_assert: []")
    said = reported(EdgeReport(("DE",)), asserted=("CN",))
    assert after(("may_assert: []", "may_assert: [territory]"), said=said, of=ignored) == (OTHER_RULES, None)


EDGE = "{from: [127.0.0.0/8], country: CF-IPCountry}"
ELSEWHERE = "{from: [10.0.0.0/8], country: X-Country}"
GUARDED = "{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge, value: %s}}"
OLD_SECRET, NEW_SECRET = GUARDED % "'the old secret of this edge'", GUARDED % "'the new secret of this edge'"
FR = b"cf-ipcountry", b"FR"
CLAIM = b"x-gateway-claim", b"a.b.c"
CLAIM_SECTION = "claim: {issuer: i, audience: a, algorithms: [HS256], secret: '01234567890123456789012345678901'}"
ADDRESSES = "geoip: {path: /nowhere.mmdb}"


def hearing(signals: str, edges: str = "", more: str = "") -> ConfigVersion:
    listed = f", edges: [{edges}]" if edges else ""
    asked = f", {more}" if more else ""
    return table_of(f"{WORLD[: WORLD.index('location:')]}location: {{signals: [{signals}]{listed}{asked}}}")


BY_EDGE = hearing("edge_header", EDGE)


@pytest.mark.parametrize(
    ("before", "now", "sent", "more"),
    [
        (BY_EDGE, BY_EDGE, [FR], False),
        (hearing("api_key"), BY_EDGE, [FR], True),
        (hearing("api_key"), BY_EDGE, [], False),
        (BY_EDGE, hearing("api_key"), [FR], False),
        (hearing("api_key", EDGE), BY_EDGE, [FR], True),
        # One of another network that comes, or goes; one that this peer has become, and one that it was in other words.
        (BY_EDGE, hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), [FR], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), BY_EDGE, [FR], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), BY_EDGE, [], False),
        (hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), hearing("edge_header", ELSEWHERE), [FR], False),
        (hearing("edge_header", ELSEWHERE), hearing("edge_header", f"{EDGE}, {ELSEWHERE}"), [FR], True),
        (BY_EDGE, hearing("edge_header", EDGE.replace("}", ", subdivision: X-Part}")), [FR], True),
        # Its secret: there was none, it came, it didn't; and one that was only replaced.
        (BY_EDGE, hearing("edge_header", NEW_SECRET), [FR], False),
        (BY_EDGE, hearing("edge_header", NEW_SECRET), [FR, (b"x-edge", b"the new secret of this edge")], True),
        (BY_EDGE, hearing("edge_header", NEW_SECRET), [FR, (b"x-edge", b"wrong")], True),
        (
            hearing("edge_header", OLD_SECRET),
            hearing("edge_header", NEW_SECRET),
            [FR, (b"x-edge", b"the old secret of this edge")],
            False,
        ),
        (BY_EDGE, hearing("claim, edge_header", EDGE, CLAIM_SECTION), [FR, CLAIM], True),
        (BY_EDGE, hearing("claim, edge_header", EDGE, CLAIM_SECTION), [FR], False),
        (BY_EDGE, hearing("assertion, edge_header", EDGE), [FR, (b"x-gateway-territory", b"DE")], True),
        (BY_EDGE, hearing("assertion, edge_header", EDGE), [FR], False),
        (BY_EDGE, hearing("edge_header, geoip", EDGE, ADDRESSES), [FR], True),
        (hearing("geoip", "", ADDRESSES), hearing("geoip", "", ADDRESSES), [], False),
        (hearing("geoip", "", ADDRESSES), hearing("geoip", EDGE, ADDRESSES), [], True),
    ],
)
def test_a_request_that_brought_what_only_the_new_config_reads_gets_no_further_attempt(
    before: ConfigVersion, now: ConfigVersion, sent: list[tuple[bytes, bytes]], more: bool
) -> None:
    """Nobody has judged it. A header that only the new config reads is never in the location that is kept."""
    request = RequestHeaders(dict(sent), 100, "127.0.0.1", "")
    if location_inputs(before, None) == location_inputs(now, None):
        assert {*location_key(before, None, request)} == {*location_key(now, None, request)}
    if more:
        assert location_inputs(before, None) != location_inputs(now, None)
    if before is now:
        assert location_inputs(before, None) == location_inputs(now, None)


RENAMED = EDGE.replace("CF-IPCountry", "X-Country")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("", "", True),
        (EDGE, EDGE, True),
        (EDGE, "", False),
        ("", EDGE, False),
        (f"{EDGE}, {ELSEWHERE}", EDGE, False),
        (f"{EDGE}, {ELSEWHERE}", f"{ELSEWHERE}, {EDGE}", True),
        (f"{EDGE}, {ELSEWHERE}", ELSEWHERE, False),
        (ELSEWHERE, "", False),
        (f"{EDGE}, {ELSEWHERE}", f"{RENAMED}, {ELSEWHERE}", False),
        (EDGE, NEW_SECRET, False),
        (f"{OLD_SECRET}, {ELSEWHERE}", NEW_SECRET, False),
        (OLD_SECRET, NEW_SECRET, True),
    ],
)
def test_a_location_is_kept_only_while_every_edge_is_the_same(before: str, now: str, same: bool) -> None:
    """A secret that is rotated changes nothing. That another edge came or went may have changed the location."""
    told_by, asked = hearing("edge_header, api_key", before), hearing("edge_header, api_key", now)
    assert (location_inputs(told_by, None) == location_inputs(asked, None)) is same
