"""Read a request of Gemini leniently: what the simulated model needs for its answer.

Unknown fields and odd conversations are accepted. The tests check the adapter's requests against the types of
Google's own client.

Source: google-genai 3.3.0 (Content, Part, GenerationConfig, and its converters for both APIs), read 2026-11-20.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence

from providers import chat
from providers.json_values import as_list, as_map, dumps_text, read_float, read_int, read_list, read_map, read_str
from providers.openai_json.fields import integer, mapping
from providers.testkit.request_checks import required_objects, texts_of

_READ_FIELDS = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"})
_MOST_CANDIDATES = 8
# The largest budget of thinking tokens for each effort.
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))


def signature_of(model: str) -> str:
    """Return the thought signature that this model gives to its calls."""
    return base64.b64encode(f"simulated thought of {model}".encode("utf-8", "replace")).decode()


def read_body(value: object, model: str, *, stream: bool) -> chat.ChatRequest:
    """Return the request. Raises InvalidRequest without contents, or for an impossible number of tokens or answers."""
    body = mapping(value, "request")
    config = read_map(body, "generationConfig")
    extra = {name: value for name, value in body.items() if name not in _READ_FIELDS}
    if "topK" in config:
        extra["top_k"] = config["topK"]
    logprobs = config.get("responseLogprobs")
    return chat.ChatRequest(
        model=model,
        messages=(
            *(chat.SystemMessage(text) for text in texts_of(read_map(body, "systemInstruction").get("parts"))),
            *_messages(required_objects(body, "contents")),
        ),
        stream=stream,
        include_usage=stream,
        max_tokens=integer(config, "maxOutputTokens", "generationConfig.maxOutputTokens", 1, 2**31 - 1),
        temperature=read_float(config, "temperature"),
        top_p=read_float(config, "topP"),
        presence_penalty=read_float(config, "presencePenalty"),
        frequency_penalty=read_float(config, "frequencyPenalty"),
        seed=read_int(config, "seed"),
        stop=tuple(str(stop) for stop in read_list(config, "stopSequences")),
        n=integer(config, "candidateCount", "generationConfig.candidateCount", 1, _MOST_CANDIDATES),
        logprobs=logprobs if isinstance(logprobs, bool) else None,
        top_logprobs=read_int(config, "logprobs"),
        tools=tuple(_tools(body)),
        tool_choice=_tool_choice(read_map(read_map(body, "toolConfig"), "functionCallingConfig")),
        response_format=_format(config),
        reasoning_effort=_effort(_camel(config.get("thinkingConfig"))),
        extra=extra,
    )


def _camel(value: object) -> Mapping[str, object]:
    """Return the object with `mimeType` for `mime_type`, as the API reads it and Google's own client writes it."""
    return {_camel_name(name): member for name, member in as_map(value).items()}


def _camel_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def _messages(contents: Sequence[Mapping[str, object]]) -> Iterator[chat.Message]:
    calls: list[chat.ToolCall] = []
    for position, content in enumerate(contents):
        parts = [as_map(part) for part in read_list(content, "parts")]
        if content.get("role") == "model":
            message = _assistant(parts, f"contents[{position}]")
            calls = list(message.tool_calls)
            yield message
            continue
        results = [read_map(part, "functionResponse") for part in parts if "functionResponse" in part]
        for result in results:
            yield _result(result, calls)
        user_parts = tuple(part for one in parts if (part := _part(one)) is not None)
        if len(user_parts) == 1 and isinstance(user_parts[0], chat.TextPart):
            yield chat.UserMessage(user_parts[0].text)
        elif user_parts or not results:
            yield chat.UserMessage(user_parts)


def _call_id(result: Mapping[str, object], calls: list[chat.ToolCall]) -> str:
    """Return the id of the call that a result belongs to. Without an id it is the first open call of that name."""
    if (own := read_str(result, "id")) is not None:
        return own
    position = next((i for i, call in enumerate(calls) if call.name == result.get("name")), None)
    return "" if position is None else calls.pop(position).id


def _result(result: Mapping[str, object], calls: list[chat.ToolCall]) -> chat.ToolMessage:
    response = read_map(result, "response")
    is_error = isinstance(response.get("error"), str)
    output = response.get("error" if is_error else "output")
    text = output if isinstance(output, str) else dumps_text(response)
    parts = tuple(part for entry in read_list(result, "parts") if (part := _part(as_map(entry))) is not None)
    return chat.ToolMessage(_call_id(result, calls), (chat.TextPart(text), *parts) if parts else text, is_error)


def _part(part: Mapping[str, object]) -> chat.Part | None:
    if (text := read_str(part, "text")) is not None:
        return chat.TextPart(text)
    if uri := read_str(read_map(part, "fileData"), "fileUri"):
        return chat.ImagePart(uri)
    blob = _camel(part.get("inlineData"))
    mime, data = read_str(blob, "mimeType") or "", read_str(blob, "data") or ""
    if mime.startswith("audio/"):
        return chat.AudioPart(data, mime.removeprefix("audio/"))
    uri = f"data:{mime};base64,{data}"
    if mime.startswith("image/"):
        return chat.ImagePart(uri)
    return chat.FilePart(uri) if mime else None


def _assistant(parts: Sequence[Mapping[str, object]], path: str) -> chat.AssistantMessage:
    texts = [text for part in parts if part.get("thought") is not True and (text := read_str(part, "text"))]
    thoughts = [text for part in parts if part.get("thought") is True and (text := read_str(part, "text"))]
    called = [part for part in parts if "functionCall" in part]
    calls = tuple(_call(part, f"{path}#{number}") for number, part in enumerate(called))
    return chat.AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, calls)


def _call(part: Mapping[str, object], made_id: str) -> chat.ToolCall:
    call = read_map(part, "functionCall")
    return chat.ToolCall(
        read_str(call, "id") or made_id,
        str(call.get("name")),
        dumps_text(read_map(call, "args")),
        read_str(part, "thoughtSignature"),
    )


def _format(config: Mapping[str, object]) -> chat.ResponseFormat | None:
    for name in ("responseJsonSchema", "responseSchema"):
        if config.get(name) is not None:
            return chat.JsonSchemaFormat("response", read_map(config, name))
    return chat.JsonObjectFormat() if config.get("responseMimeType") == "application/json" else None


def _effort(thinking: Mapping[str, object]) -> str | None:
    """Return the reasoning effort, or None for the model's default."""
    if level := read_str(thinking, "thinkingLevel"):
        return level.lower()
    budget = read_float(thinking, "thinkingBudget")
    if budget is None or budget < 0:
        return None
    return next((effort for limit, effort in _BUDGETS if budget <= limit), "high")


def _tools(body: Mapping[str, object]) -> Iterator[chat.Tool]:
    for group in read_list(body, "tools"):
        for entry in as_list(as_map(group).get("functionDeclarations")):
            tool = _camel(entry)
            schemas = [tool[name] for name in ("parametersJsonSchema", "parameters") if tool.get(name) is not None]
            parameters = as_map(schemas[0]) if schemas else None
            yield chat.Tool(str(tool.get("name")), read_str(tool, "description"), parameters)


def _tool_choice(config: Mapping[str, object]) -> chat.ToolChoice | None:
    names = tuple(str(name) for name in read_list(config, "allowedFunctionNames"))
    match config.get("mode"):
        case "ANY" if len(names) == 1:
            return chat.NamedTool(names[0])
        case "ANY":
            return chat.AllowedTools("required", names) if names else "required"
        case "NONE":
            return "none"
        case "AUTO" | "VALIDATED":
            return chat.AllowedTools("auto", names) if names else "auto"
        case _:
            return None
