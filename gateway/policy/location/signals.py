"""The registry of the location signals, and those that need no section of their own."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Evidence, Reports
from gateway.model.location_rules import LocationRules
from gateway.policy.location.claim import CLAIM
from gateway.policy.location.geoip import GEOIP
from gateway.policy.location.signal import Reading, Signal, read_territory, shown
from gateway.policy.location.trusted_edge import EdgeNote, SignalInput, check_secret, secret_headers
from providers.value import Value

_TERRITORY = "x-gateway-territory"


# --- api_key: the region to which the client's keys are bound; it is final ------------------------


def _read_key(_: ConfigVersion, client: Client | None, __: Reports) -> Reading | None:
    if client is None or client.region is None:
        return None
    return Reading(Evidence("api_key", client.name, region=client.region))


API_KEY = Signal(
    "api_key",
    lambda _, __: None,
    _read_key,
    headers=lambda _: (),
    can_locate=lambda config: any(client.region is not None for client in config.clients.values()),
    source="the `region` of the client whose key was sent. It is final.",
    use="an app or a shop belongs to one region",
)


# --- assertion: the territory that a backend states for its user ----------------------------------


class AssertionReport(Value, frozen=True):
    """Every value of `x-gateway-territory`, from any client."""

    values: tuple[str, ...]


def _report_assertion(_: LocationRules, given: SignalInput) -> AssertionReport | None:
    values = given.values(_TERRITORY)
    return AssertionReport(values) if values else None


def _read_assertion(config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("assertion")
    if not isinstance(report, AssertionReport):
        return None
    if client is None or "territory" not in client.may_assert:
        return Reading(Evidence("assertion", shown(report.values), note="ignored: this key may not assert a territory"))
    return read_territory(config, "assertion", report.values)


ASSERTION = Signal(
    "assertion",
    _report_assertion,
    _read_assertion,
    headers=lambda _: (_TERRITORY,),
    can_locate=lambda config: any("territory" in client.may_assert for client in config.clients.values()),
    client_right="territory",
    source="`x-gateway-territory` from a client with `may_assert: [territory]`",
    use="your backend calls for its users",
)


# --- edge_header: the country and the part of it that a trusted edge reports ----------------------


class EdgeReport(Value, frozen=True):
    """The values that a trusted edge sent for the country and for its part, or why they are not used."""

    values: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    note: EdgeNote = EdgeNote.NONE


def _edge_headers(rules: LocationRules) -> frozenset[str]:
    named = {header for edge in rules.edges for header in (edge.country_header, edge.part_header)}
    return secret_headers(rules) | {header for header in named if header is not None}


def _report_edge(rules: LocationRules, given: SignalInput) -> EdgeReport | None:
    edge = given.edge
    if edge is None:
        is_sent = any(given.raw_values(edge.country_header) for edge in rules.edges if edge.country_header is not None)
        return EdgeReport(note=EdgeNote.STRANGER) if is_sent else None
    values = given.values(edge.country_header) if edge.country_header is not None else ()
    if note := check_secret(edge.secret, given):
        return EdgeReport(note=note) if values or note is EdgeNote.UNPROVEN else None
    if not values:
        return None
    return EdgeReport(values, given.values(edge.part_header) if edge.part_header is not None else ())


def _read_edge(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("edge_header")
    if not isinstance(report, EdgeReport):
        return None
    if note := report.note:
        return Reading(Evidence("edge_header", "", note=note), doubtful=note is EdgeNote.UNPROVEN)
    return read_territory(config, "edge_header", report.values, report.parts)


EDGE_HEADER = Signal(
    "edge_header",
    _report_edge,
    _read_edge,
    headers=_edge_headers,
    can_locate=lambda config: bool(config.location.rules.edges),
    section="edges",
    reads_edges=True,
    suppose=lambda territory: EdgeReport((territory,)),
    source="the country header of a trusted peer",
    use="a CDN or a load balancer is in front of the gateway",
)


SIGNALS: Mapping[str, Signal] = {it.name: it for it in (CLAIM, API_KEY, ASSERTION, EDGE_HEADER, GEOIP)}
"""Every signal by its name, in the default order of `location.signals` (the strongest first)."""
