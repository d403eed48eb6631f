"""Who asks, as far as it matters for staying on one side of a canary."""

from __future__ import annotations

from gateway.model.table import Client
from gateway.policy.rendezvous import person_key
from providers.chat import ChatRequest, UserMessage, text_of

__all__ = ["named_person", "person_of"]


def person_of(client: Client | None, subject: str | None, request: ChatRequest) -> bytes:
    """The key of the person behind a request: the subject of the signed claim or a backend's word for it, else what
    the request says of its user, else the client and the conversation's first words, which come again each turn."""
    said = request.extra.get("safety_identifier")
    name = subject or (said if isinstance(said, str) else "") or request.user
    if name:
        return named_person(name)
    first = next((text_of(message.content) for message in request.messages if isinstance(message, UserMessage)), "")
    return person_key("conversation", client.name if client is not None else "", first)


def named_person(name: str) -> bytes:
    """The key of a person who is known by this name, wherever it was said."""
    return person_key("name", name)
