"""Write a canonical request as OpenAI's JSON: from the canonical values, never from a client's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from providers import chat
from providers.formats.reasoning_state import unpack_details, unpack_members
from providers.formats.tool_calls import safe_call_name
from providers.formats.tool_results import results_as_text

WritesMark = Callable[[chat.CacheTime | None], dict[str, object]]
"""Returns the member by which a vendor marks a part for a cache. Without it, marks are left out."""


def encode_request(
    request: chat.ChatRequest,
    model: str,
    *,
    max_tokens_field: str = "max_completion_tokens",
    with_reasoning: bool = False,
    mark: WritesMark | None = None,
) -> dict[str, object]:
    """Return the body for `model`, without fields that are not set. The usage of a stream is always requested."""
    history = request.messages
    messages: list[object] = (
        list(history.entries)
        if type(history) is chat.Texts
        else [
            encode_message(message, with_reasoning=with_reasoning, model=model, mark=mark)
            for message in results_as_text(history)
        ]
    )
    body: dict[str, object] = {"model": model, "messages": messages, **request.settings()}
    if request.n is not None:
        body["n"] = request.n
    if request.logprobs is not None:
        body["logprobs"] = request.logprobs
    if request.top_logprobs is not None:
        body["top_logprobs"] = request.top_logprobs
    if request.max_tokens is not None:
        body[max_tokens_field] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.tools:
        body["tools"] = [encode_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = encode_tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def encode_message(
    message: chat.Message, *, with_reasoning: bool = False, model: str = "", mark: WritesMark | None = None
) -> dict[str, object]:
    """Return one message. A signature of a tool call returns only to the `model` that gave it, as it was sent."""
    content = message.content
    encoded: object = encode_marked(message, mark) if mark is not None else None
    if encoded is None:
        encoded = content if content is None or isinstance(content, str) else [encode_part(part) for part in content]
    if type(message) is chat.UserMessage:
        body: dict[str, object] = {"role": "user", "content": encoded}
    elif type(message) is chat.AssistantMessage:
        # Null content is accepted only together with tool calls.
        body = {"role": "assistant", "content": "" if encoded is None and not message.tool_calls else encoded}
        if message.refusal is not None:
            body["refusal"] = message.refusal
        if with_reasoning and message.reasoning:
            body["reasoning_content"] = message.reasoning
        if message.tool_calls:
            body["tool_calls"] = [encode_tool_call(call) for call in message.tool_calls]
            return_state(message, body, model)
    elif type(message) is chat.SystemMessage:
        body = {"role": message.role, "content": encoded}
    else:
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": encoded}
    if message.name is not None:
        body["name"] = message.name
    return body


def encode_marked(message: chat.Message, mark: WritesMark) -> list[dict[str, object]] | None:
    """Return the parts of a message with their marks for a cache, as `mark` writes one, or None if it has none."""
    parts = (chat.TextPart(message.content),) if isinstance(message.content, str) else message.content or ()
    times = [None if isinstance(part, chat.AudioPart) else part.cache for part in parts]
    if isinstance(message, chat.ToolMessage) and message.cache is not None and parts:
        times[-1] = message.cache
    if not any(times):
        return None
    return [{**encode_part(part), **mark(time)} for part, time in zip(parts, times, strict=True)]


def encode_part(part: chat.Part) -> dict[str, object]:
    match part:
        case chat.TextPart(text):
            return {"type": "text", "text": text}
        case chat.ImagePart(url, detail):
            return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}
        case chat.AudioPart(data, sound):
            return {"type": "input_audio", "input_audio": {"data": data, "format": sound}}
        case chat.FilePart(data, filename):
            if (plain := part.as_text()) is not None:  # these servers read PDF only
                return {"type": "text", "text": plain}
            return {"type": "file", "file": {"file_data": data, **({"filename": filename} if filename else {})}}
        case _:
            assert_never(part)


def encode_tool_call(call: chat.ToolCall) -> dict[str, object]:
    function = {"name": safe_call_name(call.name), "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def return_state(message: chat.AssistantMessage, body: dict[str, Any], model: str) -> None:
    """Give an encoded message what its calls carry, if this model sent it, in the place where the model sent it.

    The state is members next to `function`, such as a signature, and the sealed entries of `reasoning_details`.
    """
    details: list[object] = []
    for call, encoded in zip(message.tool_calls, body["tool_calls"], strict=True):
        if call.signature is not None:
            members = unpack_members(call.signature, model)
            encoded.update({name: value for name, value in members.items() if name not in encoded})
            details += unpack_details(call, model)
    if details:
        body["reasoning_details"] = details


def encode_tool(tool: chat.Tool) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def encode_tool_choice(choice: chat.ToolChoice) -> object:
    match choice:
        case chat.NamedTool(name):
            return {"type": "function", "function": {"name": name}}
        case chat.AllowedTools(mode, names):
            tools = [{"type": "function", "function": {"name": name}} for name in names]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
        case _:
            return choice


def _response_format(wanted: chat.ResponseFormat) -> dict[str, object]:
    match wanted:
        case chat.JsonObjectFormat():
            return {"type": "json_object"}
        case chat.JsonSchemaFormat(name, schema, description, strict):
            inner: dict[str, object] = {"name": name, "schema": schema}
            if description is not None:
                inner["description"] = description
            if strict is not None:
                inner["strict"] = strict
            return {"type": "json_schema", "json_schema": inner}
        case _:
            assert_never(wanted)
