"""Authentication and location signals of a caller, read from the headers, and headers that are not trusted."""

import hashlib
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.caller.authentication import authenticate, key_digest
from gateway.api.caller.request_headers import (
    KnownCaller,
    headers_of,
    known_caller,
    read_context,
    remember_caller,
    request_id_of,
)
from gateway.api.connection import SameHead
from gateway.api.errors import ApiError, from_domain
from gateway.config.examples import example_path
from gateway.config.problems import ConfigRejected
from gateway.config.sensitive_keys import without_secrets
from gateway.model.caller import RequestHeaders
from gateway.model.config_version import ConfigVersion, Cors
from gateway.model.location import AddressReport, ClaimProblem, ClaimReport
from gateway.model.location_rules import LocationRules
from gateway.policy.caller import timeout_s
from gateway.policy.location import SIGNALS, SignalLocator
from gateway.policy.location.claim import ClaimQuestion
from gateway.policy.location.resolution import address_of
from gateway.policy.location.signal import Signal
from gateway.policy.location.signals import EdgeReport
from gateway.policy.location.trusted_edge import EdgeNote
from gateway.service.client_admin import FileClients
from providers.failures import InvalidRequest
from tests.gateway.api.caller.visits import visit
from tests.gateway.location_reports import caller_of, report_signals, reported
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, Config, table_of
from tests.kit.location_signals import ALL, NAMES, edge_trial, listing, registered, trial

KEY = "gk-app-key"
OTHER = "gk-sch\u00f6n"


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def with_keys(app: str = KEY, backend: str = OTHER) -> Config:
    """The base configuration whose clients have these keys."""
    keys = {"app": app, "backend": backend}
    return BASE.merge({"clients": {name: {"keys": [f"sha256:{hashed(key)}"]} for name, key in keys.items()}})


def with_edges(edges: str) -> ConfigVersion:
    """The same with this list of edges."""
    return table_of(with_keys().merge(f"location: {{edges: [{edges}]}}"))


TABLE = table_of(with_keys())
WITHOUT_CLIENTS = table_of(BASE.without("clients"))
DEMO = table_of(Config.parse(example_path("demo.yaml").read_text("utf-8")))
SECRET_EDGE = with_edges(
    '{from: [127.0.0.0/8], country: CF-IPCountry, secret: {header: X-Edge-Auth, value: "${EDGE_SECRET}"}}'
)


def timeout_of(headers: RequestHeaders) -> float:
    return timeout_s(read_context(TABLE, headers).timeout)


def name_of(table: ConfigVersion, visitor: RequestHeaders) -> str:
    client = authenticate(table, visitor)
    return client.name


def refusal_of(table: ConfigVersion, visitor: RequestHeaders) -> tuple[int, str]:
    with pytest.raises(ApiError) as raised:
        authenticate(table, visitor)
    assert KEY not in str(raised.value)
    return raised.value.status, raised.value.code


# --- headers --------------------------------------------------------------------------------------


def test_headers_of_keeps_repeated_values_peer_and_query() -> None:
    visitor = visit(("a", "1"), ("b", b"\xe9"), ("a", "2"), query="x=y")
    assert visitor.all(b"a") == ("1", "2")
    assert (visitor.one(b"a"), visitor.one(b"b"), visitor.one(b"c")) == ("1", "é", None)
    assert visitor.all(b"c") == ()
    assert (visitor.header_bytes, visitor.peer, visitor.query) == (6, "127.0.0.1", "x=y")
    assert headers_of({"headers": [], "query_string": b""}).peer is None


@pytest.mark.parametrize("value", ["1500 ", "1500\t", " 1500", " \t1500\t "])
def test_space_around_a_header_value_is_removed(value: str) -> None:
    """RFC 9110, section 5.5. uvicorn's parser keeps the space at the end."""
    visitor = visit(("x-gateway-timeout-ms", value), ("x-request-id", value))
    assert visitor.all(b"x-request-id") == ("1500",)
    assert (timeout_of(visitor), request_id_of(visitor)) == (1.5, "1500")


def test_unicode_space_in_a_header_value_is_kept() -> None:
    assert visit(("a", b"b\xa0")).one(b"a") == "b\xa0"


@pytest.mark.parametrize("given_id", ["a", "my-id.1:2_3", "x" * 128])
def test_valid_request_id_is_kept(given_id: str) -> None:
    assert request_id_of(visit(("x-request-id", given_id))) == given_id


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 129, "a\nb", "é", '"', "<script>"])
def test_any_other_is_replaced(given_id: str) -> None:
    assert request_id_of(visit(("x-request-id", given_id))).startswith("req_")


def test_generated_request_ids_are_unique() -> None:
    ids = [request_id_of(visit()) for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(request_id_of(visit(("x-request-id", made))) == made for made in ids)


@pytest.mark.parametrize(("value", "seconds"), [("1", 0.001), ("1500", 1.5), ("0010", 0.01), ("999999999", 999999.999)])
def test_timeout_header_is_in_milliseconds(value: str, seconds: float) -> None:
    assert timeout_of(visit(("x-gateway-timeout-ms", value))) == seconds


def test_two_timeouts_are_refused() -> None:
    name = "x-gateway-timeout-ms"
    assert timeout_of(visit((name, "1500"), (name, "1500"))) == 1.5
    with pytest.raises(InvalidRequest, match="more than once"):
        timeout_of(visit((name, "1500"), (name, "100")))


@pytest.mark.parametrize("value", ["", "0", "000", "-1", "+1", "1.5", "1e3", "٣", b"\xb2", "1 0", "9" * 10, "abc"])
def test_invalid_timeout_is_refused(value: str | bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        timeout_of(visit(("x-gateway-timeout-ms", value)))
    assert from_domain(raised.value, []).code == "invalid_request"


# --- keys -----------------------------------------------------------------------------------------


@cases("pairs")
def test_key_identifies_its_client(pairs: list[tuple[str, str]]) -> None:
    assert name_of(TABLE, visit(*pairs)) == "app"


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
@pytest.mark.parametrize("key", [OTHER, "gk-voil\u00e0", "gk-\u00c5"])
def test_key_is_accepted_in_utf_8_and_latin_1(key: str, charset: str, name: str) -> None:
    """The last byte of some letters is a space in another charset."""
    value = f"Bearer {key}" if name == "authorization" else key
    assert name_of(table_of(with_keys(backend=key)), visit((name, value.encode(charset)))) == "backend"


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", f"Basic {KEY}")],
        [("authorization", f"Digest {KEY}")],
        [("authorization", KEY)],
        [("authorization", f"Bearer {KEY}x")],
        [("authorization", f"Bearer {hashed(KEY)}")],
        [("x-api-key", "")],
        [("x-api-key", KEY), ("x-api-key", OTHER)],
        [("x-api-key", "wrong"), ("authorization", f"Bearer {KEY}")],
        [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {OTHER}")],
        [("authorization", "Bearer wrong"), ("authorization", f"Bearer {KEY}")],
        [("authorization", f"Bearer {KEY}"), ("authorization", "Basic eDp5")],
        [("cookie", f"key={KEY}")],
        [("api-key", "")],
        [("api-key", "wrong")],
        [("api-key", OTHER), ("authorization", f"Bearer {KEY}")],
        [("api-key", KEY), ("x-goog-api-key", OTHER)],
        [("apikey", KEY)],
    ],
)
def test_anything_else_is_refused(pairs: list[tuple[str, str]]) -> None:
    assert refusal_of(TABLE, visit(*pairs)) == (401, "invalid_api_key")


@pytest.mark.parametrize("query", [f"key={KEY}", f"a=b&API_KEY={KEY}", f"access_token={KEY}", "key=", "%6bey=x"])
def test_key_in_the_query_is_refused_even_with_a_valid_key_in_a_header(query: str) -> None:
    assert refusal_of(TABLE, visit(("authorization", f"Bearer {KEY}"), query=query)) == (401, "invalid_api_key")
    assert refusal_of(WITHOUT_CLIENTS, visit(query=query)) == (401, "invalid_api_key")


@pytest.mark.parametrize("query", ["", "a=b", "monkey=1", "apikey=1"])
def test_other_query_parameters_are_ignored(query: str) -> None:
    assert authenticate(TABLE, visit(("x-api-key", KEY), query=query)) is not None


def test_headers_are_bounded_before_anything_is_read_in_them() -> None:
    assert refusal_of(TABLE, visit(("x", "a" * 65_536), ("x-api-key", KEY))) == (431, "headers_too_large")
    assert refusal_of(WITHOUT_CLIENTS, visit(("x", "a" * 65_536))) == (431, "headers_too_large")
    rest = 65_536 - len("x" + "x-api-key" + KEY)
    assert authenticate(TABLE, visit(("x", "a" * rest), ("x-api-key", KEY))) is not None
    assert refusal_of(TABLE, visit(("x", "a" * (rest + 1)), ("x-api-key", KEY))) == (431, "headers_too_large")


@given(value=st.binary(max_size=40))
def test_any_bytes_of_a_key_are_handled(value: bytes) -> None:
    for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
        with pytest.raises(ApiError):
            authenticate(TABLE, visit((name, value)))


# --- without clients ------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_gateway_without_clients_serves_the_local_machine(peer: str) -> None:
    assert authenticate(WITHOUT_CLIENTS, visit(("x-anything", "1"), peer=peer)) is None


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "x", "", None]
)
def test_gateway_without_clients_and_a_demo_refuse_other_machines(peer: str | None) -> None:
    assert refusal_of(WITHOUT_CLIENTS, visit(peer=peer)) == (403, "permission_denied")
    assert refusal_of(DEMO, visit(peer=peer)) == (403, "permission_denied")


def test_refusal_of_a_demo_states_how_other_machines_are_served() -> None:
    with pytest.raises(ApiError, match=r"a demo serves its own machine only: serve a config with `clients`"):
        authenticate(DEMO, visit(peer="10.0.0.1"))


def test_demo_takes_any_key_and_the_headers_of_an_edge_from_this_machine() -> None:
    pairs = ("authorization", "Bearer anything"), ("cf-ipcountry", "DE"), ("host", "localhost:8080")
    assert authenticate(DEMO, visit(*pairs)) is None
    assert key_digest(DEMO, visit(*pairs)) == ""


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
def test_gateway_without_clients_and_a_demo_refuse_pages_of_other_sites(origin: str) -> None:
    for config in (WITHOUT_CLIENTS, DEMO):
        assert refusal_of(config, visit(("host", "localhost:8080"), ("origin", origin))) == (403, "permission_denied")
        both = ("origin", "http://localhost:8080"), ("origin", origin)
        assert refusal_of(config, visit(("host", "localhost:8080"), *both)) == (403, "permission_denied")
    listed = replace(WITHOUT_CLIENTS, cors=Cors(frozenset({origin})))
    assert authenticate(listed, visit(("origin", origin))) is None


def test_gateway_without_clients_and_a_demo_accept_their_own_pages() -> None:
    assert authenticate(WITHOUT_CLIENTS, visit(("host", "gateway:8080"), ("origin", "http://gateway:8080"))) is None
    assert authenticate(DEMO, visit(("host", "localhost:8080"), ("origin", "http://localhost:8080"))) is None
    # A demo may be called by pages of this machine, from any port.
    assert authenticate(DEMO, visit(("host", "127.0.0.1:8080"), ("origin", "http://localhost:5173"))) is None


@cases("name")
def test_gateway_without_clients_refuses_proxied_requests(name: str) -> None:
    assert refusal_of(WITHOUT_CLIENTS, visit((name, "x"))) == (403, "permission_denied")
    with pytest.raises(ApiError, match=name):
        authenticate(WITHOUT_CLIENTS, visit((name, "x")))


@cases("host")
def test_gateway_without_clients_refuses_requests_of_web_pages(host: str) -> None:
    """Its name may be resolved to this machine's address (DNS rebinding); a page has no address, and no name without a dot."""
    assert refusal_of(WITHOUT_CLIENTS, visit(("host", host))) == (403, "permission_denied")
    assert refusal_of(DEMO, visit(("host", host))) == (403, "permission_denied")
    assert authenticate(TABLE, visit(("host", host), ("x-api-key", KEY))) is not None


@cases("host")
def test_gateway_without_clients_accepts_local_host_names(host: str) -> None:
    assert authenticate(WITHOUT_CLIENTS, visit(("host", host))) is None


@pytest.mark.parametrize(
    "host", ["gateway", "evil.localhost", "gateway.internal:8080", "a.test", "10.1.2.3", "0.0.0.0:80"]
)
def test_demo_accepts_only_host_names_of_loopback(host: str) -> None:
    """The page of the demo has the same rule: the name server of a network may resolve any other name to this machine."""
    assert refusal_of(DEMO, visit(("host", host))) == (403, "permission_denied")
    for own in ("localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert authenticate(DEMO, visit(("host", own))) is None


@pytest.mark.parametrize("name", NAMES)
def test_without_clients_every_header_of_a_signal_that_reads_edges_is_refused(name: str) -> None:
    config = replace(WITHOUT_CLIENTS, location=SignalLocator(ALL))
    for header in SIGNALS[name].headers(ALL):
        if SIGNALS[name].reads_edges:
            assert refusal_of(config, visit((header, "x"))) == (403, "permission_denied")
        else:
            assert authenticate(config, visit((header, "x"))) is None


@pytest.mark.parametrize("signal", [trial(), edge_trial()])
def test_without_clients_the_header_of_a_trial_signal_is_refused_if_it_reads_edges(signal: Signal) -> None:
    with registered(signal):
        config = listing("api_key", config=WITHOUT_CLIENTS)
        if signal.reads_edges:
            assert refusal_of(config, visit(("x-trial", "DE"))) == (403, "permission_denied")
        else:
            assert authenticate(config, visit(("x-trial", "DE"))) is None


# --- location signals -----------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.255.0.9", "::ffff:127.0.0.1"])
def test_header_of_a_trusted_edge_is_used(peer: str) -> None:
    seen = report_signals(TABLE, visit(("cf-ipcountry", "DE"), peer=peer))
    assert seen == reported(EdgeReport(("DE",)))


def test_every_value_of_the_edge_header_is_reported() -> None:
    seen = report_signals(TABLE, visit(("cf-ipcountry", "DE"), ("cf-ipcountry", "CN")))
    assert seen.get("edge_header") == EdgeReport(("DE", "CN"))


@pytest.mark.parametrize("peer", ["10.0.0.1", "::1", "128.0.0.1", "nonsense", None])
def test_edge_header_from_an_untrusted_address_is_ignored_and_noted(peer: str | None) -> None:
    assert report_signals(TABLE, visit(("cf-ipcountry", "DE"), peer=peer)) == reported(None, EdgeNote.STRANGER)
    assert report_signals(TABLE, visit(peer=peer)) == reported()


def test_edge_without_its_header_reports_no_location() -> None:
    assert report_signals(TABLE, visit(("x-country", "DE"), ("x-forwarded-for", "1.2.3.4"))) == reported()


def test_asserted_territories_are_reported_for_every_caller() -> None:
    seen = report_signals(TABLE, visit(("x-gateway-territory", "CN"), ("x-gateway-territory", "DE"), peer="8.8.8.8"))
    assert seen == reported(asserted=("CN", "DE"))


@pytest.mark.parametrize(
    ("secrets", "believed"),
    [
        ([KEYS["EDGE_SECRET"]], True),
        ([], False),
        ([""], False),
        (["wrong"], False),
        ([KEYS["EDGE_SECRET"], KEYS["EDGE_SECRET"]], False),
        (["wrong", KEYS["EDGE_SECRET"]], False),
        ([KEYS["EDGE_SECRET"].upper()], False),
        ([KEYS["EDGE_SECRET"] + " "], False),
    ],
)
def test_edge_with_a_configured_secret_must_send_it(secrets: list[str], believed: bool) -> None:
    pairs = [("cf-ipcountry", "DE"), *(("x-edge-auth", secret) for secret in secrets)]
    seen = report_signals(SECRET_EDGE, visit(*pairs))
    if believed:
        assert seen.get("edge_header") == EdgeReport(("DE",))
    else:
        assert seen == reported(None, EdgeNote.UNPROVEN if secrets else EdgeNote.STRANGER_WITHIN)
    assert report_signals(SECRET_EDGE, visit(*pairs, peer="8.8.8.8")) == reported(None, EdgeNote.STRANGER)


@pytest.mark.parametrize("secret", ["the new secret", KEYS["EDGE_SECRET"]])
def test_edge_may_send_the_new_and_the_former_version_of_its_secret(secret: str) -> None:
    table = with_edges(
        "{from: [127.0.0.0/8], country: CF-IPCountry,"
        ' secret: {header: X-Edge-Auth, value: ["the new secret", "${EDGE_SECRET}"]}}'
    )
    seen = report_signals(table, visit(("cf-ipcountry", "DE"), ("x-edge-auth", secret)))
    assert seen.get("edge_header") == EdgeReport(("DE",))


def test_edge_header_is_ignored_without_a_trusted_edge() -> None:
    table: Any = table_of(BASE.merge("location: {edges: null}"))
    assert report_signals(table, visit(("cf-ipcountry", "DE"))) == reported()


# --- parts, addresses and claims ------------------------------------------------------------------

FULL = with_edges(
    "{from: [127.0.0.0/8], country: CF-IPCountry, subdivision: CF-Region-Code, client_ip: X-Forwarded-For},"
    ' {from: [192.0.2.0/24], country: C, client_ip: Real, secret: {header: X-Edge-Auth, value: "${EDGE_SECRET}"}},'
    " {from: [198.51.100.0/24], country: C}"
)


def test_each_edge_is_recognised_by_its_networks_and_its_own_header() -> None:
    table = with_edges("{from: [127.0.0.0/8, 10.0.0.0/8], country: CF-IPCountry}, {from: [192.0.2.0/24], country: C}")
    for peer, name in [("127.0.0.1", "cf-ipcountry"), ("10.1.2.3", "cf-ipcountry"), ("192.0.2.1", "c")]:
        assert report_signals(table, visit((name, "DE"), peer=peer)) == reported(EdgeReport(("DE",)))
        assert report_signals(table, visit((name, "DE"), peer="8.8.8.8")) == reported(None, EdgeNote.STRANGER)


def test_edge_reports_the_subdivision_in_its_own_header() -> None:
    both = visit(("cf-ipcountry", "US"), ("cf-region-code", "CA"))
    assert report_signals(FULL, both) == reported(EdgeReport(("US",), ("CA",)))
    assert report_signals(FULL, visit(("cf-region-code", "CA"))) == reported()
    assert report_signals(TABLE, both) == reported(EdgeReport(("US",)))


def address(visitor: RequestHeaders) -> str:
    found = address_of(FULL, visitor)
    return found.note if isinstance(found, AddressReport) else str(found)


def test_address_is_the_peers_or_the_one_that_its_edge_reports() -> None:
    spoofed = ("x-forwarded-for", "1.1.1.1")
    assert address(visit(spoofed, peer="203.0.113.9")) == "203.0.113.9"
    assert address(visit(spoofed, peer="::ffff:203.0.113.9")) == "203.0.113.9"
    assert address(visit(peer=None)) == "silent: the peer has no address"
    assert address(visit(("x-forwarded-for", "1.1.1.1, 8.8.8.8"))) == "8.8.8.8"
    assert address(visit(("x-forwarded-for", "8.8.8.8, 198.51.100.7, 127.0.0.5"))) == "8.8.8.8"
    assert address(visit()) == "silent: the edge reports no address"
    assert address(visit(spoofed, peer="198.51.100.7")) == "silent: the edge reports no address"


def test_networks_of_an_edge_with_a_secret_are_not_proxies() -> None:
    """Other hosts may use the networks of the edge. Only a request with the secret comes from the edge."""
    assert address(visit(("x-forwarded-for", "8.8.8.8, 192.0.2.7"))) == "192.0.2.7"


def test_edge_without_its_secret_reports_no_address() -> None:
    real, secret = ("real", "8.8.8.8"), ("x-edge-auth", KEYS["EDGE_SECRET"])
    assert address(visit(real, peer="192.0.2.7")) == "silent: the peer did not send the secret of the edge"
    assert address(visit(real, secret, peer="192.0.2.7")) == "8.8.8.8"


@pytest.mark.parametrize("secrets", [["wrong"], ["wrong", KEYS["EDGE_SECRET"]], [KEYS["EDGE_SECRET"]] * 2])
def test_wrong_or_repeated_edge_secret_makes_the_address_doubtful(secrets: list[str]) -> None:
    """A client may have sent it through the edge, to have its address passed over."""
    pairs = [("real", "8.8.8.8"), *(("x-edge-auth", secret) for secret in secrets)]
    found = address_of(FULL, visit(*pairs, peer="192.0.2.7"))
    assert isinstance(found, AddressReport)
    assert found.doubtful


def test_edge_without_its_secret_is_untrusted_and_with_a_wrong_one_unproven() -> None:
    assert report_signals(FULL, visit(peer="192.0.2.7")) == reported()
    assert report_signals(FULL, visit(("c", "DE"), peer="192.0.2.7")) == reported(None, EdgeNote.STRANGER_WITHIN)
    assert report_signals(FULL, visit(("x-edge-auth", "x"), peer="192.0.2.7")) == reported(None, EdgeNote.UNPROVEN)


def test_several_claims_are_rejected_and_one_is_verified() -> None:
    claims = replace(TABLE, location=SignalLocator(LocationRules(signals=("claim",))))
    several = report_signals(claims, visit(("x-gateway-claim", "a"), ("x-gateway-claim", "b")))
    assert several == reported(claim=ClaimReport(problem=ClaimProblem.REPEATED))
    assert report_signals(claims, visit(("x-gateway-claim", "a"))).get("claim") == ClaimQuestion("a")
    assert report_signals(claims, visit()) == reported()


def test_gateway_without_clients_refuses_every_header_of_an_edge() -> None:
    edge = "{from: [127.0.0.0/8], country: C, subdivision: Part, client_ip: Real}"
    table = table_of(BASE.without("clients").merge(f"location: {{edges: [{edge}]}}"))
    for name in ("c", "part", "real"):
        assert refusal_of(table, visit((name, "x"))) == (403, "permission_denied")


def test_key_of_the_file_works_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused as a stored key that has expired is, also on a connection that knows its caller."""
    keys = [{"hash": f"sha256:{hashed(KEY)}", "expires": "2027-05-01T00:00:00Z"}, f"sha256:{hashed(OTHER)}"]
    config = table_of(BASE.without("clients").merge({"clients": {"app": {"keys": keys}}}))
    end_s = 1_809_129_600.0  # 2027-05-01
    headers = visit(("authorization", f"Bearer {KEY}"))
    head = SameHead()
    for now_s, works in ((end_s - 1, True), (end_s, False)):
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        [shown] = [key for key in FileClients(config).list_keys()["keys"] if "expires_at" in key]  # type: ignore[attr-defined]
        assert (shown["status"], shown["expires_at"]) == ("valid" if works else "expired", "2027-05-01T00:00:00+00:00")
        assert authenticate(config, visit(("authorization", f"Bearer {OTHER}"))) is not None
        if works:
            client = authenticate(config, headers)
            assert client is not None
            remember_caller(head, KnownCaller(config, headers, caller_of(config, client, headers)))
            assert known_caller(head, config) is not None
        else:
            with pytest.raises(ApiError, match="has expired") as refused:
                authenticate(config, headers)
            assert refused.value.code == "invalid_api_key"
            assert known_caller(head, config) is None


@pytest.mark.parametrize("expires", ["2027-05-01", "2027-05-01T00:00:00", "soon", 1_800_000_000])
def test_end_of_a_key_is_a_time_with_its_zone(expires: Any) -> None:
    entry = {"hash": f"sha256:{hashed(KEY)}", "expires": expires}
    config = BASE.without("clients").merge({"clients": {"app": {"keys": [entry]}}})
    with pytest.raises(ConfigRejected, match="must be a time with its zone"):
        table_of(config)


def test_plan_shows_the_end_of_a_key_and_not_its_hash() -> None:
    digest = hashed(KEY)
    before, after = ({"clients": {"app": {"keys": keys}}} for keys in ([f"sha256:{digest}"], [{"hash": digest}]))
    for values in (before, after):
        assert digest not in repr(without_secrets((), values))
