"""Clients, keys and admin tokens that are stored in the database, and the facts of the config that they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from gateway.model.api_key import NO_CELL
from gateway.model.budget import ClientsSource
from gateway.model.config_version import ConfigVersion
from providers.value import Value

Definition = Mapping[str, object]
"""The keys of a client or a project as the config file would have them, without `keys`."""

PepperSource = Literal["state", "config"]
LISTENER_CLOSED = (
    "a token was needed before, so the admin listener stays closed to everyone without one: "
    "`gateway admin-token create --state DIR` on the gateway's machine makes one, GATEWAY_ADMIN_TOKEN sets one, and "
    "`gateway admin-token open --state DIR` opens the listener without one"
)


class KeyInfo(Value, frozen=True):
    """A key without its secret."""

    id: str
    client: str
    owner: str
    note: str
    created_at_s: float
    expires_at_s: float | None = None
    """When it stops to work (Unix time), or None."""
    revoked_at_s: float | None = None
    last_used_at_s: float | None = None
    """When a request used it last, to the minute, or None."""
    secrets: tuple[tuple[float, float | None], ...] = ()
    """For each valid secret, the newest first: when it was made, and until when it is valid, or None for as long as the
    key."""
    blocked_at_s: float | None = None
    """Since when it is blocked (Unix time), or None."""


class StoredKey(Value, frozen=True):
    """A secret of a key that is not revoked: the HMAC of the key, or the SHA-256 of an imported one.

    It stops to be valid at a Unix time, or never.
    """

    digest: str
    id: str
    client: str
    until_s: float | None


class StoredClients(Value, frozen=True):
    """The content of the database at one generation."""

    generation: int
    clients: Mapping[str, Definition] = {}
    projects: Mapping[str, Definition] = {}
    keys: tuple[StoredKey, ...] = ()
    revoked_keys: frozenset[str] = frozenset()
    """The digests of the keys that were revoked or replaced."""
    blocked: Mapping[str, float] = {}
    """Since when each blocked key is blocked (Unix time), by its id or the SHA-256 (hex) of the key."""


class Role(StrEnum):
    """The permissions of an admin token. Each role has those of the roles before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def may_act(role: Role, needed: Role) -> bool:
    """Return whether a holder of a role may do what needs another: `admin` may do all, every role may view."""
    order = tuple(Role)
    return order.index(role) >= order.index(needed)


class AdminToken(Value, frozen=True):
    """A token for the admin listener, without its secret.

    If the role that it was made with does not exist any more (`was`), its role is `viewer`.
    """

    id: str
    role: Role
    note: str
    created_at_s: float
    was: str = ""


class ConfigFacts(Value, frozen=True):
    """The part of the active config version to which stored clients refer."""

    source: ClientsSource
    """Where clients are."""
    cell: str
    """The name of the cell in its keys."""
    assistants: tuple[str, ...]
    """The names of the assistants, without aliases."""
    regions: tuple[str, ...]
    currency: str | None
    pepper: PepperSource
    """Where the newest pepper is: in the state directory, or in the section `secrets`."""
    config: str = ""
    """The path of the config file, or an empty text."""
    is_shared: bool = False
    """Whether the database of the clients is `stores.database`."""


def facts_of(config: ConfigVersion, path: str = "") -> ConfigFacts:
    """Return the facts of a config version as it was compiled, from the file at this path."""
    return ConfigFacts(
        source=config.clients_source,
        cell=config.cell.key_name if config.cell is not None else NO_CELL,
        assistants=tuple(dict.fromkeys(assistant.name for assistant in config.assistants.values())),
        regions=tuple(config.regions),
        currency=config.usage.currency,
        pepper="config" if config.secrets.pepper else "state",
        config=path,
        is_shared=config.has_shared_clients,
    )
