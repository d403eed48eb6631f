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
from providers.transport.headers import ResponseHeaders

__all__ = ["MAX_HEAD_BYTES", "Connection", "Tap"]

Tap = Callable[[bytes], bool]
"""Is offered each chunk that arrives by itself while a read waits; True: it is dealt with, and the read waits on."""

MAX_HEAD_BYTES = 64 * 1024
# Far below what one read of a burst brings: with that in hand, nothing further is read until it is dealt with.
_HIGH_WATER_BYTES = 64 * 1024
_NO_BODY = (204, 304)
_NOT_YET = -1


class Connection(asyncio.Protocol):
    """A connection that has been made; `begin` sends a request, `take` and `more` give its response's body.

    end: below 0 until the response has arrived to its end, read or not.
    pending: called with 0, whether the system has something of the server's that the loop hasn't read yet.
    """

    __slots__ = (
        "_bare_bytes",
        "_buffered",
        "_chunks",
        "_error",
        "_head_only",
        "_parser",
        "_paused",
        "_raw",
        "_reusable",
        "_tap",
        "_waiter",
        "closed",
        "end",
        "headers",
        "idle_since",
        "loop",
        "made_at",
        "on_body",
        "pending",
        "status",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.made_at = loop.time()
        self._chunks: list[bytes] = []
        # The parser calls this for each chunk of a body. A method would cost a frame for each event of a stream, and
        # what else there is to do `data_received` does once a read.
        self.on_body = self._chunks.append
        self.pending: Callable[[float], object] = lambda _: None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._tap: Tap | None = None
        self.closed = False
        self.idle_since = 0.0
        self._error: TransportError | None = None
        self._reusable = True
        self._head_only = self._paused = False
        self._bare_bytes = self._buffered = self.status = self.end = 0
        self._raw = b""
        self.headers = ResponseHeaders(b"")

    # --- for who uses the connection --------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the last response ended in good order, and nothing came behind it."""
        return (
            self._reusable
            and self.end >= 0
            and not self.closed
            and not self._paused
            and not self.transport.get_write_buffer_size()
        )

    @property
    def is_read(self) -> bool:
        """Whether the response has arrived to its end, and all of it has been taken."""
        return self.end >= 0 and not self._chunks

    def watch(self, sock: socket.socket) -> None:
        """This is the connection's socket: from now on `pending` looks at it, which costs a third of a microsecond."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.pending = poll.poll

    def begin(self, request: bytes, *, head_only: bool = False) -> asyncio.Future[None]:
        """Send a request; what is returned is done when the final status line and headers have come, or comes to a
        TransportError. The connection must be new or `reusable`. head_only: the response has no body (HEAD)."""
        self.status = 0
        self.end = _NOT_YET
        self._bare_bytes = self._buffered = 0
        self._chunks.clear()
        if head_only:
            self._head_only = True
        waiter = self._waiter = self.loop.create_future()
        if self.closed:
            # Lost between its making and now: nothing will come to tell of it.
            self._fail(ConnectionBroken("the connection ended before the request was sent", answered=False))
        else:
            self.transport.write(request)
        return waiter

    def take(self) -> bytes | None:
        """What has arrived of the body; None if that is nothing, empty at its end. Raises TransportError."""
        chunks = self._chunks
        if not chunks:
            if self.end >= 0:
                return b""
            if self._error is not None:
                raise self._error
            return None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._paused and self.end >= 0:
            self._read_on()
        return data

    def more(self, tap: Tap | None = None) -> asyncio.Future[None]:
        """Wait with this where `take` gave None, and then ask it again."""
        self._tap = tap
        waiter = self._waiter = self.loop.create_future()
        if self._paused:
            # Not before: who has taken a burst may not be rid of it for long, and would hold the next one too.
            self._read_on()
        return waiter

    def abort(self) -> None:
        """Drop the connection at once."""
        self.closed = True
        self.transport.abort()

    def _read_on(self) -> None:
        self._paused = False
        self.transport.resume_reading()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = self._tap = None
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: TransportError) -> None:
        self._error = error
        if self.status:
            # `take` raises it, behind what has come before.
            self._wake()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # --- asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by how it was made

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.end >= 0:
            # Nobody asked: whatever this is, it must not be taken for the answer to the next request.
            self._reusable = False
            self.abort()
            return
        chunks = self._chunks
        before = len(chunks)
        try:
            if not self.status:
                if not self._bare_bytes and not data.startswith(b"H"):
                    # llhttp would take RTSP and ICE, too.
                    raise BadResponse("the response doesn't begin with HTTP")
                self._raw += data
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError, BadResponse) as error:
            self._reusable = False
            if self.end < 0:
                self._break(_bad(error))
        if self.end >= 0:
            # What stands behind the end is no part of this body.
            del chunks[self.end :]
            self._wake()
            return
        if len(chunks) > before:
            self._bare_bytes = 0
            tap, waiter = self._tap, self._waiter
            # Not where the read is given up already.
            if tap is not None and len(chunks) == 1 and waiter is not None and not waiter.done() and tap(chunks[0]):
                chunks.clear()
                self._buffered = 0
                return
        else:
            self._bare_bytes += len(data)
            if self._bare_bytes > MAX_HEAD_BYTES and self._error is None:
                # A head without end, or interim responses, chunk extensions or trailers: none of them is a body's byte.
                self._break(_too_large())
        # Counted by the read rather than by the chunk, with the framing: a burst has one read and many chunks.
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER_BYTES and chunks and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        if self.status:
            self._wake()

    def eof_received(self) -> bool:
        """See asyncio.Protocol: nothing more will come, so let the transport close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed = True
        if self.end >= 0 or self._error is not None:
            return
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if error is None and self.status and self.status not in _NO_BODY and not framed:
            self.end = len(self._chunks)
            self._wake()
        else:
            answered = self.status > 0 or self._bare_bytes > 0
            self._fail(ConnectionBroken("the connection ended before the response did", answered=answered))

    def _break(self, error: TransportError) -> None:
        self._reusable = False
        self._tap = None
        self.abort()
        self._fail(error)

    # --- httptools' side --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A response begins; behind a complete one it is garbage."""
        if self.end >= 0:
            self._reusable = False

    def on_headers_complete(self) -> None:
        """The head is whole; an interim response (1xx) is passed over."""
        if self.end >= 0:
            return
        # The parser passes over empty lines in front.
        raw = self._raw.lstrip(b"\r\n")
        end = raw.index(b"\r\n\r\n")
        headers = ResponseHeaders(raw[: end + 2])
        # Two lengths, or a length beside an encoding, llhttp refuses by itself.
        if "transfer-encoding" in headers and headers["transfer-encoding"].lower() != "chunked":
            raise BadResponse("the response has a transfer-encoding other than chunked")
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise BadResponse("the server switched protocols, which nobody asked for")
            if status < 100:
                raise BadResponse("the response has a status below 100")
            self._raw = raw[end + 4 :]
            return
        if end > MAX_HEAD_BYTES:
            raise _too_large()
        self.headers = headers
        self.status = status
        self._raw = b""
        if self._head_only:
            # The parser, which can't be told, waits for a body now: it is fit for nothing more.
            self.end = 0
            self._reusable = False

    def on_message_complete(self) -> None:
        """The response is whole, or an interim one is over and the real one is awaited."""
        if self.end >= 0 or not self.status:
            return
        self.end = len(self._chunks)
        if not self._parser.should_keep_alive():
            self._reusable = False


def _bad(error: Exception) -> TransportError:
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
    return cause if isinstance(cause, TransportError) else BadResponse("the response is no valid HTTP/1.1")


def _too_large() -> BadResponse:
    return BadResponse(f"the response has more than {MAX_HEAD_BYTES} bytes that are no body")
