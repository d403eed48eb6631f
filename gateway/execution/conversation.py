"""The conversation of a chat as providers need it: the key of a prompt cache, and the credential that it keeps."""

from __future__ import annotations

import hmac
from functools import lru_cache

import msgspec

from gateway.model.deployment import Deployment
from gateway.policy.canary_assignment import user_of_chat
from providers import chat
from providers.matching.requirements import CACHE_CONTROL, CACHE_KEY, CACHE_SALT, requirements_of
from providers.value import replace

_DIGITS = 32
_TIME: chat.CacheTime = "5m"


class Conversation(msgspec.Struct, frozen=True):
    """The conversation that a chat belongs to, as far as providers' caches need it.

    The key makes the pseudonyms of cache keys. Headers name the user, and an agent the session. The region of the
    request may be protected.
    """

    key: bytes
    client: str = ""
    user: str | None = None
    session: str | None = None
    is_protected: bool = False

    def is_identity(self, value: object, request: chat.ChatRequest) -> bool:
        """Return whether a value identifies the end user, because the request or its headers name the user by it."""
        return value == self.user or value == request.user or value == request.extra.get("safety_identifier")


def for_caches(
    request: chat.ChatRequest, own: chat.ChatRequest, deployment: Deployment, conversation: Conversation | None
) -> chat.ChatRequest:
    """Return the request with the cache key that the deployment may get, with a salt and with a mark, as it needs them.

    In `request`, as it is sent, the client's key has been left if the deployment may get one; `own` has all fields of
    the client. A call that is not the client's chat has no conversation, and never a cache key.
    """
    key = _key_of(own, deployment, conversation) if conversation is not None else None
    added: dict[str, object] = {} if key is None else {CACHE_KEY: key}
    messages = request.messages
    if conversation is not None:
        if deployment.cache_isolation is not None:
            user = user_of_chat(own, conversation.user) if deployment.cache_isolation == "user" else ""
            place = deployment.provider, deployment.site
            added[CACHE_SALT] = pseudonym(conversation.key, "salt 1", *place, conversation.client, user)
        if deployment.cache == "auto" and CACHE_CONTROL not in requirements_of(request).parameters:
            is_repeated = conversation.session is not None or any(
                isinstance(it, chat.AssistantMessage) for it in messages
            )
            messages = _with_mark(messages) if is_repeated else messages
    if not added and messages is request.messages and CACHE_KEY not in request.extra:
        return request
    extra = {**request.extra, **added}
    if key is None:
        extra.pop(CACHE_KEY, None)
    return replace(request, extra=extra, messages=messages)


def _with_mark(messages: tuple[chat.Message, ...]) -> tuple[chat.Message, ...]:
    """Return the messages with a mark at the last block of the user that may have one: blank texts may not."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if isinstance(message, chat.UserMessage | chat.ToolMessage) and (marked := _marked(message)) is not None:
            return (*messages[:at], marked, *messages[at + 1 :])
    return messages


def _marked(message: chat.UserMessage | chat.ToolMessage) -> chat.Message | None:
    content = message.content
    if isinstance(message, chat.ToolMessage):
        return replace(message, cache=_TIME) if not isinstance(content, str) or content.strip() else None
    parts = (chat.TextPart(content),) if isinstance(content, str) else content
    for at in range(len(parts) - 1, -1, -1):
        part = parts[at]
        if not isinstance(part, chat.AudioPart) and not (isinstance(part, chat.TextPart) and not part.text.strip()):
            return replace(message, content=(*parts[:at], replace(part, cache=_TIME), *parts[at + 1 :]))
    return None


def _key_of(own: chat.ChatRequest, deployment: Deployment, conversation: Conversation) -> object:
    """Return the key that is sent, or None if there is none. A value that identifies the end user is never one."""
    if not deployment.knows_cache_key:
        return None
    value, protected = own.extra.get(CACHE_KEY), conversation.is_protected
    if value is not None:
        treatment = deployment.treatment_of(CACHE_KEY, "chat", protected=protected)
    else:
        value, treatment = conversation.session, deployment.cache_key_in(protected=protected)
    if value is None or treatment == "strip" or conversation.is_identity(value, own):
        return None
    if treatment == "pass":
        return value
    if not isinstance(value, str):
        return None
    return pseudonym(conversation.key, "cache 1", deployment.provider, deployment.site, conversation.client, value)


@lru_cache(maxsize=4096)
def pseudonym(key: bytes, *parts: str) -> str:
    """Return a pseudonym of the last part, which differs by each of the others. A conversation repeats it each turn."""
    data = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"p_{hmac.digest(key, data, 'sha256').hex()[:_DIGITS]}"
