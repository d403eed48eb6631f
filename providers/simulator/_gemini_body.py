"""The body of Gemini's `generateContent` -> `ChatRequest`, refusing what the vendor answers with 400.

Source: google-genai 3.3.0 (every field that its converter for the Developer API writes) and public captures of 400
bodies; read 2026-11-20. In what models differ is the catalogue's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.catalogue.models import ModelFacts
from providers.chat import (
    AllowedTools,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    SystemMessage,
    Tool,
    ToolChoice,
)
from providers.codec.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.failures import InvalidRequest
from providers.simulator._gemini_turns import Rules, known, read_turns, text_parts

__all__ = ["read_body"]

_FIELDS = (
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
    "labels",
    "serviceTier",
    "store",
    "continuationToken",
)
_READ_FIELDS = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"})
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_CONFIG_FIELDS = (
    *_SAMPLING.values(),
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "responseLogprobs",
    "logprobs",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseFormat",
    "responseModalities",
    "mediaResolution",
    "speechConfig",
    "imageConfig",
    "thinkingConfig",
    "enableEnhancedCivicAnswers",
    "audioTranscriptionConfig",
)
_DECLARATION_FIELDS = (
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
)
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_MIME_TYPES = ("text/plain", "application/json", "text/x.enum")
_MAX_STOPS = 5
_MAX_CANDIDATES = 8
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
# A budget of thinking tokens up to which an effort is meant.
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))


def read_body(value: object, model: str, facts: ModelFacts, *, stream: bool) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", _FIELDS)
    contents = items(body.get("contents") or [], "contents")
    if not contents:
        raise InvalidRequest("contents: contents is not specified", "contents")
    system = body.get("systemInstruction")
    rules = Rules(model, "call_ids" in facts.flags, "prefill" in facts.features, "image_url" in facts.features)
    instructions = (
        () if system is None else text_parts(known(system, "systemInstruction", ("role", "parts")), "systemInstruction")
    )
    tools = _tools(body)
    config = known(body.get("generationConfig") or {}, "generationConfig", _CONFIG_FIELDS)
    _refuse_what_the_model_lacks(config, facts)
    extra = {name: value for name, value in body.items() if name not in _READ_FIELDS}
    if "topK" in config:
        extra["top_k"] = config["topK"]
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in instructions), *read_turns(contents, rules)),
        stream=stream,
        include_usage=stream,
        max_tokens=integer(config, "maxOutputTokens", "generationConfig.maxOutputTokens", 1, _INT32),
        temperature=number(config, "temperature", "generationConfig.temperature", 0, 2),
        top_p=number(config, "topP", "generationConfig.topP", 0, 1),
        presence_penalty=number(config, "presencePenalty", "generationConfig.presencePenalty", -2, 2),
        frequency_penalty=number(config, "frequencyPenalty", "generationConfig.frequencyPenalty", -2, 2),
        seed=integer(config, "seed", "generationConfig.seed", -_INT64 - 1, _INT64),
        stop=_stops(config),
        n=integer(config, "candidateCount", "generationConfig.candidateCount", 1, _MAX_CANDIDATES),
        logprobs=boolean(config, "responseLogprobs", "generationConfig.responseLogprobs"),
        top_logprobs=integer(config, "logprobs", "generationConfig.logprobs", 0, 20),
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        response_format=_format(config),
        reasoning_effort=_effort(config, facts),
        extra=extra,
    )


def _refuse_what_the_model_lacks(config: Mapping[str, object], facts: ModelFacts) -> None:
    for name, field in _SAMPLING.items():
        if name in facts.without and config.get(field) not in (None, *((0,) if name.endswith("penalty") else ())):
            raise InvalidRequest(f"{field} is not enabled for this model", f"generationConfig.{field}")
    for feature, field in (("n", "candidateCount"), ("logprobs", "responseLogprobs")):
        if feature not in facts.features and config.get(field) is not None:
            raise InvalidRequest(f"{field} is not enabled for this model", f"generationConfig.{field}")
    if config.get("logprobs") is not None and config.get("responseLogprobs") is not True:
        raise InvalidRequest("logprobs needs responseLogprobs", "generationConfig.logprobs")


def _stops(config: Mapping[str, object]) -> tuple[str, ...]:
    place = "generationConfig.stopSequences"
    stops = items(config.get("stopSequences") or [], place, at_most=_MAX_STOPS)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest(f"{place} must be texts that are not empty", place)
    return tuple(str(stop) for stop in stops)


def _format(config: Mapping[str, object]) -> ResponseFormat | None:
    place = "generationConfig.responseMimeType"
    mime = config.get("responseMimeType")
    if mime is not None:
        choice(mime, place, _MIME_TYPES)
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if len(schemas) > 1:
        raise InvalidRequest("responseSchema and responseJsonSchema exclude each other", place)
    if schemas and mime not in ("application/json", "text/x.enum"):
        raise InvalidRequest(f"{schemas[0]} needs the response mime type application/json", place)
    if schemas:
        return JsonSchemaFormat("response", mapping(config[schemas[0]], f"generationConfig.{schemas[0]}"))
    return JsonObjectFormat() if mime == "application/json" else None


def _effort(config: Mapping[str, object], facts: ModelFacts) -> str | None:
    place = "generationConfig.thinkingConfig"
    if config.get("thinkingConfig") is None:
        return None
    names = ("includeThoughts", "thinkingBudget", "thinkingLevel")
    thinking = known(config["thinkingConfig"], place, names, snake=True)
    boolean(thinking, "includeThoughts", f"{place}.includeThoughts")
    level = thinking.get("thinkingLevel")
    budget = integer(thinking, "thinkingBudget", f"{place}.thinkingBudget", -1, 32768)
    if level is not None and budget is not None:
        raise InvalidRequest("You can only set one of thinking budget and thinking level.", place)
    if not facts.efforts:
        raise InvalidRequest("Thinking is not enabled for this model", place)
    by_budget = "thinking_budget" in facts.flags
    if (level is not None and by_budget) or (budget is not None and not by_budget):
        raise InvalidRequest(f"this model thinks by {'budget' if by_budget else 'level'}", place)
    if level is not None:
        return choice(level, f"{place}.thinkingLevel", tuple(effort.upper() for effort in facts.efforts)).lower()
    if budget is None or budget < 0:
        return None
    effort = next((word for limit, word in _BUDGETS if budget <= limit), "high")
    if effort not in facts.efforts:
        raise InvalidRequest(f"Budget {budget} is invalid. This model only works in thinking mode.", place)
    return effort


def _tools(body: Mapping[str, object]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for position, entry in enumerate(items(body.get("tools") or [], "tools")):
        group = known(entry, f"tools[{position}]", ("functionDeclarations",))
        place = f"tools[{position}].functionDeclarations"
        declarations = items(group.get("functionDeclarations") or [], place)
        tools += [_tool(one, f"{place}[{i}]") for i, one in enumerate(declarations)]
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("Duplicate function declaration found", "tools")
    return tuple(tools)


def _tool(value: object, place: str) -> Tool:
    declaration = known(value, place, _DECLARATION_FIELDS, snake=True)
    name = text(declaration, "name", f"{place}.name")
    if not name or not _FUNCTION_NAME.fullmatch(name):
        raise InvalidRequest(f"{place}.name: Invalid function name. Must start with a letter or an underscore.", place)
    schemas = [key for key in ("parameters", "parametersJsonSchema") if declaration.get(key) is not None]
    if len(schemas) > 1:
        raise InvalidRequest(f"{place}: parameters and parametersJsonSchema exclude each other", place)
    parameters = mapping(declaration[schemas[0]], f"{place}.{schemas[0]}") if schemas else None
    return Tool(name, text(declaration, "description", f"{place}.description"), parameters)


def _tool_choice(body: Mapping[str, object], tools: tuple[Tool, ...]) -> ToolChoice | None:
    if body.get("toolConfig") is None:
        return None
    place = "toolConfig.functionCallingConfig"
    outer = known(body["toolConfig"], "toolConfig", ("functionCallingConfig", "retrievalConfig"))
    config = known(present(outer, "functionCallingConfig", place), place, ("mode", "allowedFunctionNames"))
    mode = choice(config.get("mode"), f"{place}.mode", ("AUTO", "ANY", "NONE", "VALIDATED"))
    names = tuple(str(name) for name in items(config.get("allowedFunctionNames") or [], place))
    if not tools:
        raise InvalidRequest("Function calling config is set without function_declarations.", place)
    if names and mode in ("AUTO", "NONE"):
        raise InvalidRequest("Allowed function names are only taken with the modes ANY and VALIDATED.", place)
    if missing := sorted(set(names) - {tool.name for tool in tools}):
        raise InvalidRequest(f"allowedFunctionNames: {missing[0][:60]!r} is not declared", place)
    if mode == "ANY":
        if len(names) == 1:
            return NamedTool(names[0])
        return AllowedTools("required", names) if names else "required"
    if mode == "NONE":
        return "none"
    return AllowedTools("auto", names) if names else "auto"
