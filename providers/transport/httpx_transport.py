"""The lean pool behind httpx's transport interface, with httpx's own exceptions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx

from providers.transport.errors import BadResponse, ConnectFailed, ConnectionBroken, NotAllowed, TransportError
from providers.transport.pool import Allow, Pool, PooledResponse

__all__ = ["LeanTransport"]

_OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_DEFAULT_CONNECT_S = 5.0
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_TARGET = re.compile(rb"/[!-~]*")


def _anywhere(_: str, __: object) -> None:
    """The rule of a client that may connect to any origin."""


class LeanTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=LeanTransport())`: the pool's economy for every httpx user.

    Request bodies are read whole before they are sent; `host` is always the URL's. Of httpx's timeouts `connect`
    (5 seconds if there is none) and `read` are kept.
    """

    def __init__(self, pool: Pool | None = None, allow: Allow = _anywhere) -> None:
        self._pool = pool if pool is not None else Pool(allow)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        _check(request)
        timeouts = request.extensions.get("timeout", {})
        url = request.url
        host = f"[{url.host}]" if ":" in url.host else url.host
        origin = f"{url.scheme}://{host}" + (f":{url.port}" if url.port is not None else "")
        lines = [
            f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n"
            for name, value in request.headers.raw
            if name.lower() not in _OURS
        ]
        body = await request.aread()
        try:
            response = await self._pool.send(
                origin,
                request.method,
                url.raw_path.decode("ascii"),
                "".join(lines),
                body,
                timeouts.get("connect") or _DEFAULT_CONNECT_S,
                request.extensions,
                timeouts.get("read"),
            )
        except TimeoutError as error:
            raise httpx.ReadTimeout("no response in time", request=request) from error
        except TransportError as error:
            raise _as_httpx(error, request) from error
        stream = _Body(response, timeouts.get("read"), request)
        extensions = {"http_version": b"HTTP/1.1"}
        return httpx.Response(response.status, headers=list(response.headers), stream=stream, extensions=extensions)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: PooledResponse, read_s: float | None, request: httpx.Request) -> None:
        self._response = response
        self._read_s = read_s
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._read_s):
                    data = await self._response.read()
            except TimeoutError as error:
                raise httpx.ReadTimeout("the response fell silent", request=self._request) from error
            except TransportError as error:
                raise _as_httpx(error, self._request) from error
            if not data:
                return
            yield data

    async def aclose(self) -> None:
        self._response.close()


def _check(request: httpx.Request) -> None:
    """Raise LocalProtocolError for what would be read as something else on the wire; its words quote no value."""
    if not _TOKEN.fullmatch(request.method.encode()) or not _TARGET.fullmatch(request.url.raw_path):
        raise httpx.LocalProtocolError("the method or the path can't be sent", request=request)
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise httpx.LocalProtocolError("a header has a name or a value that can't be sent", request=request)


def _as_httpx(error: TransportError, request: httpx.Request) -> httpx.RequestError:
    match error:
        case ConnectFailed(timed_out=True):
            return httpx.ConnectTimeout(str(error), request=request)
        case ConnectFailed() | NotAllowed():
            return httpx.ConnectError(str(error), request=request)
        case ConnectionBroken():
            return httpx.ReadError(str(error), request=request)
        case BadResponse():
            return httpx.RemoteProtocolError(str(error), request=request)
        case _:
            return httpx.TransportError(str(error), request=request)
