"""Location rules in which every signal of the registry is set up, and trial signals that the registry does not have."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from unittest.mock import patch

from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Reports
from gateway.model.location_rules import Edge, EdgeSecret, LocationRules
from gateway.policy.location import SIGNALS, SignalLocator
from gateway.policy.location.signal import Reading, Signal, read_territory
from gateway.policy.location.signals import AssertionReport
from gateway.policy.location.trusted_edge import SignalInput
from providers.auth import Secret
from tests.kit.configs import BASE, table_of

NAMES = tuple(SIGNALS)
EXAMPLES: dict[str, dict[str, Any]] = {
    "claim": {"issuer": "i", "audience": "a", "algorithms": ["HS256"], "secret": "s" * 32, "longest": "15m"},
    "geoip": {"path": "/nowhere.mmdb", "max_age": "1h"},
}
"""The section of each signal that has one of its own. The tests of all signals follow from this and the registry."""
EDGES = (
    Edge((ip_network("10.0.0.0/8"),), "x-country", "x-ip", EdgeSecret("x-proof", (Secret("word"),)), "x-part"),
    Edge((ip_network("192.0.2.0/24"),), "y-country", "forwarded"),
)
_BASE = table_of(BASE)


def _all_rules() -> LocationRules:
    sections = {SIGNALS[name].section: section for name, section in EXAMPLES.items()}
    return replace(table_of(BASE.replace(location=sections)).location.rules, signals=NAMES, edges=EDGES)


ALL = _all_rules()
"""Rules with every signal and its section."""


def with_only(name: str) -> ConfigVersion:
    """Return a config version that lists this signal, and has what it needs and nothing else."""
    signal = SIGNALS[name]
    own = [ALL.of(signal.settings.rules)] if signal.settings is not None else []
    rules = LocationRules((name,), EDGES if signal.reads_edges else (), own=tuple(own))
    rights = frozenset() if signal.client_right is None else frozenset({signal.client_right})
    client = Client("app", region="eu" if name == "api_key" else None, may_assert=rights)
    return replace(_BASE, clients={"0" * 64: client}, location=SignalLocator(rules))


def with_another(name: str) -> ConfigVersion:
    """Return the same config version with another signal listed in its place, which is not set up."""
    return listing("claim" if name != "claim" else "edge_header", config=with_only(name))


def listing(*names: str, config: ConfigVersion = _BASE) -> ConfigVersion:
    """Return the config version with these signals listed."""
    rules = replace(config.location.rules, signals=names)
    return replace(config, location=SignalLocator(rules))


@contextmanager
def registered(*signals: Signal) -> Iterator[None]:
    """Add signals to the registry that the gateway uses. Config versions of this time read them."""
    signals_by_name: Any = SIGNALS
    with patch.dict(signals_by_name, {signal.name: signal for signal in signals}):
        yield


def trial(
    name: str = "trial", *, header: str = "x-trial", declared: tuple[str, ...] | None = None, can_locate: bool = True
) -> Signal:
    """Return a signal that reads a territory from a header that every client may send.

    Args:
        name: Its name. A name of the registry is for tests of a file, in which no other name is allowed.
        declared: The headers that it declares; those that it does read by default.
        can_locate: Whether it is set up.
    """

    def report(rules: LocationRules, given: SignalInput) -> Hashable | None:
        values = given.values(header)
        return AssertionReport(values) if values else None

    def read(config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
        report = reports.get(name)
        return read_territory(config, name, report.values) if isinstance(report, AssertionReport) else None

    return Signal(
        name,
        report,
        read,
        headers=lambda _: (header,) if declared is None else declared,
        can_locate=lambda _: can_locate,
        suppose=lambda territory: AssertionReport((territory,)),
    )


def edge_trial(header: str = "x-trial", *, reads_edges: bool = True) -> Signal:
    """Return the trial signal, read from trusted edges only."""
    plain = trial(header=header)

    def report(rules: LocationRules, given: SignalInput) -> Hashable | None:
        return plain.report(rules, given) if given.edge is not None else None

    return replace(plain, report=report, section="edges", reads_edges=reads_edges)
