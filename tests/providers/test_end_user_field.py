"""Test OpenAI's two fields for the end user with vendors that have one or none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.chat import ChatRequest, UserMessage, change_request
from providers.registry import load_registry

ADAPTERS = load_registry().adapters
ASK = ChatRequest("m", (UserMessage("Hello!"),), extra={"safety_identifier": "s-1"})
ONE_FIELD = {
    "anthropic": ("claude-haiku-5-5", "metadata", {"user_id": "s-1"}),
    "azure": ("gpt-6-luna", "user", "s-1"),
    "deepseek": ("deepseek-v4-pro", "user_id", "s-1"),
    "vllm": ("m", "user", "s-1"),
}


def sent(provider: str, model: str, request: ChatRequest, **target: Any) -> dict[str, Any]:
    adapter = ADAPTERS[provider]
    facts = model_facts(adapter.models, model)  # type: ignore[attr-defined]  # ours know models
    body: dict[str, Any] = json.loads(
        adapter.build_request(request, Target(model, base_path="/v1", facts=facts, **target)).body
    )
    return body


@pytest.mark.parametrize("provider", ONE_FIELD)
def test_safety_identifier_replaces_user(provider: str) -> None:
    model, field, expected = ONE_FIELD[provider]
    assert "safety_identifier" in ADAPTERS[provider].capabilities.parameters
    for request in (ASK, change_request(ASK, user="u-1")):
        body = sent(provider, model, request)
        assert body[field] == expected
        assert "safety_identifier" not in body
        assert "u-1" not in json.dumps(body)
    older = change_request(ASK, user="s-1", extra={})
    assert sent(provider, model, older)[field] == expected
    blank = change_request(ASK, user="s-1", extra={"safety_identifier": ""})
    assert sent(provider, model, blank)[field] == expected


def test_openai_receives_both_fields() -> None:
    body = sent("openai", "gpt-6-luna", change_request(ASK, user="u-1"))
    assert (body["safety_identifier"], body["user"]) == ("s-1", "u-1")


@pytest.mark.parametrize("provider", ONE_FIELD)
def test_passthrough_safety_identifier_is_sent_unchanged(provider: str) -> None:
    body = sent(provider, ONE_FIELD[provider][0], ASK, passthrough=frozenset({"safety_identifier"}))
    assert body["safety_identifier"] == "s-1"


@pytest.mark.parametrize("provider", ["gemini", "bedrock", "mistral"])
def test_vendors_without_an_end_user_field_claim_neither(provider: str) -> None:
    assert ADAPTERS[provider].capabilities.parameters.isdisjoint({"user", "safety_identifier"})
