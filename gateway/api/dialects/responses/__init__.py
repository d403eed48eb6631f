"""OpenAI's Responses API (`POST /v1/responses`): the form of Codex, the OpenAI Agents SDK and the OpenAI SDKs.

The gateway keeps nothing: each request has the whole conversation in `input`, and each answer has `store: false`.
"""

from __future__ import annotations

import re

import orjson

from gateway.api.body import parse_json
from gateway.api.dialects.dialect import JSON_MEDIA, Dialect, renaming
from gateway.api.dialects.responses.decode import NAMES_OF_CHAT, MessagePaths, decode_request
from gateway.api.dialects.responses.echo import encode_echo
from gateway.api.dialects.responses.encode import ResponsesRequest, encode_answer
from gateway.api.dialects.responses.stream import ResponseStreamEncoder
from gateway.api.errors import ApiError, encode_error
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import ChatCompletion, ChatRequest
from providers.value import replace

__all__ = ["ResponseTokenCount", "Responses"]

_MESSAGE = re.compile(r"\bmessages\[(\d{1,9})\]")
_renamed = renaming(NAMES_OF_CHAT)


class Responses(Dialect):
    """One request of the Responses API. See `gateway.api.dialects.dialect.Dialect`."""

    keep_alive = b": keep-alive\n\n"
    stream_type = b"content-type: text/event-stream; charset=utf-8"
    media = JSON_MEDIA
    route = "/v1/responses"
    user_field = "user"
    _is_count = False

    def __init__(self) -> None:
        self._paths, self._is_read = MessagePaths(), False
        self._asked = ResponsesRequest()

    def decode(self, body: bytes) -> ChatRequest:
        return self.read(parse_json(body), len(body))

    def read(self, value: object, body_bytes: int, previous: str | None = None) -> ChatRequest:
        """Return the request in a parsed body of this size. `previous`: the id of the answer that it continues."""
        decoded = decode_request(value, counts=self._is_count)
        echo = encode_echo(decoded.echo, body_bytes)
        self._asked = ResponsesRequest(echo, decoded.names, decoded.wants_state, body_bytes, previous)
        self._paths, self._is_read = decoded.paths, True
        return decoded.request

    def encode_answer(self, completion: ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        return encode_answer(completion, style, record, self._asked)

    def encoder(self, style: AnswerStyle, record: Record) -> ResponseStreamEncoder:
        return ResponseStreamEncoder(style, record, self._asked)

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        """See Dialect. Inner layers name the fields as chat completions does."""
        return orjson.dumps(encode_error(self._with_own_names(error)))

    def _with_own_names(self, error: ApiError) -> ApiError:
        def path(match: re.Match[str]) -> str:
            return self._paths.path_of(int(match[1]))

        param = _MESSAGE.sub(path, error.param) if error.param is not None else None
        message = _MESSAGE.sub(path, error.message)
        if self._is_read:
            message = _renamed(message)
        return replace(error, param=NAMES_OF_CHAT.get(param or "", param), message=message)


class ResponseTokenCount(Responses):
    """One request for `input_tokens`. See `gateway.api.dialects.dialect.CountingDialect`."""

    route = "/v1/responses/input_tokens"
    _is_count = True

    def encode_count(self, tokens: int) -> bytes:
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})
