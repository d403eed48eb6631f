"""The compiled configuration: regions, assistants, clients and their limits, and a cache of pure results."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from gateway.model.approval import Approval
from gateway.model.deployment import Deployment
from gateway.model.location_rules import Locator
from gateway.model.permit import ServicePermit
from gateway.model.region_text import RegionText
from gateway.model.route import Route, Shadow
from gateway.model.schedule import Schedule
from gateway.model.section import OrOff, PlainSection, key
from gateway.model.units import AgeSeconds, Seconds, SecondsOrZero, Share, ShareOrOff
from providers.auth import Secret
from providers.sites import Residency
from providers.territories import NOWHERE, Places, parent, territory_data


@dataclass(frozen=True, slots=True)
class Exporter:
    """One collector of traces.

    residency: where what it is told is stored and processed, wherever the collector itself stands.
    regions: the names of those whose requests it is told of. hears_of_unplaced: whether it is told of requests of no
    region too (an unknown key, an unknown place), because it lies inside every boundary.
    ratio: the share of new traces that it gets; a trace that a caller began follows the caller's flag.
    missing: where an unset header should have come from; nothing is exported without it.
    """

    name: str
    permit: ServicePermit
    path: str
    headers: tuple[tuple[str, Secret], ...]
    residency: Residency
    regions: frozenset[str]
    hears_of_unplaced: bool = False
    ratio: float = 1.0
    missing: tuple[str, ...] = ()

    def may_hear_of(self, region: Region | None, territory: str | None = None) -> bool:
        """Whether a request of this region, from this territory where it is known, may be told of: by this config, and
        by the region's own boundary too, which may be that of an earlier config. What must stay at home isn't told of
        elsewhere."""
        if region is None:
            return self.hears_of_unplaced
        return region.name in self.regions and self.residency.within(region.bounds_of(territory))


@dataclass(frozen=True, slots=True)
class Region:
    """An operator's set of territories under one policy.

    boundary: where prompts of this region may be stored and processed.
    transit: the cell's own territory, where it lies outside the boundary and is accepted.
    approvals_required: only a deployment that is approved for this region right now may answer.
    speech: what the region says by itself; None where it says nothing.
    protected: it changes only with the signature of an admin.
    keeps_receipts: whether this cell stands where its receipts may be stored.
    log_prompts: whether the text of its requests is written to the log.
    """

    name: str
    territories: Places
    boundary: Places
    transit: Places = NOWHERE
    approvals_required: bool = False
    speech: RegionText | None = field(default=None, repr=False, hash=False)
    protected: bool = False
    keeps_receipts: bool = True
    log_prompts: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it takes every territory that no other region names."""
        return self.territories.included is None

    def kept_at_home(self, territory: str) -> Places | None:
        """Where prompts from this territory must stay, though the region's boundary is wider: a region that names
        nobody has not decided that they may leave. None where that is no question."""
        country = parent(territory) or territory
        return Places(frozenset({country})) if self.is_default and country in territory_data().stays else None

    def bounds_of(self, territory: str | None) -> Places:
        """Where what comes from this territory may go, None if it isn't known."""
        kept = self.kept_at_home(territory) if territory is not None else None
        return self.boundary if kept is None else kept


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """When a second attempt is made beside the first one: after `after_s`; where that is None, after the time in which
    this share of a deployment's answers begin."""

    share: float = 0.95
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Assistant:
    """What a client asks for in `model`; `routes` has the ordered steps of each region by the region's name.

    reveal_model: whether clients are told which model answers.
    resume: whether an answer that breaks off in mid-stream is continued by the next step.
    schedules: by region, how the share of a candidate in the route's first step is raised. shadows: by region, who is
    asked too.
    hedge: None makes no second attempt beside a slow one.
    """

    name: str
    routes: Mapping[str, Route]
    aliases: tuple[str, ...] = ()
    reveal_model: bool = True
    resume: bool = False
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    hedge: HedgeRule | None = None


@dataclass(frozen=True, slots=True)
class ClientLimitRule(PlainSection):
    """How much a client may ask, of all workers together."""

    rpm: int | None = field(
        default=None,
        metadata=key(
            "Chat requests a minute: they come back evenly, and up to a minute's worth is saved up.",
            ge=1,
            le=1_000_000,
        ),
    )
    concurrent: int | None = field(
        default=None,
        metadata=key("Chat requests that run at the same time, open streams among them.", ge=1, le=1_000_000),
    )


@dataclass(frozen=True, slots=True)
class Client:
    """Who may call. `assistants` None means all; `region` binds every request of its keys to one region.

    key_hash: the hex SHA-256 of the one of its keys that was shown. It makes no other client: limits and what is
    remembered of a place count for all of its keys.
    """

    name: str
    assistants: frozenset[str] | None = None
    region: str | None = None
    may_assert: frozenset[str] = frozenset()
    limits: ClientLimitRule | None = None
    key_hash: str = field(default="", compare=False, repr=False)

    def may_ask(self, assistant: str) -> bool:
        """Whether this client may ask for the assistant."""
        return self.assistants is None or assistant in self.assistants


@dataclass(frozen=True, slots=True)
class Attempts(PlainSection):
    """How often a request may be tried."""

    per_deployment: int = field(default=2, metadata=key("Attempts on one deployment.", ge=1, le=10))
    total: int = field(default=4, metadata=key("Attempts of one request over all deployments.", ge=1, le=50))


@dataclass(frozen=True, slots=True)
class BreakerRule(PlainSection):
    """When a deployment that keeps failing is left alone for a while."""

    failures: int = field(default=5, metadata=key("Failures in a row that open it.", ge=1, le=1000))
    rate: Share = field(
        default=0.5, metadata=key("The share of failed calls in the window that opens it.", default="50%")
    )
    window_s: Seconds = field(
        default=30.0, metadata=key("How far back calls count for the rate.", name="window", default="30s")
    )
    samples: int = field(default=20, metadata=key("The calls that the window must have for a rate.", ge=1, le=100_000))
    open_s: Seconds = field(
        default=10.0,
        metadata=key(
            "For how long it is open at first; twice as long each time a probe fails, up to 16 times.",
            name="open",
            default="10s",
        ),
    )


@dataclass(frozen=True, slots=True)
class Resilience(PlainSection):
    """Bounds of one request's journey."""

    attempts: Attempts = field(default=Attempts(), metadata=key("How often a request may be tried."))
    connect_s: Seconds = field(default=5.0, metadata=key("To open a connection.", name="connect", default="5s"))
    first_token_s: Seconds = field(
        default=10.0,
        metadata=key(
            "To the first real event of an attempt, where a next step exists.", name="first_token", default="10s"
        ),
    )
    commit_s: Seconds = field(
        default=55.0, metadata=key("To the first real event, over all attempts.", name="commit", default="55s")
    )
    idle_s: Seconds = field(default=30.0, metadata=key("Between two events of a stream.", name="idle", default="30s"))
    total_s: Seconds = field(default=600.0, metadata=key("The whole request.", name="total", default="600s"))
    failover_after_s: SecondsOrZero = field(
        default=2.0,
        metadata=key(
            "The longest wait that a provider may ask for before the next step is taken instead.",
            name="failover_after",
            default="2s",
        ),
    )
    keep_alive_s: SecondsOrZero = field(
        default=15.0,
        metadata=key(
            "The longest silence of a stream that has begun, before the client gets a comment line, so that nothing "
            "between the two closes the connection. 0s sends none.",
            name="keep_alive",
            default="15s",
        ),
    )
    breaker: Annotated[BreakerRule | None, OrOff()] = field(
        default=BreakerRule(),
        metadata=key("When a deployment that keeps failing is left alone for a while; `off` for never."),
    )
    retry_budget: ShareOrOff = field(
        default=0.2,
        metadata=key(
            "The share of recent requests that may be retried on the deployment that failed, and ten in ten seconds "
            "besides; `off` for no limit. Going to the next step is always allowed.",
            default="20%",
        ),
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """This installation: where it stands, which regions it serves (None: all), and the URLs of other regions' cells."""

    territory: str
    serves: frozenset[str] | None = None
    homes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The gateway's own keys: `consent` signs tokens (None: one that ends with the process), `identity` makes
    pseudonyms."""

    consent: Secret | None = None
    identity: Secret | None = None


@dataclass(frozen=True, slots=True)
class ReceiptRules(PlainSection):
    """The receipts of requests, which are kept where there is a GATEWAY_STATE_DIR."""

    keep_s: AgeSeconds = field(
        default=30 * 86_400.0,
        metadata=key("For how long each is kept, in hours or days.", name="keep", default="30d"),
    )


@dataclass(frozen=True, slots=True)
class Cors:
    """Which pages in a browser may call: their origins as a browser writes them, or any."""

    origins: frozenset[str] = frozenset()
    any_origin: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ConfigVersion:
    """The compiled config.

    version: the first 12 hex digits of the SHA-256 of the document: what `x-gateway-table` shows.
    assistants: by name and by alias. clients: by the hex SHA-256 of each key.
    region_by_territory: every territory that a region names; others are in `default_region`, or in none.
    demo: simulated providers only, any peer is an edge, any key or none.
    admin_keys: the public keys that may sign a change of a protected region. receipts_keep_s: for how long.
    blocked_by: the page of who refuses by law or policy, if the operator names one.
    recipients: whom some deployment asks the person's consent for; empty if none does.
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
    location: Locator
    resilience: Resilience = Resilience()
    cell: Cell | None = None
    exporters: tuple[Exporter, ...] = ()
    cors: Cors | None = None
    secrets: Secrets = Secrets()
    demo: bool = False
    admin_keys: tuple[str, ...] = ()
    receipts_keep_s: float = ReceiptRules().keep_s
    blocked_by: str | None = None
    recipients: frozenset[str] = field(init=False)
    memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        asked = frozenset(item.consent.recipient for item in self.deployments.values() if item.consent is not None)
        object.__setattr__(self, "recipients", asked)

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


MOST_ENTRIES = 8192


_T = TypeVar("_T")


_UNKNOWN: Any = object()


def remember(table: ConfigVersion, key: Hashable, make: Callable[[], _T]) -> _T:
    """What `make` gives, called once for each key of this table. Keys begin with a word that names the function."""
    memo = table.memo
    known: _T = memo.get(key, _UNKNOWN)
    if known is not _UNKNOWN:
        return known
    if len(memo) >= MOST_ENTRIES:
        memo.clear()
    made = make()
    memo[key] = made
    return made
