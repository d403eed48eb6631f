"""A mark for a cache is in the request that leaves, or it is named: every place of a mark at every adapter."""

from typing import Any

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
from providers.json_values import loads
from providers.matching.capability_matching import match_capabilities, parameters_of, without_parameters
from providers.matching.requirements import CACHE_CONTROL, CACHE_MARKS, requirements_of
from providers.registry import load_registry
from providers.value import replace

ADAPTERS = load_registry().adapters
MODELS = {
    "anthropic": ["claude-sonnet-5"],
    "bedrock": ["anthropic.claude-sonnet-5", "amazon.nova-2-lite-v1:0", "nobody.knows-it"],
    "dashscope": ["qwen-plus", "qwen3-vl-plus"],
    "openai": ["gpt-5.6-sol", "gpt-6-luna", "gpt-5.5"],
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
    "name", ["openai", *(name for name, one in ADAPTERS.items() if CACHE_CONTROL in one.capabilities.parameters)]
)
def test_mark_is_sent_or_named(name: str, place: str) -> None:
    adapter = ADAPTERS[name]
    for model in MODELS.get(name, ["m"]):
        marked, plain = (_sent(adapter, model, chat(place, time)) for time in ("5m", None))
        if marked is None or plain is None:
            continue
        is_told = CACHE_CONTROL in marked[1] or marked[0] != plain[0]
        if name == "openai" and place == "request" and model != "gpt-5.5":
            is_told = marked == plain  # the vendor caches without being asked
        assert is_told, f"{name} {model}: the mark at {place!r} is lost in silence"


def _sent(adapter: Adapter, model: str, request: ChatRequest) -> tuple[bytes, frozenset[str]] | None:
    """Return the body of a request, and what is named as dropped or changed; None if the model cannot take it."""
    facts = model_facts(adapter.models, model)  # type: ignore[attr-defined]  # ours know models
    needs = requirements_of(request)
    match = match_capabilities(
        needs, replace(adapter.capabilities, parameters=parameters_of(adapter.capabilities, facts)), facts
    )
    try:
        wire = adapter.build_request(without_parameters(request, match.unsupported), Target(model, "/v1", facts))
    except UnsupportedFeature:
        return None
    return wire.body, match.unsupported | wire.changed


MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def at_openai(request: ChatRequest, model: str = "gpt-5.6-sol") -> tuple[Any, frozenset[str]]:
    """Return the items of a conversation at OpenAI, and what is named."""
    sent = _sent(ADAPTERS["openai"], model, request)
    body: Any = loads(sent[0])
    return body.get("messages") or body["input"], sent[1] & {CACHE_CONTROL}


@pytest.mark.parametrize("effort", [None, "none"], ids=["responses", "chat"])
def test_mark_of_an_answer_or_a_call_moves_to_the_input_before_it(effort: str | None) -> None:
    for place in ("user", "answer", "call"):
        messages, named = at_openai(replace(chat(place, "1h"), reasoning_effort=effort))
        kind = "text" if effort else "input_text"
        assert (messages[1]["content"], named) == ([{"type": kind, "text": "Look.", **MARK}], frozenset())
        assert str(messages).count("prompt_cache_breakpoint") == 1
    messages, named = at_openai(replace(chat("result", "5m"), reasoning_effort=effort))
    result = next(it for it in messages if it.get("role") == "tool" or it.get("type") == "function_call_output")
    assert (result.get("content") or result["output"])[-1] == {"type": kind, "text": "Seen.", **MARK}
    messages, named = at_openai(replace(chat("tool", "5m"), reasoning_effort=effort))
    assert ("prompt_cache_breakpoint" in str(messages), named) == (False, {CACHE_CONTROL})


def test_mark_without_an_input_before_it_is_lost_by_name() -> None:
    marked = AssistantMessage((TextPart("Hello.", cache="5m"),))
    messages, named = at_openai(ChatRequest("m", (marked, UserMessage("Hi"))))
    assert ("prompt_cache_breakpoint" in str(messages), named) == (False, {CACHE_CONTROL})


def test_two_marks_at_one_place_are_one_and_then_four_are_chosen() -> None:
    turn = (UserMessage((TextPart("Q", cache="5m"),)), AssistantMessage((TextPart("A", cache="5m"),)))
    messages, _ = at_openai(
        ChatRequest("m", (SystemMessage((TextPart("S", cache="5m"),)), *turn * 5, UserMessage("Q")))
    )
    marked = [at for at, message in enumerate(messages) if "prompt_cache_breakpoint" in str(message)]
    assert marked == [0, 5, 7, 9]


@pytest.mark.parametrize("effort", ["low", "none"], ids=["responses", "chat"])
def test_older_model_gets_no_mark(effort: str) -> None:
    messages, named = at_openai(replace(chat("user", "5m"), reasoning_effort=effort), "gpt-5.5")
    assert ("prompt_cache_breakpoint" in str(messages), named) == (False, {CACHE_CONTROL})


@pytest.mark.parametrize("model", ["gpt-5.6-sol", "gpt-5.5", "gpt-4.1"])
def test_request_without_a_mark_is_what_it_was(model: str) -> None:
    plain = chat("", None)
    adapter = ADAPTERS["openai"]
    facts = model_facts(adapter.models, model)  # type: ignore[attr-defined]
    unflagged = replace(facts, flags=facts.flags - {CACHE_MARKS})
    both = [adapter.build_request(plain, Target(model, "/v1", it)) for it in (facts, unflagged)]
    assert both[0] == both[1]
