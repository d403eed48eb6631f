"""A member that a dialect does not read is named, also if the vendor that answers has a parameter of this name."""

import json
from typing import Any

import pytest

from gateway.api.dialects.gemini import Gemini
from gateway.api.dialects.messages import Messages
from gateway.api.dialects.responses import Responses
from gateway.api.errors import ApiError
from providers.catalogue.models import ModelFacts
from providers.chat import ChatRequest
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.matching.capability_matching import match_capabilities
from providers.matching.requirements import moves_data, requirements_of
from providers.registry import load_registry

ADAPTERS = load_registry().adapters
NAMES = sorted(
    {name for adapter in ADAPTERS.values() for name in adapter.capabilities.parameters if "." not in name}
    - moves_data()
)
TEXT = {"role": "user", "content": "Hi"}
BODIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "Messages": (Messages, {"model": "m", "max_tokens": 9, "messages": [TEXT]}),
    "Gemini": (lambda: Gemini("m"), {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
    "Responses": (Responses, {"model": "m", "input": "Hi"}),
}


def decoded(dialect: str, **more: Any) -> ChatRequest | None:
    made, body = BODIES[dialect]
    try:
        chat: ChatRequest = made().decode(json.dumps(body | more).encode())
    except (ApiError, InvalidRequest, UnsupportedFeature):
        return None  # it is refused by its name
    return chat


@pytest.mark.parametrize("dialect", BODIES)
def test_unread_member_is_named_at_every_provider(dialect: str) -> None:
    plain = decoded(dialect)
    assert plain is not None
    unread = {name: chat for name in NAMES if (chat := decoded(dialect, **{name: 1})) is not None and chat.unread}
    # Responses refuses unknown members, or passes them on.
    assert unread.keys() >= {"seed", "verbosity"} or dialect == "Responses"
    for name, chat in unread.items():
        needs = requirements_of(chat)
        for provider, adapter in ADAPTERS.items():
            match = match_capabilities(needs, adapter.capabilities, ModelFacts(), frozenset({name}))
            assert chat.unread <= match.unsupported, f"{name} of {dialect} is dropped in silence at {provider}"


def test_unread_member_of_embeddings_is_named() -> None:
    needs = EmbeddingRequest("m", ("Hi",), unread=frozenset({"user"})).needs()
    for adapter in ADAPTERS.values():
        assert "user" in match_capabilities(needs, adapter.capabilities, ModelFacts()).unsupported
