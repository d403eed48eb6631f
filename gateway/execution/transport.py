"""The `Transport` protocol, with the connection pool as its default. Nothing is sent without a permit.

Errors of the libraries are translated to `Failure` here, so no other module knows the libraries.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from gateway.execution.deadline import TimeLimit
from gateway.execution.upstream_request import FenceBreach, UpstreamRequest
from gateway.model.config_version import ConfigVersion
from gateway.model.permit import Permit, ServicePermit
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.response_reader import MAX_BODY_BYTES, TOO_LARGE
from providers.transport.connection import Connection, Tap
from providers.transport.decoding import Decoder, decoder_for
from providers.transport.errors import BadResponse, ConnectFailed, ConnectionBroken, NotAllowed, TransportError
from providers.transport.pool import Pool, PoolRequest
from providers.wire import WireResponse

_Result = TypeVar("_Result")
TURN_BYTES = 64 * 1024
"""The largest piece that is handed out at once: parsing it takes up to a microsecond per byte."""
_LITTLE_BYTES = 8 * 1024
_MOST_LINES = 192
"""The most line ends in a piece of more than a little: an event of some words costs more than its bytes."""


def piece_bytes(data: bytes, start: int) -> int:
    """Return how much of a body from `start` on may be parsed in one turn of the loop: less of many small events."""
    most = min(len(data) - start, TURN_BYTES)
    lines = data.count(b"\n", start, start + most)
    return most if lines <= _MOST_LINES else max(most * _MOST_LINES // lines, 1)


_PERMITS = (Permit, ServicePermit)
_REHEARSED = "a rehearsal (`gateway serve --simulated`) calls its simulators only"
_MAX_REFUSAL_BYTES = 1024 * 1024
# The most that is decompressed in one turn of the loop. Highly compressed data consists of the shortest lines.
_UNPACKED_BYTES = 16 * 1024
# The decoder copies what it has not decompressed yet.
_PACKED_BYTES = 4096


class Transport(Protocol):
    """Sends requests to permitted origins."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the request, which is consumed, and return the response when its head has arrived.

        Raises ProviderFailed without a head, and FenceBreach if the permit is not for the origin of the request.
        """

    async def aclose(self) -> None:
        """Close every connection."""


class Body(Protocol):
    """A source of response bytes."""

    @property
    def is_read(self) -> bool:
        """Whether it is known that nothing is left to read."""

    async def read(self, tap: Tap | None = None, /) -> bytes:
        """Return the next bytes, none at the end; raise ProviderFailed. See UpstreamResponse."""

    async def close(self) -> None:
        """Return the connection to the pool, or drop it."""


class UpstreamResponse(ABC):
    """The head of a response, and its body as it arrives. `close` must be called, also after a failure.

    Headers and `received_at` are as in `WireResponse`.
    """

    __slots__ = ("headers", "received_at", "status")

    status: int
    headers: Mapping[str, str]
    received_at: float

    @property
    def is_read(self) -> bool:
        """Whether it is known that nothing of the body is left to read. If False, a read finds out."""
        return False

    @abstractmethod
    async def read(self, tap: Tap | None = None, /) -> bytes:
        """Return the next decoded bytes of the body, empty at its end; raise ProviderFailed if it breaks off.

        A transport may offer the tap chunks that arrive while this waits, or return them all.
        """

    @abstractmethod
    async def close(self) -> None:
        """Return the connection to the pool, or drop it if the body was not read to its end."""

    @property
    def head(self) -> WireResponse:
        """The response without its body."""
        return WireResponse(self.status, self.headers, b"", self.received_at)

    @property
    def is_refusal(self) -> bool:
        """Whether the status is an error or a redirect, so that no answer follows."""
        return not 200 <= self.status < 300

    async def read_refusal(self, limit: TimeLimit) -> WireResponse:
        """Return a refusal with as much of its body as arrives within the limit.

        The status decides, so a body that hangs, breaks off or never ends changes nothing.
        """
        body = b""
        with suppress(TimeoutError, ProviderFailed), limit:
            while len(body) < _MAX_REFUSAL_BYTES and (piece := await self.read()):
                body += piece
        return WireResponse(self.status, self.headers, body, self.received_at)

    async def read_whole(self, most_bytes: int | None = None) -> WireResponse:
        """Return the whole response and close it; raise ProviderFailed if it breaks off or is too large.

        `most_bytes` is the bound of its body; None is that of any answer of a provider.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > (most_bytes or MAX_BODY_BYTES):
                raise ProviderFailed(TOO_LARGE)
        await self.close()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return WireResponse(self.status, self.headers, body, self.received_at)


def allow(origin: str, permit: object, proxy: str = "") -> None:
    """The pool's rule: raise NotAllowed unless the permit is for exactly this origin and this proxy (empty: none)."""
    if not isinstance(permit, _PERMITS) or permit.origin != origin or permit.proxy != proxy:
        raise NotAllowed("the request was stopped, because it has no permit for its origin and its proxy")


def local_resource_failure(detail: str) -> Failure:
    """Return the failure for a machine that cannot open more connections. The provider is not to blame."""
    message = "the gateway cannot open more connections: its operator should raise the system's limit of open files"
    return Failure(FailureKind.OVERLOADED, message, detail, unsent=True)


async def sent_anew(send: Callable[[bool], Awaitable[_Result]]) -> _Result:
    """Return the result of a call. If a kept connection ended under it, it is made again, on a new connection.

    `send` makes the call, with True on a new connection. Not for a `Run`, which records each sending as an attempt.
    """
    try:
        return await send(False)
    except ProviderFailed as error:
        if not error.failure.was_kept:
            raise
    return await send(True)


class PoolTransport:
    """The default transport: our own connection pool. `clock` is Unix time, for `UpstreamResponse.received_at`."""

    def __init__(self, pool: Pool | None = None, clock: Callable[[], float] = time.time) -> None:
        self._pool = pool or Pool(allow)
        self._clock = clock

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        head = request.head
        start = head.start + request.credential.lines
        body, request.body = request.body, b""
        rest, request.rest = request.rest, ()
        sent = request.pooled = PoolRequest(
            head.origin, start, body, request.connect_s, request.permit, request.recheck, request.link, rest=rest
        )
        # Only the pool holds the body from here on: no copy is kept while the provider thinks.
        del body, rest
        sent.anew = request.anew
        try:
            connection = await self._pool.open(sent)
        except NotAllowed as error:
            raise FenceBreach(str(error)) from error
        except TransportError as error:
            raise ProviderFailed(failure_of(error)) from error
        return _PoolResponse(self._pool, connection, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _PoolResponse(UpstreamResponse):
    """A response on a connection of the pool, decoded."""

    __slots__ = ("_connection", "_decoder", "_packed", "_pool", "_rest", "_rest_at")

    def __init__(self, pool: Pool, connection: Connection, received_at: float) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._decoder: Decoder | None = None
        # Taken from the connection and not decompressed yet.
        self._packed = b""
        # Taken, and handed out from this index on.
        self._rest = b""
        self._rest_at = 0
        self.status = connection.status
        self.headers = connection.headers
        self.received_at = received_at
        if connection.is_coded:
            try:
                self._decoder = decoder_for(connection.headers["content-encoding"])
            except BadResponse as error:
                self._give_back()
                raise ProviderFailed(failure_of(error)) from error

    @property
    def is_read(self) -> bool:
        if self._connection is None:
            return True
        is_unpacked = not self._packed and (self._decoder is None or not self._decoder.has_more)
        return self._connection.is_read and is_unpacked and not self._rest

    async def read(self, tap: Tap | None = None) -> bytes:
        if self._rest:
            # Let other tasks run before the next piece.
            await asyncio.sleep(0)
            return self._next_piece()
        data: bytes | None = None
        try:
            if self._decoder is not None:
                data = await self._decoded(self._decoder)
            while data is None and (connection := self._connection) is not None:
                if (data := connection.take()) is None:
                    await connection.more(tap)
        except TransportError as error:
            raise ProviderFailed(failure_of(error)) from error
        if data is None:
            return b""
        size = len(data)
        if size <= _LITTLE_BYTES or (size <= TURN_BYTES and data.count(b"\n") <= _MOST_LINES):
            return data
        self._rest, self._rest_at = data, 0
        return self._next_piece()

    def _next_piece(self) -> bytes:
        """Return the next piece of what has been taken; nothing once the response is closed."""
        rest, start = self._rest, self._rest_at
        end = self._rest_at = start + piece_bytes(rest, start)
        if end >= len(rest) or self._connection is None:
            self._rest = b""
        return rest[start:end] if self._connection is not None else b""

    async def _decoded(self, decoder: Decoder) -> bytes:
        while (connection := self._connection) is not None:
            if self._packed or decoder.has_more:
                # Decompressing a piece takes time: let other tasks run before the next one.
                await asyncio.sleep(0)
            elif data := connection.take():
                self._packed = data
            elif data is None:
                await connection.more()
                continue
            else:
                decoder.finish()
                break
            piece = b""
            if not decoder.has_more:
                piece, self._packed = self._packed[:_PACKED_BYTES], self._packed[_PACKED_BYTES:]
            if decoded := decoder.feed(piece, _UNPACKED_BYTES):
                return decoded
        return b""

    async def read_whole(self, most_bytes: int | None = None) -> WireResponse:
        connection = self._connection
        if connection is None or connection.end < 0 or self._decoder is not None:
            return await super().read_whole(most_bytes)
        # Most JSON answers arrive at once.
        body = connection.take() or b""
        if len(body) > (most_bytes or MAX_BODY_BYTES):
            raise ProviderFailed(TOO_LARGE)
        self._connection = None
        self._pool.take_back(connection)
        return WireResponse(self.status, self.headers, body, self.received_at)

    async def close(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # From here on the connection belongs to another request.
            self._pool.take_back(connection)


class SimulatorsOnly:
    """The transport of a rehearsal: it passes on only requests to the simulators of the active version."""

    def __init__(self, inner: Transport, current: Callable[[], ConfigVersion]) -> None:
        self._inner = inner
        self._current = current

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See `Transport`. Any other request fails as one to a host that cannot be reached."""
        simulated = (item.origin for item in self._current().deployments.values() if item.simulates is not None)
        if request.link is not None or request.head.origin not in simulated:
            raise ProviderFailed(Failure(FailureKind.CONNECT, _REHEARSED, _REHEARSED, unsent=True, should_retry=False))
        return await self._inner.send(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def failure_of(error: TransportError) -> Failure:
    """Return the failure that an error of a connection is."""
    detail = f"{type(error).__name__}: {error}"
    match error:
        case ConnectFailed(is_ours=True):
            return local_resource_failure(detail)
        case ConnectFailed():
            again = False if error.is_refused else None
            message = "the provider could not be reached"
            return Failure(FailureKind.CONNECT, message, detail, unsent=True, should_retry=again)
        case ConnectionBroken(answered=False):
            message = "the connection to the provider broke before it answered"
            kept, unsent = error.was_kept, not error.is_sent
            return Failure(FailureKind.CONNECT, message, detail, is_stated=False, was_kept=kept, unsent=unsent)
        case ConnectionBroken():
            return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", detail, is_stated=False)
        case _:
            return Failure(FailureKind.MALFORMED, "the provider's answer is not valid HTTP", detail)
