"""Interpret a caller's headers about its user, consent and the timeout. Pure.

The functions are called when the values are needed, not when the headers are read. So a refusal for the location comes
before an error about one of these headers.
"""

from __future__ import annotations

import hashlib

from gateway.model.caller import Caller
from gateway.model.config_version import ConfigVersion
from gateway.model.consent import NO_STATEMENT, ConsentStatement
from gateway.model.location import ClaimReport
from gateway.policy.client_users import claim_user, token_user
from providers.failures import InvalidRequest
from providers.value import replace

_MAX_MS = 999_999_999
_GRANTED = "granted"
_USER_IGNORED = "ignored: this key may not assert a user"


def timeout_s(values: tuple[str, ...]) -> float:
    """Return the timeout of `x-gateway-timeout-ms` in seconds.

    Raises InvalidRequest if it is not a positive whole number, or for several different values.
    """
    if len(set(values)) > 1:
        raise InvalidRequest("`x-gateway-timeout-ms` was sent more than once, with different values")
    value = values[0] if values else ""
    if not value.isascii() or not value.isdigit() or len(value) > len(str(_MAX_MS)) or int(value) == 0:
        raise InvalidRequest(f"`x-gateway-timeout-ms` must be a whole number of milliseconds between 1 and {_MAX_MS}")
    return int(value) / 1000


def user_of(caller: Caller, claim: ClaimReport | None) -> str | None:
    """Return the user: that of the client's token, else the subject of the claim, else the one that a backend asserts.

    Raises InvalidRequest if the backend asserts two users.
    """
    if (named := token_user(caller.client)) is not None:
        return named
    if claim is not None and claim.subject:
        return claim_user(claim.issuer, claim.subject)
    return asserted_user(caller) if caller.user else None


def asserted_user(caller: Caller) -> str | None:
    """Return the user that the client asserts, or None if there is none or the client may not assert one.

    Raises InvalidRequest if the client asserts two users.
    """
    client = caller.client
    if client is None or "user" not in client.may_assert:
        return None
    names = {_text(value) for value in caller.user} - {""}
    if len(names) > 1:
        raise InvalidRequest("`x-gateway-user` was sent more than once, for different users; send one")
    return names.pop() if names else None


def explain_user(caller: Caller, claim: ClaimReport | None) -> tuple[str | None, dict[str, object]]:
    """Return the user, and its part of an explanation: the signal, never the name."""
    name = user_of(caller, claim)
    if name is not None:
        signal = "claim" if claim is not None and claim.subject else "assertion"
        signal = "token" if token_user(caller.client) is not None else signal
        return name, {"user": {"signal": signal, "note": ""}}
    if caller.user and (caller.client is None or "user" not in caller.client.may_assert):
        return None, {"user": {"signal": None, "note": _USER_IGNORED}}
    return None, {}


def explain_token(caller: Caller) -> dict[str, object]:
    """Return what the client's token is in an explanation: its client, its issuer, and the number of the rule."""
    client = caller.client
    if client is None or client.token is None:
        return {}
    return {"client": client.name, "token_issuer": client.token.issuer, "token_rule": client.token.rule}


def read_consent(config: ConfigVersion, caller: Caller, claim: ClaimReport | None) -> ConsentStatement:
    """Return the consent in the headers: a claim's standing consents, a backend's statement, or a token.

    It is empty if no deployment requires consent. `gateway.policy.consent` checks what depends on the body.
    """
    if not config.recipients:
        return NO_STATEMENT
    is_accepted = claim is not None and claim.problem is None and "claim" in config.location.rules.signals
    standing = claim.consents if claim is not None and is_accepted else frozenset()
    identity = _caller_identity(caller, claim.subject if claim is not None and is_accepted else None)
    values = caller.values("x-gateway-consent")
    stated = ConsentStatement(identity, standing, has_session=caller.session is not None)
    if len(values) > 1:
        return replace(stated, note="`x-gateway-consent` was sent more than once")
    if not values or values[0] != _GRANTED:
        return replace(stated, token=values[0] if values else None)
    if caller.client is None or "consent" not in caller.client.may_assert:
        return replace(stated, note=f"`{_GRANTED}` is ignored: this key may not assert consent")
    return replace(stated, asserted=True)


def _caller_identity(caller: Caller, subject: str | None) -> str:
    """Return a digest of the caller's key, and of the user if there is one, because many users may share a key.

    Of a token it is that of its issuer, client and user, so that a consent survives a new token.
    """
    user = token_user(caller.client) or subject or asserted_user(caller)
    if not user:
        return caller.key_digest
    return hashlib.sha256(f"{caller.key_digest} {user}".encode("utf-8", "surrogatepass")).hexdigest()


def _text(value: bytes) -> str:
    """Decode a header. Programs send UTF-8, browsers Latin-1."""
    try:
        return value.strip().decode("utf-8")
    except UnicodeDecodeError:
        return value.strip().decode("latin-1")
