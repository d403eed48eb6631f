"""One request on its connection: its body as it arrives, and its response as it is written.

It replaces uvicorn's cycle, of which the gateway needs only a part. ASGI's `send` is the general way to respond. The
methods of `Cycle` (in `api/connection`) write the same bytes in fewer steps where nothing has to wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.api.connection import Silence, WebSocketSession
from gateway.server.connection_state import (
    ARRIVED,
    ARRIVING,
    BODY_TRANSITIONS,
    COMPLETE,
    DELIVERED,
    LOST,
    REQUEST_TRANSITIONS,
    RESPONDING,
    RUNNING,
    BodyState,
    RequestState,
    next_state,
)

_logger = logging.getLogger("uvicorn.error")
_STATUS_WITHOUT_BODY = (204, 304)
_CLOSE = (b"connection", b"close")
_OK = STATUS_LINE[200]
_CLOSE_LINE = b"connection: close\r\n"
_CHUNKED_LINE = b"transfer-encoding: chunked\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAULT = b"Internal Server Error"
_FAULT_HEADERS = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAULT)), _CLOSE)
_as_line = b": ".join
"""Returns a pair of name and value as a header line."""
# As integers: Python searches bytes for an integer directly, and for bytes only after an internal exception.
_CR, _LF, _NUL = b"\r\n\0"
_OVER = (COMPLETE, LOST)


@dataclass(slots=True, eq=False, repr=False)
class RequestCycle:
    """See `Cycle` for the methods that need no wait. The states are described in `connection_state`.

    The head of a response is kept until the first bytes of its body are written, and leaves together with them.
    """

    _connection: HttpToolsProtocol
    _flow: FlowControl
    # The method is HEAD.
    _is_head: bool
    # The client does not know chunks.
    _is_http10: bool
    # The connection stays open after the response.
    keep_alive: bool
    state: RequestState = RUNNING
    # The part of the body that has arrived and was not received by the application.
    body: bytes | bytearray = b""
    body_state: BodyState = ARRIVING
    # The client waits for `100 Continue` before it sends the body.
    expects_continue: bool = False
    # See `Cycle`.
    can_upgrade: bool = False
    # Runs the application. None before and after that.
    task: asyncio.Task[None] | None = None
    # The transport's `write`, from the first chunk of a stream to its end.
    _write_chunk: Callable[[bytes], None] | None = None
    # Set while the application waits in `receive`. An asyncio.Event for each request would cost more.
    _waiter: asyncio.Future[None] | None = None
    # The head of the response until it leaves, and how its body is written. Not set before the head is known.
    _head: bytes = field(init=False)
    _has_body: bool = field(init=False)
    _remaining_bytes: int | None = field(init=False)
    _is_chunked: bool = field(init=False)

    def enter(self, state: RequestState) -> None:
        """Change the state; raise RuntimeError if it cannot follow the present one."""
        self.state = next_state(REQUEST_TRANSITIONS, self.state, state)

    # Events of the connection.

    def add_body(self, piece: bytes) -> None:
        """Keep a piece of the body for the application; pause reading if it takes none."""
        if not self.body:
            self.body = piece
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        if self._waiter is not None:
            self._wake()

    def end_body(self) -> None:
        """Note that the whole body has arrived."""
        self.body_state = next_state(BODY_TRANSITIONS, self.body_state, ARRIVED)
        self._wake()

    def lose(self) -> None:
        """Note that the connection has ended."""
        if self.state not in _OVER:
            self.enter(LOST)
            self._write_chunk = None
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def run(self, app: Callable[..., Awaitable[None]], scope: dict[str, Any]) -> None:
        """Run the application for this request; respond with an error if it does not complete the response."""
        # All in one coroutine: a done callback of the task would cost a turn of the loop and a copy of the context.
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:  # the edge to the server: an error of any kind ends the response
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            if self.state not in _OVER:
                self._fail(None)
        finally:
            task, self.task = self.task, None
            self._connection.tasks.discard(task)

    def _fail(self, error: BaseException | None) -> None:
        if error is None:
            missing = "completing" if self.state is RESPONDING else "starting"
            _logger.error("ASGI callable returned without %s response.", missing)
        elif isinstance(error, Exception) or self.state is not COMPLETE:  # otherwise: cancelled after its response
            _logger.error("Exception in ASGI application\n", exc_info=error)
        if self.state is RUNNING:
            self._start(500, _FAULT_HEADERS)
            self._write(_FAULT, more_body=False)
        else:
            self._connection.transport.close()

    # ASGI.

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        if self.expects_continue and not self._connection.transport.is_closing():
            self._connection.transport.write(_CONTINUE)
            self.expects_continue = False
        if self.state not in _OVER:
            self._flow.resume_reading()
            while not self.body and self.body_state is not ARRIVED and self.state not in _OVER:
                waiter = self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await waiter
                finally:
                    self._waiter = None
        if self.state in _OVER:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        if self.body_state is ARRIVED:
            self.body_state = DELIVERED
        return {"type": "http.request", "body": body, "more_body": self.body_state is ARRIVING}

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if self._flow.write_paused and self.state is not LOST:
            await self._flow.drain()
        if self.state is LOST:
            return
        if self.state is COMPLETE:
            raise RuntimeError("the application sent more after a complete response")
        if self.state is RUNNING:
            self._start(message["status"], message["headers"])
        else:
            self._write(message.get("body", b""), message.get("more_body", False))

    # The methods of `Cycle` that need no wait.

    def whole_body(self) -> bytes | None:
        if self.body_state is ARRIVING or self.expects_continue or self.state in _OVER:
            return None
        body, self.body, self.body_state = bytes(self.body), b"", DELIVERED
        if self._flow.read_paused:
            self._flow.resume_reading()
        return body

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        return self._respond_at_once(lines, b"content-length: %d\r\n" % len(body), b"", body, b"")

    def respond_stream(self, lines: list[bytes], data: bytes) -> bool:
        if self._is_http10:
            return False
        return self._respond_at_once(lines, _CHUNKED_LINE, b"%x\r\n" % len(data), data, b"\r\n0\r\n\r\n")

    def _respond_at_once(self, lines: list[bytes], framing: bytes, prefix: bytes, body: bytes, suffix: bytes) -> bool:
        """Write a whole response with one call, if nothing has to wait; return whether it did.

        A client may take its time for a large body, and a connection is not idle during that. So the request must not
        be complete before its client has taken most of it, which only `send` waits for.
        """
        if len(body) > HIGH_WATER_LIMIT or self._flow.write_paused or self.state is not RUNNING or self._is_head:
            return False
        connection, closing = self._connection, b"" if self.keep_alive else _CLOSE_LINE
        headers = _shared_block(tuple(connection.server_state.default_headers)) + _header_block(lines)
        self.expects_continue = False
        connection.transport.write(b"%b%b%b%b\r\n%b%b%b" % (_OK, headers, framing, closing, prefix, body, suffix))
        self._complete()
        return True

    def write(self, data: bytes) -> bool:
        if self._flow.write_paused:
            return False
        write_chunk = self._write_chunk
        if write_chunk is not None and data:
            write_chunk(b"%x\r\n%b\r\n" % (len(data), data))
            return True
        if self.state is not RESPONDING:
            return False
        self._write(data, more_body=True)
        return True

    def text_writer(self, head: bytes, tail: bytes, silence: Silence) -> Callable[[bytes], bool] | None:
        if self._write_chunk is None:
            return None
        flow, around, end = self._flow, len(head) + len(tail), tail + b"\r\n"

        def write_text(text: bytes) -> bool:
            write_chunk = self._write_chunk
            if flow.write_paused or write_chunk is None:
                return False
            write_chunk(b"%x\r\n%b%b%b" % (around + len(text), head, text, end))
            silence.is_silent = False
            return True

        return write_text

    async def upgrade(self, lines: list[bytes], session: WebSocketSession) -> bool:
        head = b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % _header_block(lines)
        is_done = await self._connection.become_websocket(self, head, session)  # type: ignore[attr-defined]  # only ours can
        return bool(is_done)

    # The bytes of a response.

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        by_name = dict(pairs := [*headers])
        length = by_name.get(b"content-length")
        close = b"connection", by_name.get(b"connection", b"")
        if close[1].startswith(b"close"):  # also with `upgrade` after it
            self.keep_alive = False
            pairs = [pair for pair in pairs if pair != close]
        else:
            close = _CLOSE
        self._prepare_head(status, [*map(_as_line, pairs)], int(length) if length is not None else None, close)

    def _prepare_head(self, status: int, lines: list[bytes], length: int | None, close: tuple[bytes, bytes]) -> None:
        headers = _shared_block(tuple(self._connection.server_state.default_headers)) + _header_block(lines)
        self.enter(RESPONDING)
        self.expects_continue = False
        self._has_body = not self._is_head and status not in _STATUS_WITHOUT_BODY
        self._remaining_bytes = length if self._has_body else None
        self._is_chunked = self._has_body and length is None and not self._is_http10
        if self._has_body and length is None and self._is_http10:
            # HTTP/1.0 has no chunks (RFC 9112, section 6.1): such a body ends with the connection.
            self.keep_alive = False
        if self._is_chunked:
            headers += _CHUNKED_LINE
        if not self.keep_alive:
            headers += _as_line(close) + b"\r\n"
        self._head = STATUS_LINE[status] + headers + b"\r\n"

    def _write(self, body: bytes, more_body: bool) -> None:
        if self._is_chunked:
            content = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                content += b"0\r\n\r\n"
        else:
            if self._remaining_bytes is not None:
                self._remaining_bytes -= len(body)
            content = body if self._has_body else b""
        head, self._head = self._head, b""
        if head and len(content) > HIGH_WATER_LIMIT:
            # Joined, they would be a copy of the body, kept until the client has taken it.
            self._connection.transport.write(head)
            self._connection.transport.write(content)
        elif head or content:
            self._connection.transport.write(head + content)
        if more_body:
            self._write_chunk = self._connection.transport.write if self._is_chunked else None
        elif self._remaining_bytes:
            raise RuntimeError("a response body differs from its content-length")
        else:
            self._complete()

    def _complete(self) -> None:
        self.enter(COMPLETE)
        self._write_chunk = None
        if self._waiter is not None:
            self._wake()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()


def _header_block(lines: Sequence[bytes]) -> bytes:
    """Return header lines as they are written; raise RuntimeError if one contains a line break."""
    text = b"".join(lines)
    if _CR in text or _LF in text or _NUL in text:
        raise RuntimeError("a response header contains a line break")
    return b"\r\n".join([*lines, b""])


@lru_cache(maxsize=4)
def _shared_block(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the headers that all responses share. They change once a second, because they contain the date."""
    return _header_block([*map(_as_line, pairs)])
