"""The registry of location signals: every signal is complete, and the cache key has every header that it reads."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema.file import ClientSection
from gateway.model.caller import RequestHeaders
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Location, Question, reports_of
from gateway.model.location_rules import LocationRules
from gateway.policy.location import SIGNALS, SignalLocator, can_locate, location_key, resolve
from gateway.policy.location.resolution import locator_of
from gateway.policy.location.signal import Signal
from gateway.service.location import LocationService, locate
from tests.gateway.location_reports import caller_of
from tests.kit.configs import BASE, table_of
from tests.kit.location_signals import ALL, EXAMPLES, NAMES, edge_trial, trial, with_another, with_only

if TYPE_CHECKING:
    from gateway.execution.service_client import ServiceClient

TABLE = table_of(BASE)
PEER = "10.1.2.3"
EVERY_HEADER = sorted({header.lower() for signal in SIGNALS.values() for header in signal.headers(ALL)})


def config_with(rules: LocationRules) -> ConfigVersion:
    return replace(TABLE, location=SignalLocator(rules))


def request_of(headers: dict[str, bytes], peer: str = PEER) -> RequestHeaders:
    return RequestHeaders({name.encode(): value for name, value in headers.items()}, 100, peer, "")


# --- the registry ---------------------------------------------------------------------------------


def test_tests_configure_every_signal_that_has_a_section_of_its_own() -> None:
    """Without its section a signal reports nothing, and a header that it does not declare would go unnoticed."""
    own = {name: signal.settings.rules for name, signal in SIGNALS.items() if signal.settings is not None}
    assert {*EXAMPLES} == {*own}, "add the section of the signal to EXAMPLES"
    assert {type(rules) for rules in ALL.own} == {*own.values()}


@pytest.mark.parametrize("name", NAMES)
def test_signal_that_depends_on_the_edges_declares_it(name: str) -> None:
    signal = SIGNALS[name]
    depends = signal.section == "edges" or {*signal.headers(ALL)} != {*signal.headers(replace(ALL, edges=()))}
    assert signal.reads_edges == depends


@pytest.mark.parametrize("name", NAMES)
def test_right_that_a_signal_needs_is_one_of_may_assert(name: str) -> None:
    right = SIGNALS[name].client_right
    accepted = ClientSection.model_fields["may_assert"].annotation
    assert right is None or right in get_args(get_args(accepted)[0])


@pytest.mark.parametrize("name", NAMES)
def test_signal_locates_callers_only_where_it_is_set_up(name: str) -> None:
    complete = with_only(name)
    assert SIGNALS[name].can_locate(complete)
    assert can_locate(complete)
    others = {other.name for other in SIGNALS.values() if other.can_locate(complete)} - {name}
    assert others <= {it.name for it in SIGNALS.values() if it.section == "edges" and SIGNALS[name].reads_edges}
    empty = replace(complete, clients={}, location=SignalLocator(LocationRules(NAMES)))
    assert not SIGNALS[name].can_locate(empty)
    assert not can_locate(empty)


@pytest.mark.parametrize("name", NAMES)
def test_signal_that_is_not_listed_locates_no_caller(name: str) -> None:
    """The region of a client is the exception: it is final, also if `api_key` is not listed."""
    assert can_locate(with_another(name)) == (name == "api_key")


@pytest.mark.parametrize("name", NAMES)
def test_headers_of_signals_that_read_edges_are_headers_of_a_proxy(name: str) -> None:
    """Also if the signal is not listed."""
    signal = SIGNALS[name]
    edge_headers = SignalLocator(replace(ALL, signals=("api_key",))).edge_headers
    assert {*signal.headers(ALL)} & edge_headers == ({*signal.headers(ALL)} if signal.reads_edges else set())


@pytest.mark.parametrize("name", NAMES)
def test_request_without_location_headers_has_no_report_of_any_signal(name: str) -> None:
    """Only the address is always expected, so its absence is reported."""
    locator = SignalLocator(replace(ALL, signals=(name,)))
    report = locator.report(location_key(config_with(locator.rules), None, request_of({}))).get(name)
    assert (report is None) == (name != "geoip")


@pytest.mark.parametrize("name", NAMES)
def test_supposed_report_is_read_as_the_supposed_territory(name: str) -> None:
    config = config_with(replace(ALL, signals=(name,)))
    supposed = SIGNALS[name].suppose("DE")
    reading = SIGNALS[name].read(config, None, reports_of({name: supposed}))
    assert (reading is not None and reading.evidence.territory == "DE") == (supposed is not None)


def test_locators_with_equal_rules_are_equal() -> None:
    locator = SignalLocator(ALL)
    copy = pickle.loads(pickle.dumps(locator))  # noqa: S301  # our own
    assert copy == locator
    assert (copy.headers, copy.needs_lookup) == (locator.headers, locator.needs_lookup)
    assert copy.signals == locator.signals
    assert locator != SignalLocator(replace(ALL, conflict="refuse"))


# --- cached locations -----------------------------------------------------------------------------


def test_location_key_contains_only_headers_of_listed_signals() -> None:
    """Behind a CDN, each user has a different address, which only the signal `geoip` reads."""
    for name, signal in SIGNALS.items():
        read = SignalLocator(replace(ALL, signals=(name,))).headers
        assert {*read} == {header.lower().encode() for header in signal.headers(ALL)}
    assert SignalLocator(replace(ALL, signals=("api_key", "assertion"))).headers == (b"x-gateway-territory",)


values = st.sampled_from([None, b"", b"DE", b"CN", b"word", b"10.0.0.1", b"for=8.8.8.8"])


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    st.fixed_dictionaries(dict.fromkeys(EVERY_HEADER, values)),
    st.sampled_from(EVERY_HEADER),
    values,
    st.sampled_from([PEER, "192.0.2.1", "203.0.113.1", None]),
)
def test_two_requests_that_differ_in_one_header_of_the_config_never_share_a_cached_location(
    names: list[str], given_headers: dict[str, bytes | None], name: str, other: bytes | None, peer: str | None
) -> None:
    config = config_with(replace(ALL, signals=tuple(names)))
    sent = {header: value for header, value in given_headers.items() if value is not None}
    changed = {header: value for header, value in {**sent, name: other}.items() if value is not None}
    one, two = (location_key(config, None, request_of(headers, peer or "")) for headers in (sent, changed))
    report = locator_of(config).report
    is_read = name.encode() in config.location.headers
    assert (one == two) == (not is_read or sent == changed)
    # A header that is not read changes nothing: also where every signal may see it, no report depends on it.
    if not is_read:
        assert report(one) == report(two)


# --- forged stamps --------------------------------------------------------------------------------

HONEST = {"x-country": b"DE", "x-part": b"BE", "x-ip": b"127.0.0.1", "x-proof": b"word", "x-gateway-territory": b"DE"}
"""The headers that a trusted edge, and a backend that may assert a territory, send for a client in Germany."""
BACKEND = Client("app", may_assert=frozenset({"territory"}))
WITHOUT_HEADERS = {"api_key"}
"""The stamp of this signal is the key itself: an unknown one is 401."""


def forgeries() -> Iterator[tuple[str, str]]:
    """Yield each signal with each header that it reads at the edge of `PEER`."""
    rules = replace(ALL, edges=ALL.edges[:1])
    for name, signal in SIGNALS.items():
        headers = sorted(set(signal.headers(rules)))
        assert headers or name in WITHOUT_HEADERS, f"{name}: how a forged stamp of it is refused needs a test"
        yield from ((name, header.lower()) for header in headers)


@pytest.mark.parametrize("stamp", [b"forged", b"\xff", b"a.b.c", b"ZZ-1, 1.2", (b"DE", b"forged"), (b"forged", b"DE")])
@pytest.mark.parametrize(("name", "header"), [*forgeries()])
async def test_forged_stamp_is_a_doubt_and_never_ignored(
    name: str, header: str, stamp: bytes | tuple[bytes, ...]
) -> None:
    """Another signal locates the caller: if the forged one were ignored, a client could remove it by spoiling it."""
    witness = "assertion" if SIGNALS[name].reads_edges else "edge_header"
    config = config_with(replace(ALL, signals=(name, witness)))
    service = LocationService(cast("ServiceClient", None), lambda _: None)

    async def located(headers: Mapping[str, tuple[bytes, ...]]) -> Location:
        sent = {key.encode(): values for key, values in headers.items()}
        given = RequestHeaders({key: values[0] for key, values in sent.items()}, 100, PEER, "", sent)
        return (await service.locate(config, caller_of(config, BACKEND, given))).location

    honest = {key: (value,) for key, value in HONEST.items()}
    assert (await located(honest)).region is not None
    forged = await located({**honest, header: stamp if isinstance(stamp, tuple) else (stamp,)})
    assert (forged.region, forged.problem is not None) == (None, True), forged.evidence


# --- a trial signal -------------------------------------------------------------------------------


def trying(signal: Signal) -> ConfigVersion:
    signals: Any = {**SIGNALS, "trial": signal}
    rules = replace(ALL, signals=("trial", "api_key"))
    return replace(TABLE, location=SignalLocator(rules, signals))


def test_a_trial_signal_that_is_complete_works_and_is_remembered_by_its_header() -> None:
    config = trying(trial())
    for territory, region in (("DE", "eu"), ("CN", "cn"), ("DE", "eu")):
        found = locate(config, caller_of(config, None, request_of({"x-trial": territory.encode()})))
        assert (found.location.region.name, found.location.why) == (region, "trial")
    assert len(config.memo) == 2


def test_header_that_a_signal_declares_in_capitals_is_read() -> None:
    config = trying(edge_trial("X-Trial"))
    found = locate(config, caller_of(config, None, request_of({"x-trial": b"CN"})))
    assert found.location.why == "trial"
    assert "x-trial" in locator_of(config).edge_headers


def test_a_trial_signal_that_does_not_declare_its_header_fails() -> None:
    undeclared = trial(declared=())
    config = trying(undeclared)
    with pytest.raises(KeyError, match="x-trial"):
        locate(config, caller_of(config, None, request_of({"x-trial": b"CN"})))
    # This holds also if another signal has declared the header.
    signals: Any = {**SIGNALS, "trial": undeclared, "api_key": trial()}
    shared = replace(TABLE, location=SignalLocator(config.location.rules, signals))
    with pytest.raises(KeyError, match="x-trial"):
        locate(shared, caller_of(shared, None, request_of({"x-trial": b"CN"})))


def test_trial_signal_that_reads_an_edge_and_does_not_declare_it_fails() -> None:
    config = trying(edge_trial(reads_edges=False))
    with pytest.raises(KeyError, match="reads_edges"):
        locate(config, caller_of(config, None, request_of({"x-trial": b"CN"})))


def test_trial_signal_of_an_edge_is_read_from_the_edge_only() -> None:
    config = trying(edge_trial())
    for peer, region in ((PEER, "cn"), ("203.0.113.1", None)):
        found = locate(config, caller_of(config, None, request_of({"x-trial": b"CN"}, peer))).location
        assert (found.region.name if found.region is not None else None) == region


@pytest.mark.parametrize("can", [True, False])
def test_trial_signal_decides_itself_whether_it_can_locate(can: bool) -> None:
    assert can_locate(replace(trying(trial(can_locate=can)), clients={})) == can


def test_unanswered_question_is_an_error() -> None:
    class Unanswered(Question):
        pass

    for name, signal in SIGNALS.items():
        if signal.needs_lookup:
            with pytest.raises(TypeError, match="yet"):
                resolve(config_with(replace(ALL, signals=(name,))), None, reports_of({name: Unanswered()}))
