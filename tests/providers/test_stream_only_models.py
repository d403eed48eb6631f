"""Models that only stream: their answer is folded, and their refusal never blames the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapter import Target, known_models
from providers.catalogue.models import model_facts
from providers.chat import ChatRequest, UserMessage
from providers.failures import FailureKind
from providers.registry import load_registry
from providers.wire import WireResponse

ADAPTERS = load_registry().adapters
THINKING = [
    "qwen3-235b-a22b-thinking-2507",
    "qwen3-30b-a3b-thinking-2507",
    "qwen3-next-80b-a3b-thinking",
    "qwen3-vl-235b-a22b-thinking",
    "qwen3-omni-30b-a3b-thinking",
    "qwq-plus",
]
REFUSALS = [
    "This model only support stream mode, please enable the stream parameter to access the model. ",
    "parameter.enable_thinking must be set to false for non-streaming calls",
    "<400> InternalError.Algo.InvalidParameter: parameter.enable_thinking must be set to false for non-streaming calls",
    "enable thinking can not be support when `stream=False`.",
]


@pytest.mark.parametrize("model", THINKING)
@pytest.mark.parametrize("provider", ["dashscope", "dashscope-compatible"])
def test_qwen_model_that_always_thinks_is_asked_for_a_stream(provider: str, model: str) -> None:
    adapter = ADAPTERS[provider]
    facts = model_facts(known_models(adapter), model)
    request = ChatRequest("assistant", (UserMessage("Hi"),))
    sent = adapter.build_request(request, Target(model, "/v1", facts))
    body: dict[str, Any] = json.loads(sent.body)
    assert facts.known
    assert ("text/event-stream" in dict(sent.headers)["accept"]) is True
    assert "enable_thinking" not in {**body, **body.get("parameters", {})}


def test_instruct_version_is_not_a_model_that_always_thinks() -> None:
    facts = model_facts(known_models(ADAPTERS["dashscope"]), "qwen3-235b-a22b-instruct-2507")
    assert "thinking_only" not in facts.flags


@pytest.mark.parametrize("message", REFUSALS)
@pytest.mark.parametrize("provider", ["dashscope", "dashscope-compatible", "openai-compatible", "vllm", "anthropic"])
def test_refusal_of_a_model_that_only_streams_does_not_blame_the_client(provider: str, message: str) -> None:
    error = {"code": "invalid_parameter_error", "message": message, "type": "invalid_request_error"}
    body: dict[str, object] = {"error": error, "request_id": "r-1"}
    if provider == "dashscope":
        body = {"code": "InvalidParameter", "message": message, "request_id": "r-1"}
    response = WireResponse(400, {"content-type": "application/json"}, json.dumps(body).encode(), 0)
    failure = ADAPTERS[provider].classify_error(response)
    assert failure.kind is FailureKind.FIELD_REFUSED
    # The log still shows the provider's own sentence.
    assert message.strip() in failure.detail
