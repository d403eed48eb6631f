"""How a location is decided: the signals that are set up, the trusted edges, and the rules of each signal."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol, TypeVar

from providers.auth import Secret
from providers.value import Value

Network = IPv4Network | IPv6Network
_T = TypeVar("_T")


class EdgeSecret(Value, frozen=True):
    """A header with a secret value, which the edge adds to prove that the request came through it.

    Each of `values` is accepted: the new one, and the former one while it is replaced.
    """

    header: str
    values: tuple[Secret, ...]


class Edge(Value, frozen=True):
    """A trusted peer. Requests from its networks report the location in these headers (lower case) and in no others."""

    networks: tuple[Network, ...]
    country_header: str | None
    client_ip_header: str | None = None
    secret: EdgeSecret | None = None
    part_header: str | None = None


class LocationRules(Value, frozen=True):
    """The compiled section `location` of a config."""

    signals: tuple[str, ...] = ("api_key", "assertion", "edge_header")
    """The names of the signals that are listed and set up, the strongest first."""
    edges: tuple[Edge, ...] = ()
    conflict: Literal["strictest", "refuse"] = "strictest"
    """The reaction if signals give different regions."""
    unknown: str = "refuse"
    """`refuse`, or the name of the region that is used where no signal gives one."""
    own: tuple[Hashable, ...] = ()
    """The rules of the signals that have a section of their own, at most one of each class."""
    hops: tuple[Network, ...] = ()
    """The networks of proxies that may stand in a list of addresses."""
    country_only: frozenset[str] = frozenset()
    """Countries that are accepted without their part, although a part has a rule of its own."""
    demo_territory: str | None = None
    """The territory of a caller of a demo whom no signal locates. None refuses the caller."""

    def of(self, kind: type[_T]) -> _T | None:
        """Return the rules of this class, or None if the section of their signal is not written."""
        return next((rules for rules in self.own if isinstance(rules, kind)), None)


class Locator(Protocol):
    """Decides locations by the rules of one config version. Implemented by `gateway.policy.location`."""

    @property
    def rules(self) -> LocationRules:
        """The rules of the config version."""

    @property
    def headers(self) -> tuple[bytes, ...]:
        """Every header that a signal of these rules reads, in lower case."""

    @property
    def edge_headers(self) -> frozenset[str]:
        """Every header that only a proxy adds, in lower case."""

    @property
    def needs_lookup(self) -> bool:
        """Whether a signal needs more than headers: a claim to verify, or an address to look up."""
