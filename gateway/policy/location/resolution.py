"""The decision: all readings of a request become one location.

Signals are read in the order of the configuration. Signals that agree on the region count as one, signals that disagree
are a conflict, and a blocked territory in any of them decides. Nothing is guessed: a missing location is `unknown`. A
trusted signal that cannot be read is a doubt, and a doubt leads to a refusal. If it were ignored, a client that can
spoil a signal (by sending the edge's header itself) could remove it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.model.age import AgeRules
from gateway.model.caller import LocationKey, RequestHeaders
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.kept_metadata import may_keep
from gateway.model.location import (
    Address,
    AddressReport,
    ClaimReport,
    Evidence,
    Location,
    LocationProblem,
    Reports,
    reports_of,
)
from gateway.model.location_rules import Edge, LocationRules
from gateway.policy.location.age import with_age
from gateway.policy.location.claim import claim_of
from gateway.policy.location.client_address import address_headers, client_address
from gateway.policy.location.signal import Reading, Signal, read_territory
from gateway.policy.location.signals import SIGNALS
from gateway.policy.location.subdivisions import blocked_among
from gateway.policy.location.trusted_edge import SignalInput, edge_of
from providers.territories import parent
from providers.value import replace

DEMO_TERRITORY = "demo_territory"
"""The value of `x-gateway-why` for a caller of a demo that no signal locates."""
_MOST_PEERS = 1024
_REFUSE = "refuse"


@dataclass(frozen=True)
class SignalLocator:
    """The rules of one config version, its signals, and the headers that they read.

    It is a part of the config version. Only the rules are pickled and compared. `edge_headers` are those that only a
    proxy adds, of every signal that reads edges, listed or not.
    """

    rules: LocationRules
    registry: Mapping[str, Signal] = field(default_factory=lambda: SIGNALS, compare=False, repr=False)
    signals: tuple[Signal, ...] = field(init=False, compare=False, repr=False)
    headers: tuple[bytes, ...] = field(init=False, compare=False, repr=False)
    edge_headers: frozenset[str] = field(init=False, compare=False, repr=False)
    needs_lookup: bool = field(init=False, compare=False, repr=False)
    _names: tuple[str, ...] = field(init=False, compare=False, repr=False)
    _headers_by_signal: tuple[tuple[Signal, tuple[str, ...]], ...] = field(init=False, compare=False, repr=False)
    _edges_by_peer: dict[str | None, Edge | None] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        signals = tuple(self.registry[name] for name in self.rules.signals)
        by_signal = tuple((signal, tuple(sorted(set(signal.headers(self.rules))))) for signal in signals)
        names = tuple(sorted({name for _, headers in by_signal for name in headers}))
        derived: dict[str, Any] = {
            "signals": signals,
            "headers": tuple(name.lower().encode() for name in names),
            "edge_headers": frozenset(
                name.lower()
                for signal in self.registry.values()
                if signal.reads_edges
                for name in signal.headers(self.rules)
            ),
            "needs_lookup": any(signal.needs_lookup for signal in signals),
            "_names": names,
            "_headers_by_signal": by_signal,
            "_edges_by_peer": {},
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[type[SignalLocator], tuple[LocationRules]]:
        return SignalLocator, (self.rules,)

    def report(self, key: LocationKey) -> Reports:
        """Return the reports of the signals for a request. They are computed from its location key alone.

        The reports of signals that need a lookup may be questions.
        """
        peer = key[2]
        values = {name: _all_values(value) for name, value in zip(self._names, key[3:], strict=True)}
        edge = self.edge_of(peer)
        reports: dict[str, Hashable | None] = {}
        for signal, headers in self._headers_by_signal:
            declared = {name: values[name] for name in headers}
            given = SignalInput(peer, edge, declared, reads_edges=signal.reads_edges)
            reports[signal.name] = signal.report(self.rules, given)
        return reports_of(reports)

    def edge_of(self, peer: str | None) -> Edge | None:
        """Return the trusted edge that the peer is, or None."""
        if not self.rules.edges:
            return None
        known = self._edges_by_peer
        if peer not in known:
            if len(known) >= _MOST_PEERS:
                known.clear()
            known[peer] = edge_of(self.rules.edges, peer)
        return known[peer]

    def stated_bytes(self, key: LocationKey) -> int:
        """Return the number of bytes in a key that become a report without a lookup."""
        by_name = dict(zip(self._names, key[3:], strict=True))
        headers = {name for signal, names in self._headers_by_signal if not signal.needs_lookup for name in names}
        return sum(len(value) for name in headers for value in _all_values(by_name[name]))


def locator_of(config: ConfigVersion) -> SignalLocator:
    """Return the locator of a config version with the type that this package defines."""
    locator = config.location
    if not isinstance(locator, SignalLocator):
        raise TypeError(f"not a locator of signals: {locator!r}")
    return locator


def location_key(config: ConfigVersion, client: Client | None, request: RequestHeaders) -> LocationKey:
    """Return everything from which this config version computes a location: client, peer and declared headers.

    A header that came once is a value, a repeated one a tuple of values. A client's name stands for the client.
    """
    read = request.values if request.repeated else request.headers.get
    name = client.name if client is not None else None
    return ("location", name, request.peer, *map(read, config.location.headers))


def address_of(config: ConfigVersion, request: RequestHeaders) -> Address | AddressReport:
    """Return the client's address, or why there is none. It is known before the client is."""
    locator = locator_of(config)
    values = {name: request.values(name.encode()) for name in address_headers(locator.rules)}
    return client_address(locator.rules, SignalInput(request.peer, locator.edge_of(request.peer), values))


def key_bytes(key: LocationKey) -> int:
    """Return how many bytes of headers a key has."""
    return sum(len(value) for values in key[3:] for value in _all_values(values))


def suppose(territory: str, age_band: str | None = None) -> Reports:
    """Return the reports that `explain` assumes for a territory, and for a claim with this age band."""
    reports = reports_of({name: signal.suppose(territory) for name, signal in SIGNALS.items()})
    return reports.with_report("claim", ClaimReport(age_band=age_band)) if age_band is not None else reports


def can_locate(config: ConfigVersion) -> bool:
    """Return whether any caller can have a region under this config version."""
    # The region of a client is final, also if `api_key` is not listed.
    is_bound = any(client.region is not None for client in config.clients.values())
    locator = locator_of(config)
    return is_bound or locator.rules.unknown != _REFUSE or any(signal.can_locate(config) for signal in locator.signals)


def resolve(config: ConfigVersion, client: Client | None, reports: Reports) -> Location:
    """Return the location of a caller, with the evidence in the order of the config's signals."""
    all_readings = (signal.read(config, client, reports) for signal in locator_of(config).signals)
    readings = [reading for reading in all_readings if reading is not None]
    if not readings and (territory := config.location.rules.demo_territory) is not None:
        readings = [read_territory(config, DEMO_TERRITORY, (territory,))]
    return _aged(_conclude(config, client, readings), claim_of(reports))


def _aged(location: Location, claim: ClaimReport | None) -> Location:
    ages = location.region.parts.of(AgeRules) if location.region is not None else None
    return with_age(location, ages, claim) if ages is not None else location


def locate(config: ConfigVersion, territory: str, client: Client | None = None) -> Location:
    """Return the location of an adult of whom one signal reports this territory, and who sends nothing else.

    It need not be a signal that the configuration lists.
    """
    return _conclude(config, client, [read_territory(config, "edge_header", (territory,))])


def locate_user(config: ConfigVersion, territory: str, client: Client | None, claim: ClaimReport | None) -> Location:
    """Return the same of a user of the client, whose claim names the age band."""
    return _aged(locate(config, territory, client), claim)


def _conclude(config: ConfigVersion, client: Client | None, readings: list[Reading]) -> Location:
    location = _concluded(config, client, readings)
    return location if may_keep(location, config.cell_territory) else replace(location, may_be_kept=False)


def _concluded(config: ConfigVersion, client: Client | None, readings: list[Reading]) -> Location:
    evidence = tuple(reading.evidence for reading in readings)
    if blocked := blocked_among(config, evidence):
        return Location(None, blocked.territory, blocked.signal, _decided(evidence, blocked), LocationProblem.BLOCKED)
    for reading in readings:
        if reading.problem is not None:
            return Location(None, None, reading.evidence.signal, evidence, reading.problem)
    if any(reading.doubtful for reading in readings):
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    return _weigh(config, client, readings, evidence)


def _all_values(value: bytes | tuple[bytes, ...] | None) -> tuple[bytes, ...]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _bound(config: ConfigVersion, region: Region, located: list[Reading], evidence: tuple[Evidence, ...]) -> Location:
    """Return the region to which the key is bound, which is final.

    The territory is that of the strongest signal inside the region, or a part of it that another signal names. A
    country belongs to its own region, even if its evidence has the stricter region of one of its parts.
    """
    # If the client hides its location, weaker signals do not give the territory: it is unknown, and every territory of
    # the region must be allowed. The default region has no list of territories. There, weaker signals still show that
    # prompts must stay at home.
    items = evidence if region.is_default else [reading.evidence for reading in located]
    inside = [item.territory for item in items if item.territory and config.region_of(item.territory) is region]
    first = inside[0] if inside else None
    territory = next((code for code in inside if parent(code) == first), first)
    winner = next((item for item in evidence if item.signal == "api_key"), None)
    if winner is None:
        winner = Evidence("api_key", "", region=region.name)
        evidence = (winner, *evidence)
    return Location(region, territory, "api_key", _decided(evidence, winner))


def _weigh(
    config: ConfigVersion, client: Client | None, readings: list[Reading], evidence: tuple[Evidence, ...]
) -> Location:
    located: list[Reading] = []
    for reading in readings:
        if reading.unknown:
            break
        if reading.speaks:
            located.append(reading)
    if client is not None and client.region is not None:
        return _bound(config, config.regions[client.region], located, evidence)
    if not located:
        rule = config.location.rules.unknown
        if rule == _REFUSE:
            return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
        return Location(config.regions[rule], None, "unknown", evidence, assumed=True)
    # A part is more precise than its country, so the country is ignored.
    countries = {parent(reading.evidence.territory) for reading in located if reading.evidence.territory}
    located = [reading for reading in located if reading.evidence.territory not in countries]
    if any(reading.vague for reading in located):
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    first = located[0]
    if len(located) > 1 and len({(reading.evidence.region, reading.bounds) for reading in located}) > 1:
        # One that is at least as strict as all others.
        strictest = next((it for it in located if all(map(it.is_as_strict, located))), None)
        if strictest is None or config.location.rules.conflict != "strictest":
            return Location(None, None, "conflict", evidence, LocationProblem.CONFLICT)
        first = strictest
    marked = _decided(evidence, first.evidence)
    if first.region is None:
        return Location(None, first.evidence.territory, first.evidence.signal, marked, LocationProblem.BLOCKED)
    return Location(first.region, first.evidence.territory, first.evidence.signal, marked)


def _decided(evidence: tuple[Evidence, ...], winner: Evidence) -> tuple[Evidence, ...]:
    """Return the evidence with the winner marked, and with the note of the winner."""
    return tuple(replace(winner, decided=True) if item.signal == winner.signal else item for item in evidence)
