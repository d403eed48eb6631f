"""Canonical messages -> Anthropic's `system` and `messages`: two roles, typed blocks, results first in the user's turn.

Source: anthropic 2.10.0 (MessageParam and its blocks), platform.claude.com on tool use and thinking; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from providers.adapters._data_uris import is_data_uri, split_data_uri
from providers.adapters._thoughts import Thought, blocks_of
from providers.adapters._tool_loops import SILENT, arguments_of, safe_call_id, silences, spoken
from providers.chat import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    UserMessage,
    text_of,
)
from providers.codec.encode_request import safe_call_name
from providers.failures import UnsupportedFeature

__all__ = ["continues_unthought", "messages_of", "system_blocks"]

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
    for message, results in spoken(messages):
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
    before, behind = silences([turn.role for turn in turns], messages)
    silent = _Turn("user", [_text(SILENT)])
    turns = [*([silent] if before else []), *turns, *([silent] if behind else [])]
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def continues_unthought(messages: Sequence[dict[str, object]]) -> bool:
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
