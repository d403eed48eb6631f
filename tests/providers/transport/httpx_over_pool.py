"""The connection pool as an httpx transport, so that one client can run over it and over httpx's own transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from providers.transport.errors import TransportError
from providers.transport.pool import Pool
from tests.providers.transport.pool_calls import Response
from tests.providers.transport.pool_calls import request as request_over

__all__ = ["PoolTransport"]

_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


class PoolTransport(httpx.AsyncBaseTransport):
    """An httpx transport over the pool. Request bodies are read completely before they are sent; `host` is always the
    URL's.
    """

    def __init__(self) -> None:
        self._pool = Pool(lambda *_: None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        url = request.url
        origin = f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port is not None else "")
        lines = "".join(
            f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n"
            for name, value in request.headers.raw
            if name.lower() not in _OURS
        )
        target, body = url.raw_path.decode("ascii"), await request.aread()
        try:
            response = await request_over(self._pool, origin, target, lines, body, method=request.method)
        except TransportError as error:
            raise httpx.TransportError(str(error), request=request) from error
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response, request))

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := await self._response.read():
                yield data
        except TransportError as error:
            raise httpx.TransportError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        self._response.close()
