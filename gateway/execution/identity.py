"""A pseudonym in the place of what says who asks: a provider can still tell one person's abuse, and not whose it is.

One person has another pseudonym at each provider, so that two of them can't put together what they know.
"""

from __future__ import annotations

import hmac
from collections.abc import Set

from providers.auth import Secret
from providers.chat import ChatRequest, change_request
from providers.needs import IDENTITY

_DIGITS = 32


def pseudonymous(request: ChatRequest, provider: str, key: Secret, passthrough: Set[str] = frozenset()) -> ChatRequest:
    """The request with a pseudonym for each of these fields that it says, but for those that are let through by
    name."""
    secret = key.reveal().encode()

    def pseudonym(value: str) -> str:
        told = f"identity 1\0{provider}\0{value}".encode()
        return f"p_{hmac.digest(secret, told, 'sha256').hex()[:_DIGITS]}"

    hidden = IDENTITY - passthrough
    user = pseudonym(request.user) if request.user is not None and "user" in hidden else request.user
    named = {name: value for name in hidden & request.extra.keys() if isinstance(value := request.extra[name], str)}
    extra = {**request.extra, **{name: pseudonym(value) for name, value in named.items()}} if named else request.extra
    return change_request(request, user=user, extra=extra)
