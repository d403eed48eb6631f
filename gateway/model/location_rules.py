"""How a location is decided: the signals that are set up, the trusted edges, and the settings of claims and GeoIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

from gateway.model.permit import ServicePermit
from gateway.model.section import PlainSection, key
from gateway.model.units import AgeSeconds
from providers.auth import Secret
from providers.value import Value

SignalName = Literal["claim", "api_key", "assertion", "edge_header", "geoip"]
"""The signals that can show where a caller is, in the default order of `location.signals` (the strongest first).

`gateway.policy.location.resolution.SIGNALS` has one object for each.
"""
Network = IPv4Network | IPv6Network


class KeyUrl(Value, frozen=True):
    """An issuer's key set at a URL of the config: the permit for the request, and the path."""

    permit: ServicePermit
    path: str


class KeyFile(Value, frozen=True):
    """An issuer's key set in a file."""

    path: str


class SharedKey(Value, frozen=True):
    """A secret with which the issuer signs claims and the gateway verifies them."""

    secret: Secret


KeySource = KeyUrl | KeyFile | SharedKey


class ClaimRules(Value, frozen=True):
    """The issuer whose claims are accepted, and how the claims must be signed.

    Attributes:
        territory: The member of the token that names the territory.
        preferences: The member with the user's preferences. None if they are not read.
        consents: The member with the recipients to which the user has agreed.
        age_band: The member with the age band of the user. None if it is not read.
    """

    issuer: str
    audience: str
    algorithms: frozenset[str]
    keys: KeySource
    territory: str = "territory"
    preferences: str | None = None
    consents: str = "consents"
    age_band: str | None = None


@dataclass(frozen=True, slots=True)
class GeoIpRules(PlainSection):
    """A database of addresses, a MaxMind DB file (.mmdb)."""

    path: str = field(metadata=key("The absolute path of the file. It is opened again after it is replaced."))
    max_age_s: AgeSeconds = field(
        default=30 * 86_400.0,
        metadata=key("A database older than this by its build date is not used.", name="max_age", default="30d"),
    )


class EdgeSecret(Value, frozen=True):
    """A header with a secret value, which the edge adds to prove that the request came through it."""

    header: str
    value: Secret


class Edge(Value, frozen=True):
    """A trusted peer. Requests from its networks report the location in these headers (lower case) and in no others."""

    networks: tuple[Network, ...]
    country_header: str
    client_ip_header: str | None = None
    secret: EdgeSecret | None = None
    part_header: str | None = None


class LocationRules(Value, frozen=True):
    """The compiled section `location` of a config.

    Attributes:
        signals: The signals that are listed and set up, the strongest first.
        conflict: The reaction if signals give different regions.
        unknown: `refuse`, or the name of the region that is used where no signal gives one.
        hops: The networks of proxies that may stand in a list of addresses.
        country_only: Countries that are accepted without their part, although a part has a rule of its own.
        demo_territory: In a demo: the territory of a caller whom no signal locates. None refuses it.
    """

    signals: tuple[SignalName, ...] = ("api_key", "assertion", "edge_header")
    edges: tuple[Edge, ...] = ()
    conflict: Literal["strictest", "refuse"] = "strictest"
    unknown: str = "refuse"
    claim: ClaimRules | None = None
    geoip: GeoIpRules | None = None
    hops: tuple[Network, ...] = ()
    country_only: frozenset[str] = frozenset()
    demo_territory: str | None = None


class Locator(Protocol):
    """Decides locations by the rules of one config version. Implemented by `gateway.policy.location`."""

    @property
    def rules(self) -> LocationRules:
        """The rules of the config version."""
        ...

    @property
    def headers(self) -> tuple[bytes, ...]:
        """Every header that a signal of these rules reads, in lower case."""
        ...

    @property
    def edge_headers(self) -> frozenset[str]:
        """Every header that only a proxy adds, in lower case."""
        ...

    @property
    def needs_lookup(self) -> bool:
        """Whether a signal needs more than headers: a claim to verify, or an address to look up."""
        ...
