"""Read a request of Converse leniently: what the simulated model needs for its answer.

Unknown fields and odd conversations are accepted. The tests check the adapter's requests against botocore's model of
the service.

Source: botocore 1.44.5 (ConverseRequest, Message and ContentBlock), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from providers.chat import (
    AssistantMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from providers.failures import InvalidRequest
from providers.json_values import (
    JsonError,
    as_list,
    as_map,
    dumps_text,
    loads_text,
    read_float,
    read_list,
    read_map,
    read_str,
)
from providers.openai_json.fields import integer, mapping
from providers.testkit.request_checks import required_objects, texts_of

_DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}
_BUDGETS = ((2048, "low"), (8192, "medium"))


def read_body(value: object, model: str, *, stream: bool) -> ChatRequest:
    """Return the request. Raises InvalidRequest without messages."""
    body = mapping(value, "request")
    config, tools = read_map(body, "inferenceConfig"), read_map(body, "toolConfig")
    own = read_map(body, "additionalModelRequestFields")
    return ChatRequest(
        model=model,
        messages=(
            *(SystemMessage(text) for text in texts_of(body.get("system"))),
            *(message for entry in required_objects(body, "messages") for message in _messages(entry)),
        ),
        stream=stream,
        include_usage=True,
        max_tokens=integer(config, "maxTokens", "inferenceConfig.maxTokens", 1, 2**31),
        temperature=read_float(config, "temperature"),
        top_p=read_float(config, "topP"),
        stop=tuple(str(stop) for stop in read_list(config, "stopSequences")),
        tools=tuple(_tool(read_map(as_map(entry), "toolSpec")) for entry in read_list(tools, "tools")),
        tool_choice=_tool_choice(read_map(tools, "toolChoice")),
        response_format=_format(body),
        reasoning_effort=_effort(body, read_map(own, "thinking")),
        extra={name: value for name, value in own.items() if name != "thinking"},
    )


def _messages(entry: Mapping[str, object]) -> Iterator[Message]:
    blocks = [as_map(block) for block in read_list(entry, "content")]
    if entry.get("role") == "assistant":
        yield _assistant(blocks)
        return
    results = [read_map(block, "toolResult") for block in blocks if "toolResult" in block]
    for result in results:
        yield _result(result)
    parts = tuple(part for block in blocks if (part := _part(block)) is not None)
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        yield UserMessage(parts[0].text)
    elif parts or not results:
        yield UserMessage(parts)


def _result(block: Mapping[str, object]) -> ToolMessage:
    content = block.get("content")
    parts = tuple(part for entry in as_list(content) if (part := _part(as_map(entry))) is not None)
    is_text = all(isinstance(part, TextPart) for part in parts)
    text = "".join(texts_of(content))
    return ToolMessage(read_str(block, "toolUseId") or "", text if is_text else parts, block.get("status") == "error")


def _part(block: Mapping[str, object]) -> Part | None:
    if (text := read_str(block, "text")) is not None:
        return TextPart(text)
    if "image" in block:
        image = read_map(block, "image")
        return ImagePart(f"data:image/{image.get('format')};base64,{_data(image)}")
    if "document" in block:
        document = read_map(block, "document")
        mime = _DOCUMENTS.get(read_str(document, "format") or "", "application/octet-stream")
        return FilePart(f"data:{mime};base64,{_data(document)}", read_str(document, "name"))
    return None


def _data(block: Mapping[str, object]) -> str:
    return read_str(read_map(block, "source"), "bytes") or ""


def _assistant(blocks: Sequence[Mapping[str, object]]) -> AssistantMessage:
    thoughts = [read_map(read_map(block, "reasoningContent"), "reasoningText") for block in blocks]
    uses = [read_map(block, "toolUse") for block in blocks if "toolUse" in block]
    calls = [
        ToolCall(str(use.get("toolUseId")), str(use.get("name")), dumps_text(read_map(use, "input"))) for use in uses
    ]
    return AssistantMessage("".join(texts_of(blocks)) or None, None, "".join(texts_of(thoughts)) or None, tuple(calls))


def _tool(spec: Mapping[str, object]) -> Tool:
    strict = spec.get("strict")
    return Tool(
        str(spec.get("name")),
        read_str(spec, "description"),
        read_map(read_map(spec, "inputSchema"), "json"),
        strict if isinstance(strict, bool) else None,
    )


def _tool_choice(choice: Mapping[str, object]) -> ToolChoice | None:
    if "tool" in choice:
        return NamedTool(str(read_map(choice, "tool").get("name")))
    if "any" in choice:
        return "required"
    return "auto" if "auto" in choice else None


def _effort(body: Mapping[str, object], thinking: Mapping[str, object]) -> str | None:
    """Return the reasoning effort, or None for the model's default."""
    effort = read_str(read_map(body, "outputConfig"), "effort")
    match thinking.get("type"):
        case "adaptive":
            return effort or "high"
        case "enabled":
            budget = read_float(thinking, "budget_tokens") or 0
            return next((word for limit, word in _BUDGETS if budget <= limit), "high")
        case None:
            return effort
        case _:
            return "none"


def _format(body: Mapping[str, object]) -> ResponseFormat | None:
    text_format = read_map(read_map(body, "outputConfig"), "textFormat")
    if not text_format:
        return None
    definition = read_map(read_map(text_format, "structure"), "jsonSchema")
    try:
        schema = as_map(loads_text(read_str(definition, "schema") or ""))
    except JsonError:
        path = "outputConfig.textFormat.structure.jsonSchema.schema"
        raise InvalidRequest(f"{path} is not a valid JSON schema", path) from None
    return JsonSchemaFormat(read_str(definition, "name") or "response", schema)
