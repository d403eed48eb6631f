"""Read a request of Anthropic's Messages API leniently: what the simulated model needs for its answer.

Bedrock's simulator reads its requests in this form too. Unknown fields and odd conversations are accepted. The tests
check the adapter's requests against the types of Anthropic's own client.

Source: anthropic 2.10.0 (MessageCreateParams, MessageParam and its blocks), read 2026-11-20.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence

from providers import chat
from providers.json_values import as_list, as_map, dumps_text, read_float, read_list, read_map, read_str
from providers.openai_json.fields import integer
from providers.testkit.request_checks import required_objects, required_text, texts_of

_READ_FIELDS = frozenset(
    "model messages max_tokens system stop_sequences stream temperature top_p tools tool_choice thinking "
    "output_config metadata".split()
)
_CHOICES: Mapping[str | None, chat.ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}
_BUDGETS = ((2048, "low"), (8192, "medium"))


def signature_of(model: str, thought: str) -> str:
    """Return the signature that this model gives to its thought."""
    checksum = zlib.crc32(thought.encode("utf-8", "replace"))
    return base64.b64encode(f"simulated thought of {model}: {checksum:08x}".encode()).decode()


def read_body(body: Mapping[str, object]) -> chat.ChatRequest:
    """Return the request. Raises InvalidRequest without a model or messages."""
    model = required_text(body, "model")
    entries = required_objects(body, "messages")
    disabled = read_map(body, "tool_choice").get("disable_parallel_tool_use")
    schema = read_map(read_map(body, "output_config"), "format").get("schema")
    return chat.ChatRequest(
        model=model,
        messages=(
            *(chat.SystemMessage(text) for text in texts_of(body.get("system"))),
            *(message for entry in entries for message in _messages(entry)),
        ),
        stream=body.get("stream") is True,
        include_usage=True,
        max_tokens=integer(body, "max_tokens", "max_tokens", 1, 2**31),
        temperature=read_float(body, "temperature"),
        top_p=read_float(body, "top_p"),
        stop=tuple(str(stop) for stop in read_list(body, "stop_sequences")),
        tools=tuple(_tool(as_map(entry)) for entry in read_list(body, "tools")),
        tool_choice=_tool_choice(read_map(body, "tool_choice")),
        parallel_tool_calls=not disabled if isinstance(disabled, bool) else None,
        response_format=None if schema is None else chat.JsonSchemaFormat("response", as_map(schema)),
        reasoning_effort=_effort(body),
        user=read_str(read_map(body, "metadata"), "user_id"),
        extra={name: value for name, value in body.items() if name not in _READ_FIELDS and value is not None},
    )


def _messages(entry: Mapping[str, object]) -> Iterator[chat.Message]:
    content = entry.get("content")
    text = [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content)
    blocks = [as_map(block) for block in text]
    if entry.get("role") == "assistant":
        yield _assistant(blocks)
        return
    results = [block for block in blocks if block.get("type") == "tool_result"]
    for result in results:
        yield _result(result)
    parts = tuple(part for block in blocks if (part := _part(block)) is not None)
    if len(parts) == 1 and isinstance(parts[0], chat.TextPart):
        yield chat.UserMessage(parts[0].text)
    elif parts or not results:
        yield chat.UserMessage(parts)


def _result(block: Mapping[str, object]) -> chat.ToolMessage:
    content = block.get("content")
    parts = tuple(part for entry in as_list(content) if (part := _part(as_map(entry))) is not None)
    is_text = all(isinstance(part, chat.TextPart) for part in parts)
    return chat.ToolMessage(
        read_str(block, "tool_use_id") or "",
        "".join(texts_of(content)) if is_text else parts,
        block.get("is_error") is True,
    )


def _part(block: Mapping[str, object]) -> chat.Part | None:
    source = read_map(block, "source")
    data = read_str(source, "data") or ""
    match block.get("type"):
        case "text":
            return chat.TextPart(read_str(block, "text") or "")
        case "image":
            return chat.ImagePart(read_str(source, "url") or f"data:{source.get('media_type')};base64,{data}")
        case "document":
            if source.get("type") == "text":
                data = base64.b64encode(data.encode("utf-8", "replace")).decode()
            return chat.FilePart(f"data:{source.get('media_type')};base64,{data}", read_str(block, "title"))
        case _:
            return None


def _assistant(blocks: Sequence[Mapping[str, object]]) -> chat.AssistantMessage:
    texts = [str(block.get("text")) for block in blocks if block.get("type") == "text"]
    thoughts = [str(block.get("thinking")) for block in blocks if block.get("type") == "thinking"]
    calls = [
        chat.ToolCall(str(block.get("id")), str(block.get("name")), dumps_text(read_map(block, "input")))
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    return chat.AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _tool(tool: Mapping[str, object]) -> chat.Tool:
    strict = tool.get("strict")
    return chat.Tool(
        str(tool.get("name")),
        read_str(tool, "description"),
        read_map(tool, "input_schema"),
        strict if isinstance(strict, bool) else None,
    )


def _tool_choice(choice: Mapping[str, object]) -> chat.ToolChoice | None:
    if choice.get("type") == "tool":
        return chat.NamedTool(str(choice.get("name")))
    return _CHOICES.get(read_str(choice, "type"))


def _effort(body: Mapping[str, object]) -> str | None:
    """Return the reasoning effort, or None for the model's default."""
    thinking = read_map(body, "thinking")
    if thinking.get("type") in ("disabled", "between_tools"):
        return "none"
    if thinking.get("type") == "enabled":
        budget = read_float(thinking, "budget_tokens") or 0
        return next((effort for limit, effort in _BUDGETS if budget <= limit), "high")
    return read_str(read_map(body, "output_config"), "effort")
