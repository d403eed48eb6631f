"""Read a request of Anthropic's Messages API.

Fields that change the meaning or keep state at a vendor are refused by name; other fields without an equivalent are
left out and named. Paths in errors have Anthropic's form, such as `messages.0.content.1.text`.

Source: anthropic 2.12 (MessageCreateParams), platform.claude.com on thinking, effort and tool use, read 2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.api.dialects.messages.blocks import BlockReader
from gateway.api.dialects.messages.turns import read_messages
from providers.chat import (
    ChatRequest,
    JsonSchemaFormat,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    Tool,
    ToolChoice,
)
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.json_values import as_map
from providers.openai_json.decode_request import MAX_MESSAGES
from providers.openai_json.fields import boolean, describe, integer, items, mapping, number, text
from providers.openai_json.plain_request import plain_messages

_READ = frozenset(
    "model messages max_tokens system stream temperature top_p top_k stop_sequences tools tool_choice thinking "
    "output_config output_format metadata cache_control inference_geo".split()
)
_REFUSED = {
    "container": "it keeps files at a provider: run the code in your own app",
    "mcp_servers": "a provider would send data to them: connect them to your own app and send their tools as functions",
    "context_management": "the provider would change the conversation: shorten it in your app, or switch this beta off",
    "diagnostics": "it refers to content kept at a provider",
}
_BILLING = "x-anthropic-billing-header:"
_MAX_TOKENS = 2**31 - 1
_MAX_TOOLS = 512
_MOST_STOPS = 64
_MOST_UNREAD = 128
_LONGEST_NAME = 128
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_CHOICE = frozenset({"type", "name", "disable_parallel_tool_use"})
_THINKING = frozenset({"type", "budget_tokens", "display"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CHOICES: Mapping[object, ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}
# The effort with the nearest thinking budget that is not smaller.
_EFFORT_BY_BUDGET = ((1024, "minimal"), (2048, "low"), (8192, "medium"), (16384, "high"), (24576, "xhigh"))
_MOST_EFFORT = "max"
_USUAL_EFFORT = "high"
"""The effort of adaptive thinking without a stated one."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded request.

    Attributes:
        request: The canonical request.
        hides_thinking: The client wants no text of thoughts (`thinking.display: omitted`).
    """

    request: ChatRequest
    hides_thinking: bool = False


def decode_request(body: object, *, counts: bool = False) -> Decoded:
    """Return the request in a parsed body. Raises InvalidRequest or UnsupportedFeature.

    Args:
        body: The parsed JSON.
        counts: The request only counts tokens, so it needs no `max_tokens`.
    """
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {describe(body)}")
    source: Mapping[str, object] = body
    keeps_context = _keeps_all(source.get("context_management"))
    for name, why in _REFUSED.items():
        if source.get(name) is not None and not (name == "context_management" and keeps_context):
            raise InvalidRequest(f"{name}: the gateway does not support this field, because {why}", name)
    for name in ("model", "messages", *(() if counts else ("max_tokens",))):
        if source.get(name) is None:
            raise InvalidRequest(f"{name}: Field required", name)
    reader = BlockReader()
    reader.unread.update(name for name, value in source.items() if name not in _READ and value is not None)
    tools = _tools(source, reader)
    effort, hides_thinking = _effort(source, reader)
    choice, is_parallel = _tool_choice(source, tools, reader)
    extra: dict[str, object] = {}
    if (top_k := integer(source, "top_k", "top_k", 0, _MAX_TOKENS)) is not None:
        extra["top_k"] = top_k
    for name in ("cache_control", "inference_geo"):
        if source.get(name) is not None:
            extra[name] = source[name]
    request = ChatRequest(
        model=text(source, "model", "model") or "",
        messages=_messages(source, reader),
        stream=boolean(source, "stream", "stream") or False,
        include_usage=True,
        max_tokens=integer(source, "max_tokens", "max_tokens", 1, _MAX_TOKENS),
        temperature=number(source, "temperature", "temperature", 0, 1),
        top_p=number(source, "top_p", "top_p", 0, 1),
        stop=_stops(source),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        response_format=_format(source, reader),
        reasoning_effort=effort,
        user=_user(source, reader),
        extra=extra,
        unread=_bounded(reader.unread),
    )
    if not request.model:
        raise InvalidRequest("model: Field required", "model")
    return Decoded(request, hides_thinking)


def _keeps_all(management: object) -> bool:
    """Return whether this changes nothing: Claude Code always sends the edit that keeps all thoughts."""
    edits = as_map(management).get("edits")
    return (
        isinstance(edits, list)
        and bool(edits)
        and all(
            str(as_map(edit).get("type")).startswith("clear_thinking_") and as_map(edit).get("keep") == "all"
            for edit in edits
        )
    )


def _bounded(unread: set[str]) -> frozenset[str]:
    """Return the names. Raises InvalidRequest for more or longer ones than any API has."""
    if len(unread) > _MOST_UNREAD:
        message = f"{len(unread)} fields of the request are not part of the API; at most {_MOST_UNREAD} are accepted"
        raise InvalidRequest(message)
    if any(len(name) > _LONGEST_NAME for name in unread):
        raise InvalidRequest(f"a field of the request has a name of more than {_LONGEST_NAME} characters")
    return frozenset(unread)


def _messages(source: Mapping[str, object], reader: BlockReader) -> tuple[Message, ...]:
    entries = items(source["messages"], "messages", at_most=MAX_MESSAGES)
    if not entries:
        raise InvalidRequest("messages: at least one message is required", "messages")
    system = source.get("system")
    if system is None or isinstance(system, str):
        # The usual form of simple clients: texts only.
        begun: list[object] = [{"role": "system", "content": system}] if system else []
        if (texts := plain_messages([*begun, *entries], len(entries) + 1)) is not None:
            return texts
    return (*_system(system, reader), *read_messages(entries, reader))


def _system(system: object, reader: BlockReader) -> tuple[Message, ...]:
    if system is None or system == "":
        return ()
    if isinstance(system, str):
        return (SystemMessage(system),)
    parts: list[TextPart] = []
    for position, entry in enumerate(items(system, "system")):
        path = f"system.{position}"
        block = mapping(entry, path)
        if block.get("type") != "text":
            raise InvalidRequest(f"{path}.type: Input should be 'text'", f"{path}.type")
        if str(block.get("text")).startswith(_BILLING):
            # Claude Code identifies itself to Anthropic with this block. It is not part of the prompt.
            reader.unread.add("system.x-anthropic-billing-header")
            continue
        parts.append(reader.text_part(block, path, "system"))
    # One message for each block: many providers join the parts of one message without a separator.
    return tuple(SystemMessage((part,) if part.cache is not None else part.text) for part in parts)


def _stops(source: Mapping[str, object]) -> tuple[str, ...]:
    if source.get("stop_sequences") is None:
        return ()
    stops = items(source["stop_sequences"], "stop_sequences", at_most=_MOST_STOPS)
    for position, stop in enumerate(stops):
        if not isinstance(stop, str):
            path = f"stop_sequences.{position}"
            raise InvalidRequest(f"{path}: Input should be a valid string", path)
    return tuple(stop for stop in stops if isinstance(stop, str) and stop)


def _user(source: Mapping[str, object], reader: BlockReader) -> str | None:
    if source.get("metadata") is None:
        return None
    metadata = mapping(source["metadata"], "metadata")
    reader.note_unknown(metadata, frozenset({"user_id"}), "metadata")
    return text(metadata, "user_id", "metadata.user_id")


# --- tools ----------------------------------------------------------------------------------------


def _tools(source: Mapping[str, object], reader: BlockReader) -> tuple[Tool, ...]:
    if source.get("tools") is None:
        return ()
    entries = items(source["tools"], "tools", at_most=_MAX_TOOLS)
    return tuple(_tool(mapping(entry, f"tools.{i}"), f"tools.{i}", reader) for i, entry in enumerate(entries))


def _tool(tool: Mapping[str, object], path: str, reader: BlockReader) -> Tool:
    if tool.get("type") not in (None, "custom"):
        shown = str(tool["type"])[:60]
        message = (
            f"{path}: the gateway does not support the tool {shown!r}, which a provider defines or runs; "
            "send a function with `name` and `input_schema`, and run it in your own app"
        )
        raise UnsupportedFeature("tools", message, f"{path}.type")
    name = text(tool, "name", f"{path}.name")
    if name is None or not _TOOL_NAME.fullmatch(name):
        message = f"{path}.name: String should have 1 to 128 letters, digits, '_' or '-'"
        raise InvalidRequest(message, f"{path}.name")
    if tool.get("input_schema") is None:
        raise InvalidRequest(f"{path}.input_schema: Field required", f"{path}.input_schema")
    reader.note_unknown(tool, _TOOL, "tools")
    return Tool(
        name,
        text(tool, "description", f"{path}.description"),
        mapping(tool["input_schema"], f"{path}.input_schema"),
        boolean(tool, "strict", f"{path}.strict"),
        reader.cache(tool, path, "tools"),
    )


def _tool_choice(
    source: Mapping[str, object], tools: tuple[Tool, ...], reader: BlockReader
) -> tuple[ToolChoice | None, bool | None]:
    """Return the choice, and whether parallel calls are allowed; None for the default."""
    if source.get("tool_choice") is None:
        return None, None
    choice = mapping(source["tool_choice"], "tool_choice")
    reader.note_unknown(choice, _CHOICE, "tool_choice")
    disabled = boolean(choice, "disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use")
    is_parallel = None if disabled is None or not tools else not disabled
    kind = choice.get("type")
    if kind == "tool":
        name = text(choice, "name", "tool_choice.name")
        if name is None or all(tool.name != name for tool in tools):
            raise InvalidRequest("tool_choice.name: the tool is not one of the `tools`", "tool_choice.name")
        return NamedTool(name), is_parallel
    if not isinstance(kind, str) or kind not in _CHOICES:
        message = "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'"
        raise InvalidRequest(message, "tool_choice.type")
    if not tools:
        if kind == "any":
            raise InvalidRequest("tool_choice: may only be specified while providing tools", "tool_choice")
        return None, None
    return _CHOICES[kind], is_parallel


# --- thinking and formats -------------------------------------------------------------------------


def _effort(source: Mapping[str, object], reader: BlockReader) -> tuple[str | None, bool]:
    """Return the reasoning effort, and whether the text of thoughts is hidden."""
    config = _output_config(source)
    effort = text(config, "effort", "output_config.effort")
    if effort is not None and effort not in _EFFORTS:
        allowed = ", ".join(map(repr, _EFFORTS))
        raise InvalidRequest(f"output_config.effort: Input should be one of {allowed}", "output_config.effort")
    if source.get("thinking") is None:
        return effort, False
    thinking = mapping(source["thinking"], "thinking")
    reader.note_unknown(thinking, _THINKING, "thinking")
    display = text(thinking, "display", "thinking.display")
    if display not in (None, "summarized", "omitted"):
        reader.unread.add("thinking.display")
    hides = display == "omitted"
    match thinking.get("type"):
        case "enabled":
            budget = integer(thinking, "budget_tokens", "thinking.budget_tokens", 1, _MAX_TOKENS)
            if budget is None:
                raise InvalidRequest("thinking.budget_tokens: Field required", "thinking.budget_tokens")
            by_budget = next((name for most, name in _EFFORT_BY_BUDGET if budget <= most), _MOST_EFFORT)
            return effort or by_budget, hides
        case "adaptive":
            return effort or _USUAL_EFFORT, hides
        case "disabled" | "between_tools":
            if effort is not None:
                reader.unread.add("output_config.effort")
            return "none", hides
    message = "thinking.type: Input should be 'enabled', 'adaptive', 'disabled' or 'between_tools'"
    raise InvalidRequest(message, "thinking.type")


def _output_config(source: Mapping[str, object]) -> Mapping[str, object]:
    config = source.get("output_config")
    return {} if config is None else mapping(config, "output_config")


def _format(source: Mapping[str, object], reader: BlockReader) -> JsonSchemaFormat | None:
    config = _output_config(source)
    reader.note_unknown(config, frozenset({"effort", "format"}), "output_config")
    path = "output_config.format"
    form = config.get("format")
    if form is None:
        # The name of this field while it was a beta feature.
        path, form = "output_format", source.get("output_format")
    if form is None:
        return None
    wanted = mapping(form, path)
    if wanted.get("type") != "json_schema":
        raise InvalidRequest(f"{path}.type: Input should be 'json_schema'", f"{path}.type")
    if wanted.get("schema") is None:
        raise InvalidRequest(f"{path}.schema: Field required", f"{path}.schema")
    reader.note_unknown(wanted, frozenset({"type", "schema"}), path)
    return JsonSchemaFormat("response", mapping(wanted["schema"], f"{path}.schema"), strict=True)
