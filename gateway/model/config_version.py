"""The compiled configuration: regions, clients and their limits, the cell and its keys, and a cache of pure results."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from gateway.model import budget
from gateway.model.assistant import Assistant
from gateway.model.client_token import TokenIssuer
from gateway.model.deployment import Deployment
from gateway.model.location_rules import Locator
from gateway.model.moderation import Moderation
from gateway.model.parts import NO_PARTS, Parts
from gateway.model.permit import ServicePermit
from gateway.model.quota import Priority, Quota
from gateway.model.refusal_reason import RefusalReason
from gateway.model.region_text import RegionText, Sentences
from gateway.model.resilience import DEFAULT_RESILIENCE, Resilience
from gateway.model.section import PlainSection, key, section
from gateway.model.sign_in import SignIn
from gateway.model.signed_token import TokenHolder
from gateway.model.units import AgeSeconds, Sample
from gateway.model.websocket import DEFAULT_WEBSOCKET, WebSocketRules
from providers.auth import Secret
from providers.sites import Residency
from providers.territories import NOWHERE, Places, parent, territory_data
from providers.value import Value

_LOOPBACK = re.compile(r"https?://(?:(?:[a-z0-9-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?")
MOST_ENTRIES = 8192
_UNKNOWN: Any = object()


class Exporter(Value, frozen=True):
    """One collector of traces."""

    name: str
    permit: ServicePermit
    path: str
    headers: tuple[tuple[str, Secret], ...]
    residency: Residency
    """Where the exported data is stored and processed, wherever the collector itself is."""
    regions: frozenset[str]
    """The names of the regions whose requests are exported to it."""
    includes_unlocated: bool = False
    """Whether requests without a region (unknown key or location) are exported to it too. This is allowed only if it
    lies inside every boundary."""
    ratio: float = 1.0
    """The share of new traces that it gets. A trace that a caller began follows the caller's flag."""
    missing: tuple[str, ...] = ()
    """The sources of headers that are not set. Nothing is exported while one is missing."""

    def may_export(self, region: Region | None, territory: str | None = None) -> bool:
        """Return whether a request of this region and territory may be exported here.

        The config must list the region, and the region's own boundary, which may be that of an earlier config, must
        include the collector. A request that must stay in its territory is not exported outside it.
        """
        if region is None:
            return self.includes_unlocated
        return region.name in self.regions and self.residency.within(region.bounds_of(territory))


@dataclass(frozen=True, slots=True)
class Region:
    """An operator's set of territories under one policy."""

    name: str
    territories: Places
    boundary: Places
    """Where prompts of this region may be stored and processed."""
    transit: Places = NOWHERE
    """The cell's own territory, if it lies outside the boundary and is accepted."""
    approvals_required: bool = False
    """Only a deployment with a valid approval for this region may answer."""
    texts: RegionText | None = field(default=None, repr=False, hash=False)
    """The texts of the region (labels, profile, refusals), or None."""
    protected: bool = False
    """A change of the region needs the signature of an admin."""
    keeps_receipts: bool = True
    """Whether this cell stands where the region's receipts may be stored."""
    log_prompts: bool = False
    """Whether the text of its requests is written to the log."""
    websocket: bool = True
    """The Responses API is offered over WebSocket here."""
    parts: Parts = field(default=NO_PARTS, repr=False, hash=False)
    doors: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    """Those of its parts that may refuse a chat."""
    helps_first: bool = field(init=False, repr=False, compare=False)
    """Refusals wait until its judges have looked for a user who needs help."""
    kinds: frozenset[type] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Each request asks these, and most regions have no part.
        every = self.parts.every
        object.__setattr__(self, "doors", tuple(part for part in every if part.is_door))
        object.__setattr__(self, "helps_first", any(part.helps_first for part in every))
        object.__setattr__(self, "kinds", frozenset(map(type, every)))

    @property
    def judges(self) -> tuple[str, ...]:
        """The names of the deployments by which features judge its chats."""
        return tuple(name for part in self.parts.every for name in part.judging()[1])

    @property
    def timezone(self) -> str:
        """The time zone of its days and months: that of a part, or else UTC."""
        return next(filter(None, (part.zone_of_days() for part in self.parts.every)), "UTC")

    @property
    def is_default(self) -> bool:
        """Whether the region includes every territory that no other region lists."""
        return self.territories.included is None

    def required_places(self, territory: str) -> Places | None:
        """Return where prompts from this territory must stay although the region's boundary is wider, or None.

        A default region lists no territories, so its operator has not decided that these prompts may leave.
        """
        if not self.is_default:
            return None
        country = parent(territory) or territory
        return Places(frozenset({country})) if country in territory_data().stays else None

    def bounds_of(self, territory: str | None) -> Places:
        """Return where data from this territory may go. Without a territory, it is the region's boundary."""
        required = self.required_places(territory) if territory is not None else None
        return self.boundary if required is None else required


@section
class ClientLimitRule(PlainSection):
    """Limits of a client's requests. The counts are over all workers."""

    rpm: int | None = key(
        "Chat requests per minute. The allowance refills evenly, up to the requests of one minute.",
        default=None,
        ge=1,
        le=1_000_000,
    )
    concurrent: int | None = key("Concurrent chat requests, including open streams.", default=None, ge=1, le=1_000_000)
    tpm: int | None = key(
        "Tokens per minute, input and output. The allowance refills evenly, up to the tokens of one minute.",
        default=None,
        ge=1,
        le=1_000_000_000_000,
    )
    connections: int | None = key(
        "WebSocket connections, in each worker. Default: 64.", default=None, ge=1, le=1_000_000
    )
    body_bytes: int | None = key(
        "The largest body of a request, in bytes. Default: 32 MB.", default=None, ge=1024, le=32 * 1024 * 1024
    )


@dataclass(frozen=True, slots=True)
class Client:
    """A calling application with its keys, permissions and limits."""

    name: str
    assistants: frozenset[str] | None = None
    """The assistants that it may use. None means all."""
    region: str | None = None
    """The region of every request with its keys, or None."""
    may_assert: frozenset[str] = frozenset()
    limits: ClientLimitRule | None = None
    spending: budget.SpendingRules = budget.NO_SPENDING_RULES
    """Its project, its budgets and what it is shown of costs."""
    priority: Priority = Priority.NORMAL
    """Its place where a quota or a queue is full."""
    key_hash: str = field(default="", compare=False, repr=False)
    """The digest of the key that was sent, by which `ConfigVersion.clients` has the client. It is not part of the
    client's identity: limits and remembered locations hold for all keys of a client."""
    key_id: str = field(default="", compare=False)
    """The name under which the last use of the key is recorded, which is its id if it is stored in the database, else
    its digest."""
    token: TokenHolder | None = field(default=None, compare=False)
    """The verified token that was sent in place of a key. `key_hash` is then its SHA-256."""
    until_s: float | None = field(default=None, compare=False)
    """When the key that was sent expires, if it is in the config file (Unix time), or None if it does not."""

    def may_ask(self, assistant: str) -> bool:
        """Return whether this client may use the assistant."""
        return self.assistants is None or assistant in self.assistants


class Cell(Value, frozen=True):
    """One installation of the gateway, with its territory, the regions that it serves, and the URLs of other cells.

    Its name in its API keys is empty if that is its territory in lower case (see `key_name`).
    """

    territory: str
    serves: frozenset[str] | None = None
    homes: Mapping[str, str] = {}
    name: str = ""

    @property
    def key_name(self) -> str:
        """The name of the cell in its API keys."""
        return self.name or self.territory.lower()


class Secrets(Value, frozen=True):
    """The valid versions of the gateway's own keys, the newer one first.

    They sign consent tokens, make pseudonyms, and hash stored API keys. A key of the process stands for that of
    consents.
    """

    consent: tuple[Secret, ...] = ()
    identity: tuple[Secret, ...] = ()
    pepper: tuple[Secret, ...] = ()

    @property
    def oldest_identity(self) -> Secret | None:
        """The key that makes pseudonyms now: the older one, so that they stay the same while a key is replaced."""
        return self.identity[-1] if self.identity else None


NO_SECRETS = Secrets()


@section
class ReceiptRules(PlainSection):
    """The receipts of requests. They are kept only if GATEWAY_STATE_DIR is set."""

    keep_s: AgeSeconds = key(
        "How long each receipt is kept, in hours or days.", default=30 * 86_400.0, name="keep", written="30d"
    )
    sample: Sample = key(
        "The share of successful requests whose receipt is kept, such as 0.1 or 10%. A request that was refused, "
        "failed, retried or failed over always has a receipt. The same request ids are kept as for an equal "
        "`log.sample`.",
        default=1.0,
    )


@section
class LogRules(PlainSection):
    """The log lines of requests."""

    sample: Sample = key(
        "The share of successful requests whose line is logged, such as 0.1 or 10%. A request that was refused, "
        "failed, retried or failed over is always logged. Metrics count all requests.",
        default=1.0,
    )


_DEFAULT_RECEIPTS, _DEFAULT_LOG = ReceiptRules(), LogRules()


class Cors(Value, frozen=True):
    """The web origins whose pages may call the API from a browser: those named, every one, or any port of this machine.

    `headers` are further ones that these pages may send, in lower case.
    """

    origins: frozenset[str] = frozenset()
    any_origin: bool = False
    loopback: bool = False
    headers: frozenset[bytes] = frozenset()

    def allows(self, origin: str) -> bool:
        """Return whether pages of this origin may call. The origin `null` is that of any page that hides its own."""
        if self.any_origin:
            return origin != "null"
        return origin in self.origins or (self.loopback and _LOOPBACK.fullmatch(origin) is not None)


@dataclass(frozen=True, slots=True, eq=False)
class ConfigVersion:
    """The immutable compiled configuration."""

    version: str
    """The first 12 hex digits of the SHA-256 of the document. The header `x-gateway-config` shows it."""
    assistants: Mapping[str, Assistant]
    """The assistants by name and by alias. An alias may end with `*`."""
    regions: Mapping[str, Region]
    region_by_territory: Mapping[str, Region]
    """Every territory that a region lists. Others are in `default_region`, or in none."""
    default_region: Region | None
    blocked: Places
    deployments: Mapping[str, Deployment]
    clients: Mapping[str, Client]
    """The clients by the digest of each key, which is its hex SHA-256 or, for a key of the database, its HMAC with the
    pepper. A client that a rule of `token_issuers` names is there by its `token_key` too."""
    location: Locator
    resilience: Resilience = DEFAULT_RESILIENCE
    cell: Cell | None = None
    exporters: tuple[Exporter, ...] = ()
    cors: Cors | None = None
    secrets: Secrets = NO_SECRETS
    demo: bool = False
    """Only simulated providers, except `real`; every peer is a trusted edge, and no key is required."""
    simulated: bool = False
    """A real config with only simulated providers (`gateway serve --simulated`)."""
    real: frozenset[str] = frozenset()
    """The deployments of a demo that are not simulated. Only the command `gateway demo --with` adds one."""
    admin_keys: tuple[str, ...] = ()
    """The public keys that may sign a change of a protected region."""
    receipts: ReceiptRules = _DEFAULT_RECEIPTS
    log: LogRules = _DEFAULT_LOG
    websocket: WebSocketRules | None = DEFAULT_WEBSOCKET
    """The rules of WebSocket connections, or None if they are not offered."""
    blocked_by: str | None = None
    """A page of the authority or policy that requires a refusal, if the operator gave one."""
    moderation: Mapping[str, Moderation] = field(default_factory=dict)
    """The judges of the chats of a region, by its name."""
    messages: Mapping[RefusalReason, Sentences] = field(default_factory=dict, repr=False)
    """The sentences for end users, by the reason of a refusal."""
    known_fields: frozenset[str] = frozenset()
    """Request fields that look like a misspelled standard field, but that an installed adapter knows or a deployment
    passes on."""
    projects: Mapping[str, budget.Project] = field(default_factory=dict)
    """The groups of clients that share budgets, by name."""
    usage: budget.UsageRules = budget.NO_USAGE_RULES
    """How usage and money are counted."""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """The limits of accounts at vendors, by name."""
    stores: budget.Stores | None = None
    """The servers that all instances of the cell share, or None."""
    clients_source: budget.ClientsSource = "file"
    """Where clients, keys, projects and budgets are."""
    keys: budget.KeyRules = budget.DEFAULT_KEY_RULES
    """The API keys of clients while the key store cannot be asked."""
    sign_ins: Mapping[str, SignIn] = field(default_factory=dict, repr=False)
    """How the gateway gets tokens, by name."""
    token_issuers: Mapping[str, TokenIssuer] = field(default_factory=dict)
    """The issuers of tokens that stand in place of API keys, by name."""
    keys_stale: bool = False
    """Whether the database of clients cannot be read now, so that an unknown key may be a new one."""
    revoked_keys: frozenset[str] = frozenset()
    """The digests of keys of the database that were revoked. The same key is refused also if it was imported by its
    hash."""
    blocked_keys: Mapping[str, float] = field(default_factory=dict)
    """Since when each blocked key is refused (Unix time), by its digest in `clients` or its SHA-256."""
    law_ends: Mapping[str, tuple[date, str]] = field(default_factory=dict, repr=False)
    """The first day without the law that a label of a region is for, and what follows, by label."""
    parts: Parts = NO_PARTS
    recipients: frozenset[str] = field(init=False)
    """The recipients for which some deployment needs the user's consent."""
    ends: tuple[float, ...] = field(init=False, repr=False)
    """The moments (Unix time) at which routes begin to pass over one of its deployments, the first one first."""
    has_one_client: bool = field(init=False)
    """Whether there is at most one client, by name."""
    memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)
    """Cached results of pure functions of this version, kept and bounded by `remember`. Not part of the value."""

    def __post_init__(self) -> None:
        asked = frozenset(item.consent.recipient for item in self.deployments.values() if item.consent is not None)
        object.__setattr__(self, "recipients", asked)
        ends = sorted(item.ends_s for item in self.deployments.values() if item.ends_s is not None)
        object.__setattr__(self, "ends", tuple(ends))
        object.__setattr__(self, "has_one_client", len({client.name for client in self.clients.values()}) < 2)

    @property
    def own_assistants(self) -> dict[str, Assistant]:
        """Each assistant once, by its own name. An alias names the same assistant."""
        return {name: assistant for name, assistant in self.assistants.items() if name == assistant.name}

    @property
    def file_version(self) -> str:
        """The version as the file, the history and a cell have it: without the digits of a schedule's shares."""
        return self.version.partition("+")[0]

    @property
    def requires_key(self) -> bool:
        """Whether each request needs an API key. Without clients, the gateway serves its own machine."""
        return bool(self.clients) or self.clients_source == "database"

    @property
    def gives_roles(self) -> bool:
        """Whether a rule of an issuer gives a role at the admin listener, which then needs a token."""
        return any(issuer.roles for issuer in self.token_issuers.values())

    @property
    def has_shared_clients(self) -> bool:
        """Whether clients, keys, projects and budgets are in `stores.database`."""
        return self.clients_source == "database" and self.stores is not None and self.stores.database is not None

    @property
    def needs_state_dir(self) -> str:
        """The setting that needs a state directory, or an empty text if none does."""
        if self.stores is not None:
            return "stores"
        if self.clients_source == "database":
            return "clients_source"
        for client in self.clients.values():
            if client.limits is not None and client.limits.tpm is not None:
                return f"clients.{client.name}.limits.tpm"
            if client.spending.all_budgets:
                return f"a budget of clients.{client.name}"
            if client.spending.max_request is not None:
                return f"clients.{client.name}.max_request"
        for deployment in self.deployments.values():
            if deployment.quotas:
                return f"deployments.{deployment.name}.quota"
        for name, region in self.regions.items():
            for part in region.parts.every:
                if key := part.kept_by():
                    return f"regions.{name}.{key}"
        return next((f"projects.{name}.budgets" for name, project in self.projects.items() if project.budgets), "")

    @property
    def cell_territory(self) -> str | None:
        """The territory of the gateway, if the config states it."""
        return self.cell.territory if self.cell is not None else None

    @property
    def deployments_by_sign_in(self) -> dict[str, tuple[str, ...]]:
        """The enabled deployments that use each sign-in, directly or as the source of another one."""
        used: dict[str, tuple[str, ...]] = {}
        for deployment in self.deployments.values():
            if (sign_in := deployment.sign_in) is not None and deployment.enabled and sign_in.name in self.sign_ins:
                used |= {name: (*used.get(name, ()), deployment.name) for name in sign_in.needed}
        return used

    def has_websocket(self, region: Region | None) -> bool:
        """Return whether the Responses API is offered over WebSocket in a region."""
        return self.websocket is not None and (region is None or region.websocket)

    def region_of(self, territory: str) -> Region | None:
        """Return the region of a territory: its own entry, its country's entry, the default region, or None."""
        region = self.region_by_territory.get(territory)
        if region is None and (country := parent(territory)):
            region = self.region_by_territory.get(country)
        return region or self.default_region


_T = TypeVar("_T")


def remember(config: ConfigVersion, key: Hashable, make: Callable[[], _T]) -> _T:
    """Return the cached result of `make`, which is called once for each key. Keys begin with the function's name."""
    memo = config.memo
    known: _T = memo.get(key, _UNKNOWN)
    if known is not _UNKNOWN:
        return known
    if len(memo) >= MOST_ENTRIES:
        memo.clear()
    made = make()
    memo[key] = made
    return made
