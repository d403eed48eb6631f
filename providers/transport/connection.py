"""One HTTP/1.1 connection as an asyncio protocol: one request at a time, its response parsed by httptools (llhttp).

Bytes are parsed as they arrive and handed over in whole batches; a reader that is slower than the provider stops the
reading, so that memory stays bounded. What comes after the end of a response makes the connection unfit for another.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

import httptools

from providers.transport.errors import BadResponse, ConnectionBroken, TransportError

__all__ = ["MAX_HEAD_BYTES", "Connection", "Tap"]

Tap = Callable[[bytes], bool]
"""Is offered each chunk that arrives by itself while a read waits; True: it is dealt with, and the read waits on."""

MAX_HEAD_BYTES = 64 * 1024
_HIGH_WATER_BYTES = 256 * 1024
_NO_BODY = (204, 304)


class Connection(asyncio.Protocol):
    """A connection that has been made; `begin` sends a request, `head` and `read` give its response.

    pending: called with 0, whether the system has something of the server's that the loop hasn't read yet.
    """

    __slots__ = (
        "_bare_bytes",
        "_buffered",
        "_chunks",
        "_complete",
        "_end",
        "_error",
        "_framed",
        "_head_done",
        "_head_only",
        "_parser",
        "_paused",
        "_reusable",
        "_tap",
        "_until_close",
        "_waiter",
        "closed",
        "headers",
        "idle_since",
        "loop",
        "on_body",
        "pending",
        "status",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._chunks: list[bytes] = []
        self._end: int | None = None
        # The parser calls this for each chunk of a body. A method would cost a frame for each event of a stream, and
        # what else there is to do `data_received` does once a read.
        self.on_body = self._chunks.append
        self.pending: Callable[[float], object] = lambda _: None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._tap: Tap | None = None
        self.closed = False
        self.idle_since = 0.0
        self._complete = True
        self._error: TransportError | None = None
        self._reusable = True
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._head_done = False
        self._head_only = False
        self._bare_bytes = 0
        self._framed = False
        self._until_close = False
        self._chunks.clear()
        self._end = None
        self._buffered = 0
        self._paused = False

    # --- for who uses the connection --------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the last response ended in good order, and nothing came behind it."""
        return (
            self._reusable
            and self._complete
            and not self.closed
            and not self._paused
            and not self.transport.get_write_buffer_size()
        )

    def watch(self, sock: socket.socket) -> None:
        """This is the connection's socket: from now on `pending` looks at it, which costs a third of a microsecond."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.pending = poll.poll

    def begin(self, request: bytes, *, head_only: bool = False) -> None:
        """Send a request; the connection must be new or `reusable`. head_only: its response has no body (HEAD)."""
        self._reset()
        self._head_only = head_only
        self._complete = False
        self.transport.write(request)

    async def head(self) -> None:
        """Wait for the final status line and headers; raises TransportError."""
        while not self._head_done:
            if self._error is not None:
                raise self._error
            waiter = self._waiter = self.loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None

    async def read(self, tap: Tap | None = None) -> bytes:
        """The body's next bytes, everything that has arrived; empty at its end. Raises TransportError."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            waiter = self._waiter = self.loop.create_future()
            self._tap = tap
            try:
                await waiter
            finally:
                self._waiter = self._tap = None
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    def abort(self) -> None:
        """Drop the connection at once."""
        self.closed = True
        self.transport.abort()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by how it was made

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._complete:
            # Nobody asked: whatever this is, it must not be taken for the answer to the next request.
            self._reusable = False
            self.abort()
            return
        chunks = self._chunks
        try:
            if not self._head_done and not self._bare_bytes and not data.startswith(b"H"):
                # llhttp would take RTSP and ICE, too.
                raise BadResponse("the response doesn't begin with HTTP")
            self._bare_bytes += len(data)
            before = len(chunks)
            self._parser.feed_data(data)
            if len(chunks) > before:
                self._bare_bytes = 0
        except (httptools.HttpParserError, httptools.HttpParserCallbackError, BadResponse) as error:
            self._reusable = False
            if not self._complete:
                self._break(_bad(error))
        if self._end is not None:
            # What stands behind the end is no part of this body.
            del chunks[self._end :]
        elif self._bare_bytes > MAX_HEAD_BYTES and self._error is None:
            # A head without end, or interim responses, chunk extensions or trailers: none of them is a body's byte.
            self._break(_too_large())
        elif self._tap is not None and len(chunks) == 1 and self._is_tapped(self._tap):
            return
        # Counted by the read rather than by the chunk, with the framing: a burst has one read and many chunks.
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER_BYTES and chunks and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def _is_tapped(self, tap: Tap) -> bool:
        """Whether the tap has dealt with the one chunk that there is; not where the read is given up already."""
        if self._waiter is None or self._waiter.done() or not tap(self._chunks[0]):
            return False
        self._chunks.clear()
        self._buffered = 0
        return True

    def eof_received(self) -> bool:
        """See asyncio.Protocol: nothing more will come, so let the transport close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed = True
        if not self._complete and self._error is None:
            if self._head_done and self._until_close and error is None:
                self._complete = True
            else:
                answered = self._head_done or self._bare_bytes > 0
                self._error = ConnectionBroken("the connection ended before the response did", answered=answered)
        self._wake()

    def _break(self, error: TransportError) -> None:
        self._error = error
        self._tap = None
        self._reusable = False
        self.abort()

    # --- httptools' side --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A response begins; behind a complete one it is garbage."""
        if self._complete:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, its name in the server's spelling."""
        if self._complete or self._head_done:
            # Behind the end, or a trailer of a chunked body: nothing that we use comes there.
            return
        name = name.lower()
        # llhttp takes off the blanks before a value, and leaves those behind it.
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name == b"content-length":
            self._framed = True
        elif name == b"transfer-encoding":
            # Two lengths, or a length beside an encoding, llhttp refuses by itself.
            if self._framed or value.lower() != b"chunked":
                raise BadResponse("the response has a transfer-encoding other than chunked")
            self._framed = True

    def on_headers_complete(self) -> None:
        """The head is whole; an interim response (1xx) is passed over."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status == 101:
            raise BadResponse("the server switched protocols, which nobody asked for")
        if status < 100:
            raise BadResponse("the response has a status below 100")
        if status < 200:
            return
        if self._bare_bytes > MAX_HEAD_BYTES and sum([len(n) + len(v) for n, v in self.headers]) > MAX_HEAD_BYTES:
            raise _too_large()
        self.status = status
        self._head_done = True
        self._until_close = not self._framed and status not in _NO_BODY
        if self._head_only:
            # The parser, which can't be told, waits for a body now: it is fit for nothing more.
            self._complete = True
            self._end = 0
            self._reusable = False

    def on_message_complete(self) -> None:
        """The response is whole, or an interim one is over and the real one is awaited."""
        if self._complete:
            return
        if not self._head_done:
            self.headers = []
            self._framed = False
            return
        self._complete = True
        self._end = len(self._chunks)
        if not self._parser.should_keep_alive():
            self._reusable = False


def _bad(error: Exception) -> TransportError:
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
    return cause if isinstance(cause, TransportError) else BadResponse("the response is no valid HTTP/1.1")


def _too_large() -> BadResponse:
    return BadResponse(f"the response has more than {MAX_HEAD_BYTES} bytes that are no body")
