"""Read the body of a request within limits of size and time, and parse its JSON within limits of depth and of values.

A body with a duplicate name in an object is refused: some parsers take the first value and others the last (RFC 8259,
section 4), so a proxy could check another value than the gateway uses.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from mmap import ACCESS_COPY, mmap
from typing import Any

import orjson

from gateway.api.body_room import SMALL_BODY_BYTES, BodyLimits, BodyRoom, no_room
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from gateway.model.caller import RequestHeaders
from providers.chat import ChatRequest
from providers.json_values import exceeds_outside_strings, with_exact_integers
from providers.openai_json.decode_request import MAX_MESSAGES, decode_any_request
from providers.openai_json.plain_request import plain_request

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_STREAMS = 5_000
MOST_REQUESTS = 10_000
BODY_TIME_S = 60.0
SMALL_OBJECT_BYTES = 64 * 1024
_SMALL_OBJECT_TIME_S = 10.0
MAX_DEPTH = 64
MAX_BESIDE_TEXTS_BYTES = 1024 * 1024
MAX_TOKENS_BYTES = 16 * 1024 * 1024
"""The limit of a request for embeddings outside its strings: LangChain sends tokens, a thousand lists at once."""
_MOST_LISTS = 4096
LARGE_BODY_BYTES = 1024 * 1024
"""A larger body is parsed only after the others of its worker."""
_HEAP_BYTES = 4 * 1024 * 1024
_LITTLE_BYTES = 64 * 1024
_MOST_DIGITS = 20
_DRAIN_TIME_S = 5.0
_JSON = b"application/json"
# orjson has its own limit of nesting, far above ours. It reports a body that exceeds it as invalid JSON in these words.
_NESTING_ERRORS = frozenset({"depth limit exceeded", "failed to allocate memory"})
_FEWEST_DIGITS = len(str(MAX_BODY_BYTES)) - 1
_MAX_BYTES_TO_NAME = 1024 * 1024
_MANY_OBJECTS = 400
FEW_OBJECTS_BYTES = 4 * 1024
"""A body up to this size has few objects."""
_PLAIN_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
Receive = Callable[[], Awaitable[Any]]
_Message = dict[str, Any]
_Send = Callable[[_Message], Awaitable[None]]


Body = bytes | memoryview


class ClientGone(Exception):
    """The client left before its request was complete."""


class LargeBodyTurns:
    """Lets the requests with large bodies be parsed one after the other, with pauses for all other requests.

    A body of 32 MB stops the event loop for some hundred milliseconds. After it the next one waits as long again.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, deadline: Deadline) -> None:
        """Wait for the turn of a request; raises ApiError (overloaded) at its deadline."""
        try:
            with deadline.limit(deadline.left_s(committed=True)):
                await self._lock.acquire()
        except TimeoutError:
            message = "other large bodies were parsed for too long: repeat the request later, or send a smaller body"
            raise ApiError("overloaded", message, retry_after_s=1) from None

    def end(self, started_at: float) -> None:
        """End a turn whose parsing began at this time (monotonic), after a pause."""
        loop = asyncio.get_running_loop()
        # Called when the task has let the loop run again: a parsed request is encoded for the provider at once.
        loop.call_soon(lambda: loop.call_later(time.monotonic() - started_at, self._lock.release))


class BodyLease:
    """The body of one request, which counts against `BodyLimits` until nothing holds the request any more."""

    __slots__ = ("_held_bytes", "_limits", "_turns", "body", "size_bytes")

    def __init__(self, body: Body, limits: BodyLimits | BodyRoom, size_bytes: int | None = None) -> None:
        """Take a body that is counted already. `size_bytes`: what is counted, if that is more than the body."""
        self.body: Body = body
        self._limits = limits
        self._turns: LargeBodyTurns | None = None
        self.size_bytes = self._held_bytes = len(body) if size_bytes is None else size_bytes

    async def wait_for_turn(self, turns: LargeBodyTurns, deadline: Deadline) -> None:
        """Wait until this large body may be parsed. The turn ends after `take`, or with the lease."""
        await turns.take(deadline)
        self._turns = turns

    def take(self, *, keeps_turn: bool = False) -> Any:
        """Return the body, of a form perhaps as a view, and forget it, so that it is freed as soon as it is parsed.

        Parse it before the next wait, or keep its turn until it is parsed.
        """
        body, self.body = self.body, b""
        if self._turns is not None and not keeps_turn:
            self.end_turn(time.monotonic())
        return body

    def end_turn(self, started_at: float) -> None:
        """End the turn of a large body, if it has one, whose parsing began at this time (monotonic)."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.end(started_at)

    def release(self) -> None:
        """Uncount the body, and end its turn. Does nothing the second time."""
        if self._turns is not None:
            self.end_turn(time.monotonic())
        if self._held_bytes:
            self._limits.give_back(self._held_bytes)
            self._held_bytes = 0


class StreamLimit:
    """Counts the streams that this worker has open, from the call to the provider on, and bounds them."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self.open = 0
        self._most = most

    def take(self) -> None:
        """Count one more; raises ApiError (overloaded) beyond the bound."""
        if self.open >= self._most:
            message = "the gateway has reached its limit of open streams: repeat the request later"
            raise ApiError("overloaded", message, retry_after_s=1)
        self.open += 1

    def give_back(self) -> None:
        """Stop counting a stream that has ended."""
        self.open -= 1


def is_wide(body: Body) -> bool:
    """Return whether JSON is so large, or has so many objects, that work on it takes longer than a turn may."""
    return isinstance(body, bytes) and (len(body) > SMALL_BODY_BYTES or body.count(b"{") > _MANY_OBJECTS)


def check_content_headers(visitor: RequestHeaders, client_bytes: int | None = None, media: bytes = _JSON) -> None:
    """Raise ApiError for a body that is not announced as `media`, or is announced as too large for the client."""
    headers = visitor.headers
    if headers.get(b"content-type") != media or b"content-type" in visitor.repeated:
        kinds = visitor.values(b"content-type")
        if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != media:
            given = ", ".join(visitor.all(b"content-type"))[:60]
            problem = f"the content type {given!r} is not supported" if given else "the content type is missing"
            raise ApiError("unsupported_media_type", f"{problem}: send `content-type: {media.decode()}`")
    # The server has refused two lengths, and a length that is not a number.
    length = headers.get(b"content-length", b"")
    if (len(length) > _FEWEST_DIGITS or client_bytes is not None) and length.isdigit():
        check_body_size(int(length), client_bytes)


def check_body_size(size: int, client_bytes: int | None) -> None:
    """Raise ApiError (request_too_large) for a body of this size. The client may have a limit of its own."""
    if client_bytes is not None and size > client_bytes:
        problem = f"the body is larger than the limit of this client, {client_bytes} bytes"
    elif size > MAX_BODY_BYTES:
        problem = f"the body is larger than {MAX_BODY_BYTES // 2**20} MB ({MAX_BODY_BYTES} bytes)"
    else:
        return
    raise ApiError("request_too_large", f"{problem}: send fewer messages or documents, or smaller images")


async def read_body(
    receive: Receive, room: BodyRoom, deadline: Deadline, client_bytes: int | None = None, *, copies: bool = True
) -> Body:
    """Read the whole body within its room, which the caller settles or releases. A small room may become large.

    With `copies` it is returned as bytes, which costs a copy. Raises ApiError (request_too_large, request_timeout or
    overloaded), and ClientGone if the client left meanwhile.
    """
    # A body that is received piece by piece has one block: many small pieces would stay in the heap. The block has its
    # size at once, and a large one gets its memory page by page: to move megabytes would hold up all other requests.
    most = room.most_bytes
    body: bytearray | mmap | None = None
    size = 0
    limit_s = min(BODY_TIME_S, deadline.left_s(committed=True))
    try:
        with (limit := deadline.limit(limit_s)):
            room.begin_reading(limit.expire)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece: bytes = message.get("body", b"")
                begin, size = size, size + len(piece)
                check_body_size(size, client_bytes)
                await room.hold(size, deadline)
                if not message.get("more_body", False) and not begin:
                    return piece
                if body is None:
                    body = bytearray(most) if most <= _HEAP_BYTES else mmap(-1, most, access=ACCESS_COPY)
                body[begin:size] = piece
                if not message.get("more_body", False):
                    whole = memoryview(body)[:size]
                    return bytes(whole) if copies else whole
                if room.is_large:
                    await room.turn()
    except TimeoutError:
        if room.is_evicted:
            raise no_room() from None
        raise ApiError("request_timeout", f"the body did not arrive within {limit_s:.3g} seconds") from None
    finally:
        room.end_reading()


def announces_body(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a body follows these headers (lower-case names). The parser has refused two lengths."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def announced_bytes(unread: RequestHeaders) -> int | None:
    """Return the length of the body that follows these headers; None if they do not state it."""
    length = unread.one(b"content-length")
    if length is None or not length.isdigit() or b"transfer-encoding" in unread.headers:
        return None
    return int(length[:_MOST_DIGITS])


def is_little(unread: RequestHeaders) -> bool:
    """Return whether there is no body, or one so small that skipping it costs less than a new connection.

    A body that waits for `100 Continue` may never come (RFC 9110, section 10.1.1), and chunks may go on for ever.
    """
    if not announces_body(unread.headers):
        return True
    length = announced_bytes(unread)
    return length is not None and length <= _LITTLE_BYTES and b"expect" not in unread.headers


async def drain(receive: Receive) -> None:
    """Read the rest of what the client sends, within limits: a reset could destroy an answer on its way."""
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
    """Parse and decode a body; raises ApiError as `parse_json` does, and what `decode_request` raises."""
    value = _parsed(body)
    request = plain_request(value, MAX_MESSAGES)
    if request is None:
        # A request in the plain form has three levels, so only other requests are checked.
        _check_depth(body, value)
    check_names(body, value)
    return request if request is not None else decode_any_request(value)


def parse_json(body: bytes, most_bytes: int = MAX_BESIDE_TEXTS_BYTES) -> object:
    """Return the parsed body, which has at most so many bytes outside its strings.

    Raises ApiError if it is not valid JSON (with the line and column of the mistake), is nested too deeply, or has a
    duplicate name in an object.
    """
    value = _parsed(body, most_bytes)
    _check_depth(body, value)
    check_names(body, value)
    return value


def parse_with_calls(body: bytes, name: str, mark: bytes) -> object:
    """Return the parsed body of a format whose calls have their arguments as JSON. Raises ApiError, as `parse_json`.

    The arguments of earlier calls, in the member of this name, leave as text, and must not be rounded. All else is as
    `parse_json` reads it.
    """
    value = parse_json(body)
    exact = with_exact_integers(value, body, mark)
    if exact is value or not isinstance(value, dict) or not isinstance(exact, dict):
        return value
    return {**value, name: exact.get(name)} if name in value else value


async def read_object(receive: Receive, most_bytes: int = SMALL_OBJECT_BYTES) -> dict[str, object]:
    """Return the JSON object of a body of bounded size and time, or an empty one without a body. Raises ApiError."""
    data = await read_small(receive, "body", most_bytes, _SMALL_OBJECT_TIME_S)
    value = parse_json(data) if data else {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError("invalid_request", "the body must be a JSON object, or empty")
    return value


async def read_small(receive: Receive, what: str, most_bytes: int, time_s: float) -> bytes:
    """Return the body of a request that no client's limits concern. Raises ApiError, which calls it `what`."""
    data, is_whole = bytearray(), False
    try:
        async with asyncio.timeout(time_s):
            while not is_whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError("invalid_request", f"the connection was closed before the {what} was complete")
                data += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(data) > most_bytes:
                    raise ApiError("request_too_large", f"the {what} is larger than {most_bytes // 1024} KB")
    except TimeoutError:
        raise ApiError("request_timeout", f"the {what} did not arrive within {time_s:g} seconds") from None
    return bytes(data)


def parse_input(body: bytes) -> object:
    """Return the parsed body of a request for embeddings or moderations. Raises ApiError as `parse_json` does.

    Many tokens are accepted, but few lists: each takes more memory than a number.
    """
    has_few_lists = body.count(b"[") + body.count(b"{") <= _MOST_LISTS
    return parse_json(body, MAX_TOKENS_BYTES if has_few_lists else MAX_BESIDE_TEXTS_BYTES)


def _parsed(body: bytes, most_bytes: int = MAX_BESIDE_TEXTS_BYTES) -> object:
    if len(body) > most_bytes and exceeds_outside_strings(body, most_bytes):
        limit = f"{most_bytes // 2**20} MB"
        raise ApiError(
            "request_too_large",
            f"the body has more than {limit} outside its strings: send fewer messages, tools or fields, and no spaces",
        )
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body:
            raise ApiError("invalid_request", "the body is empty; send a JSON object") from None
        if error.msg in _NESTING_ERRORS:
            raise _too_deep() from None
        problem = f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise ApiError("invalid_request", _no_utf8(body) or problem) from None
    return value


def _check_depth(body: bytes, value: object) -> None:
    # A body with fewer opening brackets than levels cannot be too deep. This spares almost every request the walk.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise _too_deep()


def _too_deep() -> ApiError:
    return ApiError("invalid_request", f"the body is nested deeper than {MAX_DEPTH} levels")


def _no_utf8(body: bytes) -> str | None:
    """Describe where the body is not UTF-8; None if it is. orjson reports this without the place."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} (0x{body[error.start]:02x})"
        return f"the body is not valid UTF-8: {byte} does not start a character"
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


def check_names(body: bytes, value: object) -> None:
    """Raise ApiError (invalid_request) if an object of the body has a duplicate name, which its parsed value lacks.

    A colon follows each name. The body and its value have the same number of colons inside strings, so all colons are
    counted without a distinction between the two kinds. A body from the official SDKs equals the output of orjson and
    needs no count.
    """
    again = orjson.dumps(value)
    if again != body and _count_colons(body) != again.count(b":"):
        path = _path_of_repeated_name(body) if len(body) <= _MAX_BYTES_TO_NAME else None
        logged = "an object in the body has a duplicate name: send each name once"
        message = logged if path is None else f"duplicate name `{path}`: send each name once"
        raise ApiError("invalid_request", message, param=path, log_message=logged)


def _count_colons(body: bytes) -> int:
    """Count the colons of this JSON, including those in the form `\\u003a`, which orjson never writes."""
    count = body.count(b":")
    if b"u003a" in body or b"u003A" in body:
        # Remove backslashes in pairs, as a parser reads them: a remaining one escapes the character after it.
        escapes = body.replace(rb"\\", b"")
        count += escapes.count(rb"\u003a") + escapes.count(rb"\u003A")
    return count


class _RepeatedName(dict[str, Any]):
    """A parsed object with the duplicate name `name`."""

    name = ""


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    value, seen = _RepeatedName(unique), set[str]()
    for name, _ in pairs:
        if name in seen:
            value.name = name
            break
        seen.add(name)
    return value


def _path_of_repeated_name(body: bytes) -> str | None:
    """Return the path of a duplicate name, in the form of `param`; None if a name in the path is not plain."""
    try:
        remaining: list[tuple[str | None, object]] = [("", json.loads(body, object_pairs_hook=_read_pairs))]
    except RecursionError:
        # A value that was replaced by a later one with the same name is not limited in depth.
        return None
    while remaining:
        path, value = remaining.pop()
        if isinstance(value, _RepeatedName):
            return _join_path(path, value.name)
        if isinstance(value, dict):
            remaining += [(_join_path(path, name), item) for name, item in value.items()]
        elif isinstance(value, list):
            remaining += [(None if path is None else f"{path}[{index}]", item) for index, item in enumerate(value)]
    return None


def _join_path(path: str | None, name: str) -> str | None:
    if path is None or not _PLAIN_NAME.fullmatch(name):
        return None
    return f"{path}.{name}" if path else name


class CloseUnread:
    """ASGI middleware that closes the connection of a request that was answered before its body was read.

    Unauthenticated or oversized requests are not read to the end, and their clients get the answer all the same.
    """

    def __init__(self, app: Callable[[Any, Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: _Send) -> None:
        """Pass the request on. If its body was left unread, close the connection after the answer."""
        if scope["type"] != "http" or not announces_body(dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        is_read = is_closing = False

        async def received() -> _Message:
            nonlocal is_read
            message: _Message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sent(message: _Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start" and not is_read:
                is_closing = True
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if not is_closing or message["type"] == "http.response.start" or message.get("more_body", False):
                await send(message)
                return
            # The answer leaves first. Then the rest of the body is read, within bounds: a reset would overtake it.
            await send({**message, "more_body": True})
            await drain(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, received, sent)
