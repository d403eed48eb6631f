"""The `Transport` protocol over a transport of httpx, so that a test answers in place of providers."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from gateway.execution.transport import UpstreamResponse, allow, failure_of, local_resource_failure
from gateway.execution.upstream_request import FenceBreach, UpstreamRequest
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport.connection import Tap, joined
from providers.transport.errors import ConnectFailed, NotAllowed, lacks_room


class HttpxTransport:
    """Any transport of httpx, such as `httpx.MockTransport`. `clock` is Unix time, for `UpstreamResponse.received_at`."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.time) -> None:
        self._inner = inner
        self._clock = clock

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See Transport."""
        head, connect_s = request.head, request.connect_s
        url = httpx.URL(head.origin).copy_with(raw_path=head.target.encode("ascii"))
        headers = [*head.headers, *request.credential.headers]
        timeout = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
        extensions = {"gateway.link": request.link, "timeout": timeout, "trace": _before_first_byte(request)}
        sent = httpx.Request(
            head.method,
            url,
            headers=headers,
            content=b"".join((request.body, *map(bytes, request.rest))),
            extensions=extensions,
        )
        try:
            link = request.link
            allow(_origin(sent.url), request.permit, link.proxy if link is not None else "")
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
