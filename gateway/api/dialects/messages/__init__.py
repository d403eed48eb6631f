"""Anthropic's Messages API (`POST /v1/messages`): the form of Claude Code and the Anthropic SDKs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import orjson

from gateway.api.body import parse_with_calls
from gateway.api.dialects.dialect import JSON_MEDIA, renaming
from gateway.api.dialects.messages import encode, errors
from gateway.api.dialects.messages.decode import decode_request
from gateway.api.dialects.messages.errors import encode_error as encode_error
from gateway.api.dialects.messages.stream import PING, MessageStreamEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from gateway.usage.token_count import count_tokens
from providers.chat import ChatCompletion, ChatRequest
from providers.value import replace

_FIELDS: Mapping[str, str] = {
    "stop": "stop_sequences",
    "reasoning_effort": "thinking",
    "response_format": "output_config.format",
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""The names of fields here, by their name in chat completions."""
# Here, texts of the system are not messages, so an index would be another one.
_PART = re.compile(r"messages\[\d+\]\.content\[\d+\]")
_renamed = renaming(_FIELDS)


class Messages:
    """One request of the Messages API. See `gateway.api.dialects.dialect.Dialect`."""

    keep_alive = PING
    stream_type = b"content-type: text/event-stream; charset=utf-8"
    media = JSON_MEDIA
    route = "/v1/messages"
    user_field = _FIELDS["user"]

    def __init__(self) -> None:
        self._asked = encode.Asked()

    def decode(self, body: bytes) -> ChatRequest:
        decoded = decode_request(parse_with_calls(body, "messages", b'"tool_use"'))
        request = decoded.request
        self._asked = encode.Asked(count_tokens(request), decoded.hides_thinking, request.stop)
        return request

    def encode_answer(self, completion: ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        return encode.encode_answer(completion, style, record, self._asked)

    def encoder(self, style: AnswerStyle, record: Record) -> MessageStreamEncoder:
        return MessageStreamEncoder(style, record, self._asked)

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        """See Dialect. Inner layers name the fields as chat completions does."""
        message = _renamed(_PART.sub("messages", error.message))
        param = _PART.sub("messages", _FIELDS.get(error.param, error.param)) if error.param is not None else None
        return errors.encode_error(replace(error, param=param, message=message), request_id)

    def error_headers(self, error: ApiError) -> Mapping[str, str]:
        return errors.budget_headers(error, time.time())


class TokenCount(Messages):
    """One request for `count_tokens`. See `gateway.api.dialects.dialect.CountingDialect`."""

    route = "/v1/messages/count_tokens"

    def decode(self, body: bytes) -> ChatRequest:
        return decode_request(parse_with_calls(body, "messages", b'"tool_use"'), counts=True).request

    def encode_count(self, tokens: int) -> bytes:
        return orjson.dumps({"input_tokens": tokens})
