"""Write the messages of a request for a compatible vendor: their roles, order and fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from providers import chat
from providers.catalogue.models import ModelFacts
from providers.compatible.dialect import CompatibleDialect
from providers.formats.role_alternation import alternate_roles, without_blank_messages
from providers.formats.tool_calls import with_object
from providers.formats.tool_results import results_as_text
from providers.openai_json.encode_request import encode_marked, encode_message, return_state
from providers.value import replace


def encode_messages(
    request: chat.ChatRequest, dialect: CompatibleDialect, facts: ModelFacts, model: str
) -> list[dict[str, object]]:
    """Return the conversation in the vendor's form. Raises UnsupportedFeature if it has too many messages."""
    rule = dialect.requests
    messages: Sequence[chat.Message] = results_as_text(request.messages)
    continues = isinstance(messages[-1], chat.AssistantMessage)
    if rule.turns == "alternate":
        messages = alternate_roles(messages, continues)
    elif rule.turns == "spoken":
        messages = without_blank_messages(messages)
    positions: Collection[int] = ()
    if "reasoning" in facts.features or (rule.reasoning_back in ("required", "always") and not facts.known):
        # A vendor that requires reasoning refuses a turn without it. An unknown model may reason.
        is_required = rule.reasoning_back == "required"
        positions = _in_turns_with_calls(messages) if is_required else range(len(messages))
    encoded = [
        _message(message, dialect, with_reasoning=position in positions) for position, message in enumerate(messages)
    ]
    for message, body in zip(messages, encoded, strict=True):
        if isinstance(message, chat.AssistantMessage) and message.tool_calls:
            return_state(message, body, model)
    if rule.prefill is not None and continues and isinstance(messages[-1], chat.AssistantMessage):
        encoded[-1].update(rule.prefill.message)
    return encoded


def _in_turns_with_calls(messages: Sequence[chat.Message]) -> set[int]:
    """Return the positions of the assistant's messages in turns with tool calls.

    A turn reaches from one user message to the next. A last answer that the model must continue is not included.
    """
    positions: set[int] = set()
    turn: set[int] = set()
    calls = False
    for position, message in enumerate((*messages, chat.UserMessage(""))):
        if isinstance(message, chat.UserMessage):
            positions |= turn if calls else set()
            turn, calls = set(), False
        elif isinstance(message, chat.AssistantMessage):
            if message.tool_calls or position < len(messages) - 1:
                turn.add(position)
            calls = calls or bool(message.tool_calls)
    return positions


def _message(message: chat.Message, dialect: CompatibleDialect, *, with_reasoning: bool) -> dict[str, object]:
    body = _unmarked(message, dialect, with_reasoning=with_reasoning)
    if dialect.requests.document_url and isinstance(parts := body.get("content"), list):
        body["content"] = [_document(part) if part["type"] == "file" else part for part in parts]
    if dialect.requests.cache_marks and (marked := encode_marked(message, cache_control)) is not None:
        body["content"] = marked
    return body


def _document(part: Mapping[str, Any]) -> dict[str, object]:
    name = part["file"].get("filename")
    named = {"document_name": name} if name else {}
    return {"type": "document_url", "document_url": part["file"]["file_data"], **named}


def cache_control(time: chat.CacheTime | None) -> dict[str, object]:
    """Return the member that marks a part or a tool for a cache; none without a mark."""
    return {} if time is None else {"cache_control": {"type": "ephemeral", **({"ttl": time} if time == "1h" else {})}}


def _unmarked(message: chat.Message, dialect: CompatibleDialect, *, with_reasoning: bool) -> dict[str, object]:
    rule = dialect.requests
    names = "message_name" in dialect.capabilities.parameters
    match message:
        case chat.SystemMessage(content, role, name):
            role = role if rule.developer else "system"
            return encode_message(chat.SystemMessage(chat.prompt_text(content), role, name if names else None))
        case chat.UserMessage(content, name):
            return encode_message(chat.UserMessage(_content(content, dialect), name if names else None))
        case chat.ToolMessage(call_id, content):
            return encode_message(chat.ToolMessage(call_id, chat.prompt_text(content)))
        case chat.AssistantMessage(_, _, reasoning, calls, name):
            calls = tuple(map(with_object, calls)) if calls and rule.parses_arguments else calls
            # Some servers refuse null next to a call, and all send "" themselves.
            body = encode_message(
                chat.AssistantMessage(chat.said_in(message), None, None, calls, name if names else None)
            )
            if with_reasoning and rule.reasoning_back:
                # If the client did not keep the reasoning, a blank is sent instead.
                thoughts = reasoning or (" " if rule.reasoning_back == "required" else "")
                if thoughts and rule.reasoning_format:
                    detail = {"type": "reasoning.text", "id": "reasoning-text-1", "format": rule.reasoning_format}
                    body["reasoning_details"] = [{**detail, "index": 0, "text": thoughts}]
                elif thoughts:
                    body |= dict.fromkeys(rule.reasoning_fields, thoughts)
            return body


def _content(content: str | tuple[chat.Part, ...], dialect: CompatibleDialect) -> str | tuple[chat.Part, ...]:
    """Return text parts as one string, because models without images do not accept a list."""
    if isinstance(content, str) or all(isinstance(part, chat.TextPart) for part in content):
        return chat.prompt_text(content)
    details = dialect.requests.details if "image_detail" in dialect.capabilities.parameters else ()
    return tuple(_part(part, details, sound_uri=dialect.requests.sound_uri) for part in content)


def _part(part: chat.Part, details: Collection[str], *, sound_uri: bool) -> chat.Part:
    if isinstance(part, chat.ImagePart) and part.detail not in details:
        # `original`, OpenAI's newest value, means more than `high`, which is then the nearest.
        return replace(part, detail="high" if part.detail == "original" and "high" in details else None)
    if isinstance(part, chat.AudioPart) and sound_uri:
        return replace(part, data=f"data:;base64,{part.data}")
    return part
