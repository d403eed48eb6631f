"""Name the end users of tokens and of claims. Pure.

The name of a user has the name of the issuer, wherever that is known. So the user of a token and the user of a claim of
one issuer are one user, equal names of two issuers are two, and a user that a client asserts is one of its own. Two
entries of `token_issuers` with the same `iss` are one issuer, if they name users by the same member.
"""

from __future__ import annotations

from gateway.model.config_version import Client, ConfigVersion
from gateway.policy.location.claim import ClaimRules

OF_ISSUER = "\0"
"""The first character of a name that has its issuer. No name that a client asserts has it."""


def qualified_user(issuer: str, user: str) -> str:
    """Return the end user of an issuer, which differs from an equal name of another issuer or of a client."""
    return f"\0{issuer}\0{user}"


def claim_user(issuer: str, subject: str) -> str:
    """Return the end user whom a claim names. `issuer` is as `claim_issuer` returns it."""
    return qualified_user(issuer, subject) if issuer else subject


def has_issuer(user: str) -> bool:
    """Return whether this name of an end user has its issuer. No name that a client asserts has the character."""
    return user.startswith(OF_ISSUER)


def plain_user(user: str) -> str:
    """Return the end user as its issuer names it. A name that a client asserts stays as it is."""
    return user.split("\0", 2)[2] if has_issuer(user) else user


def token_user(client: Client | None) -> str | None:
    """Return the end user whom the client's token names, or None."""
    token = client.token if client is not None else None
    return qualified_user(token.users_of, token.user) if token is not None and token.user is not None else None


def claim_issuer(config: ConfigVersion) -> str:
    """Return the name of the issuer of claims: that of the tokens of this `iss`, else the `iss`. Empty: no claims."""
    rules = config.location.rules.of(ClaimRules)
    if rules is None:
        return ""
    named = (it.users_of for it in config.token_issuers.values() if it.names_by_subject and it.issuer == rules.issuer)
    return next(named, rules.issuer)


def names_of(config: ConfigVersion, user: str) -> dict[str, tuple[str, ...]]:
    """Return the names of a user by the issuer: first the present one, then those of earlier versions and releases.

    Up to release 0.2, the subject of a claim had no issuer in its name, and stored rows still have that name. It got
    the name of its `iss` before the configuration had an entry for its tokens.
    """
    found: dict[str, dict[str, None]] = {}
    for it in config.token_issuers.values():
        names = found.setdefault(it.users_of, {qualified_user(it.users_of, user): None})
        names[qualified_user(it.name, user)] = None
    if issuer := claim_issuer(config):
        rules = config.location.rules.of(ClaimRules)
        names = found.setdefault(issuer, {qualified_user(issuer, user): None})
        names |= dict.fromkeys((qualified_user(rules.issuer, user) if rules is not None else user, user))
    return {name: tuple(names) for name, names in found.items()}


def people_named(config: ConfigVersion, user: str, issuer: str | None) -> dict[str, tuple[str, ...]]:
    """Return the names of each person whom this name may mean, by the issuer. `""`: the user that a client asserts.

    `issuer` is the name of an issuer of the configuration, or its `iss`. Every issuer counts if it is None.
    """
    found = names_of(config, user)
    if issuer is None:
        return {**found, "": (user,)}
    rules, named = config.location.rules.of(ClaimRules), issuer
    if rules is not None and rules.issuer == issuer:
        named = claim_issuer(config)
    elif (of := next((it for it in config.token_issuers.values() if issuer in (it.name, it.issuer)), None)) is not None:
        named = of.users_of
    return {named: found.get(named, (qualified_user(issuer, user),))}


def former_names(config: ConfigVersion, user: str) -> tuple[str, ...]:
    """Return the names under which earlier versions and releases kept a user."""
    if not has_issuer(user):
        return ()
    issuer, name = user.split("\0", 2)[1:]
    return names_of(config, name).get(issuer, (user,))[1:]
