"""Canonical messages -> Gemini's `contents`: two roles, typed parts, results of functions in a turn of their own.

Source: google-genai 3.3.0 (Content, Part), ai.google.dev on function calling and thought signatures; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import urlsplit

from providers.adapters._data_uris import is_data_uri, split_data_uri
from providers.adapters._signatures import own_signature
from providers.adapters._tool_loops import arguments_of, spoken
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

__all__ = ["Replay", "contents_of", "system_parts"]

_MIME_BY_ENDING = {
    "avif": "image/avif",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """How a model wants its earlier calls back.

    ids: whether with ids and signatures (3 and later) or without (an id is an unknown field to 2.x).
    bypass: what stands for the signature of a call that another model made.
    """

    model: str
    ids: bool
    bypass: str


@dataclass(slots=True)
class _Turn:
    role: str
    parts: list[dict[str, object]] = field(default_factory=list)
    is_results: bool = False


def system_parts(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The parts of `systemInstruction`, one a message, in order: Gemini has no other place for them."""
    texts = [text_of(message.content) for message in messages if isinstance(message, SystemMessage)]
    return [{"text": text} for text in texts if text]


def contents_of(messages: Sequence[Message], replay: Replay) -> list[dict[str, object]]:
    """The turns of user and model; raises UnsupportedFeature where calls and their results don't fit together.

    Neighbours of one role become one turn, and what is empty is left out: Gemini refuses empty parts and texts.
    """
    turns: list[_Turn] = []
    for message, results in spoken(messages):
        match message:
            case SystemMessage():
                pass
            case UserMessage(content):
                _say(turns, "user", _parts(content))
            case AssistantMessage():
                _say(turns, "model", _model_parts(message, replay))
                if results:
                    turns.append(_Turn("user", [_result(*one, replay) for one in results], is_results=True))
            case _:
                assert_never(message)
    _add_silent_users(turns, messages)
    return [{"role": turn.role, "parts": turn.parts} for turn in turns]


def _say(turns: list[_Turn], role: str, parts: list[dict[str, object]]) -> None:
    if not parts:
        return
    if not turns or turns[-1].role != role or turns[-1].is_results:
        turns.append(_Turn(role))
    turns[-1].parts += parts


def _add_silent_users(turns: list[_Turn], messages: Sequence[Message]) -> None:
    """Let a blank turn of the user's stand where Gemini wants one, and all that was said went elsewhere or was empty.

    A request of system messages alone, one that ends with a system message after the model's turn, and one that begins
    with calls are valid chats; Gemini takes neither no contents nor, in most models, the model's turn as the last one,
    and calls only behind a turn of the user's.
    """
    if turns and any("functionCall" in part for part in turns[0].parts):
        turns.insert(0, _Turn("user", [{"text": " "}]))
    if not turns or (turns[-1].role == "model" and not isinstance(messages[-1], AssistantMessage)):
        turns.append(_Turn("user", [{"text": " "}]))


def _parts(content: str | tuple[Part, ...]) -> list[dict[str, object]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content if not isinstance(part, TextPart) or part.text]


def _part(part: Part) -> dict[str, object]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart(url):
            return _inline(url) if is_data_uri(url) else _linked_image(url)
        case AudioPart(data, sound):
            return {"inlineData": {"mimeType": f"audio/{sound}", "data": data}}
        case FilePart(data):
            return _inline(data)
        case _:
            assert_never(part)


def _inline(data_uri: str) -> dict[str, object]:
    mime, data = split_data_uri(data_uri)
    return {"inlineData": {"mimeType": mime, "data": data}}


def _linked_image(url: str) -> dict[str, object]:
    """An image that Google fetches; its type only where the URL shows it, since a wrong one is worse than none."""
    ending = urlsplit(url).path.rpartition(".")[2].lower()
    mime = {"mimeType": _MIME_BY_ENDING[ending]} if ending in _MIME_BY_ENDING else {}
    return {"fileData": {**mime, "fileUri": url}}


def _model_parts(message: AssistantMessage, replay: Replay) -> list[dict[str, object]]:
    texts = (text_of(message.content), message.refusal)
    parts: list[dict[str, object]] = [{"text": text} for text in texts if text]
    for position, call in enumerate(message.tool_calls):
        part: dict[str, object] = {"functionCall": _function_call(call, replay)}
        signature = own_signature(call.signature, replay.model)
        if signature is None and replay.ids and position == 0:
            signature = replay.bypass
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _function_call(call: ToolCall, replay: Replay) -> dict[str, object]:
    return {**({"id": call.id} if replay.ids else {}), "name": call.name, "args": arguments_of(call)}


def _result(call: ToolCall, text: str, replay: Replay) -> dict[str, object]:
    """One result; without ids the order of the calls is all that tells two of one name apart."""
    identity = {"id": call.id} if replay.ids else {}
    return {"functionResponse": {**identity, "name": call.name, "response": {"output": text}}}
