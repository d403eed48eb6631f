"""Tool results with images and failures, in every wire format."""

import json
from typing import Any

import pytest

from providers import chat
from providers.adapter import Adapter, Target, known_models
from providers.catalogue.models import model_facts
from providers.failures import UnsupportedFeature
from providers.formats.tool_calls import results_in_order
from providers.formats.tool_results import results_as_text
from providers.registry import load_registry

PNG = "data:image/png;base64,iVBORw0KGgo="
CALLS = (chat.ToolCall("call_1", "look", "{}"), chat.ToolCall("call_2", "read", "{}"))
ASKED = chat.AssistantMessage(None, tool_calls=CALLS)
HISTORY: tuple[chat.Message, ...] = (
    chat.UserMessage("Look and read."),
    ASKED,
    chat.ToolMessage("call_1", (chat.TextPart("A photo:"), chat.ImagePart(PNG))),
    chat.ToolMessage("call_2", "no such file", is_error=True),
    chat.UserMessage("And?"),
)


def body_of(adapter: Adapter, model: str) -> Any:
    request = chat.ChatRequest("assistant", HISTORY, tools=(chat.Tool("look"), chat.Tool("read")), max_tokens=100)
    target = Target(model, "/v1", model_facts(known_models(adapter), model))
    return json.loads(adapter.build_request(request, target).body)


def test_plain_results_are_returned_unchanged() -> None:
    messages = (chat.UserMessage("Hi"), ASKED, chat.ToolMessage("call_1", "a"), chat.ToolMessage("call_2", "b"))
    assert results_as_text(messages) is messages


def test_images_follow_the_results_in_a_user_message_with_a_note() -> None:
    _, _, first, second, attached, last = results_as_text(HISTORY)
    assert first == chat.ToolMessage("call_1", "A photo:\n[in the next message: image 1 of the tool results]")
    assert second == chat.ToolMessage("call_2", "The call failed: no such file")
    assert attached == chat.UserMessage((chat.TextPart("[image 1 of the tool results]"), chat.ImagePart(PNG)))
    assert last == chat.UserMessage("And?")


def test_result_with_an_image_is_refused_by_name_where_only_texts_are_read() -> None:
    with pytest.raises(UnsupportedFeature, match="only text in the result of a tool call"):
        results_in_order(CALLS[:1], [chat.ToolMessage("call_1", (chat.ImagePart(PNG),))])


def test_anthropic_gets_images_and_failures_in_the_results() -> None:
    turns = body_of(load_registry().adapters["anthropic"], "claude-sonnet-4-6")["messages"]
    photo, failed, _ = turns[2]["content"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    assert photo["content"] == [{"type": "text", "text": "A photo:"}, image]
    assert "is_error" not in photo
    assert (failed["content"], failed["is_error"]) == ("no such file", True)


def test_bedrock_gets_images_and_failures_in_the_results() -> None:
    turns = body_of(load_registry().adapters["bedrock"], "anthropic.claude-sonnet-4-6")["messages"]
    photo, failed = (block["toolResult"] for block in turns[2]["content"][:2])
    assert photo["content"][1]["image"]["format"] == "png"
    assert (photo["status"], failed["status"]) == ("success", "error")


def test_gemini_three_gets_images_and_failures_in_the_results() -> None:
    turns = body_of(load_registry().adapters["gemini"], "gemini-3-pro-preview")["contents"]
    photo, failed = (part["functionResponse"] for part in turns[2]["parts"])
    assert photo["response"] == {"output": "A photo:"}
    assert photo["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]
    assert failed["response"] == {"error": "no such file"}


def test_earlier_gemini_gets_the_image_in_a_user_turn() -> None:
    turns = body_of(load_registry().adapters["gemini"], "gemini-2.5-flash")["contents"]
    photo, failed = (part["functionResponse"] for part in turns[2]["parts"])
    assert "parts" not in photo
    assert failed["response"] == {"output": "The call failed: no such file"}
    assert {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}} in turns[3]["parts"]


@pytest.mark.parametrize("name", ["openai", "mistral", "deepseek", "dashscope"])
def test_formats_with_text_results_lose_neither_the_image_nor_the_failure(name: str) -> None:
    adapter = load_registry().adapters[name]
    model = "qwen3-vl-plus" if name == "dashscope" else "some-model"
    try:
        text = json.dumps(body_of(adapter, model))
    except UnsupportedFeature:
        pytest.skip("this model takes no images")
    assert "The call failed: no such file" in text
    assert "iVBORw0KGgo=" in text
    assert "is_error" not in text
