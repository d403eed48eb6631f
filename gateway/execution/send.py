"""Send one request to one permitted origin.

What an adapter wrote is not trusted. The host comes from the permit alone; the path must be one that can't be read
as a host; headers that frame or route are refused. Redirects are an answer like any other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlencode

from gateway.execution.transports import FenceBreach, Incoming, Transport
from gateway.model.permit import Permit
from providers.adapter import WireRequest, WireResponse
from providers.exchange import MAX_BODY_BYTES
from providers.failures import Failure, FailureKind, ProviderFailed

__all__ = ["Reply", "Sender", "check"]

_PATH = re.compile(r"(?:/(?!\.{0,2}(?:/|$))(?![^/]*%2[eE])[!$%&'()*+,\-.0-9:;=@A-Z_a-z~]+)+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUES = re.compile(r"[\t -~\x80-\xff]*")
_FORBIDDEN_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect proxy-connection "
    "proxy-authorization forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto cookie".split()
)
_METHODS = frozenset({"GET", "POST"})
_OWN_HEADERS = [("user-agent", "assistant-gateway"), ("accept-encoding", "identity")]


class Reply:
    """The head of a response, and its body as it arrives. `close` must be called, also after a failure."""

    __slots__ = ("close", "head", "read")

    def __init__(self, incoming: Incoming, received_at: float) -> None:
        self.head = WireResponse(incoming.status, incoming.headers, b"", received_at)
        self.read = incoming.read
        self.close = incoming.close

    async def read_whole(self) -> WireResponse:
        """The whole response; raises ProviderFailed if it breaks off or is larger than is taken."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise ProviderFailed(Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than is taken"))
        head = self.head
        return WireResponse(head.status, head.headers, b"".join(pieces), head.received_at)


class Sender:
    """Opens requests over one transport, which is a parameter so that tests give another."""

    def __init__(self, transport: Transport, clock: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._clock = clock

    async def open(self, permit: Permit, wire: WireRequest, connect_s: float) -> Reply:
        """The reply to a signed request; raises ProviderFailed if no head arrives, FenceBreach if it may not be sent.

        `connect_s` bounds DNS, TCP and TLS; how long the provider may think is the caller's to bound.
        """
        check(wire)
        target = f"{wire.path}?{urlencode(wire.query)}" if wire.query else wire.path
        headers = [*wire.headers, *_OWN_HEADERS]
        incoming = await self._transport.send(permit, wire.method, target, headers, wire.body, connect_s)
        return Reply(incoming, self._clock())

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def check(wire: WireRequest) -> None:
    """Raise FenceBreach for anything in an adapter's request that could choose where it goes."""
    if wire.method not in _METHODS:
        raise FenceBreach("an adapter's method must be GET or POST")
    if not _is_path(wire.path):
        raise FenceBreach(
            "an adapter's path must be segments of visible ASCII behind one slash each: no host, query or dot segment"
        )
    if not _are_header_names(tuple([name for name, _ in wire.headers])):
        raise FenceBreach("an adapter's header is no valid name, or one that frames or routes the request")
    if not _HEADER_VALUES.fullmatch("".join([value for _, value in wire.headers])):
        raise FenceBreach("an adapter's header has a value that is no single line of text")


@lru_cache(maxsize=1024)
def _is_path(path: str) -> bool:
    # `/` alone names no segment; to some vendors' APIs it is the only path.
    return path == "/" or _PATH.fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _are_header_names(names: tuple[str, ...]) -> bool:
    return all(_HEADER_NAME.fullmatch(name) and name.lower() not in _FORBIDDEN_HEADERS for name in names)
