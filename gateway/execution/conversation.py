"""The conversation of a chat as providers need it: the key of a prompt cache, and the credential that it keeps."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from gateway.model.deployment import Deployment
from providers.chat import ChatRequest
from providers.matching.requirements import CACHE_KEY
from providers.value import replace

_DIGITS = 32


class Conversation(msgspec.Struct, frozen=True):
    """The conversation that a chat belongs to, as far as providers' caches need it.

    Attributes:
        key: Makes the pseudonyms of cache keys.
        client: The name of the client, or empty.
        user: The end user that the headers name.
        session: The session that an agent names in a header.
        is_protected: The region of the request is protected.
    """

    key: bytes
    client: str = ""
    user: str | None = None
    session: str | None = None
    is_protected: bool = False

    def is_identity(self, value: str, request: ChatRequest) -> bool:
        """Return whether a value identifies the end user, because the request or its headers name the user by it."""
        return value in (self.user, request.user, request.extra.get("safety_identifier"))


def with_cache_key(
    request: ChatRequest, own: ChatRequest, deployment: Deployment, conversation: Conversation | None
) -> ChatRequest:
    """Return the request with the cache key that the deployment may get, or without one.

    Args:
        request: The request as it is sent, in which the client's key has been left if the deployment may get one.
        own: The request with all fields of the client.
        conversation: None for a call that is not the client's chat: it never has a cache key.
    """
    given = own.extra.get(CACHE_KEY)
    is_passed = CACHE_KEY in deployment.target.passthrough and not deployment.cache_key_written
    if given is not None and is_passed and conversation is not None:
        return request
    value = given if given is not None or conversation is None else conversation.session
    key = None
    if isinstance(value, str) and conversation is not None and _takes_key(deployment, conversation):
        key = _key_of(value, own, deployment, conversation)
    if key is not None:
        return replace(request, extra={**request.extra, CACHE_KEY: key})
    if CACHE_KEY not in request.extra:
        return request
    extra: Mapping[str, Any] = {name: it for name, it in request.extra.items() if name != CACHE_KEY}
    return replace(request, extra=extra)


def _takes_key(deployment: Deployment, conversation: Conversation) -> bool:
    if deployment.cache_key_in(protected=conversation.is_protected) == "strip":
        return False
    return deployment.knows_cache_key


def _key_of(value: str, own: ChatRequest, deployment: Deployment, conversation: Conversation) -> str | None:
    """Return the key that is sent for a value, or None for one that identifies the end user."""
    if deployment.identity != "pass" and conversation.is_identity(value, own):
        return None
    if deployment.cache_key_in(protected=conversation.is_protected) == "pass":
        return value
    return pseudonym(conversation.key, "cache 1", deployment.provider, deployment.site, conversation.client, value)


@lru_cache(maxsize=4096)
def pseudonym(key: bytes, *parts: str) -> str:
    """Return a pseudonym of the last part, which differs by each of the others. A conversation repeats it each turn."""
    data = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"p_{hmac.digest(key, data, 'sha256').hex()[:_DIGITS]}"
