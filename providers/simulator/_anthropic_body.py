"""The body of Anthropic's `POST /v1/messages` -> `ChatRequest`, refusing what the vendor answers with 400.

Source: anthropic 2.10.0 (MessageCreateParams) and public captures of 400 bodies; read 2026-11-20. In what models
differ is the catalogue's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    SystemMessage,
    Tool,
    ToolChoice,
)
from providers.codec.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.failures import InvalidRequest
from providers.json_values import as_list, as_map
from providers.simulator._anthropic_turns import Rules, known, read_turns, text_blocks

__all__ = ["read_body"]

_READ_FIELDS = (
    "model",
    "messages",
    "max_tokens",
    "system",
    "stop_sequences",
    "stream",
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
)
_OTHER_FIELDS = (
    "top_k",
    "service_tier",
    "speed",
    "cache_control",
    "container",
    "inference_geo",
    "diagnostics",
    "user_profile_id",
)
_SAMPLING = ("temperature", "top_p", "top_k")
_TOOL_FIELDS = ("type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = ((2048, "low"), (8192, "medium"))
_BEYOND_SCHEMA = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems pattern".split()
)
_GEOS = ("global", "us")
_SUPPORTED_GEO_FROM = re.compile(r"claude-([a-z]+-5|[a-z]+-4-[6-9])(-|$)")
_CLASSIC = "2023-06-01"


def read_body(value: object, facts: ModelFacts, version: str) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", (*_READ_FIELDS, *_OTHER_FIELDS))
    model = text(body, "model", "model")
    if not model:
        raise InvalidRequest("model: Field required", "model")
    max_tokens = integer(
        {"max_tokens": present(body, "max_tokens", "max_tokens")}, "max_tokens", "max_tokens", 1, 2**31
    )
    _refuse_what_the_model_lacks(body, facts, version, max_tokens or 0)
    tools = _tools(body)
    selected, parallel = _tool_choice(body, tools, facts)
    effort = _effort(body, facts, max_tokens or 0, forced=selected == "required" or isinstance(selected, NamedTool))
    thoughtful = as_map(body.get("thinking")).get("type") == "enabled"
    rules = Rules(model, "prefill" in facts.features, thoughtful)
    entries = items(present(body, "messages", "messages"), "messages")
    if not entries:
        raise InvalidRequest("messages: at least one message is required", "messages")
    messages = read_turns(entries, rules)
    if not tools and any(isinstance(message, AssistantMessage) and message.tool_calls for message in messages):
        raise InvalidRequest("Requests which include `tool_use` or `tool_result` blocks must define tools", "tools")
    system = text_blocks(body["system"], "system") if body.get("system") is not None else ()
    metadata = known(body.get("metadata") or {}, "metadata", ("user_id",))
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in system), *messages),
        stream=boolean(body, "stream", "stream") or False,
        include_usage=True,
        max_tokens=max_tokens,
        temperature=number(body, "temperature", "temperature", 0, 1),
        top_p=number(body, "top_p", "top_p", 0, 1),
        stop=_stops(body),
        tools=tools,
        tool_choice=selected,
        parallel_tool_calls=parallel,
        response_format=_format(body),
        reasoning_effort=effort,
        user=text(metadata, "user_id", "metadata.user_id"),
        extra={name: body[name] for name in _OTHER_FIELDS if body.get(name) is not None},
    )


def _refuse_what_the_model_lacks(body: Mapping[str, object], facts: ModelFacts, version: str, max_tokens: int) -> None:
    for name in _SAMPLING:
        if body.get(name) is not None and (version != _CLASSIC or name in facts.without):
            raise InvalidRequest(f"{name}: is not supported by this model or API version", name)
    if facts.output_tokens is not None and max_tokens > facts.output_tokens:
        message = f"max_tokens: {max_tokens} > {facts.output_tokens}, which is the maximum allowed for this model"
        raise InvalidRequest(message, "max_tokens")
    geo = body.get("inference_geo")
    if geo is not None:
        choice(geo, "inference_geo", _GEOS)
        if not _SUPPORTED_GEO_FROM.match(str(body.get("model"))):
            raise InvalidRequest("inference_geo: is not supported by this model", "inference_geo")


def _stops(body: Mapping[str, object]) -> tuple[str, ...]:
    stops = items(body.get("stop_sequences") or [], "stop_sequences")
    if not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise InvalidRequest("stop_sequences: each stop sequence must contain non-whitespace", "stop_sequences")
    return tuple(str(stop) for stop in stops)


def _tools(body: Mapping[str, object]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for position, entry in enumerate(items(body.get("tools") or [], "tools")):
        place = f"tools.{position}"
        tool = known(entry, place, _TOOL_FIELDS)
        name = text(tool, "name", f"{place}.name")
        if not name or not _TOOL_NAME.fullmatch(name):
            raise InvalidRequest(f"{place}.custom.name: String should match pattern", place)
        schema = mapping(present(tool, "input_schema", f"{place}.input_schema"), f"{place}.input_schema")
        if schema.get("type") != "object":
            raise InvalidRequest(f"{place}.custom.input_schema.type: Field required", place)
        strict = boolean(tool, "strict", f"{place}.strict")
        if strict:
            _check_schema(schema, place)
        tools.append(Tool(name, text(tool, "description", f"{place}.description"), schema, strict))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("tools: Tool names must be unique.", "tools")
    return tuple(tools)


def _tool_choice(
    body: Mapping[str, object], tools: tuple[Tool, ...], facts: ModelFacts
) -> tuple[ToolChoice | None, bool | None]:
    if body.get("tool_choice") is None:
        return None, None
    source = known(body["tool_choice"], "tool_choice", ("type", "name", "disable_parallel_tool_use"))
    kind = choice(source.get("type"), "tool_choice.type", ("auto", "any", "tool", "none"))
    disabled = boolean(source, "disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use")
    parallel = None if disabled is None else not disabled
    if not tools:
        raise InvalidRequest("tool_choice: may only be specified while providing tools", "tool_choice")
    if kind in ("any", "tool") and "tool_choice_required" not in facts.features:
        raise InvalidRequest("tool_choice: forced tool use is not supported by this model", "tool_choice")
    match kind:
        case "none":
            if disabled is not None:
                raise InvalidRequest("tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted")
            return "none", None
        case "any":
            return "required", parallel
        case "tool":
            name = text(source, "name", "tool_choice.name")
            if name not in {tool.name for tool in tools} or name is None:
                raise InvalidRequest(f"tool_choice: Tool '{str(name)[:60]}' not found in provided tools", "tool_choice")
            return NamedTool(name), parallel
    return "auto", parallel


def _effort(body: Mapping[str, object], facts: ModelFacts, max_tokens: int, *, forced: bool) -> str | None:
    """How hard it is to think: None for as the model does by itself."""
    config = known(body.get("output_config") or {}, "output_config", ("effort", "format"))
    effort = config.get("effort")
    if effort is not None:
        choice(effort, "output_config.effort", _EFFORTS)
        if effort not in facts.efforts or "thinking_budget" in facts.flags:
            raise InvalidRequest("output_config.effort: This model does not support this effort level", "output_config")
    kind, thinking = "", as_map(body.get("thinking"))
    if thinking:
        known(thinking, "thinking", ("type", "budget_tokens", "display"))
        kind = choice(thinking.get("type"), "thinking.type", tuple(_kinds(facts)))
    on = kind in ("enabled", "adaptive") or (not kind and "thinking_default" in facts.flags)
    if forced and on and "thinking_calls_freely" in facts.flags:
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.", "thinking")
    if on and any(body.get(name) is not None for name in _SAMPLING) and kind:
        raise InvalidRequest("temperature may only be set to 1 when thinking is enabled.", "temperature")
    if kind in ("disabled", "between_tools"):
        return "none"
    if kind == "enabled":
        budget = integer(thinking, "budget_tokens", "thinking.enabled.budget_tokens", 1024, max_tokens - 1)
        if budget is None:
            raise InvalidRequest("thinking.enabled.budget_tokens: Field required", "thinking")
        return next((word for limit, word in _BUDGETS if budget <= limit), "high")
    return str(effort) if effort is not None else None


def _kinds(facts: ModelFacts) -> Iterator[str]:
    """The kinds of thinking that the model takes."""
    if not facts.efforts:
        return
    if "thinking_budget" in facts.flags:
        yield from ("enabled", "disabled")
    else:
        yield "adaptive"
        if "thinking_between_tools" in facts.flags:
            yield "between_tools"
        elif "none" in facts.efforts:
            yield "disabled"


def _format(body: Mapping[str, object]) -> ResponseFormat | None:
    source = as_map(body.get("output_config")).get("format")
    if source is None:
        return None
    place = "output_config.format"
    form = known(source, place, ("type", "schema"))
    choice(form.get("type"), f"{place}.type", ("json_schema",))
    schema = mapping(present(form, "schema", f"{place}.schema"), f"{place}.schema")
    _check_schema(schema, f"{place}.schema")
    return JsonSchemaFormat("response", schema)


def _check_schema(schema: Mapping[str, object], place: str) -> None:
    """Refuse a schema beyond the subset of structured outputs."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        message = "For 'object' type, 'additionalProperties' must be explicitly set to false"
        raise InvalidRequest(f"{place}: {message}", place)
    if beyond := sorted(_BEYOND_SCHEMA & schema.keys()):
        kind = schema.get("type")
        raise InvalidRequest(f"{place}: For '{kind}' type, property '{beyond[0]}' is not supported", place)
    inner = [schema.get("items"), *as_list(schema.get("anyOf")), *as_list(schema.get("allOf"))]
    inner += [*as_map(schema.get("properties")).values(), *as_map(schema.get("$defs")).values()]
    for one in inner:
        if one:
            _check_schema(as_map(one), place)
