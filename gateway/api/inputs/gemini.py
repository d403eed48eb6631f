"""Gemini's `embedContent` and `batchEmbedContents`: embeddings as google-genai asks for them.

Source: ai.google.dev/api/embeddings and google-genai 3.4 for Python, read 2026-11-23.
"""

from __future__ import annotations

import orjson

from gateway.api.body import parse_input
from gateway.api.dialects.gemini import errors
from gateway.api.dialects.gemini.fields import DroppedFields, Fields, read_object, repeated
from gateway.api.dialects.openai_chat import InputDialect
from gateway.api.errors import ApiError
from gateway.api.inputs.dialects import estimated_tokens
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.openai_json.decode_request import check_unknown
from providers.openai_json.fields import integer, present, text

_TASK = "taskType"
_CONFIG = "embedContentConfig"
"""A later place of the settings."""
_SETTINGS = frozenset({_TASK, "outputDimensionality"})
_KNOWN = frozenset({"model", "content", _CONFIG}) | _SETTINGS
_CONTENT = frozenset({"role", "parts"})
_MEDIA = ("inlineData", "fileData")
_MOST_REQUESTS = 2048
_MOST_DIMENSIONS = 65_536


class GeminiEmbeddingsDialect(InputDialect):
    """One request for `embedContent` or `batchEmbedContents`."""

    def __init__(self, assistant: str, *, is_batch: bool) -> None:
        """Make it for one request."""
        self.route = f"/v1beta/models/{{model}}:{'batchEmbedContents' if is_batch else 'embedContent'}"
        self._assistant = assistant
        self._is_batch = is_batch
        self._estimated_tokens = 0

    def decode(self, body: bytes) -> EmbeddingRequest:
        request = decode_embed(parse_input(body), self._assistant, is_batch=self._is_batch)
        self._estimated_tokens = estimated_tokens(request)
        return request

    def encode_result(self, result: EmbeddingAnswer, style: AnswerStyle, record: Record) -> bytes:
        embeddings = [{"values": vector.tolist()} for vector in result.vectors]
        tokens = self._estimated_tokens if result.usage is None else result.usage.prompt_tokens
        shown: dict[str, object] = {"embeddings": embeddings} if self._is_batch else {"embedding": embeddings[0]}
        return orjson.dumps({**shown, "usageMetadata": {"promptTokenCount": tokens}})

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        return errors.encode_error(error, request_id)


def decode_embed(body: object, assistant: str, *, is_batch: bool) -> EmbeddingRequest:
    """Return the request in a parsed body. Raises InvalidRequest or UnsupportedFeature.

    All requests of a batch share one length and one task, because the gateway sends them together.
    """
    dropped = DroppedFields()
    source = read_object(body, "")
    if is_batch:
        dropped.add_unknown(source, frozenset({"model", "requests"}), "")
        entries = repeated(present(source, "requests", "requests"), "requests", at_most=_MOST_REQUESTS)
        if not entries:
            raise InvalidRequest("`requests` must not be empty", "requests")
        requests = [read_object(entry, f"requests[{position}]") for position, entry in enumerate(entries)]
        paths = [f"requests[{position}]." for position in range(len(requests))]
    else:
        requests, paths = [source], [""]
    texts, settings = [], []
    for request, path in zip(requests, paths, strict=True):
        dropped.add_unknown(request, _KNOWN, "requests" if is_batch else "")
        texts.append(_text(request, path, dropped))
        settings.append(_settings(request, path, dropped))
        if settings[-1] != settings[0]:
            name = next(name for name in settings[0] if settings[-1][name] != settings[0][name])
            message = f"`{path}{name}` must be that of `{paths[0]}{name}`: send requests that differ in it separately"
            raise InvalidRequest(message, f"{path}{name}")
    check_unknown({}, dropped.names)
    task, dimensions = settings[0][_TASK], settings[0]["outputDimensionality"]
    return EmbeddingRequest(
        assistant,
        tuple(texts),
        dimensions if isinstance(dimensions, int) else None,
        extra={} if task is None else {_TASK: task},
        unread=frozenset(dropped.names),
    )


def _settings(request: Fields, path: str, dropped: DroppedFields) -> dict[str, object]:
    config = read_object(request.get(_CONFIG) or {}, f"{path}{_CONFIG}")
    dropped.add_unknown(config, _SETTINGS, _CONFIG)
    task, length = _TASK, "outputDimensionality"
    places = {name: (config, f"{path}{_CONFIG}.") if name in config else (request, path) for name in (task, length)}
    return {
        task: text(places[task][0], task, f"{places[task][1]}{task}"),
        length: integer(places[length][0], length, f"{places[length][1]}{length}", 1, _MOST_DIMENSIONS),
    }


def _text(request: Fields, path: str, dropped: DroppedFields) -> str:
    """Return the text of one request. Google makes one vector of all parts, which other vendors cannot."""
    place = f"{path}content"
    content = read_object(present(request, "content", place), place)
    dropped.add_unknown(content, _CONTENT, "content")
    parts = repeated(content.get("parts", []), f"{place}.parts")
    if len(parts) != 1:
        message = f"`{place}.parts` must have one part with a text, not {len(parts)}: send each text as a content"
        raise InvalidRequest(message, f"{place}.parts")
    place = f"{place}.parts[0]"
    part = read_object(parts[0], place)
    for name in _MEDIA:
        if name in part:
            message = f"`{place}.{name}` is not supported: embeddings of the gateway are of texts only"
            raise UnsupportedFeature(name, message, f"{place}.{name}")
    dropped.add_unknown(part, frozenset({"text"}), "content.parts")
    if not (found := text(part, "text", f"{place}.text")):
        raise InvalidRequest(f"`{place}.text` must not be empty", f"{place}.text")
    return found
