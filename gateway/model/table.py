"""The table: the whole config, compiled, checked and immutable. A reload makes another one and swaps a reference.

Everything that can be worked out once is worked out here, so that a request costs only look-ups.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from gateway.model.approval import Approval
from gateway.model.exporter import Exporter
from gateway.model.signals import ClaimRules, GeoIpRules
from providers.adapter import Adapter, Capabilities, Target
from providers.auth import Secret
from providers.sites import Residency
from providers.territories import NOWHERE, Places, parent

__all__ = [
    "Assistant",
    "BreakerRule",
    "Cell",
    "Client",
    "Cors",
    "Deployment",
    "Edge",
    "EdgeSecret",
    "Limits",
    "LocationRules",
    "Network",
    "Region",
    "Resilience",
    "Signal",
    "Table",
]

Signal = Literal["claim", "api_key", "assertion", "edge_header", "geoip"]
"""What can tell a caller's place. `api_key` is the region that the caller's key is bound to."""
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Region:
    """An operator's set of territories under one policy.

    boundary: where prompts of this region may be stored and processed.
    transit: the cell's own territory, where it lies outside the boundary and is accepted.
    approvals_required: only a deployment that is approved for this region right now may answer.
    """

    name: str
    territories: Places
    boundary: Places
    transit: Places = NOWHERE
    approvals_required: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it takes every territory that no other region names."""
        return self.territories.included is None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model of one provider at one site: what an attempt is sent to.

    site: the catalogue's name of the site, or the origin of an operator's own URL.
    capabilities: what the wire format, the model and the operator agree that it can do.
    available: the territories whose people it may answer; everywhere for a URL that the catalogue doesn't know.
    excepts: features and parameters that the site's promise of residency leaves out.
    unmet: what the site requires and nobody attested, in words; empty if all is met.
    credentials: keys, used in turn; `needs_credential` says whether it works without one.
    missing_credentials: where the unset ones should have come from (`DASHSCOPE_API_KEY`).
    """

    name: str
    provider: str
    adapter: Adapter
    model: str
    site: str
    origin: str
    target: Target
    residency: Residency
    available: Places
    capabilities: Capabilities
    excepts: frozenset[str] = frozenset()
    unmet: tuple[str, ...] = ()
    allowed_moves: frozenset[str] = frozenset()
    credentials: tuple[Secret, ...] = ()
    needs_credential: bool = True
    missing_credentials: tuple[str, ...] = ()
    unsupported: Literal["drop", "refuse"] = "drop"
    enabled: bool = True
    simulates: str | None = None
    approvals: tuple[Approval, ...] = ()

    @property
    def has_credential(self) -> bool:
        """Whether it can be called at all."""
        return bool(self.credentials) or not self.needs_credential


@dataclass(frozen=True, slots=True)
class Assistant:
    """What a client asks for in `model`; `routes` has the ordered deployments of each region by the region's name."""

    name: str
    routes: Mapping[str, tuple[Deployment, ...]]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask: requests a minute, and requests at once. None is no limit."""

    rpm: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Who may call. `assistants` None means all; `region` binds every request of its keys to one region."""

    name: str
    key_hashes: frozenset[str]
    assistants: frozenset[str] | None = None
    region: str | None = None
    may_assert: frozenset[str] = frozenset()
    limits: Limits | None = None

    def may_ask(self, assistant: str) -> bool:
        """Whether this client may ask for the assistant."""
        return self.assistants is None or assistant in self.assistants


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


@dataclass(frozen=True, slots=True)
class LocationRules:
    """How a caller's place is decided. `unknown` is `refuse` or a region's name.

    signals: those that are set up. hops: networks of the proxies that may stand in a list of addresses.
    country_only: countries of which a part has a rule of its own, and which are believed without their part.
    beyond_headers: whether a signal needs more than to be read: a claim to be checked, an address to be looked up.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "beyond_headers", self.claim is not None or self.geoip is not None)


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a deployment that fails is left alone: after so many failures in a row, or at this rate (0 to 1) of at
    least so many calls in the window. open_s: for how long at first."""

    failures: int = 5
    rate: float = 0.5
    window_s: float = 30.0
    samples: int = 20
    open_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Resilience:
    """Bounds of one request's journey; times in seconds.

    keep_alive_s: the longest silence in a stream that has begun, before the client gets a comment; 0 is never.
    breaker: None is off. retry_budget: the share of requests that may be retried where they failed; None is no limit.
    """

    attempts_per_deployment: int = 2
    attempts_total: int = 4
    connect_s: float = 5.0
    first_token_s: float = 10.0
    commit_s: float = 55.0
    idle_s: float = 30.0
    total_s: float = 600.0
    failover_after_s: float = 2.0
    keep_alive_s: float = 15.0
    breaker: BreakerRule | None = BreakerRule()
    retry_budget: float | None = 0.2


@dataclass(frozen=True, slots=True)
class Cell:
    """This installation: where it stands, which regions it serves (None: all), and the URLs of other regions' cells."""

    territory: str
    serves: frozenset[str] | None = None
    homes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages in a browser may call: their origins as a browser writes them, or any."""

    origins: frozenset[str] = frozenset()
    any_origin: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The compiled config.

    version: the first 12 hex digits of the SHA-256 of the document: what `x-gateway-table` shows.
    assistants: by name and by alias. clients: by the hex SHA-256 of each key.
    region_by_territory: every territory that a region names; others are in `default_region`, or in none.
    demo: simulated providers only, any peer is an edge, any key or none.
    memo: results of pure functions of this table, which `policy.memo` keeps and bounds; no part of its value.
    """

    version: str
    assistants: Mapping[str, Assistant]
    regions: Mapping[str, Region]
    region_by_territory: Mapping[str, Region]
    default_region: Region | None
    blocked: Places
    deployments: Mapping[str, Deployment]
    clients: Mapping[str, Client]
    location: LocationRules = LocationRules()
    resilience: Resilience = Resilience()
    cell: Cell | None = None
    exporters: tuple[Exporter, ...] = ()
    cors: Cors | None = None
    demo: bool = False
    memo: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False)

    @property
    def approvals(self) -> Mapping[str, tuple[Approval, ...]]:
        """The approvals of each deployment by its name."""
        return {name: deployment.approvals for name, deployment in self.deployments.items()}

    def region_of(self, territory: str) -> Region | None:
        """The region that a territory is in: its own entry, its country's, the default's, or none."""
        region = self.region_by_territory.get(territory)
        if region is None and (country := parent(territory)):
            region = self.region_by_territory.get(country)
        return region or self.default_region
