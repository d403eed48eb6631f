"""Send one request to one permitted origin.

What an adapter wrote is not trusted. The host comes from the permit alone; the path must be one that can't be read
as a host; headers that frame or route are refused. Redirects are an answer like any other.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from functools import lru_cache
from urllib.parse import urlencode

from gateway.execution.reply import Reply
from gateway.execution.transports import Credential, FenceBreach, Headers, RequestHead, Transport
from gateway.model.permit import Permit
from providers.transport import Recheck, request_start
from providers.wire import WireRequest

_PATH = re.compile(r"(?:/(?!\.{0,2}(?:/|$))(?![^/]*%2[eE])[!$%&'()*+,\-.0-9:;=@A-Z_a-z~]+)+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUES = re.compile(r"[\t -~\x80-\xff]*")
_FORBIDDEN_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect proxy-connection "
    "proxy-authorization forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto cookie".split()
)
_METHODS = frozenset({"GET", "POST"})
_OWN_HEADERS = [("user-agent", "assistant-gateway"), ("accept-encoding", "identity")]


class Sender:
    """Opens requests over one transport, which is a parameter so that tests give another."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(
        self,
        permit: Permit,
        wire: WireRequest,
        connect_s: float,
        credential: tuple[tuple[str, str], ...] = (),
        recheck: Recheck | None = None,
    ) -> Coroutine[object, object, Reply]:
        """The reply to a request; raises ProviderFailed if no head arrives, FenceBreach if it may not be sent.

        credential: further headers, see `providers.auth.credential`. `connect_s` bounds DNS, TCP and TLS; how long the
        provider may think is the caller's to bound. recheck: see Transport.
        """
        head = _request_head(permit.origin, wire.method, wire.path, wire.query, tuple(wire.headers))
        return self._transport.send(permit, head, checked_credential(credential), wire.body, connect_s, recheck)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def request_head(origin: str, wire: WireRequest) -> RequestHead:
    """What stands before the body; raises FenceBreach for anything in an adapter's request that could choose where it
    goes."""
    return _request_head(origin, wire.method, wire.path, wire.query, tuple(wire.headers))


# What is sent to a deployment before the body is nearly always the same, so that each is checked once. The credential
# stands apart: a signature is ever new.


@lru_cache(maxsize=1024)
def _request_head(
    origin: str, method: str, path: str, query: tuple[tuple[str, str], ...], headers: tuple[tuple[str, str], ...]
) -> RequestHead:
    if method not in _METHODS:
        raise FenceBreach("an adapter's method must be GET or POST")
    # `/` alone names no segment; to some vendors' APIs it is the only path.
    if path != "/" and not _PATH.fullmatch(path):
        raise FenceBreach(
            "an adapter's path must be segments of visible ASCII behind one slash each: no host, query or dot segment"
        )
    target = f"{path}?{urlencode(query)}" if query else path
    headers = (*headers, *_OWN_HEADERS)
    return RequestHead(origin, method, target, headers, request_start(origin, method, target, _checked_lines(headers)))


@lru_cache(maxsize=1024)
def checked_credential(headers: tuple[tuple[str, str], ...]) -> Credential:
    """The headers of a credential, as they are sent; raises FenceBreach, see `request_head`."""
    return Credential(headers, _checked_lines(headers).encode("latin-1"))


def _checked_lines(headers: Headers) -> str:
    if not all(_HEADER_NAME.fullmatch(name) and name.lower() not in _FORBIDDEN_HEADERS for name, _ in headers):
        raise FenceBreach("an adapter's header is no valid name, or one that frames or routes the request")
    if not _HEADER_VALUES.fullmatch("".join([value for _, value in headers])):
        raise FenceBreach("an adapter's header has a value that is no single line of text")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])
