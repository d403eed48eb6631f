"""Clients by a signed token: the issuers whose tokens stand in place of API keys, and the sources of issuers' keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.model.permit import ServicePermit
from providers.auth import Secret
from providers.value import Value

TokenPath = tuple[str, ...]
"""Where a member of a token is: its name, or the steps of a JSON Pointer."""
Where = tuple[tuple[TokenPath, tuple[str | bool, ...]], ...]
"""Members of a token, each with the values of which it must have one."""
AdminRole = Literal["viewer", "operator", "admin"]
_BY_RULE = "token "


def token_key(client: str) -> str:
    """Return the key in `ConfigVersion.clients` of a client that a rule names. No digest of an API key has a space."""
    return _BY_RULE + client


class TokenGivesNothing(Exception):
    """A valid token gives its holder nothing.

    Attributes:
        lacks: The part that is not there: `groups` if the issuer left out a member that a rule looks at, else `client`
            or `role`, which no rule gives.
        issuer: The name of its issuer in the configuration.
    """

    def __init__(self, lacks: Literal["groups", "client", "role"], issuer: str) -> None:
        super().__init__(lacks)
        self.lacks = lacks
        self.issuer = issuer


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


class TokenRule(Value, frozen=True):
    """A rule that gives a client to a token, or a role at the admin listener.

    Attributes:
        gives: The name of the client, or the role.
        where: The values that the token must have. All entries must hold.
        names_user: The token names the end user.
    """

    gives: str
    where: Where
    names_user: bool = True


class TokenIssuer(Value, frozen=True):
    """An issuer whose tokens are accepted in place of API keys.

    Attributes:
        name: Its name in the configuration.
        issuer: The required value of `iss`.
        audience: The required value of `aud`.
        algorithms: The accepted algorithms.
        keys: Its public keys.
        user: The member that names the user.
        clients: The rules that give a client, in order.
        roles: The rules that give a role at the admin listener, in order.
        longest_s: The longest lifetime of a token.
        denied: Members and their values that no accepted token has.
        issued_after: A token of this Unix time or earlier is refused. None: there is no such bound.
        same_users: The first issuer with the same `iss` and `user`. Both name the same users. Empty: it is this one.
    """

    name: str
    issuer: str
    audience: str
    algorithms: frozenset[str]
    keys: KeySource
    user: TokenPath = ("sub",)
    clients: tuple[TokenRule, ...] = ()
    roles: tuple[TokenRule, ...] = ()
    longest_s: float | None = 86_400.0
    denied: Where = ()
    issued_after: float | None = None
    same_users: str = ""

    @property
    def users_of(self) -> str:
        """The name of the issuer in the names of its users."""
        return self.same_users or self.name


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """The part of a verified token that is kept.

    Attributes:
        issuer: The name of its issuer in the configuration.
        iss: The value of its `iss`.
        users_of: The name of the issuer in the name of the end user.
        rule: The number of the rule that names the client. The first one is 1.
        until: When it expires (Unix time).
        digests: The SHA-256 (hex) of each form in which it is valid.
        subject: Its `sub`, or None.
        user: The end user that it names, or None if the rule has `user: false`.
    """

    issuer: str
    iss: str
    users_of: str
    rule: int
    until: float
    digests: tuple[str, ...] = field(default=(), repr=False)
    subject: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
