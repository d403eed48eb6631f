"""List the unknown fields inside a request's messages, tools and options.

Unknown top-level fields are in `ChatRequest.extra`. Unknown inner fields are not sent to providers. They are listed,
such as `messages.reasoning_details` and `tools.function.examples`, so that they are not dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.openai_json.fields import BREAKPOINT, lost_cache_options, lost_time

_ROLE_AND_CONTENT = frozenset({"role", "content", "name", "cache_control"})
# Fields of answers that are ignored in requests: clients send whole answers in the history of the next request.
_OF_ANSWERS = frozenset({"annotations", "parsed"})
_MESSAGE = {
    "assistant": _ROLE_AND_CONTENT | {"refusal", "reasoning_content", "tool_calls"} | _OF_ANSWERS,
    "tool": _ROLE_AND_CONTENT | {"tool_call_id"},
}
_CALL = frozenset({"id", "type", "function", "index"})
_CALLED = frozenset({"name", "arguments", "parsed_arguments"})
_INNER = {
    "image_url": frozenset({"url", "detail"}),
    "input_audio": frozenset({"data", "format"}),
    "file": frozenset({"file_data", "filename", "file_id"}),
}
PARTS = {kind: frozenset({"type", kind, "cache_control"}) for kind in ("text", "refusal", *_INNER)}
PARTS |= {kind: PARTS[kind] | {BREAKPOINT} for kind in ("text", "image_url", "file")}
"""The members of each kind of part that a chat may have."""
THOUGHTS = ("thinking", "reasoning")
"""The kinds of parts with thoughts, each with its text in a member of that name."""
_TOOL = frozenset({"type", "function", "cache_control"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict", "cache_control"})
_TYPE = frozenset({"type"})
_FORMAT = _TYPE | {"json_schema"}
_SCHEMA = frozenset({"name", "description", "schema", "strict"})
_NAMED = _TYPE | {"function"}
_ALLOWED = _TYPE | {"allowed_tools"}
_ALLOWED_TOOLS = frozenset({"mode", "tools"})
_NAME = frozenset({"name"})
_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})
_NONE: frozenset[str] = frozenset()


def unread_fields(body: Mapping[str, Any]) -> frozenset[str]:
    """Return the dotted names without indices, for a body that was decoded. Null is the same as absent."""
    names: set[str] = set()
    for message in body["messages"]:
        content = message.get("content")
        # Almost every message has only a role and a text. A message with only tool calls has two members as well.
        if len(message) > 2 or content is None:
            names.update(_in_message(message))
        if type(content) is not str:
            names.update(_in_parts(content or ()))
    if tools := body.get("tools"):
        names.update(_in_tools(tools))
    if form := body.get("response_format"):
        names.update(_in_format(form))
    if type(choice := body.get("tool_choice")) is dict:
        names.update(_in_choice(choice))
    if options := body.get("prompt_cache_options"):
        names.update(lost_cache_options(options))
    if options := body.get("stream_options"):
        names.update(_unknown(options, _STREAM_OPTIONS, "stream_options"))
        if options.get("include_obfuscation"):
            # The gateway's chunks have no padding, so only a request for padding is not fulfilled.
            names.add("stream_options.include_obfuscation")
    return frozenset(names) if names else _NONE


def _unknown(source: Mapping[str, Any], known: frozenset[str], path: str) -> Iterator[str]:
    if not source.keys() <= known:
        for name, value in source.items():
            if name not in known and value is not None:
                yield f"{path}.{name}"


def _in_message(message: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(message, _MESSAGE.get(message["role"], _ROLE_AND_CONTENT), "messages")
    if message["role"] == "assistant":
        for call in message.get("tool_calls") or ():
            yield from _unknown(call, _CALL, "messages.tool_calls")
            yield from _unknown(call["function"], _CALLED, "messages.tool_calls.function")


def _in_parts(parts: Any) -> Iterator[str]:
    for part in parts:
        kind = part["type"]
        if kind not in PARTS:
            if kind not in THOUGHTS:  # a part of an answer of another API
                yield f"messages.content.{kind}"
            continue
        yield from _unknown(part, PARTS[kind], "messages.content")
        if BREAKPOINT in part and (time := lost_time(part, "messages.content")):
            yield time
        if kind in _INNER:
            yield from _unknown(part[kind], _INNER[kind], f"messages.content.{kind}")


def _in_tools(tools: Any) -> Iterator[str]:
    for tool in tools:
        yield from _unknown(tool, _TOOL, "tools")
        yield from _unknown(tool["function"], _FUNCTION, "tools.function")


def _in_format(form: Mapping[str, Any]) -> Iterator[str]:
    # With another type, the schema was not checked and may be anything.
    is_schema = form["type"] == "json_schema"
    yield from _unknown(form, _FORMAT if is_schema else _TYPE, "response_format")
    if is_schema:
        yield from _unknown(form["json_schema"], _SCHEMA, "response_format.json_schema")


def _in_choice(choice: Mapping[str, Any]) -> Iterator[str]:
    if choice["type"] == "function":
        yield from _unknown(choice, _NAMED, "tool_choice")
        yield from _unknown(choice["function"], _NAME, "tool_choice.function")
        return
    yield from _unknown(choice, _ALLOWED, "tool_choice")
    allowed = choice["allowed_tools"]
    yield from _unknown(allowed, _ALLOWED_TOOLS, "tool_choice.allowed_tools")
    for tool in allowed["tools"]:
        yield from _unknown(tool, _NAMED, "tool_choice.allowed_tools.tools")
        yield from _unknown(tool["function"], _NAME, "tool_choice.allowed_tools.tools.function")
