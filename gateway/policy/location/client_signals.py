"""The signals that depend on the client: `api_key` (the region of its key) and `assertion` (a backend's statement)."""

from __future__ import annotations

from collections.abc import Hashable

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import AssertionReport, Evidence, Reports
from gateway.model.location_rules import LocationRules, SignalName
from gateway.policy.location.signals import Reading, Signal, SignalInput, read_territory, shown

_ASSERTION_HEADER = "x-gateway-territory"


class ApiKey(Signal):
    """The region to which the client's keys are bound. It is final."""

    name: SignalName = "api_key"
    section = None
    reads_edges = False
    client_right = None
    needs_lookup = False

    def can_locate(self, config: ConfigVersion) -> bool:
        """Return whether a client is bound to a region."""
        return any(client.region is not None for client in config.clients.values())

    def headers(self, rules: LocationRules) -> tuple[str, ...]:
        """Read no header: the client is known already."""
        return ()

    def report(self, rules: LocationRules, given: SignalInput) -> None:
        """Report nothing: the client is known already."""
        return None

    def read(self, config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        """Record the region of the client."""
        if client is None or client.region is None:
            return None
        return Reading(Evidence(self.name, client.name, region=client.region))

    def suppose(self, territory: str) -> None:
        """Assume nothing: `explain` is given a client by its name."""
        return None

    def identity(self, rules: LocationRules) -> tuple[()]:
        """Nothing: the region of the client is compared with the client."""
        return ()


class Assertion(Signal):
    """The territory that a backend states for its user, if the client may assert one."""

    name: SignalName = "assertion"
    section = None
    reads_edges = False
    client_right = "territory"
    needs_lookup = False

    def can_locate(self, config: ConfigVersion) -> bool:
        """Return whether a client may assert a territory."""
        return any(self.client_right in client.may_assert for client in config.clients.values())

    def headers(self, rules: LocationRules) -> tuple[str, ...]:
        """Read `x-gateway-territory`."""
        return (_ASSERTION_HEADER,)

    def report(self, rules: LocationRules, given: SignalInput) -> AssertionReport | None:
        """Report the header's values of any client. Whether this client may assert is judged by `read`."""
        values = given.values(_ASSERTION_HEADER)
        return AssertionReport(values) if values else None

    def read(self, config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        """Read the territory, or note that the client may not assert one."""
        report = reports.get(self.name)
        if not isinstance(report, AssertionReport):
            return None
        if client is None or self.client_right not in client.may_assert:
            note = "ignored: this key may not assert a territory"
            return Reading(Evidence(self.name, shown(report.values), note=note))
        return read_territory(config, self.name, report.values)

    def suppose(self, territory: str) -> None:
        """Assume nothing: most clients may not assert a territory."""
        return None

    def identity(self, rules: LocationRules) -> Hashable:
        """Nothing: what the client may assert is compared with the client."""
        return ()
