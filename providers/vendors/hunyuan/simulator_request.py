"""Check and read a request as Hunyuan's native API does.

Source: Tencent Cloud API 3.0, hunyuan 2023-09-01, and tencentcloud-sdk-python-hunyuan 3.1.180, read 2026-11-20. It may
be stricter than the vendor in two points: unknown fields are always refused, and so is a user message directly after a
tool result, which the vendor does not document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from providers.catalogue.models import ModelFacts
from providers.json_values import JsonError, as_map, loads_text, read_list, read_map, read_str
from providers.testkit.request_checks import find_alternation_error

Refusal = tuple[str, str]
"""The code and the message."""

_HEADERS = {"x-tc-action": "ChatCompletions", "x-tc-version": "2023-09-01"}
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=[^/,\s]+/(?P<date>\d{4}-\d\d-\d\d)/hunyuan/tc3_request, "
    r"SignedHeaders=content-type;host, Signature=[0-9a-f]{64}"
)
_FIELDS = frozenset(
    {"Model", "Messages", "Stream", "StreamModeration", "Temperature", "TopP", "Seed", "Stop", "Tools", "ToolChoice"}
    | {"CustomTool", "EnableThinking"}
)
_MESSAGE_FIELDS = {
    "system": frozenset({"Role", "Content"}),
    "user": frozenset({"Role", "Content", "Contents"}),
    "assistant": frozenset({"Role", "Content", "ToolCalls"}),
    "tool": frozenset({"Role", "Content", "ToolCallId"}),
}
_RANGES = {"Temperature": (0, 2), "TopP": (0, 1), "Seed": (1, 10000)}
_MAX_MESSAGES = 40
_WRONG = "InvalidParameter"


def refusals_of_head(headers: Mapping[str, str]) -> Iterator[Refusal]:
    """Yield the errors in the headers: a wrong action, or a signature of the wrong form or date. Any key will do."""
    for name, value in _HEADERS.items():
        if headers.get(name) != value:
            yield "InvalidAction", f"{name} must be {value}"
    signed = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    timestamp = headers.get("x-tc-timestamp", "")
    if signed is None or not timestamp.isdigit():
        yield "AuthFailure.SignatureFailure", "The request has no signature in the form of TC3-HMAC-SHA256."
    elif datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d") != signed["date"]:
        yield "AuthFailure.SignatureExpire", "The date of the signature is not the timestamp's, in UTC."


def refusals(body: Mapping[str, object], facts: ModelFacts) -> Iterator[Refusal]:
    """Yield an error for each rule that a parsed body breaks, in the order of the checks."""
    yield from (("UnknownParameter", f"The parameter `{name}` is not recognized.") for name in body.keys() - _FIELDS)
    if not read_str(body, "Model"):
        yield "InvalidParameterValue.Model", "Model does not exist."
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            yield _WRONG, f"{name} must be between {low} and {high}."
    messages = [as_map(entry) for entry in read_list(body, "Messages")]
    if not 1 <= len(messages) <= _MAX_MESSAGES:
        yield _WRONG, f"Messages must have 1 to {_MAX_MESSAGES} entries."
    yield from _of_messages(messages, facts)
    yield from _of_tools(body, facts)
    if body.get("EnableThinking") is not None and "enable_thinking" not in facts.flags:
        yield _WRONG, "EnableThinking is not supported by this model."


def _of_messages(messages: list[Mapping[str, object]], facts: ModelFacts) -> Iterator[Refusal]:
    roles = [read_str(message, "Role") or "" for message in messages]
    if next((role for role in roles if role != "system"), "user") == "assistant":
        yield _WRONG, "The first message must be of the role user or tool."
    if (wrong := find_alternation_error(roles)) is not None:
        yield _WRONG, f"Messages[{wrong}]: user (tool) and assistant must alternate."
    for position, message in enumerate(messages):
        role, path = read_str(message, "Role") or "", f"Messages[{position}]"
        if role not in _MESSAGE_FIELDS:
            yield _WRONG, f"{path}.Role must be system, user, assistant or tool."
            continue
        yield from (("UnknownParameter", f"{path}.{name}") for name in message.keys() - _MESSAGE_FIELDS[role])
        if role == "system":
            if position:
                yield _WRONG, f"{path}: system must be the first."
            continue
        if role == "tool" and not read_str(message, "Content"):
            yield _WRONG, f"{path}.Content must not be empty."
        yield from _of_parts([as_map(part) for part in read_list(message, "Contents")], facts, path)
    if not roles or roles[-1] not in ("user", "tool"):
        yield _WRONG, "The last message must be of the role user or tool."


def _of_parts(parts: list[Mapping[str, object]], facts: ModelFacts, path: str) -> Iterator[Refusal]:
    if parts and "vision" not in facts.features:
        yield _WRONG, f"{path}.Contents is not supported by this model."
    if parts and not any(part.get("Type") == "text" for part in parts):
        yield _WRONG, f"{path}.Contents must have a text."


def _of_tools(body: Mapping[str, object], facts: ModelFacts) -> Iterator[Refusal]:
    tools = [read_map(as_map(tool), "Function") for tool in read_list(body, "Tools")]
    if tools and "tools" not in facts.features:
        yield _WRONG, "Tools are not supported by this model."
    for tool in tools:
        if not isinstance(_schema(tool), dict):
            yield _WRONG, "Function.Parameters must be a JSON object as a string."
    choice = body.get("ToolChoice")
    if choice not in (None, "none", "auto", "custom") or (choice == "custom") != bool(body.get("CustomTool")):
        yield _WRONG, "ToolChoice must be none, auto, or custom with CustomTool."


def _schema(function: Mapping[str, object]) -> object:
    try:
        return loads_text(read_str(function, "Parameters") or "")
    except JsonError:
        return None


def as_openai(body: Mapping[str, object]) -> dict[str, object]:
    """Return the request in OpenAI's format, for the shared decoder."""
    request: dict[str, object] = {
        "model": body.get("Model"),
        "messages": [_message(entry) for entry in map(as_map, read_list(body, "Messages"))],
        "stream": body.get("Stream") is True,
        "temperature": body.get("Temperature"),
        "top_p": body.get("TopP"),
        "seed": body.get("Seed"),
        "stop": body.get("Stop"),
    }
    tools = [_tool(read_map(as_map(tool), "Function")) for tool in read_list(body, "Tools")]
    if tools:
        request["tools"] = tools
        name = read_str(read_map(read_map(body, "CustomTool"), "Function"), "Name")
        custom = {"type": "function", "function": {"name": name}}
        request["tool_choice"] = custom if body.get("ToolChoice") == "custom" else body.get("ToolChoice")
    if body.get("EnableThinking") is not None:
        request["reasoning_effort"] = "medium" if body["EnableThinking"] is True else "none"
    if request["stream"]:
        request["stream_options"] = {"include_usage": True}
    return request


def _tool(function: Mapping[str, object]) -> dict[str, object]:
    known = {"name": function.get("Name"), "parameters": _schema(function), "description": function.get("Description")}
    return {"type": "function", "function": known}


def _message(source: Mapping[str, object]) -> dict[str, object]:
    parts = [_part(as_map(part)) for part in read_list(source, "Contents")]
    calls = [as_map(call) for call in read_list(source, "ToolCalls")]
    message: dict[str, object] = {"role": source.get("Role"), "content": parts or source.get("Content")}
    if source.get("ToolCallId") is not None:
        message["tool_call_id"] = source["ToolCallId"]
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
        message["content"] = source.get("Content") or None
    return message


def _part(source: Mapping[str, object]) -> dict[str, object]:
    if source.get("Type") == "image_url":
        return {"type": "image_url", "image_url": {"url": read_map(source, "ImageUrl").get("Url")}}
    return {"type": "text", "text": source.get("Text")}


def _call(source: Mapping[str, object]) -> dict[str, object]:
    function = read_map(source, "Function")
    called = {"name": function.get("Name"), "arguments": function.get("Arguments")}
    return {"id": source.get("Id"), "type": "function", "function": called}
