"""Where a caller is: each signal, their order, conflicts, blocked places, and what an untrusted client can't do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.location import LocationProblem
from gateway.model.table import Client, Table
from gateway.policy.location import EdgeReport, Sighting, resolve
from tests.tables import WORLD, table_of

TABLE = table_of(WORLD)
CLIENTS = {client.name: client for client in TABLE.clients.values()}


def seen(edge: str | None = None, asserted: tuple[str, ...] = ()) -> Sighting:
    return Sighting(EdgeReport("cf-ipcountry", (edge,)) if edge is not None else None, "", asserted)


def region_of(table: Table, client: Client | None, sighting: Sighting) -> str | None:
    location = resolve(table, client, sighting)
    return location.region.name if location.region else None


@pytest.mark.parametrize(
    ("said", "region", "territory"),
    [
        ("CN", "cn", "CN"),
        ("cn", "cn", "CN"),
        (" DE ", "eu", "DE"),
        ("NO", "eu", "NO"),
        ("CH", "eu", "CH"),
        ("US", "us", "US"),
        ("US-CA", "us", "US-CA"),
        ("HK", "default", "HK"),
        ("MO", "default", "MO"),
        ("TW", "default", "TW"),
        ("UK", "default", "GB"),
    ],
)
def test_an_edge_tells_the_territory(said: str, region: str, territory: str) -> None:
    location = resolve(TABLE, None, seen(said))
    assert location.region is not None
    assert (location.region.name, location.territory, location.why) == (region, territory, "edge_header")
    assert [item.decided for item in location.evidence] == [True]


@pytest.mark.parametrize(
    "said", ["XX", "ZZ", "EU", "AP", "A1", "T1", "", "China", "CN, US", "\r\nCN", "C" * 5000, "中国"]
)
def test_what_is_no_territory_is_unknown(said: str) -> None:
    location = resolve(TABLE, None, seen(said))
    assert location.problem is LocationProblem.UNKNOWN
    assert location.region is None
    assert len(location.evidence[0].said) <= 50
    assert location.evidence[0].said.isascii()


def test_a_silent_edge_lets_the_next_signal_speak_and_tor_does_not() -> None:
    table = replace(TABLE, location=replace(TABLE.location, signals=("edge_header", "assertion")))
    backend = CLIENTS["backend"]
    assert region_of(table, backend, seen("XX", ("CN",))) == "cn"
    assert resolve(table, backend, seen("T1", ("CN",))).problem is LocationProblem.UNKNOWN


def test_only_a_backend_that_may_assert_is_believed() -> None:
    believed = resolve(TABLE, CLIENTS["backend"], seen(asserted=("CN",)))
    assert (believed.why, believed.territory) == ("assertion", "CN")
    ignored = resolve(TABLE, CLIENTS["app"], seen("DE", ("CN",)))
    assert (ignored.why, ignored.territory) == ("edge_header", "DE")
    assert "may not assert" in ignored.evidence[0].note


def test_a_broken_assertion_is_unknown_and_not_the_backends_own_place() -> None:
    assert resolve(TABLE, CLIENTS["backend"], seen("DE", ("CHN",))).problem is LocationProblem.UNKNOWN
    assert resolve(TABLE, CLIENTS["backend"], seen("DE", ("CN", "US"))).problem is LocationProblem.UNKNOWN


def test_a_keys_region_is_final_and_the_rest_is_recorded() -> None:
    location = resolve(TABLE, CLIENTS["shop-cn"], seen("US"))
    assert location.region is not None
    assert (location.region.name, location.territory, location.why) == ("cn", None, "api_key")
    assert [(item.signal, item.decided) for item in location.evidence] == [("api_key", True), ("edge_header", False)]
    inside = resolve(TABLE, CLIENTS["shop-cn"], seen("CN"))
    assert inside.territory == "CN"


def test_a_keys_region_is_final_wherever_it_stands_in_the_list() -> None:
    table = replace(TABLE, location=replace(TABLE.location, signals=("edge_header",)))
    assert resolve(table, CLIENTS["shop-cn"], seen("US")).why == "api_key"


@pytest.mark.parametrize("client", [None, "backend", "shop-cn"])
def test_a_blocked_territory_in_any_signal_wins(client: str | None) -> None:
    who = CLIENTS[client] if client else None
    location = resolve(TABLE, who, seen("CU", ("DE",)))
    assert location.problem is LocationProblem.BLOCKED
    assert location.territory == "CU"


def test_a_country_with_a_blocked_part_needs_to_say_which_part() -> None:
    table = table_of(WORLD.replace("blocked: [CU,", "blocked: [UA-43, CU,"))
    assert resolve(table, None, seen("UA")).problem is LocationProblem.BLOCKED
    assert resolve(table, None, seen("UA-43")).problem is LocationProblem.BLOCKED
    assert region_of(table, None, seen("UA-30")) == "default"


def test_a_conflict_takes_the_strictest_region_if_there_is_one() -> None:
    backend = CLIENTS["backend"]
    location = resolve(TABLE, backend, seen("JP", ("CN",)))
    assert location.region is not None
    assert (location.region.name, location.territory, location.why) == ("cn", "CN", "assertion")
    assert resolve(TABLE, backend, seen("US", ("CN",))).problem is LocationProblem.CONFLICT
    refusing = replace(TABLE, location=replace(TABLE.location, conflict="refuse"))
    assert resolve(refusing, backend, seen("JP", ("CN",))).problem is LocationProblem.CONFLICT


def test_two_territories_of_one_region_are_no_conflict() -> None:
    location = resolve(TABLE, CLIENTS["backend"], seen("FR", ("DE",)))
    assert (location.why, location.territory) == ("assertion", "DE")


def test_an_unknown_place_can_be_given_a_region() -> None:
    table = replace(TABLE, location=replace(TABLE.location, unknown="eu"))
    location = resolve(table, None, Sighting())
    assert location.region is not None
    assert (location.region.name, location.why, location.assumed) == ("eu", "unknown", True)


def test_a_territory_of_no_region_is_refused() -> None:
    table = table_of(
        WORLD.replace('  default: {territories: ["*"], boundary: ["*"]}\n', "").replace(
            "      default: [gemini, qwen-intl]\n", ""
        )
    )
    assert resolve(table, None, seen("JP")).problem is LocationProblem.BLOCKED


@given(asserted=st.lists(st.text(max_size=12) | st.sampled_from(["CN", "US", "DE", "HK"]), max_size=3))
def test_nothing_that_an_untrusted_client_says_moves_it(asserted: list[str]) -> None:
    honest = resolve(TABLE, CLIENTS["app"], seen("DE"))
    lying = resolve(TABLE, CLIENTS["app"], seen("DE", tuple(asserted)))
    assert (lying.region, lying.territory, lying.why) == (honest.region, honest.territory, honest.why)
