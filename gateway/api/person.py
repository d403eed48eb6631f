"""Who the person behind a request is, as far as its headers say: the subject of a signed claim, or a backend's word.

Only what an operator trusts counts; what the body says of its user is read where neither speaks.
"""

from __future__ import annotations

from gateway.api.door import Visitor
from gateway.api.errors import ApiError
from gateway.model.config_version import Client
from gateway.policy.location import Sighting

_HEADER = b"x-gateway-user"
_IGNORED = "ignored: this key may not assert a user"


def user_of(client: Client | None, visitor: Visitor, sighting: Sighting) -> str | None:
    """The subject of a claim before a backend's word; None where neither names anybody."""
    if sighting.claim is not None and sighting.claim.subject:
        return sighting.claim.subject
    return user_asserted(client, visitor) if client is not None and client.may_assert else None


def user_asserted(client: Client, visitor: Visitor) -> str | None:
    """Whom a backend names that may, None if it names nobody; raises ApiError for two people at once."""
    if "user" not in client.may_assert:
        return None
    names = {_text(value) for value in visitor.values(_HEADER)} - {""}
    if len(names) > 1:
        raise ApiError("invalid_request", "`x-gateway-user` was sent more than once, for different people; send one")
    return names.pop() if names else None


def told_user(client: Client | None, visitor: Visitor, sighting: Sighting) -> tuple[str | None, dict[str, object]]:
    """The person's name, for an explanation, and what the explanation says of it: the signal, never the name."""
    name = user_of(client, visitor, sighting)
    if name is not None:
        signal = "claim" if sighting.claim is not None and sighting.claim.subject else "assertion"
        return name, {"user": {"signal": signal, "note": ""}}
    if _HEADER in visitor.headers and (client is None or "user" not in client.may_assert):
        return None, {"user": {"signal": None, "note": _IGNORED}}
    return None, {}


def _text(value: bytes) -> str:
    """The bytes of a header are UTF-8 where a program writes them, and Latin-1 where a browser does."""
    try:
        return value.strip().decode("utf-8")
    except UnicodeDecodeError:
        return value.strip().decode("latin-1")
