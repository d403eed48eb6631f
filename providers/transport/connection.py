"""One HTTP/1.1 connection as an asyncio protocol: one request at a time, its response parsed by httptools (llhttp).

Bytes are parsed as they arrive and handed over in batches. If the reader is slower than the provider, reading from the
socket pauses, so memory stays bounded. Data after the end of a response makes the connection unfit for reuse.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias

import httptools

from providers.transport.errors import BadResponse, ConnectionBroken, TransportError
from providers.transport.pacing import Pacer
from providers.transport.tls import Key

Tap = Callable[[bytes], bool]
"""Gets each chunk that arrives alone while a read waits.

If it returns True, it has taken the chunk, and the read waits on.
"""

MAX_HEAD_BYTES = 64 * 1024
# Far below what one read of a burst brings: nothing further is read until that is taken.
_HIGH_WATER_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024
"""The part of a large body that is written before others run: the system would take megabytes at once."""
_NO_BODY = (204, 304)
_NOT_YET = -1


class LatePiece(Protocol):
    """A piece of a body whose bytes are made when they are sent."""

    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def split(self, size: int) -> Iterable[LatePiece]:
        """Return pieces of at most this many bytes, which are the same together."""


BodyPiece: TypeAlias = bytes | memoryview | LatePiece


class Connection(asyncio.Protocol):
    """An open connection. `begin` sends a request; `take` and `more` return the body of its response.

    Attributes:
        key: The pool keeps the connection under this key.
        end: Below 0 until the response has arrived to its end, whether it was taken or not.
        pending: Called with 0, returns whether the system has received data that the loop has not read yet.
    """

    __slots__ = tuple(
        "_bare_bytes _buffered _chunks _error _head_only _pacer _parser _paused _raw _raw_start _reusable "
        "_tap _unsent _waiter _write_paused closed end headers idle_since is_coded key loop made_at on_body "
        "pending status transport".split()
    )

    transport: asyncio.Transport
    _pacer: Pacer

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Key = "") -> None:
        self.loop = loop
        self.key = key
        self.made_at = loop.time()
        self._chunks: list[bytes] = []
        # The parser calls this for each chunk of a body. A method would cost a frame for each event of a stream.
        # `data_received` does the rest once per read.
        self.on_body = self._chunks.append
        self.pending: Callable[[float], object] = lambda _: None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._tap: Tap | None = None
        self.closed = False
        self.idle_since = 0.0
        self._error: TransportError | None = None
        self._reusable = True
        self._head_only = self._paused = self._write_paused = False
        self._unsent: deque[memoryview | LatePiece] = deque()
        self._bare_bytes = self._buffered = self._raw_start = self.status = self.end = 0
        self._raw = b""
        self.headers = ResponseHeaders(b"")
        self.is_coded = False

    # --- the user's side --------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another request may follow. The last response must have ended in order, with nothing after it."""
        return (
            self._reusable
            and self.end >= 0
            and not self.closed
            and not self._paused
            and not self._unsent
            and not self.transport.get_write_buffer_size()
        )

    @property
    def is_read(self) -> bool:
        """Whether the response has arrived to its end, and all of it has been taken."""
        return self.end >= 0 and not self._chunks

    def watch(self, sock: socket.socket) -> None:
        """Let `pending` look at the connection's socket, which costs a third of a microsecond."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self.pending = poll.poll

    def begin(self, request: bytes, *, head_only: bool = False) -> asyncio.Future[None]:
        """Send a request. The future is done when the final status line and headers have arrived, or fails.

        The connection must be new or `reusable`. With `head_only`, the response has no body (HEAD).
        """
        self.status = 0
        self.end = _NOT_YET
        self._bare_bytes = self._buffered = self._raw_start = 0
        self._chunks.clear()
        if head_only:
            self._head_only = True
        waiter = self._waiter = self.loop.create_future()
        if self.closed:
            # It was lost since it was made: no callback will report that.
            why = "the connection ended before the request was sent"
            self._fail(ConnectionBroken(why, answered=False, is_sent=False))
        else:
            self.transport.write(request)
        return waiter

    def send_rest(self, pieces: Iterable[BodyPiece], pacer: Pacer) -> None:
        """Send more of the body, as fast as the provider takes it, in pieces between which other requests run."""
        self._pacer = pacer
        for piece in pieces:
            if isinstance(piece, bytes | memoryview):
                view = memoryview(piece)
                self._unsent += [view[at : at + _PIECE_BYTES] for at in range(0, len(view), _PIECE_BYTES)]
            else:
                self._unsent += piece.split(_PIECE_BYTES)
        self._send_next()

    def _send_next(self) -> None:
        if self._unsent and not self._write_paused:
            piece = self._unsent.popleft()
            self.transport.write(piece if isinstance(piece, memoryview) else bytes(piece))
            self._pacer.ask(self._send_next)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._unsent:
            self._pacer.ask(self._send_next)

    def take(self) -> bytes | None:
        """Return what has arrived of the body; None if that is nothing, empty at its end. Raise TransportError."""
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
        """Return a future to wait for if `take` returned None. Then call `take` again."""
        self._tap = tap
        waiter = self._waiter = self.loop.create_future()
        if self._paused:
            # Not earlier: the reader may still hold the burst that it took, and would hold the next one too.
            self._read_on()
        return waiter

    def abort(self) -> None:
        self.closed = True
        self._unsent.clear()
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
            # `take` raises it after the data that came before.
            self._wake()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # --- asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by how it was made

    def data_received(self, data: bytes) -> None:
        if self.end >= 0:
            # Unsolicited data must not be taken for the answer to the next request.
            self._reusable = False
            self.abort()
            return
        chunks = self._chunks
        before = len(chunks)
        try:
            if not self.status:
                if not self._bare_bytes and not data.startswith(b"H"):
                    # llhttp would accept RTSP and ICE, too.
                    raise BadResponse("the response doesn't begin with HTTP")
                self._raw += data
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError, BadResponse) as error:
            self._reusable = False
            if self.end < 0:
                cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
                bad = BadResponse("the response is not valid HTTP/1.1")
                self._break(cause if isinstance(cause, TransportError) else bad)
        if self.end >= 0:
            # Data after the end is not part of this body.
            del chunks[self.end :]
            self._wake()
            return
        if len(chunks) > before:
            self._bare_bytes = 0
            tap, waiter = self._tap, self._waiter
            # Not if the read was cancelled.
            if tap is not None and len(chunks) == 1 and waiter is not None and not waiter.done() and tap(chunks[0]):
                chunks.clear()
                self._buffered = 0
                return
        else:
            self._bare_bytes += len(data)
            if self._bare_bytes > MAX_HEAD_BYTES and self._error is None:
                # An endless head, interim responses, chunk extensions or trailers, without a byte of a body.
                self._break(_too_large())
        # Counted per read, with the framing, rather than per chunk: a burst has one read and many chunks.
        self._buffered += len(data)
        if self._buffered > _HIGH_WATER_BYTES and chunks and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        if self.status:
            self._wake()

    def eof_received(self) -> bool:
        """See asyncio.Protocol. Nothing more will come, so the transport may close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._unsent.clear()
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
        """Handle the beginning of a response. After a complete response it is unsolicited data."""
        if self.end >= 0:
            self._reusable = False

    def on_headers_complete(self) -> None:
        """Handle a complete head. An interim response (1xx) is skipped."""
        if self.end >= 0:
            return
        # The parser skips empty lines before the head.
        raw, start = self._raw, self._raw_start
        while raw[start] in b"\r\n":
            start += 1
        end = raw.index(b"\r\n\r\n", start)
        if end > MAX_HEAD_BYTES:
            # Interim responses before it count, too: a provider may send any number of them.
            raise _too_large()
        if not raw.startswith(b"HTTP/1.", start):
            # llhttp would accept 0.9 and 2.0, too.
            raise BadResponse("the response is not HTTP/1.1 or HTTP/1.0")
        headers = ResponseHeaders(raw[start : end + 2])
        # llhttp itself refuses two lengths, or a length together with an encoding.
        if "transfer-encoding" in headers and headers["transfer-encoding"].lower() != "chunked":
            raise BadResponse("the response has a transfer-encoding other than chunked")
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise BadResponse("the server switched protocols without being asked")
            if status < 100:
                raise BadResponse("the response has a status below 100")
            self._raw_start = end + 4
            return
        self.headers = headers
        self.is_coded = "content-encoding" in headers
        self.status = status
        self._raw = b""
        if self._head_only:
            # The parser cannot know that there is no body and waits for one: it cannot be used again.
            self.end = 0
            self._reusable = False

    def on_message_complete(self) -> None:
        """Handle the end of a response, or of an interim response before the final one."""
        if self.end >= 0 or not self.status:
            return
        self.end = len(self._chunks)
        if not self._parser.should_keep_alive():
            self._reusable = False


def _too_large() -> BadResponse:
    return BadResponse(f"the response has more than {MAX_HEAD_BYTES} bytes that are not part of its body")


class ResponseHeaders(Mapping[str, str]):
    """Headers of a response by lower-case name; repeated ones are joined with `, `. They are parsed on demand.

    A provider sends about twenty, of which three are read. A property test compares them with the parser's own result.
    """

    __slots__ = ("_all", "_lower", "_text")

    def __init__(self, head: bytes) -> None:
        """`head` begins with the status line. Each line has its CRLF, and the empty line is left out."""
        # In this encoding the lower-case text has the same length.
        self._text = head.decode("latin-1")
        self._lower = self._text.lower()
        self._all: dict[str, str] | None = None

    def __contains__(self, name: object) -> bool:
        return f"\r\n{name}:" in self._lower

    def __getitem__(self, name: str) -> str:
        line = f"\r\n{name}:"
        before, found, behind = self._lower.partition(line)
        if not found:
            raise KeyError(name)
        if line in behind:
            return self._joined()[name]
        start = len(before) + len(line)
        return self._text[start : start + behind.find("\r\n")].strip(" \t")

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined())

    def __len__(self) -> int:
        return len(self._joined())

    def _joined(self) -> dict[str, str]:
        if self._all is None:
            self._all = joined(self.pairs())
        return self._all

    def pairs(self) -> list[tuple[str, str]]:
        """Return all headers in their order."""
        lines = [line.partition(":") for line in self._text.split("\r\n")[1:-1]]
        return [(name.lower(), value.strip(" \t")) for name, _, value in lines]


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name. The values of a repeated header are joined with `, ` (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
