"""Read the content blocks of Anthropic's messages.

Source: anthropic 2.10.0 (MessageParam and its blocks), platform.claude.com on tool use, images and documents; read
2026-11-22.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from providers.chat import (
    CacheTime,
    FilePart,
    ImagePart,
    Part,
    TextPart,
    ToolCall,
    ToolMessage,
)
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.json_values import dumps_text
from providers.openai_json.decode_messages import sound_data_uri, unreachable_host
from providers.openai_json.fields import boolean, items, mapping, present, text

NO_STATE = "none"
"""The signature of a thinking block without reasoning state: the API requires one."""
_KNOWN = {
    "text": frozenset({"type", "text", "cache_control"}),
    "image": frozenset({"type", "source", "cache_control"}),
    "document": frozenset({"type", "source", "title", "cache_control"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
}
# Fields of answers, which clients send back with the history. They have no meaning in a request.
_OF_ANSWERS = frozenset({"citations", "caller"})
_SOURCE = {
    "base64": frozenset({"type", "media_type", "data"}),
    "url": frozenset({"type", "url"}),
    "text": frozenset({"type", "media_type", "data"}),
    "content": frozenset({"type", "content"}),
}
_TIMES: dict[str | None, CacheTime] = {None: "5m", "5m": "5m", "1h": "1h"}
_MAX_CALLS = 512


class BlockReader:
    """Reads blocks, and collects the names of the fields that are not sent to a provider.

    Attributes:
        unread: Names of fields without indices, such as `messages.content.citations`.
    """

    def __init__(self) -> None:
        self.unread: set[str] = set()

    def note_unknown(self, source: Mapping[str, object], known: frozenset[str], place: str) -> None:
        """Note the members of an object that are unknown here. `place` is its name without indices."""
        if not source.keys() <= known:
            self.unread.update(
                f"{place}.{name}" for name, value in source.items() if name not in known and value is not None
            )

    def cache(self, source: Mapping[str, object], path: str, place: str) -> CacheTime | None:
        """Return how long the prompt up to this object may be cached."""
        if source.get("cache_control") is None:
            return None
        control = mapping(source["cache_control"], f"{path}.cache_control")
        self.note_unknown(control, frozenset({"type", "ttl"}), f"{place}.cache_control")
        ttl = text(control, "ttl", f"{path}.cache_control.ttl")
        if ttl not in _TIMES:
            raise InvalidRequest(f"{path}.cache_control.ttl: Input should be '5m' or '1h'", f"{path}.cache_control.ttl")
        return _TIMES[ttl]

    def text_part(self, block: Mapping[str, object], path: str, place: str = "messages.content") -> TextPart:
        """Return a text block."""
        said = text(block, "text", f"{path}.text")
        if said is None:
            raise InvalidRequest(f"{path}.text: Field required", f"{path}.text")
        self.note_unknown(block, _KNOWN["text"] | _OF_ANSWERS, place)
        return TextPart(said, self.cache(block, path, place))

    def parts(self, block: Mapping[str, object], path: str) -> tuple[Part, ...]:
        """Return the parts of a block of a user or of a tool result. Raises InvalidRequest or UnsupportedFeature."""
        match block.get("type"):
            case "text":
                return (self.text_part(block, path),)
            case "image":
                self.note_unknown(block, _KNOWN["image"], "messages.content")
                return (ImagePart(self._image(block, path), cache=self.cache(block, path, "messages.content")),)
            case "document":
                return self._document(block, path)
        raise _unsupported_block(block, path)

    def _image(self, block: Mapping[str, object], path: str) -> str:
        source, kind, place = self._source(block, path)
        if kind == "base64":
            return _data_uri(source, place)
        if kind != "url":
            raise InvalidRequest(f"{place}.type: Input should be 'base64' or 'url'", f"{place}.type")
        url = text(source, "url", f"{place}.url")
        if not url or not url.lower().startswith(("https://", "http://")):
            raise InvalidRequest(f"{place}.url: Input should be an https URL", f"{place}.url")
        if reason := unreachable_host(url):
            raise InvalidRequest(f"{place}.url: the URL {reason}", f"{place}.url")
        return url

    def _document(self, block: Mapping[str, object], path: str) -> tuple[Part, ...]:
        source, kind, place = self._source(block, path)
        # `citations: {enabled: false}` is the default.
        known = _KNOWN["document"]
        if block.get("citations") in ({"enabled": False}, {}):
            known |= {"citations"}
        self.note_unknown(block, known, "messages.content")
        title = text(block, "title", f"{path}.title")
        cache = self.cache(block, path, "messages.content")
        if kind == "base64":
            return (FilePart(_data_uri(source, place), title, cache),)
        if kind == "text":
            said = text(source, "data", f"{place}.data") or ""
            data = base64.b64encode(said.encode("utf-8", "replace")).decode()
            return (FilePart(f"data:text/plain;base64,{data}", title, cache),)
        if kind == "content":
            content = source.get("content")
            if isinstance(content, str):
                return (TextPart(content, cache),)
            entries = items(content, f"{place}.content")
            named = (
                (mapping(entry, f"{place}.content.{i}"), f"{place}.content.{i}") for i, entry in enumerate(entries)
            )
            return tuple(part for inner, where in named for part in self.parts(inner, where))
        message = f"{place}: the gateway does not send on documents that a provider would fetch; send them as base64"
        raise UnsupportedFeature("file", message, f"{place}.type")

    def _source(self, block: Mapping[str, object], path: str) -> tuple[Mapping[str, object], str, str]:
        place = f"{path}.source"
        source = mapping(present(block, "source", place), place)
        kind = text(source, "type", f"{place}.type") or ""
        if kind == "file":
            message = f"{place}: a `file_id` refers to content kept at a provider; send the content as base64"
            raise InvalidRequest(message, f"{place}.type")
        if kind not in _SOURCE:
            allowed = ", ".join(map(repr, _SOURCE))
            raise InvalidRequest(f"{place}.type: Input should be one of {allowed}", f"{place}.type")
        self.note_unknown(source, _SOURCE[kind], "messages.content.source")
        return source, kind, place

    def result(self, block: Mapping[str, object], path: str) -> ToolMessage:
        """Return a `tool_result` block."""
        self.note_unknown(block, _KNOWN["tool_result"], "messages.content")
        call_id = text(block, "tool_use_id", f"{path}.tool_use_id")
        if not call_id:
            raise InvalidRequest(f"{path}.tool_use_id: Field required", f"{path}.tool_use_id")
        is_error = boolean(block, "is_error", f"{path}.is_error") or False
        cache = self.cache(block, path, "messages.content")
        content = block.get("content")
        if content is None or isinstance(content, str):
            return ToolMessage(call_id, content or "", is_error, cache)
        place = f"{path}.content"
        parts: list[Part] = []
        for position, entry in enumerate(items(content, place)):
            parts += self.parts(mapping(entry, f"{place}.{position}"), f"{place}.{position}")
        return ToolMessage(call_id, plain_content(parts), is_error, cache)

    def call(self, block: Mapping[str, object], path: str, signature: str | None) -> ToolCall:
        """Return a `tool_use` block. `signature`: the state before it."""
        self.note_unknown(block, _KNOWN["tool_use"] | _OF_ANSWERS, "messages.content")
        call_id, name = text(block, "id", f"{path}.id"), text(block, "name", f"{path}.name")
        for field, value in (("id", call_id), ("name", name)):
            if not value:
                raise InvalidRequest(f"{path}.{field}: Field required", f"{path}.{field}")
        given = mapping(present(block, "input", f"{path}.input"), f"{path}.input")
        arguments = dumps_text(given) if given else "{}"
        if block.get("cache_control") is not None:
            # Apps mark the last block of a user's turn. A mark on a call has no canonical form.
            self.unread.add("messages.content.cache_control")
        return ToolCall(call_id or "", name or "", arguments, signature)

    def note_thinking(self, block: Mapping[str, object], kind: str) -> None:
        """Note the unknown fields of a block with reasoning."""
        self.note_unknown(block, _KNOWN[kind], "messages.content")


def plain_content(parts: list[Part]) -> str | tuple[Part, ...]:
    """Return the content of a message: a string for one text without a mark."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(first := parts[0], TextPart) and first.cache is None:
        return first.text
    return tuple(parts)


def _data_uri(source: Mapping[str, object], place: str) -> str:
    mime, data = text(source, "media_type", f"{place}.media_type"), text(source, "data", f"{place}.data")
    for field, value in (("media_type", mime), ("data", data)):
        if not value:
            raise InvalidRequest(f"{place}.{field}: Field required", f"{place}.{field}")
    try:
        return sound_data_uri(f"data:{mime};base64,{data}")
    except ValueError as error:
        raise InvalidRequest(f"{place}.data: the content {error}", f"{place}.data") from None


def _unsupported_block(block: Mapping[str, object], path: str) -> Exception:
    kind = block.get("type")
    if not isinstance(kind, str):
        return InvalidRequest(f"{path}.type: Field required", f"{path}.type")
    if kind in _KNOWN:
        return InvalidRequest(f"{path}.type: a {kind!r} block is not allowed here", f"{path}.type")
    shown = kind[:60]
    message = f"{path}: the gateway has no {shown!r} blocks: it sends on text, images, documents and function tools"
    return UnsupportedFeature("messages", message, f"{path}.type")


def refuse_block(block: Mapping[str, object], path: str) -> None:
    """Raise for a block that is unknown, or not allowed in a message of its role."""
    raise _unsupported_block(block, path)


def is_too_many(calls: list[ToolCall]) -> bool:
    """Return whether one turn has more calls than any answer has."""
    return len(calls) > _MAX_CALLS
