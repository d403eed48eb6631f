"""The location of a caller: each signal, their order, conflicts, blocked territories, and untrusted clients."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.decision import RefusalCode
from gateway.model.location import AddressReport, ClaimProblem, ClaimReport, LocationProblem, Reports
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.location.trusted_edge import EdgeNote
from gateway.policy.refusals import refuse_location
from providers.territories import parse_places
from tests.gateway.location_reports import reported, with_rules
from tests.kit.case_files import cases
from tests.kit.configs import BASE, SPLIT_COUNTRIES, table_of

TABLE = table_of(BASE)
CLIENTS = {client.name: client for client in TABLE.clients.values()}


NO_DEFAULT_REGION = "{regions: {default: null}, assistants: {assistant: {routes: {default: null}}}}"


def seen(edge: str | None = None, asserted: tuple[str, ...] = ()) -> Reports:
    return reported(EdgeReport((edge,)) if edge is not None else None, EdgeNote.NONE, asserted)


def region_of(table: ConfigVersion, client: Client | None, sighting: Reports) -> str | None:
    location = resolve(table, client, sighting)
    return location.region.name if location.region else None


@cases("code", "region", "territory")
def test_edge_reports_the_territory(code: str, region: str, territory: str) -> None:
    location = resolve(TABLE, None, seen(code))
    assert (location.region.name, location.territory, location.why) == (region, territory, "edge_header")
    assert [item.decided for item in location.evidence] == [True]


@pytest.mark.parametrize(
    "code",
    ["XX", "ZZ", "EU", "AP", "A1", "T1", "", "China", "CN, US", "\r\nCN", "C" * 5000, "中国", "ß", "ſe", "ﬁ", "ıt"],
)
def test_invalid_territory_is_unknown(code: str) -> None:
    location = resolve(TABLE, None, seen(code))
    assert location.problem is LocationProblem.UNKNOWN
    assert location.region is None
    assert len(location.evidence[0].value) <= 50
    assert location.evidence[0].value.isascii()


def test_silent_edge_falls_through_to_the_next_signal_but_tor_does_not() -> None:
    table = with_rules(TABLE, signals=("edge_header", "assertion"))
    backend = CLIENTS["backend"]
    assert region_of(table, backend, seen("XX", ("CN",))) == "cn"
    assert resolve(table, backend, seen("T1", ("CN",))).problem is LocationProblem.UNKNOWN


def test_assertion_counts_only_for_a_client_that_may_assert() -> None:
    believed = resolve(TABLE, CLIENTS["backend"], seen(asserted=("CN",)))
    assert (believed.why, believed.territory) == ("assertion", "CN")
    ignored = resolve(TABLE, CLIENTS["app"], seen("DE", ("CN",)))
    assert (ignored.why, ignored.territory) == ("edge_header", "DE")
    assert "may not assert" in ignored.evidence[0].note


def test_invalid_assertion_is_unknown_and_does_not_use_the_backends_location() -> None:
    assert resolve(TABLE, CLIENTS["backend"], seen("DE", ("CHN",))).problem is LocationProblem.UNKNOWN
    assert resolve(TABLE, CLIENTS["backend"], seen("DE", ("CN", "US"))).problem is LocationProblem.UNKNOWN


@pytest.mark.parametrize("signals", [("api_key", "edge_header"), ("edge_header", "api_key"), ("edge_header",)])
@pytest.mark.parametrize(("edge", "region", "territory"), [("US", "us", None), ("CN", "cn", "CN")])
def test_region_of_a_key_is_final_and_other_signals_are_recorded(
    signals: tuple[str, ...], edge: str, region: str, territory: str | None
) -> None:
    location = resolve(with_rules(TABLE, signals=signals), CLIENTS["shop-cn"], seen(edge))
    assert (location.region.name, location.territory, location.why) == ("cn", territory, "api_key")
    evidence = {(item.signal, item.region, item.decided) for item in location.evidence}
    assert evidence == {("api_key", "cn", True), ("edge_header", region, False)}


@pytest.mark.parametrize("client", [None, "backend", "shop-cn"])
def test_a_blocked_territory_in_any_signal_wins(client: str | None) -> None:
    bound_client = CLIENTS[client] if client else None
    location = resolve(TABLE, bound_client, seen("CU", ("DE",)))
    assert location.problem is LocationProblem.BLOCKED
    assert location.territory == "CU"


def test_country_with_a_blocked_part_is_refused_without_the_part() -> None:
    table = table_of(BASE.merge("blocked: [UA-43, CU, IR, KP, SY]"))
    assert resolve(table, None, seen("UA")).problem is LocationProblem.BLOCKED
    assert resolve(table, None, seen("UA-43")).problem is LocationProblem.BLOCKED
    assert region_of(table, None, seen("UA-30")) == "default"


def test_conflicting_signals_choose_the_strictest_region_if_one_exists() -> None:
    backend = CLIENTS["backend"]
    location = resolve(TABLE, backend, seen("JP", ("CN",)))
    assert (location.region.name, location.territory, location.why) == ("cn", "CN", "assertion")
    assert resolve(TABLE, backend, seen("US", ("CN",))).problem is LocationProblem.CONFLICT
    refusing = with_rules(TABLE, conflict="refuse")
    assert resolve(refusing, backend, seen("JP", ("CN",))).problem is LocationProblem.CONFLICT


@cases("patch", "region")
def test_strictest_region_does_nothing_that_another_region_forbids(patch: str, region: str | None) -> None:
    location = resolve(table_of(BASE.merge(patch)), CLIENTS["backend"], seen("HK", ("CN",)))
    assert (location.region.name if location.region else None) == region
    assert (location.problem is LocationProblem.CONFLICT) == (region is None)


def test_two_territories_of_one_region_do_not_conflict() -> None:
    location = resolve(TABLE, CLIENTS["backend"], seen("FR", ("DE",)))
    assert (location.why, location.territory) == ("assertion", "DE")


def test_unknown_location_can_be_assigned_a_region() -> None:
    table = with_rules(TABLE, unknown="eu")
    location = resolve(table, None, reported())
    assert (location.region.name, location.why, location.assumed) == ("eu", "unknown", True)


@given(asserted=st.lists(st.text(max_size=12) | st.sampled_from(["CN", "US", "DE", "HK"]), max_size=3))
def test_headers_of_an_untrusted_client_do_not_change_the_location(asserted: list[str]) -> None:
    honest = resolve(TABLE, CLIENTS["app"], seen("DE"))
    lying = resolve(TABLE, CLIENTS["app"], seen("DE", tuple(asserted)))
    assert (lying.region, lying.territory, lying.why) == (honest.region, honest.territory, honest.why)


# --- claims ---------------------------------------------------------------------------------------

ALL = with_rules(TABLE, signals=("claim", "api_key", "assertion", "edge_header", "geoip"))


def claimed(territory: str | None = None, problem: ClaimProblem | None = None) -> ClaimReport:
    return ClaimReport(territory, problem)


def located(
    sighting: Reports, table: ConfigVersion = ALL, client: Client | None = None
) -> tuple[str | None, str | None, str]:
    location = resolve(table, client, sighting)
    return location.problem or (location.region.name if location.region else None), location.territory, location.why


def test_claim_reports_the_territory_with_its_rank() -> None:
    both = reported(EdgeReport(("FR",)), claim=claimed("DE"))
    assert located(both) == ("eu", "DE", "claim")
    later = with_rules(ALL, signals=("edge_header", "claim"))
    assert located(both, later) == ("eu", "FR", "edge_header")
    unlisted = with_rules(ALL, signals=("edge_header",))
    assert located(both.with_report("claim", claimed(problem=ClaimProblem.EXPIRED)), unlisted) == (
        "eu",
        "FR",
        "edge_header",
    )


def test_a_claim_without_a_territory_is_silent() -> None:
    assert located(reported(EdgeReport(("US",)), claim=claimed())) == ("us", "US", "edge_header")
    assert located(reported(EdgeReport(("US",)), claim=claimed("XX"))) == ("us", "US", "edge_header")


@pytest.mark.parametrize("client", [None, "app", "backend", "shop-cn"])
@pytest.mark.parametrize("problem", ClaimProblem)
def test_rejected_claim_never_falls_through_to_another_signal(problem: ClaimProblem, client: str | None) -> None:
    sighting = reported(EdgeReport(("US",)), asserted=("US",), claim=claimed(problem=problem))
    bound_client = CLIENTS[client] if client else None
    for unknown in ("refuse", "eu"):
        table = with_rules(ALL, unknown=unknown)
        location = resolve(table, bound_client, sighting)
        assert location.region is None
        assert location.why == "claim"
        refusal = refuse_location(table, location)
        if problem is ClaimProblem.UNCHECKED:
            assert location.problem is LocationProblem.CLAIM_UNCHECKED
            assert (refusal.code, refusal.retry_after_s) == (RefusalCode.NO_HEALTHY_DEPLOYMENT, 10)
        else:
            assert location.problem is LocationProblem.CLAIM
            assert refusal.code is RefusalCode.PERMISSION_DENIED
        assert problem.words in refusal.message
        assert "`x-gateway-claim`" in refusal.message


def test_blocked_territory_wins_over_a_rejected_claim() -> None:
    sighting = reported(EdgeReport(("CU",)), claim=claimed(problem=ClaimProblem.EXPIRED))
    assert located(sighting) == (LocationProblem.BLOCKED, "CU", "edge_header")
    assert located(reported(EdgeReport(("DE",)), claim=claimed("CU"))) == (LocationProblem.BLOCKED, "CU", "claim")
    blocked = located(reported(claim=claimed("CU")), client=CLIENTS["shop-cn"])
    assert blocked == (LocationProblem.BLOCKED, "CU", "claim")


def test_a_keys_region_is_final_before_a_claim_and_an_address() -> None:
    shop = CLIENTS["shop-cn"]
    elsewhere = reported(claim=claimed("US"), address=AddressReport("JP"))
    assert located(elsewhere, client=shop) == ("cn", None, "api_key")
    assert located(reported(claim=claimed("US"), address=AddressReport("CN")), client=shop) == ("cn", "CN", "api_key")


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (AddressReport("DE"), ("eu", "DE", "geoip")),
        (AddressReport("US", "CA"), ("us", "US-CA", "geoip")),
        (AddressReport("EU"), (LocationProblem.UNKNOWN, None, "unknown")),
        (AddressReport("CU"), (LocationProblem.BLOCKED, "CU", "geoip")),
        (AddressReport(note="silent: a private or reserved address"), (LocationProblem.UNKNOWN, None, "unknown")),
    ],
)
def test_an_address_has_a_territory_or_none(address: AddressReport, found: tuple[str, str | None, str]) -> None:
    assert located(reported(address=address)) == found


def test_an_address_that_is_silent_lets_another_signal_speak_and_one_that_hides_does_not() -> None:
    first = with_rules(ALL, signals=("geoip", "edge_header"))
    edge = EdgeReport(("DE",))
    assert located(reported(edge, address=AddressReport(note="silent: …")), first) == ("eu", "DE", "edge_header")
    assert located(reported(edge, address=AddressReport(hidden=True, note="hidden: …")), first)[0] == "unknown"
    assert located(reported(edge, address=AddressReport(hidden=True, note="hidden: …"))) == ("eu", "DE", "edge_header")
    assert located(reported(EdgeReport(("A1",)), address=AddressReport("DE")))[0] == "unknown"


# --- doubts ---------------------------------------------------------------------------------------

DOUBTFUL = {
    "an edge that says two things": reported(EdgeReport(("DE", "CU"))),
    "an edge that says nonsense": reported(EdgeReport(("Germany",))),
    "an edge that says two parts": reported(EdgeReport(("US",), ("CA", "NY"))),
    "an edge that says two parts, one of them empty": reported(EdgeReport(("US",), ("CA", ""))),
    "an edge that says another country's part": reported(EdgeReport(("US",), ("FR-75",))),
    "an edge that says a part of a part": reported(EdgeReport(("US-CA",), ("NY",))),
    **{f"an edge that says {part!a}": reported(EdgeReport(("US",), (part,))) for part in ("ß", "ﬁ", "ca\u0131")},
    "an edge with a wrong secret": reported(None, EdgeNote.UNPROVEN),
    "an address that is none": reported(address=AddressReport(note="in doubt: …", doubtful=True)),
}


@pytest.mark.parametrize("client", [None, "shop-cn"])
@pytest.mark.parametrize("unknown", ["refuse", "us"])
@pytest.mark.parametrize("doubt", DOUBTFUL)
def test_doubt_refuses_despite_other_signals_and_location_unknown(doubt: str, unknown: str, client: str | None) -> None:
    table = with_rules(ALL, unknown=unknown)
    sighting = DOUBTFUL[doubt].with_report("claim", claimed("DE"))
    location = resolve(table, CLIENTS[client] if client else None, sighting)
    assert location.problem is LocationProblem.UNKNOWN
    assert any(item.note.startswith("in doubt: ") for item in location.evidence)


# --- recorded evidence ----------------------------------------------------------------------------

BACKEND, SHOP = "backend", "shop-cn"
ON_RECORD: dict[str, tuple[str | None, Reports, tuple[str, ...]]] = {
    "a key of a region": (SHOP, reported(), ("api_key: shop-cn -> cn *",)),
    "a claim without a place": (None, reported(claim=ClaimReport(None)), ("claim: silent: it names no territory",)),
    "a claim that is not believed": (
        None,
        reported(claim=claimed(problem=ClaimProblem.EXPIRED)),
        ("claim: not accepted: it has expired",),
    ),
    "an assertion of a stranger": (
        None,
        reported(asserted=("CN", "DE")),
        ("assertion: CN, DE ignored: this key may not assert a territory",),
    ),
    "an edge without its secret": (
        None,
        reported(None, EdgeNote.STRANGER_WITHIN),
        ("edge_header: ignored: the edge's secret is missing",),
    ),
    "an edge that says nothing": (
        None,
        reported(EdgeReport(("",))),
        ("edge_header: silent: the territory is unknown",),
    ),
    "an edge that says a part": (None, reported(EdgeReport(("US",), ("NY",))), ("edge_header: US, NY -> us *",)),
    "an edge with an empty part": (None, reported(EdgeReport(("US",), ("",))), ("edge_header: US -> us *",)),
    "an edge with two parts": (
        None,
        reported(EdgeReport(("US",), ("", "NY"))),
        ("edge_header: US, , NY in doubt: not a territory code",),
    ),
    "Tor": (None, reported(EdgeReport(("T1",))), ("edge_header: T1 hidden: Tor, or an anonymous proxy; no territory",)),
    "an address that is silent": (None, reported(address=AddressReport(note="silent: x")), ("geoip: silent: x",)),
    "an address that hides": (
        None,
        reported(address=AddressReport("FR", hidden=True, note="hidden: x")),
        ("geoip: FR hidden: x",),
    ),
    "an address in doubt": (
        None,
        reported(address=AddressReport("FR", doubtful=True, note="in doubt: x")),
        ("geoip: FR in doubt: x",),
    ),
    "a blocked one": (None, seen("CU"), ("edge_header: CU -> default blocked *",)),
}


@pytest.mark.parametrize("name", ON_RECORD)
def test_evidence_records_each_signal(name: str) -> None:
    client, sighting, expected = ON_RECORD[name]
    location = resolve(ALL, CLIENTS[client] if client else None, sighting)
    shown = []
    for item in location.evidence:
        points = f"-> {item.region}" if item.region else ""
        words = [f"{item.signal}:", item.value, points, item.note, "*" if item.decided else ""]
        shown.append(" ".join(word for word in words if word))
    assert tuple(shown) == expected
    if location.region is None:
        problem = location.problem
        by = "claim" if problem is LocationProblem.CLAIM else "unknown"
        assert location.why == ("edge_header" if problem is LocationProblem.BLOCKED else by)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a" * 40, "a" * 40), ("a" * 41, "a" * 40 + "..."), ("a b~c", "a b~c"), ("a\x1fb\x7fc", "a?b?c"), ("é", "?")],
)
def test_evidence_is_short_visible_ascii(value: str, shown: str) -> None:
    assert resolve(ALL, None, reported(asserted=(value,))).evidence[0].value == shown


def test_territory_without_region_conflicts_with_one_in_a_region() -> None:
    table = table_of(BASE.merge(NO_DEFAULT_REGION))
    for edge, asserted in (("JP", "DE"), ("DE", "JP")):
        location = resolve(table, CLIENTS["backend"], seen(edge, (asserted,)))
        assert (location.problem, location.why) == (LocationProblem.CONFLICT, "conflict")
    assert resolve(table, CLIENTS["backend"], seen("JP", ("BR",))).problem is LocationProblem.BLOCKED


UNNAMED_CN = table_of(
    BASE.merge(
        "regions: {cn: null, hk: {territories: [HK], boundary: [CN]}}",
        "assistants: {assistant: {routes: {cn: null, hk: [qwen-cn]}}}",
        "clients: {shop-cn: {region: hk}}",
    )
)


@cases("edge", "asserted", "found")
def test_whose_prompts_must_stay_at_home_by_one_signal_is_not_taken_abroad_by_another(
    edge: str, asserted: str, found: tuple[str, str | None, str]
) -> None:
    location = resolve(UNNAMED_CN, CLIENTS["backend"], seen(edge, (asserted,)))
    assert (location.region.name if location.region else location.problem, location.territory, location.why) == found


def test_conflict_within_one_region_is_reported_with_territories() -> None:
    table = with_rules(UNNAMED_CN, conflict="refuse")
    location = resolve(table, CLIENTS["backend"], seen("CN", ("JP",)))
    assert location.problem is LocationProblem.CONFLICT
    refusal = refuse_location(table, location)
    assert refusal.message.endswith("contradict each other: assertion reports JP, edge_header reports CN")


def test_cell_abroad_counts_only_where_every_region_of_a_conflict_accepts_its_transit() -> None:
    transit = "regions: {cn: {territories: [HK], transit: [DE]}}"
    table = table_of(BASE.merge(transit, "cell: {territory: DE, serves: [cn, default]}"))
    assert region_of(table, CLIENTS["backend"], seen("JP", ("HK",))) == "cn"
    assert region_of(table, CLIENTS["backend"], seen("CN", ("HK",))) is None


@pytest.mark.parametrize(("boundary", "region"), [("RU", "part"), ("DE", None)])
def test_unknown_part_of_a_country_that_prompts_must_not_leave_keeps_the_region_inside(
    boundary: str, region: str | None
) -> None:
    table = table_of(BASE.merge(f"regions: {{part: {{territories: [RU-MOW], boundary: [{boundary}]}}}}"))
    assert region_of(table, None, seen("RU")) == region


# --- parts of countries ---------------------------------------------------------------------------

SPLIT = table_of(BASE.merge(SPLIT_COUNTRIES))
ACCEPTING = with_rules(SPLIT, country_only=frozenset({"UA", "US"}))


@cases("values", "parts", "found")
def test_the_part_decides_where_a_country_is_split(
    values: tuple[str, ...], parts: tuple[str, ...], found: tuple[str, str | None, str]
) -> None:
    assert located(reported(EdgeReport(values, parts)), SPLIT) == found


def test_country_without_its_part_is_accepted_where_the_operator_allows_it() -> None:
    assert located(reported(EdgeReport(("US",))), ACCEPTING) == ("us", "US", "edge_header")
    assert located(reported(EdgeReport(("UA",))), ACCEPTING) == ("default", "UA", "edge_header")
    assert located(reported(EdgeReport(("UA",), ("43",))), ACCEPTING)[0] == "blocked"


# California's prompts stay in California, so that its region is the stricter one.
STRICT = table_of(BASE.merge("regions: {ca: {territories: [US-CA], boundary: [US-CA]}}"))


def test_an_unknown_part_of_a_split_country_gets_the_stricter_region() -> None:
    country, part = reported(EdgeReport(("US",))), reported(EdgeReport(("US",), ("NY",)))
    assert located(country, STRICT) == ("ca", "US", "edge_header")
    assert located(part, STRICT) == ("us", "US-NY", "edge_header")
    won = next(item for item in resolve(STRICT, None, country).evidence if item.decided)
    assert won.note.endswith("the stricter one applies")


def test_unknown_part_is_refused_if_no_region_is_stricter() -> None:
    country = reported(EdgeReport(("US",)))
    refusing = with_rules(STRICT, conflict="refuse")
    assert located(country, refusing) == ("unknown", None, "unknown")
    us, ca = STRICT.regions["us"], STRICT.regions["ca"]
    # Without approvals, the smaller boundary is not the stricter region.
    asking = replace(us, approvals_required=True)
    apart = replace(ca, boundary=parse_places(["CA"]))
    for mine, parts in ((asking, ca), (us, apart), (us, replace(ca, boundary=us.boundary))):
        regions = {**STRICT.region_by_territory, "US": mine, "US-CA": parts}
        assert located(country, replace(STRICT, region_by_territory=regions)) == ("unknown", None, "unknown")
    both = {**STRICT.region_by_territory, "US": us, "US-CA": replace(ca, approvals_required=True)}
    assert located(country, replace(STRICT, region_by_territory=both))[0] == "ca"


@pytest.mark.parametrize("part", ["11", "99", "QQ", "043", "UA-99"])
def test_unknown_part_makes_the_location_doubtful(part: str) -> None:
    blocking = table_of(BASE.merge("{blocked: [UA-43], location: {accept_country_only: [UA]}}"))
    told = resolve(blocking, None, reported(EdgeReport(("UA",), (part,))))
    assert (told.problem, told.territory) == (LocationProblem.UNKNOWN, None)
    assert told.evidence[0].note == "in doubt: not a part of this country in ISO 3166-2"
    assert located(reported(EdgeReport(("UA",))), blocking)[1] == "UA"
    assert located(reported(EdgeReport(("UA",), ("30",))), blocking)[1] == "UA-30"


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("assertion", seen(asserted=("US-XX",))),
        ("claim", reported(claim=claimed("US-XX"))),
        ("edge_header", seen("US-XX")),
        ("geoip", reported(address=AddressReport("US", "06"))),
    ],
)
def test_signal_with_an_unknown_part_is_in_doubt(name: str, reports: Reports) -> None:
    client = replace(next(iter(CLIENTS.values())), region=None, may_assert=frozenset({"region", "territory"}))
    table = with_rules(STRICT, signals=(name,))
    assert resolve(table, client, reports).problem is LocationProblem.UNKNOWN


@pytest.mark.parametrize(("ruled", "part"), [("GB-ENG", "LND"), ("GB-LND", "ENG")])
def test_part_of_another_level_than_the_rule_is_in_doubt(ruled: str, part: str) -> None:
    """A rule for England covers London, and a caller in England may be in London."""
    blocking = table_of(BASE.merge(f"blocked: [{ruled}]"))
    assert resolve(blocking, None, reported(EdgeReport(("GB",), (part,)))).problem is LocationProblem.UNKNOWN
    assert located(reported(EdgeReport(("GB",), ("SCT",))), blocking)[1] == "GB-SCT"


def test_a_word_for_no_value_that_is_a_part_is_that_part() -> None:
    only = {"BR": STRICT.regions["us"], "BR-AP": STRICT.regions["ca"]}
    table = replace(STRICT, region_by_territory=only, default_region=None)
    assert located(reported(EdgeReport(("BR",), ("AP",))), table) == ("ca", "BR-AP", "edge_header")


@pytest.mark.parametrize("part", ["HCW", "99"])
def test_country_that_is_not_divided_is_known_without_its_part(part: str) -> None:
    table = table_of(BASE.merge("regions: {hk: {territories: [HK], boundary: [HK]}}"))
    assert located(reported(EdgeReport(("HK",), (part,))), table) == ("hk", "HK", "edge_header")


def test_a_part_alone_has_a_region_and_its_country_none() -> None:
    only = {"US-CA": STRICT.regions["ca"]}
    table = replace(STRICT, region_by_territory=only, default_region=None)
    assert located(reported(EdgeReport(("US",))), table) == ("unknown", None, "unknown")
    assert located(reported(EdgeReport(("US",), ("CA",))), table) == ("ca", "US-CA", "edge_header")


@pytest.mark.parametrize("table", [SPLIT, STRICT])
def test_signal_with_the_part_decides_for_a_signal_with_the_country(table: ConfigVersion) -> None:
    edge = EdgeReport(("US",))
    known = with_rules(table, signals=("edge_header", "claim", "geoip"))
    assert located(reported(edge, claim=claimed("US-NY")), known) == ("us", "US-NY", "claim")
    assert located(reported(edge, address=AddressReport("US", "CA")), known) == ("ca", "US-CA", "geoip")
    elsewhere = located(reported(edge, address=AddressReport("DE")), known)
    assert elsewhere[0] == ("unknown" if table is SPLIT else "conflict")


def test_region_of_a_key_is_final_in_a_split_country() -> None:
    edge = reported(EdgeReport(("US",)))
    assert located(edge, SPLIT, CLIENTS["shop-cn"]) == ("cn", None, "api_key")
    assert located(reported(EdgeReport(("UA",))), SPLIT, CLIENTS["shop-cn"])[0] == "blocked"


def test_part_is_preferred_to_its_country() -> None:
    table = with_rules(ACCEPTING, signals=("edge_header", "geoip"))
    sighting = reported(EdgeReport(("US",)), address=AddressReport("US", "CA"))
    assert located(sighting, table) == ("ca", "US-CA", "geoip")
    other_way = reported(EdgeReport(("US",), ("CA",)), address=AddressReport("US"))
    assert located(other_way, table) == ("ca", "US-CA", "edge_header")


@pytest.mark.parametrize(
    ("asserted", "edge", "territory"),
    [("UA", "UA-43", "UA-43"), ("UA-43", "UA", "UA-43"), ("UA-30", "UA-43", "UA-30"), ("UA", "VN", "UA")],
)
def test_a_part_that_another_signal_names_is_where_a_bound_key_s_caller_is(
    asserted: str, edge: str, territory: str
) -> None:
    """A vendor may serve the country, and not that part of it."""
    bound = replace(CLIENTS["shop-cn"], region="default", may_assert=frozenset({"territory"}))
    location = resolve(TABLE, bound, seen(edge, (asserted,)))
    assert (location.region and location.region.name, location.territory) == ("default", territory)


@pytest.mark.parametrize("boundary", ["CN", "CN, JP"])
def test_caller_bound_to_a_region_is_located_within_its_country(boundary: str) -> None:
    """For an unknown territory, the gateway checks neither whom a vendor serves nor whether prompts must stay at home."""
    table = table_of(
        BASE.merge(
            f"regions: {{cn: null, part: {{territories: [CN-BJ], boundary: [{boundary}]}}}}",
            "assistants: {assistant: {routes: {cn: null, part: [qwen-cn]}}}",
            "clients: {shop-cn: {region: default}}",
        )
    )
    for code, region, territory in (("CN", "default", "CN"), ("CN-SH", "default", "CN-SH"), ("CN-BJ", "default", None)):
        client = next(client for client in table.clients.values() if client.name == "shop-cn")
        location = resolve(table, client, seen(code))
        assert (location.region and location.region.name, location.territory) == (region, territory)


@cases("region", "signals", "territory")
def test_weaker_signals_do_not_locate_a_bound_caller_with_a_hidden_location(
    region: str, signals: tuple[str, str], territory: str | None
) -> None:
    """In a region of `*`, a territory only ever forbids: it still counts."""
    table = with_rules(TABLE, signals=("edge_header", "geoip", "api_key"))
    bound = replace(CLIENTS["shop-cn"], region=region)
    edge, address = signals
    sighting = reported(EdgeReport((edge,)), address=AddressReport(address))
    assert located(sighting, table, bound) == (region, territory, "api_key")


@pytest.mark.parametrize(
    ("demo", "edge", "found"),
    [
        *((code, None, (region, code, "demo_territory")) for code, region in (("JP", "default"), ("DE", "eu"))),
        ("CU", None, (LocationProblem.BLOCKED, "CU", "demo_territory")),
        *(("JP", edge, (LocationProblem.UNKNOWN, None, "unknown")) for edge in ("XX", "T1", "not-a-code", "")),
        ("JP", "CN", ("cn", "CN", "edge_header")),
        (None, None, (LocationProblem.UNKNOWN, None, "unknown")),
    ],
)
def test_demo_locates_a_caller_of_whom_no_signal_speaks(
    demo: str | None, edge: str | None, found: tuple[str, str | None, str]
) -> None:
    assert located(seen(edge), with_rules(TABLE, demo_territory=demo)) == found
