"""Decode the body of `generateContent` and of `countTokens`."""

from __future__ import annotations

import re
from typing import Any

from gateway.api.dialects.gemini.contents import ContentReader, read_system
from gateway.api.dialects.gemini.fields import DroppedFields, Fields, read_object, repeated
from gateway.api.dialects.gemini.schema import close_schema, json_schema, with_lower_types
from providers.chat import (
    AllowedTools,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.openai_json.decode_request import check_unknown
from providers.openai_json.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.value import Value

_BODY = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "model"})
_CONFIG = frozenset(
    "temperature topP topK candidateCount maxOutputTokens stopSequences presencePenalty frequencyPenalty seed"
    " responseMimeType responseSchema responseJsonSchema responseLogprobs logprobs thinkingConfig"
    " responseModalities".split()
)
_THINKING = frozenset({"thinkingBudget", "thinkingLevel", "includeThoughts"})
_DECLARATION = frozenset({"name", "description", "parameters", "parametersJsonSchema"})
_CALLING = frozenset({"mode", "allowedFunctionNames"})
# The form of Google; `providers.formats.fitting` gives each provider the form that it takes.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}|[A-Za-z0-9_-]{1,64}")
_MAX_TOOLS = 512
_MOST_STOPS = 5
_MOST_CHOICES = 8
_MODES = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
_LEVELS = ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH")
# As in Google's own OpenAI-compatible API: ai.google.dev/gemini-api/docs/openai, "Thinking", read 2026-11-20.
_EFFORT_OF_BUDGET = ((0, "none"), (1024, "low"), (8192, "medium"))
_JSON, _TEXT = "application/json", "text/plain"


class GeminiRequest(Value, frozen=True):
    """A decoded request, whose answer may contain thoughts if it `shows_thoughts` (`includeThoughts`)."""

    chat: ChatRequest
    shows_thoughts: bool = False


def decode_generate(body: object, assistant: str, *, stream: bool) -> GeminiRequest:
    """Return the request in the parsed body of `generateContent`. Raises InvalidRequest or UnsupportedFeature."""
    return _decode(read_object(body, ""), assistant, "", stream=stream, is_partial=False)


def decode_count(body: object, assistant: str) -> ChatRequest:
    """Return the request in the parsed body of `countTokens`, which may be a part of a conversation."""
    source, path = read_object(body, ""), ""
    if (inner := source.get("generateContentRequest")) is not None:
        source, path = read_object(inner, "generateContentRequest"), "generateContentRequest."
    return _decode(source, assistant, path, stream=False, is_partial=True).chat


def _decode(source: Fields, assistant: str, path: str, *, stream: bool, is_partial: bool) -> GeminiRequest:
    dropped = DroppedFields()
    dropped.add_unknown(source, _BODY, "")
    contents = present(source, "contents", f"{path}contents")
    messages = ContentReader(dropped, is_partial=is_partial).read(contents, f"{path}contents")
    if "systemInstruction" in source:
        messages = (*read_system(source["systemInstruction"], f"{path}systemInstruction", dropped), *messages)
    if not messages:
        raise InvalidRequest(f"`{path}contents` has no text", f"{path}contents")
    tools = _tools(source, path, dropped)
    config = read_object(source.get("generationConfig", {}), f"{path}generationConfig")
    fields, shows_thoughts = _config(config, f"{path}generationConfig", dropped)
    tool_choice = _tool_choice(source, path, tools, dropped)
    check_unknown({}, dropped.names)
    chat = ChatRequest(
        model=assistant,
        messages=messages,
        stream=stream,
        include_usage=True,
        tools=tools,
        tool_choice=tool_choice,
        unread=frozenset(dropped.names),
        **fields,
    )
    return GeminiRequest(chat, shows_thoughts)


def _tools(source: Fields, path: str, dropped: DroppedFields) -> tuple[Tool, ...]:
    if "tools" not in source:
        return ()
    tools: list[Tool] = []
    for position, entry in enumerate(repeated(source["tools"], f"{path}tools")):
        place = f"{path}tools[{position}]"
        tool = read_object(entry, place)
        for name in tool:
            if name != "functionDeclarations":
                message = (
                    f"`{place}.{name[:64]}` is a tool that Google hosts, which would send data elsewhere: declare a "
                    "function that your app runs (`functionDeclarations`)"
                )
                raise UnsupportedFeature("hosted_tools", message, f"{place}.{name[:64]}")
        inner = f"{place}.functionDeclarations"
        declared = repeated(tool.get("functionDeclarations", []), inner)
        tools += [_tool(one, f"{inner}[{at}]", dropped) for at, one in enumerate(declared)]
        if len(tools) > _MAX_TOOLS:
            raise InvalidRequest(f"`{path}tools` has more than {_MAX_TOOLS} functions", f"{path}tools")
    return tuple(tools)


def _tool(value: object, path: str, dropped: DroppedFields) -> Tool:
    declaration = read_object(value, path)
    dropped.add_unknown(declaration, _DECLARATION, "tools.functionDeclarations")
    name = text(declaration, "name", f"{path}.name")
    if name is None or not _NAME.fullmatch(name):
        raise InvalidRequest(f"`{path}.name` must be 1 to 128 letters, digits, '_', '-', '.' or ':'", f"{path}.name")
    parameters = None
    if "parametersJsonSchema" in declaration:
        if "parameters" in declaration:
            message = f"`{path}`: send either `parameters` or `parametersJsonSchema`"
            raise InvalidRequest(message, f"{path}.parametersJsonSchema")
        parameters = with_lower_types(mapping(declaration["parametersJsonSchema"], f"{path}.parametersJsonSchema"))
    elif "parameters" in declaration:
        parameters = json_schema(declaration["parameters"], f"{path}.parameters")
    return Tool(name, text(declaration, "description", f"{path}.description"), parameters)


def _tool_choice(source: Fields, path: str, tools: tuple[Tool, ...], dropped: DroppedFields) -> ToolChoice | None:
    if "toolConfig" not in source:
        return None
    outer = read_object(source["toolConfig"], f"{path}toolConfig")
    dropped.add_unknown(outer, frozenset({"functionCallingConfig"}), "toolConfig")
    place = f"{path}toolConfig.functionCallingConfig"
    config = read_object(outer.get("functionCallingConfig", {}), place)
    dropped.add_unknown(config, _CALLING, "toolConfig.functionCallingConfig")
    mode = choice(_word(config.get("mode", "MODE_UNSPECIFIED")), f"{place}.mode", _MODES)
    names: list[str] = []
    for position, name in enumerate(items(config.get("allowedFunctionNames", []), f"{place}.allowedFunctionNames")):
        if not isinstance(name, str) or all(tool.name != name for tool in tools):
            inner = f"{place}.allowedFunctionNames[{position}]"
            raise InvalidRequest(f"`{inner}` is not one of the `functionDeclarations`", inner)
        names.append(name)
    if not tools:
        if mode == "ANY":
            raise InvalidRequest(f"`{place}.mode` 'ANY' needs `functionDeclarations`", f"{place}.mode")
        return None
    if mode == "NONE":
        return "none"
    if mode == "ANY":
        if len(names) == 1:
            return NamedTool(names[0])
        return AllowedTools("required", tuple(names)) if names else "required"
    if names:
        return AllowedTools("auto", tuple(names))
    return "auto" if mode in ("AUTO", "VALIDATED") else None


def _word(value: object) -> object:
    """Return the name of a value of an enumeration as Google writes it. SDKs and people write both forms."""
    return value.upper() if isinstance(value, str) else value


def _config(config: Fields, path: str, dropped: DroppedFields) -> tuple[dict[str, Any], bool]:
    """Return the settings by the names of `ChatRequest`, and whether thoughts are shown."""
    dropped.add_unknown(config, _CONFIG, "generationConfig")
    logprobs = boolean(config, "responseLogprobs", f"{path}.responseLogprobs")
    alternatives = integer(config, "logprobs", f"{path}.logprobs", 0, 20)
    if alternatives is not None and not logprobs:
        raise InvalidRequest(f"`{path}.logprobs` needs `responseLogprobs: true`", f"{path}.logprobs")
    for position, entry in enumerate(items(config.get("responseModalities", []), f"{path}.responseModalities")):
        if _word(entry) not in ("TEXT", "MODALITY_UNSPECIFIED"):
            place = f"{path}.responseModalities[{position}]"
            raise UnsupportedFeature("output_modalities", f"`{place}`: answers are text here; ask for ['TEXT']", place)
    effort, shows_thoughts = _thinking(config, path, dropped)
    fields: dict[str, Any] = {
        "temperature": number(config, "temperature", f"{path}.temperature", 0, 2),
        "top_p": number(config, "topP", f"{path}.topP", 0, 1),
        "n": integer(config, "candidateCount", f"{path}.candidateCount", 1, _MOST_CHOICES),
        "max_tokens": integer(config, "maxOutputTokens", f"{path}.maxOutputTokens", 1, 2**31 - 1),
        "presence_penalty": number(config, "presencePenalty", f"{path}.presencePenalty", -2, 2),
        "frequency_penalty": number(config, "frequencyPenalty", f"{path}.frequencyPenalty", -2, 2),
        "seed": integer(config, "seed", f"{path}.seed", -(2**63), 2**63 - 1),
        "stop": _stop(config, f"{path}.stopSequences"),
        "logprobs": logprobs,
        "top_logprobs": alternatives,
        "response_format": _response_format(config, path),
        "reasoning_effort": effort,
    }
    if (top_k := integer(config, "topK", f"{path}.topK", 1, 2**31 - 1)) is not None:
        # Clients of chat send it under this name, and adapters read it there.
        fields["extra"] = {"top_k": top_k}
    return fields, shows_thoughts


def _stop(config: Fields, path: str) -> tuple[str, ...]:
    if "stopSequences" not in config:
        return ()
    stops: list[str] = []
    for position, entry in enumerate(items(config["stopSequences"], path, at_most=_MOST_STOPS)):
        if not isinstance(entry, str):
            raise InvalidRequest(f"`{path}[{position}]` must be a string", f"{path}[{position}]")
        if entry:
            stops.append(entry)
    return tuple(stops)


def _thinking(config: Fields, path: str, dropped: DroppedFields) -> tuple[str | None, bool]:
    if "thinkingConfig" not in config:
        return None, False
    place = f"{path}.thinkingConfig"
    thinking = read_object(config["thinkingConfig"], place)
    dropped.add_unknown(thinking, _THINKING, "generationConfig.thinkingConfig")
    shown = boolean(thinking, "includeThoughts", f"{place}.includeThoughts") or False
    budget = integer(thinking, "thinkingBudget", f"{place}.thinkingBudget", -1, 2**31 - 1)
    if "thinkingLevel" in thinking:
        level = choice(_word(thinking["thinkingLevel"]), f"{place}.thinkingLevel", _LEVELS)
        return (None if level == _LEVELS[0] else level.lower()), shown
    if budget is None or budget < 0:
        # A negative budget lets the model decide, which is what a request without a budget does.
        return None, shown
    return next((effort for most, effort in _EFFORT_OF_BUDGET if budget <= most), "high"), shown


def _response_format(config: Fields, path: str) -> ResponseFormat | None:
    kind = (text(config, "responseMimeType", f"{path}.responseMimeType") or "").lower()
    if kind not in ("", _TEXT, _JSON):
        message = f"`{path}.responseMimeType` must be '{_TEXT}' or '{_JSON}'"
        raise UnsupportedFeature("response_format", message, f"{path}.responseMimeType")
    schema: Any = None
    if "responseJsonSchema" in config:
        if "responseSchema" in config:
            message = f"`{path}`: send either `responseSchema` or `responseJsonSchema`"
            raise InvalidRequest(message, f"{path}.responseJsonSchema")
        schema = with_lower_types(mapping(config["responseJsonSchema"], f"{path}.responseJsonSchema"))
    elif "responseSchema" in config:
        schema = json_schema(config["responseSchema"], f"{path}.responseSchema")
    if schema is not None:
        if kind != _JSON:
            message = f"`{path}.responseMimeType` must be '{_JSON}' for an answer with a schema"
            raise InvalidRequest(message, f"{path}.responseMimeType")
        closed, strict = close_schema(schema)
        return JsonSchemaFormat("response", closed, None, strict)
    return JsonObjectFormat() if kind == _JSON else None
