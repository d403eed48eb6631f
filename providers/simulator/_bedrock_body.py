"""The body of Bedrock's Converse -> `ChatRequest`, refusing what the vendor answers with 400.

Source: botocore 1.44.5 (every member of ConverseRequest, and what is required of it), docs.aws.amazon.com on Converse
and public captures of 400 bodies; read 2026-11-20. In what models differ is the catalogue's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.catalogue.models import ModelFacts
from providers.chat import (
    ChatRequest,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    SystemMessage,
    Tool,
    ToolChoice,
    ToolMessage,
)
from providers.codec.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.failures import InvalidRequest
from providers.json_values import JsonError, as_map, loads_text
from providers.simulator._anthropic_turns import known
from providers.simulator._bedrock_turns import read_messages, spoken

__all__ = ["read_body"]

_FIELDS = (
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = ((2048, "low"), (8192, "medium"))


def read_body(value: object, model: str, facts: ModelFacts, *, stream: bool) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", _FIELDS)
    system = [
        spoken(known(one, "system", ("text", "cachePoint")), "system")
        for one in items(body.get("system") or [], "system")
    ]
    config = known(
        body.get("inferenceConfig") or {}, "inferenceConfig", ("maxTokens", "temperature", "topP", "stopSequences")
    )
    for name, field in (("temperature", "temperature"), ("top_p", "topP")):
        if config.get(field) is not None and name in facts.without:
            raise InvalidRequest(f"`{field}` is deprecated for this model.", field)
    stops = items(config.get("stopSequences") or [], "stopSequences", at_most=2500)
    if not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise InvalidRequest("stop_sequences: each stop sequence must contain non-whitespace", "stopSequences")
    max_tokens = integer(config, "maxTokens", "inferenceConfig.maxTokens", 1, facts.output_tokens or 2**31)
    tools, selected = _tools(body.get("toolConfig"), facts)
    own = as_map(body.get("additionalModelRequestFields"))
    effort = _effort(body, own, facts, max_tokens)
    if selected not in (None, "auto") and effort not in (None, "none"):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.", "toolConfig")
    messages = read_messages(items(present(body, "messages", "messages"), "messages"), facts)
    if not tools and any(isinstance(one, ToolMessage) or getattr(one, "tool_calls", ()) for one in messages):
        message = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        raise InvalidRequest(message, "toolConfig")
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in system), *messages),
        stream=stream,
        include_usage=True,
        max_tokens=max_tokens,
        temperature=number(config, "temperature", "inferenceConfig.temperature", 0, 1),
        top_p=number(config, "topP", "inferenceConfig.topP", 0, 1),
        stop=tuple(str(stop) for stop in stops),
        tools=tools,
        tool_choice=selected,
        response_format=_format(body),
        reasoning_effort=effort,
        extra={name: value for name, value in own.items() if name != "thinking"},
    )


def _tools(value: object, facts: ModelFacts) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    if value is None:
        return (), None
    config = known(value, "toolConfig", ("tools", "toolChoice"))
    tools: list[Tool] = []
    for position, entry in enumerate(items(present(config, "tools", "toolConfig.tools"), "toolConfig.tools")):
        place = f"toolConfig.tools.{position}"
        outer = known(entry, place, ("toolSpec", "cachePoint"))
        spec = known(
            present(outer, "toolSpec", place), f"{place}.toolSpec", ("name", "description", "inputSchema", "strict")
        )
        name = text(spec, "name", f"{place}.name")
        if not name or not _NAME.fullmatch(name):
            raise InvalidRequest(f"{place}.toolSpec.name failed to satisfy constraint: [a-zA-Z0-9_-]+", place)
        schema = known(present(spec, "inputSchema", place), f"{place}.inputSchema", ("json",))
        parameters = mapping(present(schema, "json", place), f"{place}.inputSchema.json")
        if parameters.get("type") != "object":
            raise InvalidRequest("toolSpec.inputSchema.json.type must be one of the following: object.", place)
        description = text(spec, "description", f"{place}.description")
        if description == "":
            raise InvalidRequest(f"{place}.toolSpec.description: must have length 1 or more", place)
        tools.append(Tool(name, description, parameters, boolean(spec, "strict", f"{place}.strict")))
    if not tools:
        raise InvalidRequest("toolConfig.tools must have length 1 or more", "toolConfig.tools")
    if config.get("toolChoice") is None:
        return tuple(tools), None
    wanted = known(config["toolChoice"], "toolConfig.toolChoice", ("auto", "any", "tool"))
    if len(wanted) != 1:
        raise InvalidRequest("toolChoice: exactly one member of the union must be set", "toolConfig.toolChoice")
    if "auto" in wanted:
        return tuple(tools), "auto"
    if "tool_choice_required" not in facts.features:
        raise InvalidRequest("This model doesn't support the toolConfig.toolChoice field.", "toolConfig.toolChoice")
    if "any" in wanted:
        return tuple(tools), "required"
    name = text(known(wanted["tool"], "toolChoice.tool", ("name",)), "name", "toolChoice.tool.name")
    if name is None or name not in {tool.name for tool in tools}:
        raise InvalidRequest("toolConfig.toolChoice.tool.name is not in the list of tools", "toolConfig.toolChoice")
    return tuple(tools), NamedTool(name)


def _effort(
    body: Mapping[str, object], own: Mapping[str, object], facts: ModelFacts, max_tokens: int | None
) -> str | None:
    effort = as_map(body.get("outputConfig")).get("effort")
    if effort is not None:
        choice(effort, "outputConfig.effort", _EFFORTS)
    if own.get("thinking") is None:
        return str(effort) if effort is not None else None
    thinking = known(own["thinking"], "thinking", ("type", "budget_tokens", "display"))
    kinds = ("enabled", "disabled") if "thinking_budget" in facts.flags else ("adaptive", "disabled", "between_tools")
    kind = choice(thinking.get("type"), "thinking.type", kinds if facts.efforts else ())
    if kind == "enabled":
        budget = integer(thinking, "budget_tokens", "thinking.budget_tokens", 1024, (max_tokens or 2**31) - 1)
        if budget is None or max_tokens is None:
            raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`.", "thinking")
        return next((word for limit, word in _BUDGETS if budget <= limit), "high")
    return "none" if kind != "adaptive" else str(effort) if effort is not None else "high"


def _format(body: Mapping[str, object]) -> ResponseFormat | None:
    config = known(body.get("outputConfig") or {}, "outputConfig", ("textFormat", "effort"))
    if config.get("textFormat") is None:
        return None
    form = known(config["textFormat"], "outputConfig.textFormat", ("type", "structure"))
    choice(form.get("type"), "outputConfig.textFormat.type", ("json_schema",))
    place = "outputConfig.textFormat.structure.jsonSchema"
    outer = known(present(form, "structure", place), place, ("jsonSchema",))
    definition = known(present(outer, "jsonSchema", place), place, ("schema", "name", "description"))
    try:
        schema = mapping(loads_text(text(definition, "schema", place) or ""), place)
    except JsonError:
        raise InvalidRequest(f"{place}.schema is not a valid JSON schema", place) from None
    return JsonSchemaFormat(text(definition, "name", place) or "response", schema)
