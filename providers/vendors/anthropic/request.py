"""Write the body of Anthropic's `POST /v1/messages`. The facts about single models are in the catalogue.

Source: anthropic 2.10.0 (MessageCreateParams, MessageParam and its blocks), platform.claude.com on tool use, thinking,
effort and structured outputs; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from providers import chat
from providers.adapter import Target
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
    tools_of,
    turns_with_whole_results,
)
from providers.formats.tool_results import FAILED_PREFIX
from providers.json_values import as_map
from providers.matching.requirements import ATTRIBUTION, is_attribution
from providers.reading.json_object import with_json_instruction

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
# The smallest maximum of the vendor's models. An unknown model may refuse more.
_DEFAULT_MAX_TOKENS = 4096
_MAX_NAME_CHARACTERS = 128
_SAMPLING = ("temperature", "top_p", "top_k")
_DERIVED = frozenset({"system", "stop_sequences"})
_NOT_AS_FIELDS = frozenset({"output_config", "metadata", "thinking", ATTRIBUTION})


@dataclass(slots=True)
class _Turn:
    role: str
    content: list[dict[str, object]] = field(default_factory=list)


def system_blocks(messages: Sequence[chat.Message]) -> list[dict[str, object]]:
    """Return the text blocks of all system and developer messages, in order, also from within the conversation.

    Newer models accept a system turn at certain places of the conversation; older models refuse it with status 400.
    """
    return [block for it in messages if isinstance(it, chat.SystemMessage) for block in _parts(it.content)]


def messages_of(messages: Sequence[chat.Message], model: str) -> list[dict[str, object]]:
    """Return the turns of user and assistant.

    Consecutive messages of one role become one turn. Blank texts are left out, because the vendor refuses them. If a
    required user turn is missing, a filler is inserted. Raises UnsupportedFeature for a call without its result, and
    for a result without its call.
    """
    turns: list[_Turn] = []
    for message, results in turns_with_whole_results(messages):
        match message:
            case chat.SystemMessage():
                pass
            case chat.UserMessage(content):
                _append(turns, "user", _parts(content))
            case chat.AssistantMessage():
                _append(turns, "assistant", _with_cache(message, blocks_of(message, model, _text, _thought, _call)))
                _append(turns, "user", [_result(call, result) for call, result in results])
            case _:
                assert_never(message)
    if turns and turns[-1].role == "assistant" and isinstance(text := turns[-1].content[-1].get("text"), str):
        # The vendor refuses white space at the end of a text that the model must continue.
        turns[-1].content[-1]["text"] = text.rstrip()
    before, after = needs_filler_turns([turn.role for turn in turns], messages)
    filler = _Turn("user", [_text(FILLER_TEXT)])
    turns = [*([filler] if before else []), *turns, *([filler] if after else [])]
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def lacks_thoughts(messages: Sequence[dict[str, object]]) -> bool:
    """Return whether the answer continues tool calls without thoughts, which another model made."""
    for message in reversed(messages):
        blocks = message["content"]
        kinds = [block["type"] for block in blocks] if isinstance(blocks, list) else []
        if message["role"] == "assistant":
            return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")
        if "tool_result" not in kinds:
            return False
    return False


def _append(turns: list[_Turn], role: str, content: list[dict[str, object]]) -> None:
    if not content:
        return
    if not turns or turns[-1].role != role:
        turns.append(_Turn(role))
    turns[-1].content += content


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _parts(content: str | tuple[chat.Part, ...]) -> list[dict[str, object]]:
    parts = (chat.TextPart(content),) if isinstance(content, str) else content
    return [_part(part) for part in parts if not isinstance(part, chat.TextPart) or part.text.strip()]


def _part(part: chat.Part) -> dict[str, object]:
    match part:
        case chat.TextPart(text):
            block = _text(text)
        case chat.ImagePart(url):
            block = {"type": "image", "source": _image_source(url)}
        case chat.FilePart(data, filename):
            block = {"type": "document", "source": _document_source(data), **({"title": filename} if filename else {})}
        case chat.AudioPart():
            raise UnsupportedFeature("audio", "the provider does not accept audio")
        case _:
            assert_never(part)
    return block if part.cache is None else {**block, "cache_control": _cache_control(part.cache)}


def _cache_control(time: chat.CacheTime) -> dict[str, object]:
    return {"type": "ephemeral"} if time == "5m" else {"type": "ephemeral", "ttl": time}


def _with_cache(message: chat.AssistantMessage, blocks: list[dict[str, object]]) -> list[dict[str, object]]:
    """Mark the text if one of its parts has a mark. The parts are one text in the request."""
    if message.content is None or isinstance(message.content, str):
        return blocks
    marks = [part.cache for part in message.content if part.cache is not None]
    if marks and (text := next((block for block in blocks if block["type"] == "text"), None)) is not None:
        text["cache_control"] = _cache_control(marks[-1])
    return blocks


def _image_source(url: str) -> dict[str, object]:
    if not is_data_uri(url):
        return {"type": "url", "url": url}
    mime, data = split_data_uri(url)
    if mime not in _IMAGE_TYPES:
        raise UnsupportedFeature("vision", f"the provider accepts only images of the types {', '.join(_IMAGE_TYPES)}")
    return {"type": "base64", "media_type": mime, "data": data}


def _document_source(uri: str) -> dict[str, object]:
    mime, data = split_data_uri(uri)
    if mime == "application/pdf":
        return {"type": "base64", "media_type": mime, "data": data}
    if mime.startswith("text/"):
        try:
            text = base64.b64decode(data, validate=True).decode("utf-8")
        except (ValueError, binascii.Error):
            raise UnsupportedFeature("file", "a text file must be UTF-8 in base64") from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise UnsupportedFeature("file", "the provider accepts only files of the types application/pdf and text")


def _thought(thought: Thought) -> dict[str, object]:
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _call(call: chat.ToolCall) -> dict[str, object]:
    block = {"type": "tool_use", "id": safe_call_id(call.id), "name": call.name, "input": arguments_of(call)}
    return block if call.cache is None else {**block, "cache_control": _cache_control(call.cache)}


def _result(call: chat.ToolCall, result: chat.ToolMessage) -> dict[str, object]:
    block: dict[str, object] = {"type": "tool_result", "tool_use_id": safe_call_id(call.id)}
    blocks = _parts(result.content)
    is_text = all(one["type"] == "text" for one in blocks)
    if result.is_error and not (blocks and is_text):
        # "content cannot be empty if is_error is true", and all of it must be text. source: bytedance/trae-agent#231
        # (2025-07-30), caozhiyuan/copilot-api#196 (2026-04-18)
        blocks = [{"type": "text", "text": FAILED_PREFIX.strip()}, *blocks]
    if blocks:
        is_plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
        block["content"] = blocks[0]["text"] if is_plain else blocks
    if result.is_error and is_text:
        block["is_error"] = True
    if result.cache is not None:
        block["cache_control"] = _cache_control(result.cache)
    return block


_VERSION, _VERSION_WITH_SAMPLING = "2026-10-21", "2023-06-01"


def version_of(body: Mapping[str, object]) -> str:
    """Return the `anthropic-version` for a body. The newer version refuses sampling parameters, even defaults."""
    return _VERSION_WITH_SAMPLING if any(name in body for name in _SAMPLING) else _VERSION


def encode_body(request: chat.ChatRequest, target: Target) -> dict[str, object]:
    """Return the body. Values that the site pins are written last. Raises UnsupportedFeature."""
    check_features(request)
    request = with_json_instruction(request)
    request = with_end_user_in_user(request, target)
    if clash := sorted(_DERIVED & request.extra.keys()):
        message = f"{clash[0]!r} cannot be sent directly: the gateway builds it from `messages` and `stop`"
        raise UnsupportedFeature(clash[0], message)
    tools, choice = tools_of(request, _MAX_NAME_CHARACTERS)
    max_tokens = _max_tokens(request, target)
    messages = messages_of(request.messages, target.model)
    body: dict[str, object] = {name: value for name, value in request.extra.items() if name not in _NOT_AS_FIELDS}
    body["model"] = target.model
    body["max_tokens"] = max_tokens
    attribution = request.extra.get(ATTRIBUTION)
    first = [_text(attribution)] if isinstance(attribution, str) and is_attribution(attribution) else []
    if system := [*first, *system_blocks(request.messages)]:
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


def _max_tokens(request: chat.ChatRequest, target: Target) -> int:
    """Return the requested limit, but at most the model's maximum. Without a requested limit, return the maximum."""
    most = target.facts.output_tokens
    if request.max_tokens is None:
        return most or _DEFAULT_MAX_TOKENS
    return min(request.max_tokens, most) if most else request.max_tokens


def _tool(tool: chat.Tool) -> dict[str, object]:
    body: dict[str, object] = {"name": tool.name}
    if tool.cache is not None:
        body["cache_control"] = _cache_control(tool.cache)
    if tool.own is not None:
        return {**tool.own, **body}
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
        case chat.NamedTool(name):
            body = {"type": "tool", "name": name}
        case _:
            assert_never(choice)
    if parallel is not None:
        body["disable_parallel_tool_use"] = not parallel
    return body


def _output_config(request: chat.ChatRequest, target: Target, thinking: Mapping[str, object]) -> dict[str, object]:
    config: dict[str, object] = {}
    if request.reasoning_effort is not None and thinking.get("type") == "adaptive":
        config["effort"] = nearest_effort(
            request.reasoning_effort, target.facts.efforts or ANY_EFFORT, request.reasoning_budget
        )
    if isinstance(request.response_format, chat.JsonSchemaFormat):
        config["format"] = {
            "type": "json_schema",
            "schema": strict_schema(request.response_format.schema, "json_schema"),
        }
    return config
