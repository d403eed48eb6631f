"""Values that location signals reported for a request, and config versions with other location rules."""

from dataclasses import replace
from typing import Any

from gateway.api.caller.request_headers import given_by
from gateway.model.caller import Caller, RequestHeaders
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import AddressReport, ClaimReport, Reports, reports_of
from gateway.policy.location.resolution import SignalLocator, location_key, locator_of
from gateway.policy.location.signals import AssertionReport, EdgeReport
from gateway.policy.location.trusted_edge import EdgeNote


def reported(
    edge: EdgeReport | None = None,
    edge_note: EdgeNote = EdgeNote.NONE,
    asserted: tuple[str, ...] = (),
    claim: ClaimReport | None = None,
    address: AddressReport | None = None,
) -> Reports:
    """Return the values that the signals reported. `edge_note`: why an edge's headers are not used."""
    return reports_of(
        {
            "edge_header": EdgeReport(note=edge_note) if edge_note else edge,
            "assertion": AssertionReport(asserted) if asserted else None,
            "claim": claim,
            "geoip": address,
        }
    )


def with_rules(config: ConfigVersion, **changes: Any) -> ConfigVersion:
    """Return a config version with other location rules."""
    return replace(config, location=SignalLocator(replace(config.location.rules, **changes)))


def report_signals(config: ConfigVersion, request: RequestHeaders, client: Client | None = None) -> Reports:
    """Return the values that the signals of a config version report for these headers."""
    return locator_of(config).report(location_key(config, client, request))


def caller_of(config: ConfigVersion, client: Client | None, request: RequestHeaders, key_digest: str = "") -> Caller:
    """Return the caller of these headers, whose client is already known."""
    return Caller(
        client,
        key_digest,
        location_key(config, client, request),
        request.header_bytes,
        request.one(b"accept-language"),
        request.values(b"x-gateway-user"),
        given_by(request),
    )
