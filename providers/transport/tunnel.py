"""Open a tunnel through an HTTP proxy with CONNECT (RFC 9110, section 9.3.6).

The proxy sees the name of the host and the port, and then the bytes of TLS between the two ends.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from urllib.parse import urlsplit

from providers.transport.connection import MAX_HEAD_BYTES, Connection
from providers.transport.errors import ConnectFailed, reason_of
from providers.transport.tls import Link

END_OF_HEAD = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")
_PORTS = {"https": 443, "http": 80}


def address_of(origin: str) -> tuple[str, int]:
    parts = urlsplit(origin)
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def connect_request(origin: str, link: Link) -> bytes:
    """Return the request for a tunnel to the origin, with the credentials of the proxy."""
    host, port = address_of(origin)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    credentials = f"proxy-authorization: {link.authorization}\r\n" if link.authorization else ""
    return f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{credentials}\r\n".encode("latin-1")


def check_reply(received: bytes) -> bool:
    """Return whether the head of a proxy's answer is complete, and allows the tunnel.

    Raises ConnectFailed if the proxy refuses the tunnel, or if this is not a proxy. No text of the proxy is repeated.
    """
    head, end, behind = received.partition(END_OF_HEAD)
    if not end:
        if len(received) > MAX_HEAD_BYTES:
            raise ConnectFailed("the answer of the proxy has no end")
        return False
    status = _STATUS.match(head + b"\r\n")
    if status is None:
        raise ConnectFailed("the answer of the proxy is not HTTP/1.1")
    code = int(status[1])
    if code == 407:
        raise ConnectFailed("the proxy refuses the credentials, or requires some (407)", is_refused=True)
    if not 200 <= code < 300:
        raise ConnectFailed(f"the proxy opens no tunnel: it answered {code}", is_refused=400 <= code < 500)
    if behind:
        # The other end of the tunnel does not speak first: these bytes are of the proxy.
        raise ConnectFailed("the proxy sent bytes before the tunnel was used")
    return True


class _Tunnel(asyncio.Protocol):
    """Waits for the proxy's answer. Then another protocol takes the transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_open: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by how it was made

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            if not self.is_open.done() and check_reply(self._received):
                # Later bytes belong to the next protocol.
                self._transport.pause_reading()
                self.is_open.set_result(None)
        except ConnectFailed as error:
            self.is_open.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(ConnectFailed("the proxy closed the connection without an answer"))


async def connect_through(
    sock: socket.socket, origin: str, link: Link, connection: Connection, context: ssl.SSLContext | None
) -> None:
    """Connect to an origin over a socket that is connected to the proxy of the link.

    Without a context, the origin is not reached with TLS. Raises ConnectFailed if the proxy refuses, and OSError if TLS
    fails.
    """
    loop = connection.loop
    host, _ = address_of(link.proxy)
    proxy_tls = link.proxy_tls
    name = host if proxy_tls is not None else None
    try:
        transport, tunnel = await loop.create_connection(
            lambda: _Tunnel(loop), sock=sock, ssl=proxy_tls, server_hostname=name
        )
    except (OSError, RuntimeError) as error:
        raise ConnectFailed(f"TLS with the proxy failed: {reason_of(error)}") from error
    try:
        transport.write(connect_request(origin, link))
        await tunnel.is_open
        inner: asyncio.Transport | None = transport
        if context is not None:
            host, _ = address_of(origin)
            inner = await loop.start_tls(transport, connection, context, server_hostname=host)
            if inner is None:
                raise ConnectFailed("the tunnel ended before TLS began")
            connection.connection_made(inner)
        else:
            transport.set_protocol(connection)
            connection.connection_made(transport)
            transport.resume_reading()
    except BaseException:
        transport.abort()
        raise
