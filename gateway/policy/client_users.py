"""Name the end user of a client's token. Pure."""

from __future__ import annotations

from gateway.model.config_version import Client


def qualified_user(issuer: str, user: str) -> str:
    """Return the end user of an issuer's token, which differs from an equal name of another issuer or of a client."""
    return f"\0{issuer}\0{user}"


def token_user(client: Client | None) -> str | None:
    """Return the end user whom the client's token names, or None."""
    token = client.token if client is not None else None
    return qualified_user(token.issuer, token.user) if token is not None and token.user is not None else None
