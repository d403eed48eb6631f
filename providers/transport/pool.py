"""A lean pool of HTTP/1.1 connections. Only this module opens connections.

Each origin has idle connections of its own, and the last used is reused first. A request is sent once, on an idle
connection or on a new one: there is no queue, and nothing is scanned. The caller decides whether it is
sent again, because it pays for it (`ConnectionBroken.was_kept`).
Redirects are not followed, and no proxy is used except that of the request's link. Names are resolved for each new
connection, connections have a largest age, and address families are raced (RFC 8305). `allow` decides which origins
may be connected to, and is asked first.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from providers.transport.connection import BodyPiece, Connection
from providers.transport.dial import Names, check_remote, first_socket
from providers.transport.errors import ConnectFailed, ConnectionBroken, lacks_room, reason_of
from providers.transport.pacing import Pacer
from providers.transport.tls import Key, Link, tls_context
from providers.transport.tunnel import address_of, connect_through

Allow = Callable[[str, object, str], None]
"""Called with the origin, the caller's permit and the proxy, which may be empty.

Raises NotAllowed if the connection may not be made.
"""
Recheck = Callable[[], None]
"""Called when a new connection stands, before a byte is sent. Raises if the request may no longer be sent."""

_CLOSING_S = 2.0
"""A connection that the server has closed before it got a request ends within a round trip."""
_IDLE_S = 30.0
_LONGEST_S = 300.0
"""The largest age of a connection: an older one may lead to an address that its name no longer has."""
_MAX_IDLE_PER_ORIGIN = 256
_MAX_CONNECTIONS = 16_384
_MOST_GIVING_WAY = 8
"""The most idle connections closed to make room for a new one.

Others may take the room first, and a closed port stays in use for a while.
"""


def request_start(origin: str, method: str, target: str, headers: str) -> bytes:
    """Return the head of a request up to `content-length`, for `PoolRequest.start`. It can be used again and again.

    The target is path and query in visible ASCII. The header lines end with CRLF, without `host` and `content-length`.
    """
    host = origin.partition("://")[2]
    return f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{headers}".encode("latin-1")


@dataclass(slots=True, repr=False)
class PoolRequest:
    """One request for `Pool.open`, which consumes it: the body is taken out."""

    origin: str
    start: bytes
    """The head before `content-length`, see `request_start`."""
    body: bytes
    connect_s: float
    """Limit for DNS, TCP and TLS together."""
    permit: object
    """The caller's permit, which the pool's `allow` gets with the origin."""
    recheck: Recheck | None = None
    """A function that is called when a new connection stands. Its exceptions are passed on."""
    link: Link | None = None
    """How its connection is made, or None for a direct one with the public authorities."""
    head_only: bool = False
    """Whether the response has no body (HEAD)."""
    is_sent: bool = False
    """Whether a connection got the request."""
    anew: bool = False
    """Whether the request must be sent on a new connection."""
    rest: tuple[BodyPiece, ...] = ()
    """Further pieces of the body, which are sent after it without being copied."""

    def __repr__(self) -> str:
        """Show neither the head, which holds a key, nor the body, which holds a prompt."""
        return f"PoolRequest(origin={self.origin!r}, connect_s={self.connect_s!r}, permit={self.permit!r})"


class Pool:
    """Connections to any number of origins, for one event loop."""

    def __init__(self, allow: Allow, tls: ssl.SSLContext | None = None) -> None:
        self._allow = allow
        self._tls = tls
        self._names = Names()
        self._pacer = Pacer()
        self._idle: dict[Key, deque[Connection]] = {}
        self._open = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(self, request: PoolRequest) -> Connection:
        """Send a whole request and return its connection when the head of the response has arrived.

        The connection must be given back with `take_back`. How long the server may take to answer is the caller's to
        limit. Raises TransportError if no head arrived, or if `allow` refused the origin.
        """
        origin, link = request.origin, request.link
        self._allow(origin, request.permit, "" if link is None else link.proxy)
        key = origin if link is None else (origin, link)
        kept = None if request.anew else self._take(key)
        connection = kept or await self._new(key, request)
        sent_at = connection.loop.time()
        try:
            # The loop's transport holds what the system has not taken yet: the whole need not be held for an answer.
            await self._begin(connection, request)
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, ConnectionBroken) and kept is not None:
                error.was_kept = not error.answered and kept.loop.time() - sent_at <= _CLOSING_S
            raise
        return connection

    async def _new(self, key: Key, request: PoolRequest) -> Connection:
        """Return a new connection on which the request may still be sent."""
        connection = await self._connect(key, request.connect_s)
        if request.recheck is not None:
            try:
                request.recheck()
            except BaseException:
                # No byte was sent on it: another request can use it.
                self.take_back(connection)
                raise
        return connection

    def _begin(self, connection: Connection, request: PoolRequest) -> asyncio.Future[None]:
        """Send a request, whose body is taken out of it. The future is done when the head of the response is there."""
        body, request.body = request.body, b""
        rest, request.rest = request.rest, ()
        request.is_sent = True
        size = len(body) + sum(map(len, rest)) if rest else len(body)
        data = b"%bcontent-length: %d\r\n\r\n%b" % (request.start, size, body)
        waiter = connection.begin(data, head_only=request.head_only)
        if rest:
            connection.send_rest(rest, self._pacer)
        return waiter

    def take_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it can be reused."""
        idle = self._idle.get(connection.key)
        if idle is None:
            idle = self._idle[connection.key] = deque()
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
        """Close every idle connection. Connections in use are dropped when they come back."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                self._drop(connection)
        self._idle.clear()

    def _take(self, key: Key) -> Connection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            # It was reusable when it came back, and data since then has closed it. Data that the loop has not read yet
            # is an end or an unsolicited answer: another request must not get it.
            if not connection.closed and not connection.pending(0) and not connection.transport.is_closing():
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        self._open -= 1
        connection.abort()

    def _sweep(self) -> None:
        """Close connections that were idle for long.

        The server may have dropped them, and would answer with a reset.
        """
        loop = asyncio.get_running_loop()
        oldest_kept = loop.time() - _IDLE_S
        for key, connections in list(self._idle.items()):
            while connections and (connections[0].idle_since <= oldest_kept or connections[0].closed):
                self._drop(connections.popleft())
            if not connections:
                del self._idle[key]
        self._sweeper = loop.call_later(_IDLE_S / 2, self._sweep) if self._idle else None

    def _make_room(self) -> bool:
        """Close an idle connection of any origin; return False if there is none."""
        for connections in self._idle.values():
            if connections:
                self._drop(connections.popleft())
                return True
        return False

    async def _connect(self, key: Key, connect_s: float) -> Connection:
        if self._open >= _MAX_CONNECTIONS and not self._make_room():
            raise ConnectFailed(f"{_MAX_CONNECTIONS} connections are open already", is_ours=True)
        self._open += 1
        try:
            async with asyncio.timeout(connect_s):
                return await self._with_room(key)
        except TimeoutError:
            self._open -= 1
            raise ConnectFailed(f"no connection{_by(key)} within {connect_s:g} seconds", timed_out=True) from None
        except (OSError, ValueError, RuntimeError) as error:
            # uvloop raises RuntimeError where asyncio raises OSError.
            self._open -= 1
            reason = f"{type(error).__name__}: {reason_of(error)}{_by(key)}"
            raise ConnectFailed(reason, is_ours=lacks_room(error)) from error
        except BaseException:
            self._open -= 1
            raise

    async def _with_room(self, key: Key) -> Connection:
        """Open a connection. If the system has no room for it, close idle connections first."""
        for _ in range(_MOST_GIVING_WAY):
            try:
                return await self._open_connection(key)
            except (OSError, RuntimeError) as error:
                if not lacks_room(error) or not self._make_room():
                    raise
            # Its file is closed in one of the loop's next iterations.
            await asyncio.sleep(0)
        return await self._open_connection(key)

    async def _open_connection(self, key: Key) -> Connection:
        loop = asyncio.get_running_loop()
        origin, link = (key, None) if isinstance(key, str) else key
        proxy = link.proxy if link is not None else ""
        context = self._context(link) if origin.startswith("https:") else None
        addresses = await self._names.addresses(*address_of(proxy or origin))
        if link is not None and link.is_remote and not proxy:
            check_remote(addresses)
        sock = await first_socket(addresses)
        connection = Connection(loop, key)
        try:
            if link is not None and proxy:
                await connect_through(sock, origin, link, connection, context)
            else:
                name = address_of(origin)[0] if context is not None else None
                await loop.create_connection(lambda: connection, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            # The socket's transport closes it. If a cancellation meets the end of a TLS handshake, asyncio's transport
            # still exchanges the closing messages. If the socket were closed meanwhile, its number could belong to
            # another connection, which then could not be made.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            raise
        connection.watch(sock)
        return connection

    def _context(self, link: Link | None) -> ssl.SSLContext:
        if link is not None and (own := link.tls) is not None:
            return own
        if self._tls is None:
            self._tls = tls_context()
        return self._tls


def _by(key: Key) -> str:
    return " through the proxy" if not isinstance(key, str) and key[1].proxy else ""
