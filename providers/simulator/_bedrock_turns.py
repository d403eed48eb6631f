"""Converse's `messages` -> canonical messages, refusing what the vendor answers with 400.

Source: botocore 1.44.5 (Message and ContentBlock), docs.aws.amazon.com on Converse and public captures of 400 bodies;
read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from providers.catalogue.models import ModelFacts
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
from providers.json_values import as_map, dumps_text
from providers.simulator._anthropic_turns import known

__all__ = ["read_messages", "spoken"]

_BLOCKS = ("text", "image", "document", "toolUse", "toolResult", "reasoningContent", "cachePoint")
_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_DOCUMENT_NAME = re.compile(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*")
_IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}


def read_messages(entries: Sequence[object], facts: ModelFacts) -> list[Message]:
    """The messages; raises InvalidRequest."""
    messages: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    role = ""
    for position, entry in enumerate(entries):
        place = f"messages.{position}"
        message = known(entry, place, ("role", "content"))
        before, role = role, choice(message.get("role"), f"{place}.role", ("user", "assistant"))
        if role == before:
            raise InvalidRequest("A conversation must alternate between user and assistant roles.", place)
        blocks = [_block(one, place) for one in items(message.get("content"), f"{place}.content")]
        if not blocks:
            raise InvalidRequest(f"The content field in the Message object at {place} is empty.", place)
        if role == "assistant":
            said = _assistant(blocks, place)
            calls = said.tool_calls
            messages.append(said)
        else:
            messages += _user(blocks, calls, place)
            calls = ()
    if not messages or (entries and as_map(entries[0]).get("role") != "user"):
        raise InvalidRequest("A conversation must start with a user message.", "messages")
    if calls or (role == "assistant" and "prefill" not in facts.features):
        raise InvalidRequest("This model does not support assistant message prefill.", "messages")
    return messages


def _block(value: object, place: str) -> Mapping[str, object]:
    block = known(value, place, _BLOCKS)
    if len(block) != 1:
        raise InvalidRequest(f"{place}: exactly one member of the union must be set", place)
    return block


def _assistant(blocks: Sequence[Mapping[str, object]], place: str) -> AssistantMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        if "text" in block:
            texts.append(spoken(block, place))
        elif "reasoningContent" in block:
            thought = known(block["reasoningContent"], place, ("reasoningText", "redactedContent"))
            if "reasoningText" in thought:
                said = known(thought["reasoningText"], place, ("text", "signature"))
                if not text(said, "signature", place):
                    raise InvalidRequest(f"{place}: thinking.signature: Field required", place)
                thoughts.append(text(said, "text", place) or "")
        elif "toolUse" in block:
            use = known(block["toolUse"], f"{place}.toolUse", ("toolUseId", "name", "input"))
            call_id, name = text(use, "toolUseId", place) or "", text(use, "name", place) or ""
            if not _CALL_ID.fullmatch(call_id) or not _NAME.fullmatch(name):
                raise InvalidRequest(f"{place}.toolUse: toolUseId or name failed to satisfy its constraint", place)
            calls.append(ToolCall(call_id, name, dumps_text(mapping(use.get("input"), f"{place}.toolUse.input"))))
        else:
            raise InvalidRequest(f"{place}: the assistant's turn has text, thoughts and calls only", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _user(blocks: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], place: str) -> list[Message]:
    messages: list[Message] = []
    parts: list[Part] = []
    waiting = [call.id for call in calls]
    for block in blocks:
        if "toolResult" not in block:
            parts.append(_part(block, place))
            continue
        result = known(block["toolResult"], f"{place}.toolResult", ("toolUseId", "content", "status"))
        call_id = text(result, "toolUseId", place) or ""
        if call_id not in waiting:
            raise InvalidRequest(f"{place}: unexpected `toolUseId` {call_id[:64]!r} in toolResult", place)
        waiting.remove(call_id)
        content = [known(one, place, ("text", "json")) for one in items(result.get("content"), f"{place}.content")]
        messages.append(ToolMessage(call_id, "".join(spoken(one, place) for one in content)))
    if waiting:
        raise InvalidRequest(f"Expected toolResult blocks at {place} for the following Ids: {waiting[0]}", place)
    if any(isinstance(part, FilePart) for part in parts) and not any(isinstance(part, TextPart) for part in parts):
        raise InvalidRequest("A document needs a text block beside it.", place)
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        messages.append(UserMessage(parts[0].text))
    elif parts:
        messages.append(UserMessage(tuple(parts)))
    return messages


def _part(block: Mapping[str, object], place: str) -> Part:
    if "text" in block:
        return TextPart(spoken(block, place))
    if "image" in block:
        image = known(block["image"], f"{place}.image", ("format", "source"))
        mime = _IMAGES[choice(image.get("format"), f"{place}.image.format", tuple(_IMAGES))]
        return ImagePart(f"data:{mime};base64,{_bytes(image, place)}")
    if "document" in block:
        paper = known(block["document"], f"{place}.document", ("format", "name", "source", "context"))
        mime = _DOCUMENTS[choice(paper.get("format"), f"{place}.document.format", tuple(_DOCUMENTS))]
        name = text(paper, "name", f"{place}.document.name") or ""
        if not _DOCUMENT_NAME.fullmatch(name):
            raise InvalidRequest(f"{place}: the document file name can only contain alphanumeric characters, …", place)
        return FilePart(f"data:{mime};base64,{_bytes(paper, place)}", name)
    raise InvalidRequest(f"{place}: the user's turn has text, images, documents and results only", place)


def _bytes(source: Mapping[str, object], place: str) -> str:
    data = text(known(source.get("source"), f"{place}.source", ("bytes",)), "bytes", f"{place}.source.bytes") or ""
    try:
        if not base64.b64decode(data, validate=True):
            raise InvalidRequest(f"{place}.source.bytes must not be empty", place)
    except binascii.Error:
        raise InvalidRequest(f"{place}.source.bytes is no base64", place) from None
    return data


def spoken(block: Mapping[str, object], place: str) -> str:
    """The text of a block, which may not be blank."""
    said = text(block, "text", f"{place}.text")
    if not said or not said.strip():
        raise InvalidRequest(f"The text field in the ContentBlock object at {place} is blank.", place)
    return said
