"""A lean pool of HTTP/1.1 connections: the one place that opens them.

Each origin has its own idle connections, the latest used first. A request goes out on one that is idle or on a new
one; there is no queue, and nothing is scanned. Redirects are an answer like any other, no proxy is ever used, names
are looked up for each connection that is made, of which none is used for ever, and address families are raced
(RFC 8305). Who may be connected to is not decided here: `allow` is asked before anything else happens.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import certifi

from providers.transport.connection import Connection
from providers.transport.errors import ConnectFailed, lacks_room
from providers.transport.names import Names
from providers.transport.race import first_socket

__all__ = ["Allow", "Pool", "PooledResponse", "Recheck", "request_start", "tls_context"]

Allow = Callable[[str, object], None]
"""Called with the origin and the caller's permit; raises NotAllowed where the connection may not be made."""
Recheck = Callable[[], None]
"""Called when a new connection stands, before a byte is sent on it; raises where none may be sent any more."""

_IDLE_S = 30.0
_LONGEST_S = 300.0
"""A connection that is never idle would go to where its name once pointed, and miss each move of its provider."""
_MAX_IDLE_PER_ORIGIN = 256
_MAX_CONNECTIONS = 16_384
_MOST_GIVING_WAY = 8
"""For one that is wanted: what they leave others may take first, and of ports a closed one leaves none for a while."""


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verified TLS for HTTP/1.1: Mozilla's roots (certifi), and those of `ca_file` besides."""
    context = ssl.create_default_context(cafile=certifi.where())
    # Debian's Python, for one, leaves it to OpenSSL, whose configuration may ask for more.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def request_start(origin: str, method: str, target: str, headers: str) -> bytes:
    """What stands before `content-length`, for `Pool.open`: it can be kept, and used for request after request.

    origin: `https://host`, `http://host:8000`. target: path and query, visible ASCII. headers: ready lines, each ended
    with CRLF, without `host` and `content-length`.
    """
    host = origin.partition("://")[2]
    return f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}".encode("latin-1")


class PooledResponse:
    """A response whose head has arrived. `close` must be called, however it ends."""

    __slots__ = ("_connection", "_origin", "_pool", "headers", "status")

    def __init__(self, pool: Pool, origin: str, connection: Connection) -> None:
        self._pool = pool
        self._origin = origin
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Sequence[tuple[bytes, bytes]] = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in connection.headers.pairs()
        ]

    async def read(self) -> bytes:
        """The body's next bytes as they came; empty at its end. Raises TransportError."""
        while (connection := self._connection) is not None:
            if (data := connection.take()) is not None:
                return data
            await connection.more()
        return b""

    def close(self) -> None:
        """Give the connection back if the response was read to its end, else drop it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # From here on the connection is another request's.
            self._pool.take_back(self._origin, connection)


class Pool:
    """Connections to any number of origins, for one event loop."""

    def __init__(self, allow: Allow, tls: ssl.SSLContext | None = None) -> None:
        self._allow = allow
        self._tls = tls
        self._names = Names()
        self._idle: dict[str, deque[Connection]] = {}
        self._open = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        origin: str,
        method: str,
        target: str,
        headers: str,
        body: bytes,
        connect_s: float,
        permit: object,
        head_s: float | None = None,
    ) -> PooledResponse:
        """The response to one request: see `request_start` and `open`."""
        start = request_start(origin, method, target, headers)
        connection = await self.open(origin, start, body, connect_s, permit, head_only=method == "HEAD", head_s=head_s)
        return PooledResponse(self, origin, connection)

    async def open(
        self,
        origin: str,
        start: bytes,
        body: bytes,
        connect_s: float,
        permit: object,
        *,
        head_only: bool = False,
        head_s: float | None = None,
        recheck: Recheck | None = None,
    ) -> Connection:
        """A connection on which a whole request has been sent, and the head of its response has come; it must be taken
        back. Raises TransportError. A connection that dies is an error, not a second try.

        start: see `request_start`. connect_s bounds DNS, TCP and TLS; head_s the wait for the response's head, and
        raises TimeoutError. What recheck raises comes through.
        """
        self._allow(origin, permit)
        request = b"%bcontent-length: %d\r\n\r\n%b" % (start, len(body), body)
        del body
        connection = self._take(origin)
        if connection is None:
            connection = await self._connect(origin, connect_s)
            if recheck is not None:
                try:
                    recheck()
                except BaseException:
                    # It is as good as before for a request that may be sent.
                    self.take_back(origin, connection)
                    raise
        try:
            begun = connection.begin(request, head_only=head_only)
            # What the system hasn't taken of it yet, the loop's transport holds: no need to hold it all for an answer.
            del request
            if head_s is None:
                await begun
            else:
                async with asyncio.timeout(head_s):
                    await begun
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def take_back(self, origin: str, connection: Connection) -> None:
        """Keep a connection for the next request, if it is fit for one."""
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = deque()
        now = connection.loop.time()
        is_old = now >= connection.made_at + _LONGEST_S
        if self._closed or is_old or not connection.reusable or len(idle) >= _MAX_IDLE_PER_ORIGIN:
            self._drop(connection)
            return
        connection.idle_since = now
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(_IDLE_S, self._sweep)

    async def aclose(self) -> None:
        """Close every idle connection; those in use are dropped when they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                self._drop(connection)
        self._idle.clear()

    def _take(self, origin: str) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            # It was fit when it came back, and whatever has come since has closed it. What the loop hasn't read yet is
            # an end or an answer to nothing: another request must not get it for its own.
            if not connection.closed and not connection.pending(0):
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        self._open -= 1
        connection.abort()

    def _sweep(self) -> None:
        """Close what has been idle for long: a server that forgot a connection would answer with a reset."""
        loop = asyncio.get_running_loop()
        oldest_kept = loop.time() - _IDLE_S
        for origin, connections in list(self._idle.items()):
            while connections and (connections[0].idle_since <= oldest_kept or connections[0].closed):
                self._drop(connections.popleft())
            if not connections:
                del self._idle[origin]
        self._sweeper = loop.call_later(_IDLE_S / 2, self._sweep) if self._idle else None

    def _make_room(self) -> bool:
        """Close an idle connection, whichever origin it is for; False if there is none."""
        for connections in self._idle.values():
            if connections:
                self._drop(connections.popleft())
                return True
        return False

    async def _connect(self, origin: str, connect_s: float) -> Connection:
        if self._open >= _MAX_CONNECTIONS and not self._make_room():
            raise ConnectFailed(f"{_MAX_CONNECTIONS} connections are open already", is_ours=True)
        self._open += 1
        try:
            async with asyncio.timeout(connect_s):
                return await self._with_room(origin)
        except TimeoutError:
            self._open -= 1
            raise ConnectFailed(f"no connection within {connect_s:g} seconds", timed_out=True) from None
        except (OSError, ValueError, RuntimeError) as error:
            # uvloop has RuntimeErrors where asyncio has OSErrors.
            self._open -= 1
            reason = f"{type(error).__name__}: {_reason(error)}"
            raise ConnectFailed(reason, is_ours=lacks_room(error)) from error
        except BaseException:
            self._open -= 1
            raise

    async def _with_room(self, origin: str) -> Connection:
        """Where the system has no room for a connection that is wanted, those that nobody needs now give way to it."""
        for _ in range(_MOST_GIVING_WAY):
            try:
                return await self._open_connection(origin)
            except (OSError, RuntimeError) as error:
                if not lacks_room(error) or not self._make_room():
                    raise
            # Its file is closed in one of the loop's next turns.
            await asyncio.sleep(0)
        return await self._open_connection(origin)

    async def _open_connection(self, origin: str) -> Connection:
        loop = asyncio.get_running_loop()
        parts = urlsplit(origin)
        host = parts.hostname or ""
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        if secure and self._tls is None:
            self._tls = tls_context()
        addresses = await self._names.addresses(host, port)
        sock = await first_socket(addresses)
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                sock=sock,
                ssl=self._tls if secure else None,
                server_hostname=host if secure else None,
            )
        except BaseException:
            _end(sock)
            raise
        connection.watch(sock)
        return connection


def _end(sock: socket.socket) -> None:
    """Have the socket's transport close it.

    Where a cancellation meets the end of a handshake, asyncio's says goodbye first and waits for an answer: were the
    socket closed meanwhile, its number would be another connection's, which then could not be made.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    """What the error says, without the address: names of hosts are the operator's to know, from its own config."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError | socket.gaierror):
        return error.strerror or "no reason was given"
    if isinstance(error, OSError):
        # Its own words would be asyncio's, which have the address.
        return os.strerror(error.errno) if error.errno else "no reason was given"
    return "invalid address"
