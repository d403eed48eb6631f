"""Any httpx transport as a way out: httpx's own in place of our pool, or a test's.

httpx is imported here and not by the usual way, which saves each worker its memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import httpx

from gateway.execution.reply import Reply
from gateway.execution.transports import Credential, FenceBreach, RequestHead, allow, no_more_room
from gateway.model.permit import EXTENSION, AnyPermit
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport import ConnectFailed, NotAllowed, Recheck, Tap, lacks_room
from providers.transport.headers import joined
from providers.transport.names import Names


def plain_httpx() -> HttpxTransport:
    """httpx's transport: verified TLS, no proxy from the environment, no redirects.

    Each request has a connection of its own: where two answers come at once, httpx takes the second for that to the
    next request, and so on, each person getting the answer to the one before.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    tls = httpx.create_ssl_context(trust_env=False)
    return HttpxTransport(_NamesFirst(partial(httpx.AsyncHTTPTransport, tls, trust_env=False, limits=limits)))


class _NamesFirst(httpx.AsyncBaseTransport):
    """httpx's own, which hears of no name that doesn't answer: it has the loop look them up, in threads that all names
    share and uvloop has two of, so that two silent ones would keep every provider from being connected to.

    Each request has a transport of its own, which is closed where no answer comes: httpcore keeps the connection of one
    that is cancelled before its first byte for ever.
    """

    def __init__(self, transport: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._transport = transport
        self._names = Names()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport. Both look-ups are within the time for connecting."""
        url, times = request.url, request.extensions["timeout"]
        try:
            async with asyncio.timeout(times["connect"]) as limit:
                port = url.port or (443 if url.scheme == "https" else 80)
                await self._names.addresses(url.raw_host.decode("ascii"), port)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("the name was not answered in time", request=request) from error
        except (OSError, ValueError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        until = limit.when()
        if until is not None:
            times["connect"] = max(until - asyncio.get_running_loop().time(), 0)
        transport = self._transport()
        try:
            return await transport.handle_async_request(request)
        except BaseException:
            await transport.aclose()
            raise


class HttpxTransport:
    """Any httpx transport: httpx's own, or a test's. `clock` is Unix time, for `Reply.received_at`."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.time) -> None:
        self._inner = inner
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
        """See Transport. The permit travels in the request's extensions."""
        url = httpx.URL(head.origin).copy_with(raw_path=head.target.encode("ascii"))
        headers = [*head.headers, *credential.headers]
        timeout = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
        extensions: dict[str, object] = {EXTENSION: permit, "timeout": timeout}
        if recheck is not None:
            extensions["trace"] = _before_the_first_byte(recheck)
        request = httpx.Request(head.method, url, headers=headers, content=body, extensions=extensions)
        try:
            allow(_origin(request.url), request.extensions.get(EXTENSION))
            response = await self._inner.handle_async_request(request)
        except (NotAllowed, httpx.LocalProtocolError) as error:
            raise FenceBreach("a request that may not be sent was stopped") from error
        except ConnectFailed as error:
            raise ProviderFailed(no_more_room(f"ConnectFailed: {error}")) from error
        except (httpx.HTTPError, OSError) as error:
            raise ProviderFailed(_no_answer(error)) from error
        return _FromHttpx(response, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _before_the_first_byte(recheck: Recheck) -> Callable[[str, object], Awaitable[None]]:
    """What httpcore tells of its steps, for each request on a connection of its own. What this raises comes through."""

    async def trace(step: str, _: object) -> None:
        if step == "http11.send_request_headers.started":
            recheck()

    return trace


def _origin(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + (f":{url.port}" if url.port is not None else "")


class _FromHttpx(Reply):
    """An httpx response as `Reply`."""

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
            # What is wrong with TLS in mid-answer comes as Python's own.
            raise ProviderFailed(_broken_off(error)) from error
        return b""

    async def close(self) -> None:
        await self._response.aclose()


def _no_answer(error: Exception) -> Failure:
    words = str(error)
    if isinstance(error, httpx.RemoteProtocolError):
        # Behind the colon stand the bytes of whoever answered, which may repeat our key.
        words = words.partition(":")[0]
    detail = f"{type(error).__name__}: {words}"
    if isinstance(error, httpx.ConnectError | OSError) and lacks_room(error):
        return no_more_room(detail)
    if isinstance(error, httpx.ConnectError | httpx.TimeoutException):
        # Of the times that a request may take, only those to get a connection are bounded here.
        return Failure(FailureKind.CONNECT, "the provider could not be reached", detail, unsent=True)
    return Failure(FailureKind.CONNECT, "the connection to the provider broke before it answered", detail)


def _broken_off(error: Exception) -> Failure:
    if isinstance(error, httpx.DecodingError):
        return Failure(FailureKind.MALFORMED, "the provider's answer can't be decompressed", type(error).__name__)
    return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", type(error).__name__)
