"""uvicorn's HTTP/1.1, with what a door to the open network needs: bounds on heads, and news of lost connections.

A head must arrive whole within its time and size; what is no HTTP gets our error envelope. Each request learns of its
client's leaving through the `Line` in its scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.api.errors import ApiError, encode_error
from gateway.api.line import LINE, Line

__all__ = ["HEAD_TIME_S", "MAX_HEAD_BYTES", "GatewayCycle", "GatewayProtocol"]

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIME_S = 10.0
_MAX_WAITING = 32
_NO_BODY = (204, 304)
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class GatewayCycle(RequestResponseCycle):
    """uvicorn's cycle, with a leaner `send`: the head waits for the first bytes of the body and leaves with them, and
    is checked once instead of header by header."""

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
        body: bytes = message.get("body", b"")
        more_body: bool = message.get("more_body", False)
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
        lines = [STATUS_LINE[status]]
        self._has_body = status not in _NO_BODY and self.scope["method"] != "HEAD"
        self.chunked_encoding = self._has_body and self.scope["http_version"] == "1.1"
        for name, value in [*self.default_headers, *headers]:
            if b"\r" in value or b"\n" in value or b"\0" in value:
                raise RuntimeError("a response header with a line break was stopped")
            if name == b"content-length":
                self.chunked_encoding = False
                self._is_counted = self._has_body
                self.expected_content_length = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._has_body and not self._is_counted and not self.chunked_encoding:
            # HTTP/1.0 knows no chunks (RFC 9112, section 6.1): such a body ends with the connection.
            self.keep_alive = False
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _complete(self) -> None:
        if self._is_counted and self.expected_content_length != 0:
            raise RuntimeError("a response body differs from its content-length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class GatewayProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._line = Line()
        self._bare_bytes = 0
        self._wrong = "this is no valid HTTP/1.1 request"
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._head_arrived()
        super().connection_lost(exc)
        self._line.lose()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._bare_bytes += len(data)
        super().data_received(data)
        if self._bare_bytes > MAX_HEAD_BYTES:
            # A head without end, or trailers, or a chunk's extension: what no body's bound would count.
            self._refuse(ApiError("headers_too_large", f"the headers are larger than {MAX_HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """See httptools."""
        if len(self.pipeline) >= _MAX_WAITING:
            raise ValueError("too many requests wait for the answer to the one before")
        super().on_message_begin()
        self.scope["extensions"] = {LINE: self._line}  # type: ignore[dict-item]  # ASGI allows any value

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head_arrived()
        self._bare_bytes = 0
        upgrades = self.parser.should_upgrade()
        if upgrades and _announces_body(self.headers):
            self._wrong = "this gateway upgrades no connection: send a request that has a body without `upgrade`"
            raise ValueError(self._wrong)
        super().on_headers_complete()
        # uvicorn makes the cycle by name; its task has not begun to run yet.
        self.cycle.__class__ = GatewayCycle
        # The request has this list; what comes in trailers, behind every check, must not get into it.
        self.headers = []
        if upgrades:
            # llhttp takes what follows for another protocol's, so no further request can come here.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._bare_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP/1.1 gets an error in the usual envelope."""
        self._refuse(ApiError("invalid_request", self._wrong))

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIME_S, self._on_slow_head)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_slow_head(self) -> None:
        self._refuse(ApiError("request_timeout", f"the headers did not arrive within {HEAD_TIME_S:g} seconds"))

    def _refuse(self, error: ApiError) -> None:
        self._head_arrived()
        if self.transport.is_closing():
            return
        if not self._can_answer():
            self.transport.close()
            return
        body = orjson.dumps(encode_error(error))
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (error.status, _REASONS[error.status], len(body)) + body)
        self.transport.close()

    def _can_answer(self) -> bool:
        """Whether a refusal would be taken for the answer to the request that it is about, and not get into another."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return cycle.more_body and not cycle.response_started and not self.pipeline


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)
