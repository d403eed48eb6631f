"""One request on its connection: uvicorn's cycle, with a leaner way to be told of the body and to write the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.api.line import CYCLE

__all__ = ["GatewayCycle", "News"]

_NO_BODY = (204, 304)
_CLOSE = (b"connection", b"close")
_LINE = b": ".join


class News:
    """asyncio.Event for one waiter, the request's `receive`: a queue of waiters for each request would cost more."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        while not self._is_set:
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None


class GatewayCycle(RequestResponseCycle):
    """uvicorn's cycle, with a leaner `send`: the head waits for the first bytes of the body and leaves with them, and
    is checked as a whole instead of header by header."""

    _head = b""
    _has_body = True
    _is_counted = False

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("a response that is complete was added to")
        if not self.response_started:
            self._start(message["status"], message["headers"])
            return
        self._write(message.get("body", b""), message.get("more_body", False))

    def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """See `Cycle`."""
        if self.flow.write_paused or self.disconnected or self.response_started:
            return False
        self._start(status, headers)
        self._write(body, more_body=False)
        return True

    def write(self, data: bytes) -> bool:
        """See `Cycle`."""
        if self.flow.write_paused or self.disconnected or self.response_complete or not self.response_started:
            return False
        if self._head or not self.chunked_encoding or not data:
            self._write(data, more_body=True)
        else:
            # What a stream writes for each event.
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def whole_body(self) -> bytes | None:
        """See `Cycle`."""
        if self.more_body or self.disconnected or self.response_complete or self.waiting_for_100_continue:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        self.flow.resume_reading()
        return body

    def _write(self, body: bytes, more_body: bool) -> None:
        if self.chunked_encoding:
            content = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                content += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            content = body if self._has_body else b""
        head, self._head = self._head, b""
        if head or content:
            self.transport.write(head + content)
        if not more_body:
            self._complete()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        self._has_body = status not in _NO_BODY and self.scope["method"] != "HEAD"
        self.chunked_encoding = self._has_body and self.scope["http_version"] == "1.1"
        pairs = [*self.default_headers, *headers]
        known = dict(pairs)
        length = known.get(b"content-length")
        if length is not None:
            self.chunked_encoding = False
            self._is_counted = self._has_body
            self.expected_content_length = int(length)
        if known.get(b"connection") == b"close":
            self.keep_alive = False
            pairs = [pair for pair in pairs if pair != _CLOSE]
        block = b"\r\n".join([*map(_LINE, pairs), b""])
        # Each line has one CR and one LF, its own, so that one search of the whole finds any that a value brought.
        if block.count(b"\r") != len(pairs) or block.count(b"\n") != len(pairs) or b"\0" in block:
            raise RuntimeError("a response header with a line break was stopped")
        if self._has_body and not self._is_counted and not self.chunked_encoding:
            # HTTP/1.0 knows no chunks (RFC 9112, section 6.1): such a body ends with the connection.
            self.keep_alive = False
        if not self.keep_alive:
            block += b"connection: close\r\n"
        if self.chunked_encoding:
            block += b"transfer-encoding: chunked\r\n"
        self._head = STATUS_LINE[status] + block + b"\r\n"

    def _complete(self) -> None:
        # The scope has this cycle, and this cycle the scope: what ends here is freed here, without the collector.
        self.scope["extensions"].pop(CYCLE, None)
        if self._is_counted and self.expected_content_length != 0:
            raise RuntimeError("a response body differs from its content-length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
