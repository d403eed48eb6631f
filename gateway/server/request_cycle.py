"""One request on its connection: how it hears of its body, and how its answer is written.

In place of uvicorn's cycle, of which a request needs a part only. ASGI's `send` is the general way of an answer; what
`Cycle` offers beside it writes the same bytes in fewer steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_logger = logging.getLogger("uvicorn.error")
_NO_BODY = (204, 304)
_CLOSE = (b"connection", b"close")
_OK = STATUS_LINE[200]
_CLOSE_LINE = b"connection: close\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAULT = b"Internal Server Error"
_FAULT_HEADERS = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_FAULT)), _CLOSE)
LINE = b": ".join
"""The line of a pair of name and value."""

# As numbers: Python looks for those at once, and for bytes only behind an exception of its own.
_CR, _LF, _NUL = b"\r\n\0"
Pairs = Iterable[tuple[bytes, bytes]]


class GatewayCycle:
    """See `Cycle`. The head of an answer waits for the first bytes of its body and leaves with them.

    is_head: its method is HEAD. is_old: it isn't of HTTP/1.1, and knows no chunks. keep_alive: whether another request
    may follow. body: what has come of it and nobody has taken. more_body: whether some is still to come. expects: the
    client waits for our word before it sends that. task: what runs the application, as long as it does.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_flow",
        "_has_body",
        "_head",
        "_is_head",
        "_is_old",
        "_left",
        "_told_all",
        "_write_chunk",
        "body",
        "disconnected",
        "expects",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "task",
        "waiter",
    )

    def __init__(self, connection: HttpToolsProtocol, is_head: bool, is_old: bool, keep_alive: bool) -> None:
        self._connection = connection
        self._flow = connection.flow
        self._is_head = is_head
        self._is_old = is_old
        self.keep_alive = keep_alive
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.expects = self.disconnected = self.response_started = self.response_complete = False
        self._told_all = False
        self.task: asyncio.Task[None] | None = None
        # The transport's, from the head of a stream to its end: what is left to do for each event.
        self._write_chunk: Callable[[bytes], None] | None = None
        # Who waits in `receive`, if anybody does: an asyncio.Event for each request would cost more.
        self.waiter: asyncio.Future[None] | None = None

    # What its connection tells it.

    def add(self, piece: bytes) -> None:
        """More of the body has come."""
        if not self.body:
            self.body = piece
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += piece
        if len(self.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        if self.waiter is not None:
            self.tell()

    def tell(self) -> None:
        """There is something to receive."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def lose(self) -> None:
        """The connection is lost."""
        if not self.response_complete:
            self.disconnected = True
            self._write_chunk = None
            self.tell()

    async def run(self, app: Callable[..., Awaitable[None]], scope: dict[str, Any]) -> None:
        """The request's task: the application, which should not end before its answer does."""
        # A callback at the end of the task would be a turn of the loop and a copy of the context for each request.
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            self._end_badly(error)
            if not isinstance(error, Exception):
                raise
        else:
            if not (self.response_complete or self.disconnected):
                self._end_badly(None)
        finally:
            task, self.task = self.task, None
            self._connection.tasks.discard(task)

    def _end_badly(self, error: BaseException | None) -> None:
        if error is None:
            missing = "completing" if self.response_started else "starting"
            _logger.error("ASGI callable returned without %s response.", missing)
        elif isinstance(error, Exception) or not self.response_complete:  # else: cut off, and its client told
            _logger.error("Exception in ASGI application\n", exc_info=error)
        if self.response_started:
            self._connection.transport.close()
        elif not self.disconnected:
            self._start(500, _FAULT_HEADERS)
            self._write(_FAULT, more_body=False)

    # ASGI.

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        if self.expects and not self._connection.transport.is_closing():
            self._connection.transport.write(_GO_ON)
            self.expects = False
        if not self._is_over():
            self._flow.resume_reading()
            while not (self.body or self._is_over() or (not self.more_body and not self._told_all)):
                waiter = self.waiter = asyncio.get_running_loop().create_future()
                try:
                    await waiter
                finally:
                    self.waiter = None
        if self._is_over():
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), b""
        self._told_all = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def _is_over(self) -> bool:
        return self.disconnected or self.response_complete

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("a response that is complete was added to")
        if not self.response_started:
            self._start(message["status"], message["headers"])
            return
        self._write(message.get("body", b""), message.get("more_body", False))

    # What needs no wait.

    def whole_body(self) -> bytes | None:
        """See `Cycle`."""
        if self.more_body or self.disconnected or self.response_complete or self.expects:
            return None
        body, self.body = bytes(self.body), b""
        self._told_all = True
        if self._flow.read_paused:
            self._flow.resume_reading()
        return body

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        """See `Cycle`."""
        return self._answer(lines, b"content-length: %d\r\n" % len(body), b"", body, b"")

    def respond_stream(self, lines: list[bytes], data: bytes) -> bool:
        """See `Cycle`."""
        return not self._is_old and self._answer(lines, _CHUNKED, b"%x\r\n" % len(data), data, b"\r\n0\r\n\r\n")

    def _answer(self, lines: list[bytes], framing: bytes, start: bytes, body: bytes, end: bytes) -> bool:
        """Write all of an answer at once, if nothing has to wait.

        A client takes its time for much data: the request lasts as long, and is no idle connection.
        """
        if len(body) > HIGH_WATER_LIMIT:
            return False
        if self._flow.write_paused or self.disconnected or self.response_started or self._is_head:
            return False
        connection, closing = self._connection, b"" if self.keep_alive else _CLOSE_LINE
        heads = shared_block(tuple(connection.server_state.default_headers)) + block_of(lines)
        self.response_started = True
        self.expects = False
        connection.transport.write(b"%b%b%b%b\r\n%b%b%b" % (_OK, heads, framing, closing, start, body, end))
        self._complete()
        return True

    def begin(self, lines: list[bytes]) -> bool:
        """See `Cycle`."""
        if self.disconnected or self.response_started:
            return False
        self._open(200, lines, None)
        return True

    def write(self, data: bytes) -> bool:
        """See `Cycle`."""
        if self._flow.write_paused:
            return False
        write_chunk = self._write_chunk
        if write_chunk is None or not data:
            return self._go_on(data, more_body=True)
        write_chunk(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def finish(self) -> bool:
        """See `Cycle`."""
        return not self._flow.write_paused and self._go_on(b"", more_body=False)

    def _go_on(self, data: bytes, more_body: bool) -> bool:
        if self.disconnected or self.response_complete or not self.response_started:
            return False
        self._write(data, more_body)
        return True

    # The bytes of an answer.

    def _start(self, status: int, pairs: Pairs) -> None:
        known = dict(pairs := [*pairs])
        length = known.get(b"content-length")
        if known.get(b"connection") == b"close":
            self.keep_alive = False
            pairs = [pair for pair in pairs if pair != _CLOSE]
        self._open(status, [*map(LINE, pairs)], int(length) if length is not None else None)

    def _open(self, status: int, lines: list[bytes], length: int | None) -> None:
        heads = shared_block(tuple(self._connection.server_state.default_headers)) + block_of(lines)
        self.response_started = True
        self.expects = False
        self._has_body = not self._is_head and status not in _NO_BODY
        self._left = length if self._has_body else None
        self._chunks = self._has_body and length is None and not self._is_old
        if self._has_body and length is None and self._is_old:
            # HTTP/1.0 knows no chunks (RFC 9112, section 6.1): such a body ends with the connection.
            self.keep_alive = False
        if self._chunks:
            heads += _CHUNKED
        if not self.keep_alive:
            heads += _CLOSE_LINE
        self._head = STATUS_LINE[status] + heads + b"\r\n"

    def _write(self, body: bytes, more_body: bool) -> None:
        if self._chunks:
            content = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                content += b"0\r\n\r\n"
        else:
            if self._left is not None:
                self._left -= len(body)
            content = body if self._has_body else b""
        head, self._head = self._head, b""
        if head and len(content) > HIGH_WATER_LIMIT:
            # Together they would be a copy of all of it, held beside it until the client has taken it.
            self._connection.transport.write(head)
            self._connection.transport.write(content)
        elif head or content:
            self._connection.transport.write(head + content)
        if more_body:
            self._write_chunk = self._connection.transport.write if self._chunks else None
        elif self._left:
            raise RuntimeError("a response body differs from its content-length")
        else:
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._write_chunk = None
        if self.waiter is not None:
            self.tell()
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()


def block_of(lines: Sequence[bytes]) -> bytes:
    """The lines as they are written; raises RuntimeError for one that would be two."""
    text = b"".join(lines)
    if _CR in text or _LF in text or _NUL in text:
        raise RuntimeError("a response header with a line break was stopped")
    return b"\r\n".join([*lines, b""])


@lru_cache(maxsize=4)
def shared_block(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The headers of every answer, which are the same for a second: the date is in them."""
    return block_of([*map(LINE, pairs)])
