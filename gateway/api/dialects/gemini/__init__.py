"""Gemini's `generateContent` and `countTokens`: the API of google-genai and of Gemini CLI.

Source: ai.google.dev/api/generate-content and google-genai 3.4 for Python, read 2026-11-23.
"""

from __future__ import annotations

import orjson

from gateway.api.body import parse_with_calls
from gateway.api.dialects.dialect import JSON_MEDIA, Dialect, estimated_output
from gateway.api.dialects.gemini import decode, encode, errors
from gateway.api.dialects.gemini.errors import encode_error as encode_error
from gateway.api.dialects.gemini.stream import ARRAY, EVENTS, GeminiEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.usage.token_count import count_tokens
from providers.chat import ChatCompletion, ChatRequest, Usage


class Gemini(Dialect):
    """One request for `generateContent` or `streamGenerateContent`. See `gateway.api.dialects.dialect.Dialect`."""

    media = JSON_MEDIA
    user_field = "user"

    def __init__(self, assistant: str, *, stream: bool = False, events: bool = False) -> None:
        """Make it for one request. With `events`, a stream is sent as server-sent events, not as one JSON array."""
        self._assistant = assistant
        self._is_stream = stream
        self._form = form = EVENTS if events else ARRAY
        self.keep_alive, self.stream_type = form.keep_alive, form.content_type
        self.route = f"/v1beta/models/{{model}}:{'streamGenerateContent' if stream else 'generateContent'}"
        self._shows_thoughts = False
        self._prompt_tokens = 1

    def decode(self, body: bytes) -> ChatRequest:
        parsed = parse_with_calls(body, "contents", b'"functionCall"')
        decoded = decode.decode_generate(parsed, self._assistant, stream=self._is_stream)
        self._shows_thoughts = decoded.shows_thoughts
        self._prompt_tokens = count_tokens(decoded.chat)
        return decoded.chat

    def encode_answer(self, completion: ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        usage = completion.usage or Usage(self._prompt_tokens, estimated_output(completion.choices))
        return encode.encode_answer(completion, style, record, usage, shows_thoughts=self._shows_thoughts)

    def encoder(self, style: AnswerStyle, record: Record) -> GeminiEncoder:
        return GeminiEncoder(style, record, self._form, self._prompt_tokens, shows_thoughts=self._shows_thoughts)

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        return errors.encode_error(error, request_id)


class GeminiCount(Gemini):
    """One request for `countTokens`. See `gateway.api.dialects.dialect.CountingDialect`."""

    def __init__(self, assistant: str) -> None:
        super().__init__(assistant)
        self.route = "/v1beta/models/{model}:countTokens"

    def decode(self, body: bytes) -> ChatRequest:
        return decode.decode_count(parse_with_calls(body, "contents", b'"functionCall"'), self._assistant)

    def encode_count(self, tokens: int) -> bytes:
        return orjson.dumps({"totalTokens": tokens})
