"""Write requests in Hunyuan's native format: PascalCase, tool schemas as JSON text, alternating roles.

Source: Tencent Cloud API 3.0, hunyuan 2023-09-01, ChatCompletions, and tencentcloud-sdk-python-hunyuan 3.1.180, read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from providers.adapter import Target
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    ChatRequest,
    ImagePart,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    prompt_text,
    said_in,
)
from providers.failures import UnsupportedFeature
from providers.formats.role_alternation import alternate_roles
from providers.formats.tool_calls import FILLER_TEXT
from providers.formats.tool_results import results_as_text
from providers.json_values import dumps_text
from providers.matching.requirements import requirements_of
from providers.reading.json_object import JSON_OBJECT, with_json_instruction

FEATURES = frozenset({"tools", "tool_choice_named", "vision", "image_url", JSON_OBJECT, "reasoning"})
_MAX_MESSAGES = 40
_MAX_SEED = 10000


def encode_body(request: ChatRequest, target: Target) -> dict[str, object]:
    """Return the body. Raises UnsupportedFeature if the API cannot express the request."""
    for feature in sorted(requirements_of(request).features - FEATURES):
        raise UnsupportedFeature(feature, f"Hunyuan's native API does not support {feature}")
    messages = _messages(with_json_instruction(request).messages)
    if len(messages) > _MAX_MESSAGES:
        raise UnsupportedFeature("messages", f"Hunyuan's native API accepts at most {_MAX_MESSAGES} messages")
    body: dict[str, object] = {"Model": target.model, "Messages": messages, "Stream": request.stream}
    if request.temperature is not None:
        body["Temperature"] = request.temperature
    if request.top_p is not None:
        body["TopP"] = request.top_p
    if request.seed is not None:
        # Any mapping will do if the same seed gives the same number.
        inside = 1 <= request.seed <= _MAX_SEED
        body["Seed"] = request.seed if inside else 1 + request.seed % _MAX_SEED
    if request.stop:
        body["Stop"] = list(request.stop)
    body.update(_tools(request))
    if request.reasoning_effort is not None and "enable_thinking" in target.facts.flags:
        body["EnableThinking"] = request.reasoning_effort != "none"
    body.update(request.extra)
    body.update(target.pins)
    return body


def _tools(request: ChatRequest) -> dict[str, object]:
    tools, choice = request.tools, request.tool_choice
    if isinstance(choice, AllowedTools):
        tools, choice = tuple(tool for tool in tools if tool.name in choice.names), "auto"
    if not tools:
        return {}
    body: dict[str, object] = {"Tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, NamedTool):
        named = next((tool for tool in tools if tool.name == choice.name), Tool(choice.name))
        return {**body, "ToolChoice": "custom", "CustomTool": _tool(named)}
    return {**body, "ToolChoice": choice} if choice is not None else body


def _tool(tool: Tool) -> dict[str, object]:
    schema: Mapping[str, object] = tool.parameters or {"type": "object", "properties": {}}
    function: dict[str, object] = {"Name": tool.name, "Parameters": dumps_text(schema)}
    if tool.description is not None:
        function["Description"] = tool.description
    return {"Type": "function", "Function": function}


def _messages(messages: Sequence[Message]) -> list[dict[str, object]]:
    """Return the conversation: the system messages joined, then user (or tool) and assistant alternating."""
    system = "\n\n".join(prompt_text(message.content) for message in messages if isinstance(message, SystemMessage))
    others = [message for message in messages if not isinstance(message, SystemMessage)]
    turns = alternate_roles(results_as_text(others), continues=False)
    if isinstance(turns[0], AssistantMessage):
        # The first turn must be the user's, but a conversation may begin with the assistant's greeting.
        turns.insert(0, UserMessage(FILLER_TEXT))
    encoded = [_message(message) for message in turns]
    return [{"Role": "system", "Content": system}, *encoded] if system else encoded


def _message(message: Message) -> dict[str, object]:
    match message:
        case SystemMessage(content):
            return {"Role": "system", "Content": prompt_text(content)}
        case UserMessage(content):
            if isinstance(content, str) or all(isinstance(part, TextPart) for part in content):
                return {"Role": "user", "Content": prompt_text(content)}
            # The vendor refuses images without a text.
            texts = any(isinstance(part, TextPart) for part in content)
            parts = content if texts else (*content, TextPart(" "))
            return {"Role": "user", "Contents": [_part(part) for part in parts]}
        case AssistantMessage(_, _, _, calls):
            # Reasoning is left out: the vendor refuses it.
            body: dict[str, object] = {"Role": "assistant", "Content": said_in(message)}
            return {**body, "ToolCalls": [_call(call, i) for i, call in enumerate(calls)]} if calls else body
        case ToolMessage(call_id, content):
            return {"Role": "tool", "ToolCallId": call_id, "Content": prompt_text(content)}
        case _:
            assert_never(message)


def _part(part: Part) -> dict[str, object]:
    match part:
        case TextPart(text):
            return {"Type": "text", "Text": text}
        case ImagePart(url):
            return {"Type": "image_url", "ImageUrl": {"Url": url}}
        case _:
            raise UnsupportedFeature("file", "Hunyuan's native API accepts only text and images")


def _call(call: ToolCall, index: int) -> dict[str, object]:
    return {
        "Id": call.id,
        "Type": "function",
        "Index": index,
        "Function": {"Name": call.name, "Arguments": call.arguments},
    }
