"""A step that one config has planned, and what another one that has become active says of it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateway.model.consent import Consents
from gateway.model.decision import Plan, Step
from gateway.model.location import Location
from gateway.model.table import Client, Region, Table
from gateway.policy.location import EdgeReport, Sighting, resolve
from gateway.policy.renewal import why_not_now
from gateway.policy.routing import decide
from providers.fitting import Needs
from tests.tables import WORLD, table_of

NEEDS = Needs(frozenset(), frozenset(), frozenset())
TABLE = table_of(WORLD)
BOUND, APP = "c" * 64, "a" * 64


def planned(table: Table, territory: str | None, key: str | None) -> tuple[Step, Client | None, Location]:
    client = table.clients[key] if key else None
    location = resolve(table, client, Sighting(EdgeReport("cf-ipcountry", (territory,)) if territory else None))
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan), outcome
    return outcome.steps[0], client, location


def changed(*changes: tuple[str, str], of: str = WORLD) -> Table:
    for before, after in changes:
        assert before in of
        of = of.replace(before, after)
    return table_of(f"{of}resilience: {{idle: 31s}}\n")


def verdict(
    current: Table,
    territory: str | None = "DE",
    key: str | None = APP,
    *,
    table: Table = TABLE,
    agreed: Iterable[str] = (),
) -> str | None:
    def under(asked: Table, region: Region) -> Consents:
        assert asked is current
        assert region is current.regions[region.name]
        return Consents(confirmed=frozenset(agreed))

    step, client, location = planned(table, territory, key)
    return why_not_now(step, current, "assistant", client, location, NEEDS, 0.0, under)


def test_the_same_table_allows_what_it_planned() -> None:
    assert verdict(TABLE) is None


@pytest.mark.parametrize("key", [APP, None])
@pytest.mark.parametrize("territory", ["DE", "CN", "US", "JP"])
def test_a_change_of_something_else_allows_it(territory: str, key: str | None) -> None:
    assert verdict(changed(), territory, key) is None


CALIFORNIA = ("  us: {terr", "  ca: {territories: [US-CA], boundary: [PLACES]}\n  us: {terr")


def split(places: str) -> tuple[str, str]:
    return CALIFORNIA[0], CALIFORNIA[1].replace("PLACES", places)


def test_a_country_that_has_been_split_is_another_place_where_the_part_is_not_known() -> None:
    for places in ("US", "US-CA", "CA"):
        assert verdict(changed(split(places)), "US") == ELSEWHERE, places
        assert verdict(changed(split(places)), "US-NY") is None, places
    accepting = ("location:\n", "location:\n  accept_country_only: [US]\n")
    assert verdict(changed(split("US"), accepting), "US") is None


def test_who_was_given_the_stricter_region_of_a_split_country_keeps_it() -> None:
    routed = ("      us: [chatgpt-us]", "      us: [chatgpt-us]\n      ca: [house]")
    house = "  house: {provider: openai-compatible, model: m, endpoint: 'https://h.example', stores: US-CA, processes: US-CA, api_key: k}"
    strict = WORLD.replace(*split("US-CA")).replace(*routed).replace("clients:\n", f"{house}\nclients:\n")
    assert verdict(changed(of=strict), "US", table=table_of(strict)) is None


NOT_THIS_CLIENT = "the current config doesn't let this client ask"
ELSEWHERE = "the current config has the caller in another region, or in none"
GERMAN = '["@EEA", CH], boundary'


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("  app: {", "  app-2: {", NOT_THIS_CLIENT),
        (GERMAN, '["@EU", CH], boundary', None),
        (GERMAN, "[FR, CH], boundary", ELSEWHERE),
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


def test_who_may_not_ask_this_assistant_any_more() -> None:
    other = ("assistants:\n  assistant:", "assistants:\n  other: {routes: {us: [chatgpt-us]}}\n  assistant:")
    assert verdict(changed(other)) is None
    assert verdict(changed(other, ("assistants: [assistant]}", "assistants: [other]}"))) == NOT_THIS_CLIENT


def test_a_territory_that_is_blocked_now() -> None:
    shut = ((GERMAN, "[FR, CH], boundary"), ("blocked: [CU,", "blocked: [DE, CU,"))
    assert verdict(changed(*shut)) == ELSEWHERE
    # Whatever the key is bound to.
    assert verdict(changed(*shut), "DE", BOUND) == ELSEWHERE


def test_a_route_that_leads_elsewhere_now() -> None:
    wider = (GERMAN + ': ["@EEA", CH]}', GERMAN + ': ["@EEA", CH, US]}')
    assert verdict(changed(wider)) is None
    told = verdict(changed(wider, ("eu: [chatgpt-eu]", "eu: [chatgpt-us]")))
    assert told == "the current config doesn't route there any more"


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
    assert why_not_now(step, asking, "assistant", client, location, NEEDS, 0.0) is not None


def test_a_step_is_judged_by_itself_where_the_person_would_be_asked_for_another() -> None:
    world = WORLD.replace("default: [gemini, qwen-intl]", "default: [gemini, chatgpt-us]")
    asking = changed(
        ('api_key: "${GEMINI_API_KEY}"', 'api_key: "${GEMINI_API_KEY}", consent: {mode: standing}'), of=world
    )
    location = resolve(table_of(world), None, Sighting(EdgeReport("cf-ipcountry", ("JP",))))
    table = table_of(world)
    outcome = decide(table, table.assistants["assistant"], location, NEEDS, {}, 0.0).outcome
    assert isinstance(outcome, Plan)
    first, second = outcome.steps
    assert why_not_now(first, asking, "assistant", None, location, NEEDS, 0.0) is not None
    assert why_not_now(second, asking, "assistant", None, location, NEEDS, 0.0) is None


def test_a_key_that_is_bound_is_where_it_is_bound_now() -> None:
    assert verdict(changed(), None, BOUND) is None
    assert verdict(changed(("region: cn}", "region: us}")), None, BOUND) == ELSEWHERE
    # Not bound any more, and nothing else tells.
    assert verdict(changed((", region: cn}", "}")), None, BOUND) == ELSEWHERE


def test_a_region_that_was_assumed_must_still_be_assumed() -> None:
    assuming = WORLD + "  unknown: us\n"
    table = table_of(assuming)
    assert verdict(changed(of=assuming), None, APP, table=table) is None
    assert verdict(changed(("unknown: us", "unknown: eu"), of=assuming), None, APP, table=table) == ELSEWHERE
    assert verdict(changed(("unknown: us", "unknown: refuse"), of=assuming), None, APP, table=table) == ELSEWHERE
