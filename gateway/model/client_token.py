"""Clients by a signed token: the issuers whose tokens stand in place of API keys, and their rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gateway.model.section import Entries, FileForm, Listed, PlainSection, Sensitive, UnitError, key, section
from gateway.model.signed_token import KeySource, KeyUrl
from gateway.model.units import Instant, LifetimeSeconds, Visible

TokenPath = tuple[str, ...]
"""Where a member of a token is: its name, or the steps of a JSON Pointer."""
AdminRole = Literal["viewer", "operator", "admin"]
_ONE = {"anyOf": [{"type": "string"}, {"type": "boolean"}]}
_VALUES = {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}]}
_MEMBERS = "by member. A name is a member at the top level; a name that begins with `/` is a JSON Pointer."
_WHERE = f"The values that the token must have, {_MEMBERS} All must hold; of a list, one value."


def _values(value: object) -> tuple[str | bool, ...]:
    items = value if isinstance(value, list) else [value]
    found = tuple(item for item in items if isinstance(item, str | bool))
    if items and len(found) == len(items):
        return found
    if any(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        raise UnitError("a number can't be compared with a member of a token", "put it in quotes")
    raise UnitError("must be a text, true or false", "or a list of them, of which the token must have one")


Condition = tuple[str, Annotated[tuple[str | bool, ...], FileForm(_values, _VALUES)]]
"""A member of a token as it is written, and the values of which it must have one."""
Where = Annotated[tuple[Condition, ...], Entries(least=1)]


def path_of(member: str) -> TokenPath:
    """Return the steps to a member: its name or, after a slash, a JSON Pointer (RFC 6901)."""
    if not member.startswith("/"):
        return (member,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in member[1:].split("/"))


@section
class TokenRule(PlainSection):
    """A rule that gives a client to a token."""

    gives: str = key("The name of the client.", name="client")
    where: Where = key(_WHERE)
    names_user: bool = key("false: the token names no end user, as for a program.", default=True, name="user")


@section
class RoleRule(PlainSection):
    """A rule that gives a token a role at the admin listener."""

    gives: AdminRole = key("The rights of its holder.", name="role")
    where: Where = key(_WHERE)


@section
class TokenIssuerRules(PlainSection):
    """An issuer whose signed tokens (JWT) are accepted in place of API keys."""

    issuer: Visible = key("The required value of `iss`.")
    audience: Visible = key("The required value of `aud`: the name of this gateway at the issuer.")
    algorithms: Annotated[
        tuple[Literal["ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"], ...],
        Listed(least=1),
    ] = key("The accepted signature algorithms, such as [RS256].")
    jwks: Annotated[str, Sensitive("an issuer's keys", is_secret=False, is_shown=True)] = key(
        "The issuer's public keys: the https URL of a JWK set, or the absolute path of a file."
    )
    user: str = key(
        "The member that names the end user. Each token must have it.", default="sub", min_length=1, max_length=256
    )
    clients: Annotated[tuple[TokenRule, ...], Listed()] = key(
        "The rules that give a client. The first one that holds decides.", default=()
    )
    roles: Annotated[tuple[RoleRule, ...], Listed()] = key(
        "The rules that give a role at the admin listener. The first one that holds decides.", default=()
    )
    longest_s: LifetimeSeconds = key(
        "The longest time from `iat` to `exp`. A token that is valid for longer is refused.",
        default=86_400.0,
        name="longest",
        written="24h",
    )
    denied: Annotated[tuple[Condition, ...], Entries()] = key(
        f"The values that no accepted token has, {_MEMBERS} One entry is enough to refuse a token.",
        default=(),
        written={},
    )
    issued_after: Instant | None = key(
        "Tokens that were issued at this time or earlier are refused. Default: none is.", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIssuer(TokenIssuerRules):
    """An issuer with its name in the configuration.

    `same_users` is the first issuer with the same `iss` and `user`, which names the same users, or empty.
    """

    name: str
    keys: KeySource
    same_users: str = ""

    @property
    def names_by_subject(self) -> bool:
        """Whether its tokens name a user by `sub`, as claims do."""
        return path_of(self.user) == ("sub",)

    def check_line(self) -> tuple[str, str]:
        """Return its line of `gateway check`: its rules in order, the server of its keys, and what is revoked."""
        rules = [f"rule {number} gives {rule.gives}" for number, rule in enumerate(self.clients, 1)]
        rules += [f"role {number} gives {rule.gives}" for number, rule in enumerate(self.roles, 1)]
        keys = self.keys.permit.origin if isinstance(self.keys, KeyUrl) else "a file"
        revoked = [f"{sum(len(values) for _, values in self.denied)} values are denied"] if self.denied else []
        closes = ["roles close the admin listener for good"] if self.roles else []
        return f"  {self.name}: ", "; ".join((", ".join(rules), f"keys of {keys}", *revoked, *closes))

    @property
    def users_of(self) -> str:
        """The name of the issuer in the names of its users."""
        return self.same_users or self.name
