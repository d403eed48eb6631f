"""The way out: what a transport must do, and our lean pool behind it. Nothing gets through without its permit.

What goes wrong comes back as a `Failure`: the names of the libraries stop here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gateway.execution.reply import Reply
from gateway.model.permit import AnyPermit, Permit, ServicePermit
from providers.exchange import MAX_BODY_BYTES, TOO_LARGE
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport import (
    BadResponse,
    ConnectFailed,
    Connection,
    ConnectionBroken,
    NotAllowed,
    Pool,
    Recheck,
    Tap,
    TooLarge,
    TransportError,
)
from providers.transport.decoding import Decoder, decoder_for
from providers.values import maker
from providers.wire import WireResponse

Headers = Sequence[tuple[str, str]]
_PERMITS = (Permit, ServicePermit)
# Decompressed at once: a thousand times as much may come of it.
_PACKED_BYTES = 4096
TURN_BYTES = 64 * 1024
"""Handed out at once: what is made of it takes its time, up to a microsecond a byte where each is a line."""
_response = maker(WireResponse)


class FenceBreach(RuntimeError):
    """Something tried to send where it may not; nothing was sent. A bug or an attack, never a provider's failure."""


class Withdrawn(Exception):
    """What was allowed is so no more, as was found before a byte of it was sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Headers that open doors, checked, and the same as they are sent."""

    headers: Headers = field(repr=False)
    lines: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What stands before the body of a request to one origin, checked, but for its credential and its length.

    headers: the adapter's and our own. start: all of it as it is sent, see `request_start`.
    """

    origin: str
    method: str
    target: str
    headers: Headers = field(repr=False)
    start: bytes = field(repr=False)


class Transport(Protocol):
    """Opens requests to permitted origins."""

    async def send(
        self,
        permit: AnyPermit,
        head: RequestHead,
        credential: Credential,
        body: bytes,
        connect_s: float,
        recheck: Recheck | None = None,
    ) -> Reply:
        """The response's head; raises ProviderFailed, or FenceBreach if the permit isn't for the head's origin.

        recheck: asked once more where a connection had to be made; what it raises comes through.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


def allow(origin: str, permit: object) -> None:
    """The pool's rule: a permit for exactly this origin; raises NotAllowed."""
    if not isinstance(permit, _PERMITS) or permit.origin != origin:
        raise NotAllowed("a request without a permit for its origin was stopped")


def no_more_room(detail: str) -> Failure:
    """What it comes to where no connection can be made to anybody: no provider's failure."""
    message = "this gateway has as many connections open as its system lets it"
    return Failure(FailureKind.OVERLOADED, message, detail, unsent=True)


class LeanTransport:
    """Our own pool: the default. `clock` is Unix time, for `Reply.received_at`."""

    def __init__(self, pool: Pool | None = None, clock: Callable[[], float] = time.time) -> None:
        self._pool = pool or Pool(allow)
        self._clock = clock

    async def send(
        self,
        permit: AnyPermit,
        head: RequestHead,
        credential: Credential,
        body: bytes,
        connect_s: float,
        recheck: Recheck | None = None,
    ) -> Reply:
        """See Transport."""
        start = head.start + credential.lines
        opening = self._pool.open(head.origin, start, body, connect_s, permit, recheck=recheck)
        del body  # else it would be held here until the provider answers
        try:
            connection = await opening
        except NotAllowed as error:
            raise FenceBreach(str(error)) from error
        except TransportError as error:
            raise ProviderFailed(_failure(error)) from error
        return _Pooled(self._pool, head.origin, connection, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Pooled(Reply):
    """What comes on a pool's connection, decoded."""

    __slots__ = ("_connection", "_decoder", "_origin", "_packed", "_pool", "_rest", "_rest_at")

    def __init__(self, pool: Pool, origin: str, connection: Connection, received_at: float) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = connection
        self._decoder: Decoder | None = None
        # What has been taken from the connection and not decompressed yet.
        self._packed = b""
        # What has been taken, or decompressed, and is handed out from this place on.
        self._rest = b""
        self._rest_at = 0
        self.status = connection.status
        self.headers = headers = connection.headers
        self.received_at = received_at
        if "content-encoding" in headers:
            try:
                self._decoder = decoder_for(headers["content-encoding"])
            except BadResponse as error:
                self._let_go()
                raise ProviderFailed(_failure(error)) from error

    @property
    def is_read(self) -> bool:
        return self._connection is None or (self._connection.is_read and not self._packed and not self._rest)

    async def read(self, tap: Tap | None = None) -> bytes:
        if self._rest:
            # Others have their turn before the next piece.
            await asyncio.sleep(0)
            return self._turn()
        data: bytes | None = None
        try:
            if self._decoder is not None:
                data = await self._decoded(self._decoder)
            while data is None and (connection := self._connection) is not None:
                if (data := connection.take()) is None:
                    await connection.more(tap)
        except TransportError as error:
            raise ProviderFailed(_failure(error)) from error
        if data is None or len(data) <= TURN_BYTES:
            return data or b""
        self._rest, self._rest_at = data, 0
        return self._turn()

    def _turn(self) -> bytes:
        """The next piece of what is there already; none of it once the reply is closed."""
        rest, start = self._rest, self._rest_at
        end = self._rest_at = start + TURN_BYTES
        if end >= len(rest) or self._connection is None:
            self._rest = b""
        return rest[start:end] if self._connection is not None else b""

    async def _decoded(self, decoder: Decoder) -> bytes:
        while (connection := self._connection) is not None:
            if self._packed:
                # What a piece comes to takes its time: others have their turn before the next one.
                await asyncio.sleep(0)
            elif data := connection.take():
                self._packed = data
            elif data is None:
                await connection.more()
                continue
            else:
                decoder.finish()
                break
            piece, self._packed = self._packed[:_PACKED_BYTES], self._packed[_PACKED_BYTES:]
            if decoded := decoder.feed(piece, MAX_BODY_BYTES):
                return decoded
        return b""

    async def read_whole(self) -> WireResponse:
        connection = self._connection
        if connection is None or connection.end < 0 or self._decoder is not None:
            return await super().read_whole()
        # Most answers that are one JSON come at once.
        body = connection.take() or b""
        if len(body) > MAX_BODY_BYTES:
            raise ProviderFailed(TOO_LARGE)
        self._connection = None
        self._pool.take_back(self._origin, connection)
        return _response(self.status, self.headers, body, self.received_at)

    async def close(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # From here on it is another request's.
            self._pool.take_back(self._origin, connection)


def _failure(error: TransportError) -> Failure:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case ConnectFailed(is_ours=True):
            return no_more_room(detail)
        case ConnectFailed():
            return Failure(FailureKind.CONNECT, "the provider could not be reached", detail, unsent=True)
        case ConnectionBroken(answered=False):
            return Failure(FailureKind.CONNECT, "the connection to the provider broke before it answered", detail)
        case ConnectionBroken():
            return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", detail)
        case TooLarge():
            return replace(TOO_LARGE, detail=detail)
        case _:
            return Failure(FailureKind.MALFORMED, "the provider's answer is no valid HTTP", detail)
