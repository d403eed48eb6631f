"""Send one request to one permitted origin: the one place that opens connections to providers.

What an adapter wrote is not trusted. The host comes from the permit alone; the path must be one that can't be read
as a host; headers that frame or route are refused. Redirects are an answer like any other, proxies are never taken
from the environment, and what goes wrong comes back as a `Failure`: httpx's names stop in this module.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode

import httpx

from gateway.model.permit import EXTENSION, Permit
from providers.adapter import WireRequest, WireResponse
from providers.exchange import MAX_BODY_BYTES
from providers.failures import Failure, FailureKind, ProviderFailed

__all__ = ["FenceBreach", "PermittedTransport", "Reply", "Sender"]

_PATH = re.compile(r"/(?!/)[!-~]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_FORBIDDEN_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect proxy-connection "
    "proxy-authorization forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto cookie".split()
)
_METHODS = frozenset({"GET", "POST"})
_USER_AGENT = "assistant-gateway"


class FenceBreach(RuntimeError):
    """Something tried to send where it may not; nothing was sent. A bug or an attack, never a provider's failure."""


class PermittedTransport(httpx.AsyncBaseTransport):
    """Lets a request through only to the origin of the permit that it carries."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The inner transport's response; raises FenceBreach without a permit for exactly this origin."""
        permit = request.extensions.get(EXTENSION)
        if not isinstance(permit, Permit) or _origin(request.url) != permit.origin:
            raise FenceBreach("a request without a permit for its origin was stopped")
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


def _origin(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + (f":{url.port}" if url.port is not None else "")


class Reply:
    """The head of a response, and its body as it arrives. `close` must be called, also after a failure."""

    def __init__(self, response: httpx.Response, received_at: float) -> None:
        self._response = response
        headers: dict[str, str] = {}
        for name, value in response.headers.multi_items():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = WireResponse(response.status_code, headers, b"", received_at)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The decoded body in the pieces that arrive; raises ProviderFailed (INTERRUPTED) if it breaks off."""
        try:
            async for chunk in self._response.aiter_bytes():
                if chunk:
                    yield chunk
        except httpx.HTTPError as error:
            raise ProviderFailed(_broken_off(error)) from error

    async def read(self) -> WireResponse:
        """The whole response; raises ProviderFailed if it breaks off or is larger than is taken."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ProviderFailed(Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than is taken"))
        return WireResponse(self.head.status, self.head.headers, bytes(body), self.head.received_at)

    async def close(self) -> None:
        """Give the connection back, or drop it if the body wasn't read to its end."""
        await self._response.aclose()


class Sender:
    """Opens requests over one transport, which is a parameter so that tests give another."""

    def __init__(self, transport: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.time) -> None:
        self._transport = PermittedTransport(transport)
        self._clock = clock

    async def open(self, permit: Permit, wire: WireRequest, connect_s: float) -> Reply:
        """The reply to a signed request; raises ProviderFailed (CONNECT) if no head arrives, FenceBreach if refused.

        `connect_s` bounds DNS, TCP and TLS; how long the provider may think is the caller's to bound.
        """
        request = _build(permit, wire, connect_s)
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.LocalProtocolError as error:
            raise FenceBreach("a request that is no valid HTTP was stopped") from error
        except (httpx.HTTPError, OSError) as error:
            raise ProviderFailed(_no_answer(error)) from error
        return Reply(response, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _build(permit: Permit, wire: WireRequest, connect_s: float) -> httpx.Request:
    check(wire)
    url = httpx.URL(permit.origin)
    query = f"?{urlencode(wire.query)}" if wire.query else ""
    target = url.copy_with(raw_path=f"{wire.path}{query}".encode("ascii"))
    timeout = {"connect": connect_s, "read": None, "write": None, "pool": connect_s}
    headers = [*wire.headers, ("user-agent", _USER_AGENT), ("accept-encoding", "identity")]
    return httpx.Request(
        wire.method, target, headers=headers, content=wire.body, extensions={EXTENSION: permit, "timeout": timeout}
    )


def check(wire: WireRequest) -> None:
    """Raise FenceBreach for anything in an adapter's request that could choose where it goes."""
    if wire.method not in _METHODS:
        raise FenceBreach("an adapter's method must be GET or POST")
    path = wire.path
    if not _PATH.fullmatch(path) or any(character in path for character in '?#\\"<>^`{|}'):
        raise FenceBreach("an adapter's path must start with one slash and be visible ASCII without query or fragment")
    if any(_is_dots(segment) for segment in path.split("/")) or "//" in path:
        raise FenceBreach("an adapter's path must have no empty or dot segments")
    for name, value in wire.headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise FenceBreach("an adapter's header is no valid HTTP header")
        if name.lower() in _FORBIDDEN_HEADERS:
            raise FenceBreach(f"an adapter may not set the header {name.lower()!r}")


def _is_dots(segment: str) -> bool:
    return segment.lower().replace("%2e", ".") in (".", "..")


def _no_answer(error: Exception) -> Failure:
    if isinstance(error, httpx.TimeoutException):
        return Failure(FailureKind.CONNECT, "the provider could not be reached in time", type(error).__name__)
    if isinstance(error, httpx.ConnectError):
        return Failure(FailureKind.CONNECT, "the provider could not be reached", f"{type(error).__name__}: {error}")
    return Failure(FailureKind.CONNECT, "the connection to the provider broke before it answered", type(error).__name__)


def _broken_off(error: httpx.HTTPError) -> Failure:
    if isinstance(error, httpx.DecodingError):
        return Failure(FailureKind.MALFORMED, "the provider's answer can't be decompressed", type(error).__name__)
    return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", type(error).__name__)
