"""Pseudonyms in place of the fields that identify the end user, for deployments with `identity: hash`."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Set
from typing import Any, TypeVar

from providers.auth import Secret
from providers.chat import ChatRequest
from providers.matching.requirements import CACHE_KEY, IDENTITY
from providers.served import InputRequest
from providers.value import replace

_DIGITS = 32
_Request = TypeVar("_Request", ChatRequest, InputRequest)


def pseudonymous(request: _Request, provider: str, key: Secret, passthrough: Set[str] = frozenset()) -> _Request:
    """Return the request with a pseudonym in each field that identifies the end user, except `passthrough`.

    The key of the prompt cache is not one of them, see `gateway.execution.conversation`.

    A provider can still see abuse by one end user, but not who that is. The pseudonym differs between providers, so
    that two of them cannot combine what they know.
    """
    secret = key.reveal().encode()

    def pseudonym(value: str) -> str:
        data = f"identity 1\0{provider}\0{value}".encode()
        return f"p_{hmac.digest(secret, data, 'sha256').hex()[:_DIGITS]}"

    hidden = IDENTITY - passthrough - {CACHE_KEY}
    changes: dict[str, Any] = {}
    if request.user is not None and "user" in hidden:
        changes["user"] = pseudonym(request.user)
    extra: Mapping[str, object] = request.extra
    named = {name: value for name in hidden & extra.keys() if isinstance(value := extra[name], str)}
    if named:
        changes["extra"] = {**extra, **{name: pseudonym(value) for name, value in named.items()}}
    return replace(request, **changes) if changes else request
