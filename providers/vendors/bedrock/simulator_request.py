"""Read a request of Converse leniently: as one of Anthropic's Messages, which has the same blocks under other names.

Unknown fields and odd conversations are accepted. The tests check the adapter's requests against botocore's model of
the service.

Source: botocore 1.44.5 (ConverseRequest, Message and ContentBlock), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import ChatRequest
from providers.failures import InvalidRequest
from providers.json_values import JsonError, as_list, as_map, loads_text, read_list, read_map, read_str
from providers.openai_json.fields import integer, mapping
from providers.testkit.claude_messages import read_body as read_messages
from providers.testkit.request_checks import required_objects
from providers.value import replace

_DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}


def read_body(value: object, model: str, *, stream: bool) -> ChatRequest:
    """Return the request. Raises InvalidRequest without messages."""
    body = mapping(value, "request")
    config, tools = read_map(body, "inferenceConfig"), read_map(body, "toolConfig")
    own, output = read_map(body, "additionalModelRequestFields"), read_map(body, "outputConfig")
    messages = {
        "model": model,
        "stream": stream,
        "system": body.get("system"),
        "messages": [
            {"role": entry.get("role"), "content": _blocks(entry.get("content"))}
            for entry in required_objects(body, "messages")
        ],
        "temperature": config.get("temperature"),
        "top_p": config.get("topP"),
        "stop_sequences": config.get("stopSequences"),
        "tools": [_tool(read_map(as_map(entry), "toolSpec")) for entry in read_list(tools, "tools")],
        "tool_choice": _tool_choice(read_map(tools, "toolChoice")),
        "thinking": own.get("thinking"),
        "output_config": {"effort": output.get("effort"), "format": {"schema": _schema(output)}},
    }
    return replace(
        read_messages(messages),
        max_tokens=integer(config, "maxTokens", "inferenceConfig.maxTokens", 1, 2**31),
        extra={name: value for name, value in own.items() if name != "thinking"},
    )


def _blocks(content: object) -> list[object]:
    return [_block(as_map(block)) for block in as_list(content)]


def _block(block: Mapping[str, object]) -> dict[str, object]:
    if image := read_map(block, "image"):
        return {"type": "image", "source": _source(image, f"image/{image.get('format')}")}
    if document := read_map(block, "document"):
        mime = _DOCUMENTS.get(read_str(document, "format") or "", "application/octet-stream")
        return {"type": "document", "source": _source(document, mime), "title": document.get("name")}
    if use := read_map(block, "toolUse"):
        return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": use.get("input")}
    if result := read_map(block, "toolResult"):
        is_error = result.get("status") == "error"
        content = _blocks(result.get("content"))
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": content, "is_error": is_error}
    if thought := read_map(read_map(block, "reasoningContent"), "reasoningText"):
        return {"type": "thinking", "thinking": thought.get("text")}
    # A thought without text, and the mark of a cache, have nothing to read.
    return {"type": "text", "text": block["text"]} if "text" in block else {}


def _source(block: Mapping[str, object], mime: str) -> dict[str, object]:
    return {"media_type": mime, "data": read_map(block, "source").get("bytes")}


def _tool(spec: Mapping[str, object]) -> dict[str, object]:
    return {**spec, "input_schema": read_map(spec, "inputSchema").get("json")}


def _tool_choice(choice: Mapping[str, object]) -> dict[str, object]:
    return next(({"type": kind, **as_map(choice[kind])} for kind in ("tool", "any", "auto") if kind in choice), {})


def _schema(output: Mapping[str, object]) -> object:
    text_format = read_map(output, "textFormat")
    if not text_format:
        return None
    try:
        return loads_text(read_str(read_map(read_map(text_format, "structure"), "jsonSchema"), "schema") or "")
    except JsonError:
        path = "outputConfig.textFormat.structure.jsonSchema.schema"
        raise InvalidRequest(f"{path} is not a valid JSON schema", path) from None
