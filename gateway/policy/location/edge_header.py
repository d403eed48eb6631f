"""The signal `edge_header`: the country and the part of it that a trusted edge reports."""

from __future__ import annotations

from collections.abc import Hashable

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import EdgeNote, EdgeReport, Evidence, Reports
from gateway.model.location_rules import LocationRules, SignalName
from gateway.policy.location.signals import Reading, Signal, SignalInput, read_territory
from gateway.policy.location.trusted_edge import check_secret, secret_headers


class EdgeHeader(Signal):
    """The country header of a trusted peer."""

    name: SignalName = "edge_header"
    section = "edges"
    reads_edges = True
    client_right = None
    needs_lookup = False

    def can_locate(self, config: ConfigVersion) -> bool:
        """Return whether the config trusts an edge."""
        return bool(config.location.rules.edges)

    def headers(self, rules: LocationRules) -> frozenset[str]:
        """Read the country, the part and the secret of every edge."""
        countries = {edge.country_header for edge in rules.edges}
        parts = {edge.part_header for edge in rules.edges if edge.part_header is not None}
        return secret_headers(rules) | countries | parts

    def report(self, rules: LocationRules, given: SignalInput) -> EdgeReport | None:
        """Report the values of an edge that has proved itself, or why a country header is not used."""
        edge = given.edge
        if edge is None:
            is_sent = any(given.raw_values(edge.country_header) for edge in rules.edges)
            return EdgeReport(note=EdgeNote.STRANGER) if is_sent else None
        values = given.values(edge.country_header)
        if note := check_secret(edge.secret, given):
            return EdgeReport(note=note) if values or note is EdgeNote.UNPROVEN else None
        if not values:
            return None
        return EdgeReport(values, given.values(edge.part_header) if edge.part_header is not None else ())

    def read(self, config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        """Read the territory. An edge whose secret is wrong is a doubt."""
        report = reports.get(self.name)
        if not isinstance(report, EdgeReport):
            return None
        if note := report.note:
            return Reading(Evidence(self.name, "", note=note), doubtful=note is EdgeNote.UNPROVEN)
        return read_territory(config, self.name, report.values, report.parts)

    def suppose(self, territory: str) -> EdgeReport:
        """Assume that a trusted edge reports this territory."""
        return EdgeReport((territory,))

    def identity(self, rules: LocationRules) -> Hashable:
        """The edges, without the values of their secrets."""
        return frozenset(edge.identity for edge in rules.edges)
