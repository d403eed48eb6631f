"""The holder of a signed token, which was sent in place of an API key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.model.permit import ServicePermit
from providers.auth import Secret
from providers.value import Value

_BY_RULE = "token "


def token_key(client: str) -> str:
    """Return the key in `ConfigVersion.clients` of a client that a rule names. No digest of an API key has a space."""
    return _BY_RULE + client


class TokenGivesNothing(Exception):
    """A valid token gives its holder nothing.

    It `lacks` the `groups` if the issuer left out a member that a rule looks at, else the `client` or the `role`.
    """

    def __init__(self, lacks: Literal["groups", "client", "role"], issuer: str) -> None:
        super().__init__(lacks)
        self.lacks = lacks
        self.issuer = issuer


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """The part of a verified token that is kept."""

    issuer: str
    iss: str
    users_of: str
    """The name of the issuer in the name of the end user."""
    rule: int
    """The number of the rule that names the client. The first one is 1."""
    until: float
    """When it expires (Unix time)."""
    digests: tuple[str, ...] = field(default=(), repr=False)
    """The SHA-256 (hex) of each form in which it is valid."""
    subject: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    """The end user that it names, or None if the rule has `user: false`."""


class KeyUrl(Value, frozen=True):
    """An issuer's key set at a URL of the config: the permit for the request, and the path."""

    permit: ServicePermit
    path: str


class KeyFile(Value, frozen=True):
    """An issuer's key set in a file."""

    path: str


class SharedKey(Value, frozen=True):
    """A secret with which the issuer signs claims and the gateway verifies them: one or two versions."""

    secrets: tuple[Secret, ...]


KeySource = KeyUrl | KeyFile | SharedKey
