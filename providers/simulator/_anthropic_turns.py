"""Anthropic's `messages` -> canonical messages, refusing what the vendor answers with 400.

Source: anthropic 2.10.0 (MessageParam and its blocks), platform.claude.com on tool use, thinking and prefill; read
2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from providers.chat import (
    AssistantMessage,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.codec.fields import choice, items, mapping, text
from providers.failures import InvalidRequest
from providers.json_values import dumps_text

__all__ = ["Rules", "known", "read_turns", "signature_of", "text_blocks"]

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_OURS = "simulated thought of "


@dataclass(frozen=True, slots=True)
class Rules:
    """In what models differ: whether the assistant's turn may be the last, and whether calls need their thoughts."""

    model: str
    prefill: bool
    thoughtful: bool


def signature_of(model: str, thought: str) -> str:
    """The signature by which this model knows its thought again."""
    return base64.b64encode(f"{_OURS}{model}: {zlib.crc32(thought.encode('utf-8', 'replace')):08x}".encode()).decode()


def known(source: object, place: str, names: Sequence[str]) -> Mapping[str, object]:
    """The value as an object that has no other members than these."""
    found = mapping(source, place)
    if unknown := next((name for name in found if name not in names), None):
        raise InvalidRequest(f"{place}.{unknown[:60]}: Extra inputs are not permitted", place)
    return found


def text_blocks(value: object, place: str) -> tuple[str, ...]:
    """The texts of a content that may hold nothing else."""
    if isinstance(value, str):
        return (_spoken(value, place),)
    texts: list[str] = []
    for position, entry in enumerate(items(value, place)):
        block = known(entry, f"{place}.{position}", ("type", "text", "cache_control"))
        choice(block.get("type"), f"{place}.{position}.type", ("text",))
        texts.append(_spoken(text(block, "text", f"{place}.{position}.text"), f"{place}.{position}"))
    return tuple(texts)


def read_turns(entries: Sequence[object], rules: Rules) -> tuple[Message, ...]:
    """The messages; raises InvalidRequest. Neighbours of one role are one turn."""
    messages: list[Message] = []
    turns = list(_turns(entries))
    if turns and turns[0][0] == "assistant":
        raise InvalidRequest('messages: first message must use the "user" role', "messages")
    last_answer = max((number for number, turn in enumerate(turns) if turn[0] == "assistant"), default=-1)
    calls: tuple[ToolCall, ...] = ()
    taken: set[str] = set()
    for number, (role, blocks, place) in enumerate(turns):
        if role == "assistant":
            message = _assistant(blocks, rules.model, place, is_last=number == len(turns) - 1)
            unthought = blocks[0].get("type") not in ("thinking", "redacted_thinking")
            if message.tool_calls and rules.thoughtful and unthought and number == last_answer:
                text_of_it = "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
                raise InvalidRequest(f"{place}: {text_of_it}", place)
            calls = message.tool_calls
            if any(call.id in taken for call in calls):
                raise InvalidRequest(f"{place}: `tool_use` ids must be unique", place)
            taken.update(call.id for call in calls)
            messages.append(message)
            continue
        results = [block for block in blocks if block.get("type") == "tool_result"]
        rest = blocks[len(results) :]
        if blocks[: len(results)] != results:
            raise InvalidRequest(f"{place}: tool_result blocks must come first", place)
        messages += _results(results, calls, place)
        calls = ()
        if rest:
            parts = tuple(_part(block, place) for block in rest)
            alone = parts[0].text if len(parts) == 1 and isinstance(parts[0], TextPart) else parts
            messages.append(UserMessage(alone))
    if calls:
        names = ", ".join(call.id for call in calls)
        raise InvalidRequest(f"`tool_use` ids were found without `tool_result` blocks: {names}", "messages")
    if turns and turns[-1][0] == "assistant" and not rules.prefill:
        message_text = "This model does not support assistant message prefill."
        raise InvalidRequest(f"{message_text} The conversation must end with a user message.", "messages")
    return tuple(messages)


def _turns(entries: Sequence[object]) -> Iterator[tuple[str, list[Mapping[str, object]], str]]:
    current: tuple[str, list[Mapping[str, object]], str] | None = None
    for position, entry in enumerate(entries):
        place = f"messages.{position}"
        message = known(entry, place, ("role", "content"))
        role = choice(message.get("role"), f"{place}.role", ("user", "assistant"))
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else items(content, f"{place}.content")
        if not blocks:
            raise InvalidRequest(f"{place}: {role} messages must have non-empty content", place)
        found = [mapping(block, f"{place}.content") for block in blocks]
        if current is not None and current[0] == role:
            current[1].extend(found)
            continue
        if current is not None:
            yield current
        current = (role, found, place)
    if current is not None:
        yield current


def _spoken(value: str | None, place: str) -> str:
    if value is None or not value.strip():
        raise InvalidRequest(f"{place}: text content blocks must contain non-whitespace text", place)
    return value


def _part(block: Mapping[str, object], place: str) -> Part:
    match block.get("type"):
        case "text":
            members = known(block, place, ("type", "text", "cache_control", "citations"))
            return TextPart(_spoken(text(members, "text", f"{place}.text"), place))
        case "image":
            return ImagePart(_image(known(block, place, ("type", "source", "cache_control")), place))
        case "document":
            return _document(known(block, place, ("type", "source", "title", "context", "citations")), place)
        case other:
            raise InvalidRequest(
                f"{place}: Input tag {str(other)[:40]!r} does not match any of the expected tags", place
            )


def _image(block: Mapping[str, object], place: str) -> str:
    source = mapping(block.get("source"), f"{place}.source")
    if source.get("type") == "url":
        url = text(known(source, place, ("type", "url")), "url", f"{place}.source.url")
        if not url or not url.startswith(("https://", "http://")):
            raise InvalidRequest(f"{place}: Only HTTP and HTTPS URLs are supported.", place)
        return url
    known(source, place, ("type", "media_type", "data"))
    choice(source.get("type"), f"{place}.source.type", ("base64",))
    mime = choice(source.get("media_type"), f"{place}.source.base64.media_type", _IMAGE_TYPES)
    return f"data:{mime};base64,{_base64(source, place)}"


def _document(block: Mapping[str, object], place: str) -> FilePart:
    source = known(block.get("source"), place, ("type", "media_type", "data"))
    title = text(block, "title", f"{place}.title")
    if choice(source.get("type"), f"{place}.source.type", ("base64", "text")) == "text":
        choice(source.get("media_type"), f"{place}.source.media_type", ("text/plain",))
        said = text(source, "data", f"{place}.source.data") or ""
        return FilePart(f"data:text/plain;base64,{base64.b64encode(said.encode()).decode()}", title)
    mime = choice(source.get("media_type"), f"{place}.source.media_type", ("application/pdf",))
    return FilePart(f"data:{mime};base64,{_base64(source, place)}", title)


def _base64(source: Mapping[str, object], place: str) -> str:
    data = text(source, "data", f"{place}.source.data") or ""
    try:
        if not base64.b64decode(data, validate=True):
            raise InvalidRequest(f"{place}.source: data cannot be empty", place)
    except binascii.Error:
        raise InvalidRequest(f"{place}.source.base64.data: invalid base64 data", place) from None
    return data


def _assistant(blocks: Sequence[Mapping[str, object]], model: str, place: str, *, is_last: bool) -> AssistantMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        match block.get("type"):
            case "text":
                members = known(block, place, ("type", "text", "cache_control", "citations"))
                texts.append(_spoken(text(members, "text", f"{place}.text"), place))
            case "thinking":
                thoughts.append(_thought(block, model, place))
            case "redacted_thinking":
                data = text(known(block, place, ("type", "data")), "data", f"{place}.data")
                _check_signature(data, "", model, place)
            case "tool_use":
                calls.append(_call(block, place))
            case other:
                raise InvalidRequest(f"{place}: Input tag {str(other)[:40]!r} is not expected here", place)
    if is_last and texts and texts[-1] != texts[-1].rstrip():
        raise InvalidRequest("final assistant content cannot end with trailing whitespace", place)
    if len({call.id for call in calls}) < len(calls):
        raise InvalidRequest(f"{place}: `tool_use` ids must be unique", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _thought(block: Mapping[str, object], model: str, place: str) -> str:
    members = known(block, place, ("type", "thinking", "signature"))
    said = text(members, "thinking", f"{place}.thinking") or ""
    _check_signature(text(members, "signature", f"{place}.signature"), said, model, place)
    return said


def _check_signature(signature: str | None, thought: str, model: str, place: str) -> None:
    """A thought that was changed, or that another model had, is refused; one of before the simulation is believed."""
    if not signature:
        raise InvalidRequest(f"{place}: signature: Field required", place)
    try:
        said = base64.b64decode(signature, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        raise InvalidRequest(f"{place}: Invalid `signature` in `thinking` block", place) from None
    if said.startswith(_OURS) and signature != signature_of(model, thought):
        raise InvalidRequest(f"{place}: Invalid `signature` in `thinking` block", place)


def _call(block: Mapping[str, object], place: str) -> ToolCall:
    members = known(block, place, ("type", "id", "name", "input", "cache_control"))
    name, call_id = text(members, "name", f"{place}.name"), text(members, "id", f"{place}.id")
    if not call_id or not _ID.fullmatch(call_id):
        raise InvalidRequest(f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'", place)
    if not name or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{place}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'", place)
    return ToolCall(call_id, name, dumps_text(mapping(members.get("input"), f"{place}.tool_use.input")))


def _results(results: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], place: str) -> list[ToolMessage]:
    waiting = [call.id for call in calls]
    messages: list[ToolMessage] = []
    for entry in results:
        result = known(entry, place, ("type", "tool_use_id", "content", "is_error", "cache_control"))
        call_id = text(result, "tool_use_id", f"{place}.tool_use_id") or ""
        if call_id not in waiting:
            raise InvalidRequest(f"{place}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}", place)
        waiting.remove(call_id)
        content = result.get("content")
        said = content if isinstance(content, str) else "".join(text_blocks(content, place)) if content else ""
        messages.append(ToolMessage(call_id, said))
    if waiting:
        raise InvalidRequest(f"{place}: `tool_use` ids were found without `tool_result` blocks: {waiting[0]}", place)
    return messages
