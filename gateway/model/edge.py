"""What may tell a caller's place, and whose word for it is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from gateway.model.signals import ClaimRules, GeoIpRules
from providers.auth import Secret

ASSERTION = "x-gateway-territory"
"""The header in which a backend asserts where the person is."""
Signal = Literal["claim", "api_key", "assertion", "edge_header", "geoip"]
"""What can tell a caller's place. `api_key` is the region that the caller's key is bound to."""
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class EdgeSecret:
    """A header that the edge adds to show that the request came through it."""

    header: str
    value: Secret


@dataclass(frozen=True, slots=True)
class Edge:
    """A trusted peer: requests from these networks tell the caller's place in these headers (lower case), in no other.

    part_header: the one with the part of the country. country_name: the country's header as it arrives, in bytes.
    """

    networks: tuple[Network, ...]
    country_header: str
    client_ip_header: str | None = None
    secret: EdgeSecret | None = None
    part_header: str | None = None
    country_name: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "country_name", self.country_header.encode())

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header of this peer that is believed."""
        return tuple(name for name in (self.country_header, self.part_header, self.client_ip_header) if name)

    @property
    def identity(self) -> tuple[object, ...]:
        """All but the value of its secret, which is renewed now and then."""
        secret_header = self.secret.header if self.secret is not None else None
        return self.networks, self.country_header, self.part_header, self.client_ip_header, secret_header


@dataclass(frozen=True, slots=True)
class LocationRules:
    """How a caller's place is decided. `unknown` is `refuse` or a region's name.

    signals: those that are set up. hops: networks of the proxies that may stand in a list of addresses.
    country_only: countries of which a part has a rule of its own, and which are believed without their part.
    beyond_headers: whether a signal needs more than to be read: a claim to be checked, an address to be looked up.
    read_headers: every header that tells of a place, or shows who tells it, as it arrives.
    """

    signals: tuple[Signal, ...] = ("api_key", "assertion", "edge_header")
    edges: tuple[Edge, ...] = ()
    conflict: Literal["strictest", "refuse"] = "strictest"
    unknown: str = "refuse"
    claim: ClaimRules | None = None
    geoip: GeoIpRules | None = None
    hops: tuple[Network, ...] = ()
    country_only: frozenset[str] = frozenset()
    beyond_headers: bool = field(init=False)
    read_headers: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beyond_headers", self.claim is not None or self.geoip is not None)
        secrets = [edge.secret.header for edge in self.edges if edge.secret is not None]
        names = {ASSERTION, *secrets, *(name for edge in self.edges for name in edge.headers)}
        object.__setattr__(self, "read_headers", tuple(name.encode() for name in sorted(names)))

    def believes(self, signal: str, earlier: LocationRules, same_edge: bool | None = None) -> bool:
        """Whether what a signal has said by earlier rules would be heard by these: from an edge that is still one, or a
        claim of the same issuer. A secret or key that has only been replaced changes nothing.

        same_edge: whether the peer is the same edge by both; where that isn't known, every edge must be one still.
        """
        if signal not in self.signals:
            return False
        told, now = {edge.identity for edge in earlier.edges}, {edge.identity for edge in self.edges}
        match signal:
            case "edge_header":
                return told <= now if same_edge is None else same_edge
            case "geoip":
                # Of a peer that has become an edge, another address counts; and any edge may stand in a list of them.
                return told == now
            case "claim" if self.claim is not None and earlier.claim is not None:
                return self.claim.identity == earlier.claim.identity
        return True
