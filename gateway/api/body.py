"""A request's body: taken within bounds of size and time, and read as JSON within bounds of depth and of values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from gateway.api.door import Visitor
from gateway.api.errors import ApiError
from gateway.api.names import check_names
from gateway.execution.deadline import Deadline
from providers.chat import ChatRequest
from providers.codec.decode_request import MAX_MESSAGES, decode_any_request
from providers.codec.plain_request import plain_request
from providers.json_values import holds_beside_texts

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_BODIES_BYTES = 256 * 1024 * 1024
MAX_STREAMS = 5_000
MOST_REQUESTS = 10_000
BODY_TIME_S = 60.0
MAX_DEPTH = 64
MAX_BESIDE_TEXTS_BYTES = 1024 * 1024
_LITTLE_BYTES = 64 * 1024
_LITTLE_DIGITS = len(str(_LITTLE_BYTES))
_DRAIN_TIME_S = 5.0
_JSON = b"application/json"
# orjson has a bound of its own for nesting, far behind ours, and calls what is beyond it no JSON, in these words.
_OF_NESTING = frozenset({"depth limit exceeded", "failed to allocate memory"})
_FEWEST_DIGITS = len(str(MAX_BODY_BYTES)) - 1
Receive = Callable[[], Awaitable[Any]]


class ClientGone(Exception):
    """The client left before its request was complete."""


class BodyLimits:
    """How many bytes of bodies this worker holds at once."""

    def __init__(self, most_bytes: int = MAX_BODIES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0

    def take(self, count: int) -> None:
        """Count further bytes; raises ApiError (overloaded) beyond the bound."""
        if self._held_bytes + count > self._most_bytes:
            raise ApiError("overloaded", "this gateway holds as many requests as it can", retry_after_s=1)
        self._held_bytes += count

    def give_back(self, count: int) -> None:
        """These bytes are let go of."""
        self._held_bytes -= count


class StreamLimit:
    """How many streams this worker has at once, from the call to the provider on."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self.open = 0
        self._most = most

    def take(self) -> None:
        """Count one more; raises ApiError (overloaded) beyond the bound."""
        if self.open >= self._most:
            raise ApiError("overloaded", "this gateway has as many streams open as it can", retry_after_s=1)
        self.open += 1

    def give_back(self) -> None:
        """One has ended."""
        self.open -= 1


def check_content_headers(visitor: Visitor) -> None:
    """Raise ApiError for a body that can't be JSON as it is, or is announced too large."""
    headers = visitor.headers
    if headers.get(b"content-type") != _JSON or b"content-type" in visitor.repeated:
        _check_kind(visitor)
    if b"content-encoding" in headers and any(
        value.strip().lower() != b"identity" for value in visitor.values(b"content-encoding")
    ):
        raise ApiError("unsupported_media_type", "send the body as it is, without a `content-encoding`")
    # The server has refused two lengths, and one that is no number.
    length = headers.get(b"content-length", b"")
    if len(length) > _FEWEST_DIGITS and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()


def _check_kind(visitor: Visitor) -> None:
    kinds = visitor.values(b"content-type")
    if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != _JSON:
        told = ", ".join(visitor.all(b"content-type"))[:60]
        raise ApiError(
            "unsupported_media_type", "send `content-type: application/json`" + (f", not {told!r}" if told else "")
        )


def _too_large() -> ApiError:
    limit = f"{MAX_BODY_BYTES // 2**20} MB ({MAX_BODY_BYTES} bytes)"
    return ApiError("request_too_large", f"the body is larger than {limit}: send less, or smaller images")


async def read_body(receive: Receive, limits: BodyLimits, deadline: Deadline) -> bytes:
    """The whole body, for whose bytes there was room: give them back. Raises ApiError (request_too_large,
    request_timeout, overloaded) or ClientGone."""
    pieces: list[bytes] = []
    size = held = 0
    limit_s = min(BODY_TIME_S, deadline.left_s(committed=True))
    try:
        with deadline.limit(limit_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                limits.take(len(piece))
                held = size
                pieces.append(piece)
                if not message.get("more_body", False):
                    held = 0  # by now the caller's to give back
                    return b"".join(pieces) if len(pieces) > 1 else piece
    except TimeoutError:
        raise ApiError("request_timeout", f"the body did not arrive within {limit_s:.3g} seconds") from None
    finally:
        limits.give_back(held)


def announces_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body follows these headers, their names in lower case. (Two lengths the parser has refused.)"""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def is_little(unread: Visitor) -> bool:
    """Whether the body that nobody will read is so small that reading over it costs less than another connection, or
    there is none.

    One that waits for `100 Continue` may never come (RFC 9110, section 10.1.1), and chunks may go on for ever.
    """
    if not announces_body(unread.headers):
        return True
    length = unread.one(b"content-length")
    if length is None or b"transfer-encoding" in unread.headers or b"expect" in unread.headers:
        return False
    return length.isdigit() and len(length) <= _LITTLE_DIGITS and int(length) <= _LITTLE_BYTES


async def drain(receive: Receive) -> None:
    """Read what the client still sends, within bounds: closing on unread bytes would reset away our answer."""
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_TIME_S):
            while size <= MAX_BODY_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def read_request(body: bytes) -> ChatRequest:
    """The request of a body; raises ApiError as `parse_json` does, and what `decode_request` raises."""
    value = _parsed(body)
    request = plain_request(value, MAX_MESSAGES)
    if request is None:
        # One in the plain form has three levels, and isn't asked.
        _check_depth(body, value)
    check_names(body, value)
    return request if request is not None else decode_any_request(value)


def parse_json(body: bytes) -> object:
    """The parsed body; raises ApiError with the line and column of a mistake, for nesting that is too deep, or for a
    name that an object has twice."""
    value = _parsed(body)
    _check_depth(body, value)
    check_names(body, value)
    return value


def _parsed(body: bytes) -> object:
    if len(body) > MAX_BESIDE_TEXTS_BYTES and holds_beside_texts(body, MAX_BESIDE_TEXTS_BYTES):
        limit = f"{MAX_BESIDE_TEXTS_BYTES // 2**20} MB"
        raise ApiError(
            "request_too_large",
            f"the body holds more than {limit} beside its texts: send fewer messages, tools or fields, and no spaces",
        )
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body:
            raise ApiError("invalid_request", "the body is empty; send a JSON object") from None
        if error.msg in _OF_NESTING:
            raise _too_deep() from None
        raise ApiError("invalid_request", _no_utf8(body) or _no_json(error)) from None
    return value


def _check_depth(body: bytes, value: object) -> None:
    # Fewer opening brackets than levels can't be too deep, and spares almost every request the walk.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise _too_deep()


def _too_deep() -> ApiError:
    return ApiError("invalid_request", f"the body is nested deeper than {MAX_DEPTH} levels")


def _no_json(error: orjson.JSONDecodeError) -> str:
    return f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"


def _no_utf8(body: bytes) -> str | None:
    """Where the body is no UTF-8, which orjson says without its place."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"the body is not valid UTF-8: byte {error.start + 1} (0x{body[error.start]:02x}) begins no character"
    return None


def _is_too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return any(isinstance(item, dict | list) for item in level)
