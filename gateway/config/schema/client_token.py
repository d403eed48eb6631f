"""Shape of `token_issuers`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.field_types import Section, Visible
from gateway.model.client_token import AdminRole
from gateway.model.section import FileForm, Sensitive, UnitError
from gateway.model.units import Instant, LifetimeSeconds

_ONE = {"anyOf": [{"type": "string"}, {"type": "boolean"}]}
_VALUES = {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "minItems": 1}]}


def _values(value: object) -> tuple[str | bool, ...]:
    items = value if isinstance(value, list) else [value]
    found = tuple(item for item in items if isinstance(item, str | bool))
    if not items or len(found) < len(items):
        is_number = any(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
        message = (
            "a number can't be compared with a member of a token" if is_number else "must be a text, true or false"
        )
        raise UnitError(
            message, "put it in quotes" if is_number else "or a list of them, of which the token must have one"
        )
    return found


MemberValues = Annotated[tuple[str | bool, ...], FileForm(_values, _VALUES)]
_MEMBERS = "by member. A name is a member at the top level; a name that begins with `/` is a JSON Pointer."
Where = Annotated[
    dict[str, MemberValues],
    Field(
        min_length=1,
        description=f"The values that the token must have, {_MEMBERS} All must hold; of a list, one value.",
    ),
]


class TokenRuleSection(Section):
    """A rule that gives a client to a token."""

    client: str = Field(description="The name of the client.")
    where: Where
    user: bool = Field(True, description="false: the token names no end user, as for a program.")


class RoleRuleSection(Section):
    """A rule that gives a token a role at the admin listener."""

    role: AdminRole = Field(description="The rights of its holder.")
    where: Where


class TokenIssuerSection(Section):
    """An issuer whose signed tokens (JWT) are accepted in place of API keys."""

    issuer: Visible = Field(description="The required value of `iss`.")
    audience: Visible = Field(description="The required value of `aud`: the name of this gateway at the issuer.")
    algorithms: Annotated[
        list[Literal["ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]],
        Field(min_length=1),
    ] = Field(description="The accepted signature algorithms, such as [RS256].")
    jwks: Annotated[str, Sensitive("an issuer's keys", is_secret=False, is_shown=True)] = Field(
        description="The issuer's public keys: the https URL of a JWK set, or the absolute path of a file."
    )
    user: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        "sub", description="The member that names the end user. Each token must have it."
    )
    clients: list[TokenRuleSection] = Field(
        [], description="The rules that give a client. The first one that holds decides."
    )
    roles: list[RoleRuleSection] = Field(
        [], description="The rules that give a role at the admin listener. The first one that holds decides."
    )
    longest: LifetimeSeconds = Field(
        86_400.0,
        description="The longest time from `iat` to `exp`. A token that is valid for longer is refused.",
        json_schema_extra={"default": "24h"},
    )
    denied: dict[str, MemberValues] = Field(
        {}, description=f"The values that no accepted token has, {_MEMBERS} One entry is enough to refuse a token."
    )
    issued_after: Instant | None = Field(
        None, description="Tokens that were issued at this time or earlier are refused. Default: none is."
    )
