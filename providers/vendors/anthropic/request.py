"""Write the body of Anthropic's `POST /v1/messages`.

Source: anthropic 2.10.0 (MessageParam and its blocks), platform.claude.com on tool use and thinking; read 2026-11-20.
Source: anthropic 2.10.0 (MessageCreateParams), platform.claude.com on thinking, effort and structured outputs; which
model refuses what is the catalogue's; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from providers.adapter import Target
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    UserMessage,
    text_of,
)
from providers.chat.messages import is_data_uri, split_data_uri
from providers.failures import UnsupportedFeature
from providers.formats.claude import ANY_EFFORT, arguments_schema, check_features, stops_of, strict_schema, thinking_of
from providers.formats.reasoning_state import Thought, blocks_of
from providers.formats.request_options import nearest_effort, with_end_user_in_user
from providers.formats.tool_calls import (
    FILLER_TEXT,
    SimpleToolChoice,
    arguments_of,
    needs_filler_turns,
    safe_call_id,
    safe_call_name,
    tools_of,
    turns_with_results,
)
from providers.json_values import as_map

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


@dataclass(slots=True)
class _Turn:
    role: str
    content: list[dict[str, object]] = field(default_factory=list)


def system_blocks(messages: Sequence[Message]) -> list[dict[str, object]]:
    """One text block a system or developer message, in order: what stands in mid-conversation goes there too.

    Newer models take a system turn between the others, under rules of placement; an older one refuses it (400).
    """
    texts = [text_of(message.content) for message in messages if isinstance(message, SystemMessage)]
    return [_text(text) for text in texts if text.strip()]


def messages_of(messages: Sequence[Message], model: str) -> list[dict[str, object]]:
    """The turns of user and assistant; raises UnsupportedFeature where calls and their results don't fit together.

    Neighbours of one role become one turn, and blank texts are left out: the vendor refuses them. Where
    nothing remains that a user said, and one must have, a silent one stands.
    """
    turns: list[_Turn] = []
    for message, results in turns_with_results(messages):
        match message:
            case SystemMessage():
                pass
            case UserMessage(content):
                _say(turns, "user", _parts(content))
            case AssistantMessage():
                _say(turns, "assistant", blocks_of(message, model, _text, _thought, _call))
                _say(turns, "user", [_result(call, text) for call, text in results])
            case _:
                assert_never(message)
    _mend_prefill(turns)
    before, behind = needs_filler_turns([turn.role for turn in turns], messages)
    silent = _Turn("user", [_text(FILLER_TEXT)])
    turns = [*([silent] if before else []), *turns, *([silent] if behind else [])]
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def lacks_thoughts(messages: Sequence[dict[str, object]]) -> bool:
    """Whether the answer continues a loop of tools whose calls come without their thoughts: another model's."""
    for message in reversed(messages):
        blocks = message["content"]
        kinds = [block["type"] for block in blocks] if isinstance(blocks, list) else []
        if message["role"] == "assistant":
            return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")
        if "tool_result" not in kinds:
            return False
    return False


def _say(turns: list[_Turn], role: str, content: list[dict[str, object]]) -> None:
    if not content:
        return
    if not turns or turns[-1].role != role:
        turns.append(_Turn(role))
    turns[-1].content += content


def _mend_prefill(turns: list[_Turn]) -> None:
    """Cut the blank end of a text that the model is to continue: the vendor refuses it."""
    if turns and turns[-1].role == "assistant" and isinstance(text := turns[-1].content[-1].get("text"), str):
        turns[-1].content[-1] = _text(text.rstrip())


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _parts(content: str | tuple[Part, ...]) -> list[dict[str, object]]:
    parts = (TextPart(content),) if isinstance(content, str) else content
    return [_part(part) for part in parts if not isinstance(part, TextPart) or part.text.strip()]


def _part(part: Part) -> dict[str, object]:
    match part:
        case TextPart(text):
            return _text(text)
        case ImagePart(url):
            return {"type": "image", "source": _image_source(url)}
        case FilePart(data, filename):
            return {"type": "document", "source": _document_source(data), **({"title": filename} if filename else {})}
        case AudioPart():
            raise UnsupportedFeature("audio", "the provider takes no sound")
        case _:
            assert_never(part)


def _image_source(url: str) -> dict[str, object]:
    if not is_data_uri(url):
        return {"type": "url", "url": url}
    mime, data = split_data_uri(url)
    if mime not in _IMAGE_TYPES:
        raise UnsupportedFeature("vision", f"the provider takes images of the types {', '.join(_IMAGE_TYPES)}")
    return {"type": "base64", "media_type": mime, "data": data}


def _document_source(uri: str) -> dict[str, object]:
    mime, data = split_data_uri(uri)
    if mime == "application/pdf":
        return {"type": "base64", "media_type": mime, "data": data}
    if mime == "text/plain":
        try:
            return {"type": "text", "media_type": mime, "data": base64.b64decode(data, validate=True).decode("utf-8")}
        except (ValueError, binascii.Error):
            raise UnsupportedFeature("file", "a text file must be UTF-8 in base64") from None
    raise UnsupportedFeature("file", "the provider takes files of the types application/pdf and text/plain")


def _thought(thought: Thought) -> dict[str, object]:
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _call(call: ToolCall) -> dict[str, object]:
    return {
        "type": "tool_use",
        "id": safe_call_id(call.id),
        "name": safe_call_name(call.name),
        "input": arguments_of(call),
    }


def _result(call: ToolCall, text: str) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": safe_call_id(call.id), **({"content": text} if text.strip() else {})}


# The least that any of the vendor's models gives; one that isn't known may refuse more.
_USUAL_MAX_TOKENS = 4096


_SAMPLING = ("temperature", "top_p", "top_k")


_VERSION, _VERSION_WITH_SAMPLING = "2026-10-21", "2023-06-01"


_OURS = frozenset({"system", "stop_sequences"})


_MERGED = frozenset({"output_config", "metadata", "thinking"})


def version_of(body: Mapping[str, object]) -> str:
    """The `anthropic-version` of a body: the newer one refuses sampling parameters, even at their defaults."""
    return _VERSION_WITH_SAMPLING if any(name in body for name in _SAMPLING) else _VERSION


def encode_body(request: ChatRequest, target: Target) -> dict[str, object]:
    """The body, with what the site pins written last; raises UnsupportedFeature."""
    check_features(request)
    request = with_end_user_in_user(request, target)
    if clash := sorted(_OURS & request.extra.keys()):
        message = f"{clash[0]!r} is made of the request's own fields; it can't be sent besides"
        raise UnsupportedFeature(clash[0], message)
    tools, choice = tools_of(request)
    max_tokens = _max_tokens(request, target)
    messages = messages_of(request.messages, target.model)
    body: dict[str, object] = {name: value for name, value in request.extra.items() if name not in _MERGED}
    body["model"] = target.model
    body["max_tokens"] = max_tokens
    if system := system_blocks(request.messages):
        body["system"] = system
    body["messages"] = messages
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
        if choice is not None or request.parallel_tool_calls is not None:
            body["tool_choice"] = _tool_choice(choice, request.parallel_tool_calls)
    if request.temperature is not None:
        body["temperature"] = min(request.temperature, 1)
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = stops_of(request.stop)
    if request.stream:
        body["stream"] = True
    thinking = thinking_of(request, target, choice, max_tokens, lacks_thoughts=lacks_thoughts(messages))
    merged: dict[str, dict[str, object]] = {
        "output_config": _output_config(request, target, thinking),
        "metadata": {"user_id": request.user} if request.user is not None else {},
        "thinking": thinking,
    }
    for name, value in merged.items():
        if whole := {**as_map(request.extra.get(name)), **value}:
            body[name] = whole
    body.update(target.pins)
    return body


def _max_tokens(request: ChatRequest, target: Target) -> int:
    """What is asked for, but no more than the model gives; all that it gives where nothing is said."""
    most = target.facts.output_tokens
    if request.max_tokens is None:
        return most or _USUAL_MAX_TOKENS
    return min(request.max_tokens, most) if most else request.max_tokens


def _tool(tool: Tool) -> dict[str, object]:
    body: dict[str, object] = {"name": tool.name}
    if tool.description:
        body["description"] = tool.description
    schema = arguments_schema(tool)
    if tool.strict:
        return {**body, "input_schema": strict_schema(schema, "strict_tools"), "strict": True}
    return {**body, "input_schema": schema}


def _tool_choice(choice: SimpleToolChoice, parallel: bool | None) -> dict[str, object]:
    body: dict[str, object]
    match choice:
        case "none":
            return {"type": "none"}
        case None | "auto":
            body = {"type": "auto"}
        case "required":
            body = {"type": "any"}
        case NamedTool(name):
            body = {"type": "tool", "name": name}
        case _:
            assert_never(choice)
    if parallel is not None:
        body["disable_parallel_tool_use"] = not parallel
    return body


def _output_config(request: ChatRequest, target: Target, thinking: Mapping[str, object]) -> dict[str, object]:
    config: dict[str, object] = {}
    if request.reasoning_effort is not None and thinking.get("type") == "adaptive":
        config["effort"] = nearest_effort(request.reasoning_effort, target.facts.efforts or ANY_EFFORT)
    if isinstance(request.response_format, JsonSchemaFormat):
        config["format"] = {
            "type": "json_schema",
            "schema": strict_schema(request.response_format.schema, "json_schema"),
        }
    return config
