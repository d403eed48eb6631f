"""Name what a request says inside its messages, tools and options that has no canonical word.

Top-level fields without a word are in `ChatRequest.extra`; those further inside are nobody's to pass on. They are
named here, so that they aren't dropped in silence: `messages.cache_control`, `tools.function.examples`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ROLE_AND_CONTENT = frozenset({"role", "content", "name"})
# What an answer holds that isn't wanted back: clients send whole answers as the next turn's history.
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
_PART = {kind: frozenset({"type", kind}) for kind in ("text", "refusal", *_INNER)}
_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})
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
    """The names, with dots for depth and without positions; null is the same as absent. The body has been decoded."""
    found: set[str] = set()
    for message in body["messages"]:
        content = message.get("content")
        # Almost every message is a role and a text; one of calls alone has two members as well.
        if len(message) > 2 or content is None:
            found.update(_in_message(message))
        if type(content) is not str:
            found.update(_in_parts(content or ()))
    if tools := body.get("tools"):
        found.update(_in_tools(tools))
    if form := body.get("response_format"):
        found.update(_in_format(form))
    if type(choice := body.get("tool_choice")) is dict:
        found.update(_in_choice(choice))
    if options := body.get("stream_options"):
        found.update(_beyond(options, _STREAM_OPTIONS, "stream_options"))
        if options.get("include_obfuscation"):
            # Our chunks have no padding; who asks for none gets what it asks for.
            found.add("stream_options.include_obfuscation")
    return frozenset(found) if found else _NONE


def _beyond(source: Mapping[str, Any], known: frozenset[str], place: str) -> Iterator[str]:
    if not source.keys() <= known:
        for name, value in source.items():
            if name not in known and value is not None:
                yield f"{place}.{name}"


def _in_message(message: Mapping[str, Any]) -> Iterator[str]:
    yield from _beyond(message, _MESSAGE.get(message["role"], _ROLE_AND_CONTENT), "messages")
    if message["role"] == "assistant":
        for call in message.get("tool_calls") or ():
            yield from _beyond(call, _CALL, "messages.tool_calls")
            yield from _beyond(call["function"], _CALLED, "messages.tool_calls.function")


def _in_parts(parts: Any) -> Iterator[str]:
    for part in parts:
        kind = part["type"]
        yield from _beyond(part, _PART[kind], "messages.content")
        if kind in _INNER:
            yield from _beyond(part[kind], _INNER[kind], f"messages.content.{kind}")


def _in_tools(tools: Any) -> Iterator[str]:
    for tool in tools:
        yield from _beyond(tool, _TOOL, "tools")
        yield from _beyond(tool["function"], _FUNCTION, "tools.function")


def _in_format(form: Mapping[str, Any]) -> Iterator[str]:
    # A schema beside another type has not been looked at: it may be anything.
    is_schema = form["type"] == "json_schema"
    yield from _beyond(form, _FORMAT if is_schema else _TYPE, "response_format")
    if is_schema:
        yield from _beyond(form["json_schema"], _SCHEMA, "response_format.json_schema")


def _in_choice(choice: Mapping[str, Any]) -> Iterator[str]:
    if choice["type"] == "function":
        yield from _beyond(choice, _NAMED, "tool_choice")
        yield from _beyond(choice["function"], _NAME, "tool_choice.function")
        return
    yield from _beyond(choice, _ALLOWED, "tool_choice")
    allowed = choice["allowed_tools"]
    yield from _beyond(allowed, _ALLOWED_TOOLS, "tool_choice.allowed_tools")
    for tool in allowed["tools"]:
        yield from _beyond(tool, _NAMED, "tool_choice.allowed_tools.tools")
        yield from _beyond(tool["function"], _NAME, "tool_choice.allowed_tools.tools.function")
