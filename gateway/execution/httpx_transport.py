"""The `Transport` protocol over httpx: for `GATEWAY_TRANSPORT=httpx`, and for tests.

Only this module imports httpx, and it is imported on demand, which saves each worker the memory.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import httpcore
import httpx

from gateway.execution.transport import UpstreamResponse, allow, failure_of, local_resource_failure
from gateway.execution.upstream_request import FenceBreach, UpstreamRequest
from gateway.model.permit import EXTENSION
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport import ConnectFailed, Link, NotAllowed, Tap, lacks_room, tls_context
from providers.transport.connection import joined
from providers.transport.dial import Names
from providers.transport.tunnel import address_of, check_reply, connect_request

_LINK = "gateway.link"
"""The key of a link in the `extensions` of an httpx request."""


def plain_httpx() -> HttpxTransport:
    """Return httpx's own transport: verified TLS, no proxy from the environment, no redirects.

    Each request has a connection of its own, so none meets a kept connection that the server has closed. If a provider
    sent two answers at once, httpx would take the second one for the answer to the next request on that connection.
    """
    return HttpxTransport(_NamesFirst(_Transport))


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own transport for one request, over a tunnel if there is a proxy.

    httpx has proxies too, but gives them no limit of time, and sends http:// requests to them without a tunnel.
    """

    def __init__(self, context: ssl.SSLContext, origin: str, link: Link | None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        super().__init__(context, trust_env=False, limits=limits)
        if link is not None and link.proxy:
            tunnel = _Tunnel(origin, link)
            self._pool = httpcore.AsyncConnectionPool(context, max_keepalive_connections=0, network_backend=tunnel)


class _Tunnel(httpcore.AsyncNetworkBackend):
    """Connects to the proxy of a link where httpcore asks for a connection to the origin."""

    def __init__(self, origin: str, link: Link) -> None:
        self._origin, self._link = origin, link
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # the origin, to which the proxy connects
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """See httpcore.AsyncNetworkBackend. Raises ConnectFailed if the proxy refuses."""
        stream: httpcore.AsyncNetworkStream | None = None
        try:
            async with asyncio.timeout(timeout):
                stream = await self._inner.connect_tcp(*address_of(self._link.proxy), None, local_address)
                if (proxy_tls := self._link.proxy_tls) is not None:
                    stream = await stream.start_tls(proxy_tls, address_of(self._link.proxy)[0])
                await stream.write(connect_request(self._origin, self._link))
                received = b""
                while not check_reply(received):
                    piece = await stream.read(4096)
                    if not piece:
                        raise ConnectFailed("the proxy closed the connection without an answer")
                    received += piece
                return stream
        except BaseException as error:
            if stream is not None:
                await stream.aclose()
            if isinstance(error, TimeoutError):
                raise ConnectFailed("no connection through the proxy in time", timed_out=True) from None
            if isinstance(error, httpcore.NetworkError):
                reason = f"{type(error).__name__}: {error}"
                raise ConnectFailed(f"{reason} through the proxy", is_ours=lacks_room(error)) from error
            raise


class _NamesFirst(httpx.AsyncBaseTransport):
    """httpx's own transport, which gets only names that have just been resolved.

    httpx lets the loop resolve names, in threads that all names share (uvloop has two), so two silent DNS servers would
    block all connections. Each request has a transport of its own, which is closed if no answer comes: httpcore would
    keep the connection of a request that is cancelled before its first byte for ever.
    """

    def __init__(self, transport: Callable[[ssl.SSLContext, str, Link | None], httpx.AsyncBaseTransport]) -> None:
        self._transport = transport
        self._tls = tls_context()
        self._names = Names()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport. Both look-ups count towards the connect timeout."""
        url, times, link = request.url, request.extensions["timeout"], request.extensions[_LINK]
        try:
            async with asyncio.timeout(times["connect"]) as limit:
                proxy = link.proxy if link is not None else ""
                await self._names.addresses(*address_of(proxy or _origin(url)))
        except TimeoutError as error:
            raise httpx.ConnectTimeout("the host name was not resolved in time", request=request) from error
        except (OSError, ValueError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        until = limit.when()
        if until is not None:
            times["connect"] = max(until - asyncio.get_running_loop().time(), 0)
        context = (link.tls if link is not None else None) or self._tls
        transport = self._transport(context, _origin(url), link)
        try:
            return await transport.handle_async_request(request)
        except BaseException:
            await transport.aclose()
            raise


class HttpxTransport:
    """Any httpx transport: httpx's own, or a test's. `clock` is Unix time, for `UpstreamResponse.received_at`."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.time) -> None:
        self._inner = inner
        self._clock = clock

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See Transport. The permit travels in the extensions of the httpx request."""
        head, connect_s = request.head, request.connect_s
        url = httpx.URL(head.origin).copy_with(raw_path=head.target.encode("ascii"))
        headers = [*head.headers, *request.credential.headers]
        timeout = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
        extensions: dict[str, object] = {EXTENSION: request.permit, _LINK: request.link, "timeout": timeout}
        extensions["trace"] = _before_first_byte(request)
        sent = httpx.Request(head.method, url, headers=headers, content=request.take_body(), extensions=extensions)
        try:
            link = request.link
            allow(_origin(sent.url), sent.extensions.get(EXTENSION), link.proxy if link is not None else "")
            response = await self._inner.handle_async_request(sent)
            # A transport that is not httpcore's does not call `trace`.
            request.was_sent = True
        except (NotAllowed, httpx.LocalProtocolError) as error:
            raise FenceBreach("the request was stopped, because its permit does not allow its origin") from error
        except ConnectFailed as error:
            raise ProviderFailed(failure_of(error)) from error
        except (httpx.HTTPError, OSError) as error:
            raise ProviderFailed(_no_answer(error)) from error
        return _FromHttpx(response, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _before_first_byte(request: UpstreamRequest) -> Callable[[str, object], Awaitable[None]]:
    """Return a trace callback for httpcore that calls `recheck` before the request is written, and notes that it is.

    Exceptions of `recheck` are passed on.
    """

    async def trace(step: str, _: object) -> None:
        if step == "http11.send_request_headers.started":
            if request.recheck is not None:
                request.recheck()
            request.was_sent = True

    return trace


def _origin(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + (f":{url.port}" if url.port is not None else "")


class _FromHttpx(UpstreamResponse):
    """An httpx response as an `UpstreamResponse`."""

    __slots__ = ("_pieces", "_response")

    def __init__(self, response: httpx.Response, received_at: float) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self.status = response.status_code
        self.headers = joined(response.headers.multi_items())
        self.received_at = received_at

    async def read(self, _: Tap | None = None) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
        except (httpx.HTTPError, OSError) as error:
            # TLS errors within an answer are raised as Python's own.
            raise ProviderFailed(_broken_off(error)) from error
        return b""

    async def close(self) -> None:
        await self._response.aclose()


def _no_answer(error: Exception) -> Failure:
    words = str(error)
    if isinstance(error, httpx.RemoteProtocolError):
        # After the colon are bytes of the response, which may repeat our key.
        words = words.partition(":")[0]
    detail = f"{type(error).__name__}: {words}"
    if isinstance(error, httpx.ConnectError | OSError) and lacks_room(error):
        return local_resource_failure(detail)
    if isinstance(error, httpx.ConnectError | httpx.TimeoutException):
        # Only the time to get a connection is limited here.
        return Failure(FailureKind.CONNECT, "the provider could not be reached", detail, unsent=True)
    message = "the connection to the provider broke before it answered"
    return Failure(FailureKind.CONNECT, message, detail, is_stated=False)


def _broken_off(error: Exception) -> Failure:
    if isinstance(error, httpx.DecodingError):
        return Failure(FailureKind.MALFORMED, "the provider's answer cannot be decompressed", type(error).__name__)
    detail = type(error).__name__
    return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", detail, is_stated=False)
