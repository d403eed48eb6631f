"""Send requests over a connection pool, and read their responses as bytes."""

from __future__ import annotations

from providers.transport.connection import Connection
from providers.transport.pool import Pool, PoolRequest, request_start
from providers.transport.tls import Link


def anyone(_: str, __: object, ___: str) -> None:
    pass


class Response:
    """A response whose headers have arrived. `close` must always be called."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in connection.headers.pairs()]

    async def read(self) -> bytes:
        """Return the next bytes of the body as they arrive, empty at its end. Raises TransportError."""
        while (connection := self._connection) is not None:
            if (data := connection.take()) is not None:
                return data
            await connection.more()
        return b""

    def close(self) -> None:
        """Return the connection to the pool if the response was read to its end, otherwise drop it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.take_back(connection)


async def request(
    pool: Pool,
    origin: str,
    target: str = "/v1",
    headers: str = "a: b\r\n",
    body: bytes = b"{}",
    connect_s: float = 5,
    permit: object = None,
    method: str = "POST",
    link: Link | None = None,
) -> Response:
    """Return the response to one request."""
    start = request_start(origin, method, target, headers)
    request = PoolRequest(origin, start, body, connect_s, permit, None, link, head_only=method == "HEAD")
    return Response(pool, await pool.open(request))


async def send(pool: Pool, origin: str, body: bytes = b"{}", connect_s: float = 5, permit: object = None) -> Response:
    return await request(pool, origin, body=body, connect_s=connect_s, permit=permit)


async def ask(pool: Pool, origin: str, link: Link | None = None) -> bytes:
    """Run one exchange, read it to its end and return the connection."""
    response = await request(pool, origin, link=link)
    try:
        body = b""
        while data := await response.read():
            body += data
        return body
    finally:
        response.close()
