"""A mark for a cache is in the request that leaves, or it is named: every place of a mark at every adapter."""

from __future__ import annotations

import pytest

from providers.adapter import Adapter
from providers.catalogue.models import model_facts
from providers.chat import (
    AssistantMessage,
    CacheTime,
    ChatRequest,
    ImagePart,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.contract import Target, UnsupportedFeature
from providers.matching.capability_matching import match_capabilities, without_parameters
from providers.matching.requirements import CACHE_CONTROL, requirements_of
from providers.registry import load_registry

ADAPTERS = load_registry().adapters
MODELS = {
    "anthropic": ["claude-sonnet-5"],
    "bedrock": ["anthropic.claude-sonnet-5", "amazon.nova-2-lite-v1:0", "nobody.knows-it"],
    "dashscope": ["qwen-plus", "qwen3-vl-plus"],
}
PLACES = (
    "system",
    "user",
    "image",
    "answer",
    "call",
    "result",
    "text of a result",
    "image of a result",
    "tool",
    "request",
)
IMAGE = "data:image/png;base64,aGk="


def chat(place: str, time: CacheTime | None) -> ChatRequest:
    """Return a conversation with a mark at one place, or with none."""

    def mark(name: str) -> CacheTime | None:
        return time if name == place else None

    has_image = place.startswith("image")
    image = (ImagePart(IMAGE, cache=mark("image")),) if has_image else ()
    inner = (ImagePart(IMAGE, cache=mark("image of a result")),) if place == "image of a result" else ()
    return ChatRequest(
        "m",
        (
            SystemMessage((TextPart("Be brief.", cache=mark("system")),)),
            UserMessage((TextPart("Look.", cache=mark("user")), *image)),
            AssistantMessage(
                (TextPart("I look.", cache=mark("answer")),),
                tool_calls=(ToolCall("c1", "look", "{}", cache=mark("call")),),
            ),
            ToolMessage("c1", (TextPart("Seen.", cache=mark("text of a result")), *inner), cache=mark("result")),
            UserMessage("Go on."),
        ),
        tools=(Tool("look", "Looks.", cache=mark("tool")),),
        max_tokens=10,
        extra={CACHE_CONTROL: {"type": "ephemeral"}} if mark("request") else {},
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name", [name for name, one in ADAPTERS.items() if CACHE_CONTROL in one.capabilities.parameters]
)
def test_mark_is_sent_or_named(name: str, place: str) -> None:
    adapter = ADAPTERS[name]
    for model in MODELS.get(name, ["m"]):
        marked, plain = (_sent(adapter, model, chat(place, time)) for time in ("5m", None))
        if marked is None or plain is None:
            continue
        is_told = CACHE_CONTROL in marked[1] or marked[0] != plain[0]
        assert is_told, f"{name} {model}: the mark at {place!r} is lost in silence"


def _sent(adapter: Adapter, model: str, request: ChatRequest) -> tuple[bytes, frozenset[str]] | None:
    """Return the body of a request, and what is named as dropped or changed; None if the model cannot take it."""
    facts = model_facts(adapter.models, model)  # type: ignore[attr-defined]  # ours know models
    needs = requirements_of(request)
    match = match_capabilities(needs, adapter.capabilities, facts)
    try:
        wire = adapter.build_request(without_parameters(request, match.unsupported), Target(model, "/v1", facts))
    except UnsupportedFeature:
        return None
    return wire.body, match.unsupported | wire.changed
