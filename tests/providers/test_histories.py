"""The history of a conversation reaches every vendor that continues it."""

from __future__ import annotations

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import AssistantMessage, ChatRequest, UserMessage
from providers.registry import load_registry


@pytest.mark.parametrize("provider", sorted(load_registry().adapters))
@pytest.mark.parametrize("stream", [False, True])
def test_refusal_after_text_is_valid(provider: str, stream: bool) -> None:
    # Both, as a client has them that reads a stream: first pieces of content, then of a refusal.
    answer = AssistantMessage("Let me see. ", refusal="I won't.")
    request = ChatRequest("assistant", (UserMessage("Do it"), answer, UserMessage("Why?")), stream)
    body = load_registry().adapters[provider].build_request(request, Target("some-model", "/v1", UNKNOWN_MODEL)).body
    assert b"Let me see. " in body
    assert b"I won't." in body
