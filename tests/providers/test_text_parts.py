"""The text parts of one message stay apart in every wire format."""

from __future__ import annotations

import re
from typing import Any

import pytest

from providers.adapter import Target, answers_chats, known_models
from providers.catalogue.models import model_facts
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    Message,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.contract import prompt_text
from providers.registry import load_registry

CHATS = sorted(name for name, one in load_registry().adapters.items() if answers_chats(one))
PARTS = (TextPart("brief"), TextPart("TWO"))
MESSAGES: tuple[Message, ...] = (
    SystemMessage(PARTS),
    UserMessage(PARTS),
    AssistantMessage(None, tool_calls=(ToolCall("call_1", "look", "{}"),)),
    ToolMessage("call_1", PARTS),
    UserMessage("And?"),
)


def body_text(name: str, model: str, **more: Any) -> str:
    adapter = load_registry().adapters[name]
    target = Target(model, "/v1", model_facts(known_models(adapter), model))
    request = ChatRequest("assistant", MESSAGES, tools=(Tool("look"),), max_tokens=100, **more)
    return adapter.build_request(request, target).body.decode()


@pytest.mark.parametrize("name", CHATS)
def test_text_parts_of_a_message_are_never_glued(name: str) -> None:
    text = body_text(name, "some-model")
    assert "briefTWO" not in text
    assert len(re.findall("brief", text)) == len(re.findall("TWO", text)) == 3, "each part is there once"


def test_text_parts_of_a_result_stay_apart_where_openai_thinks_about_tools() -> None:
    assert "briefTWO" not in body_text("openai", "gpt-5.2", reasoning_effort="high")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("brief", "TWO"), "brief\n\nTWO"),
        (("brief ", "TWO"), "brief TWO"),
        (("brief", "\nTWO"), "brief\nTWO"),
        (("", "TWO", ""), "TWO"),
    ],
)
def test_empty_line_is_between_parts_that_would_run_together(parts: tuple[str, ...], text: str) -> None:
    assert prompt_text([TextPart(part) for part in parts]) == text
