"""Send one request to one permitted origin.

What an adapter wrote is not trusted. The host comes from the permit alone; the path must be one that can't be read
as a host; headers that frame or route are refused. Redirects are an answer like any other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import urlencode

from gateway.execution.deadline import TimeLimit
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
_MAX_REFUSAL_BYTES = 1024 * 1024
_OWN_HEADERS = [("user-agent", "assistant-gateway"), ("accept-encoding", "identity")]


class Reply:
    """The head of a response, and its body as it arrives. `close` must be called, also after a failure."""

    __slots__ = ("_headers", "_received_at", "_status", "close", "read")

    def __init__(self, incoming: Incoming, received_at: float) -> None:
        self._status = incoming.status
        self._headers = incoming.headers
        self._received_at = received_at
        self.read = incoming.read
        self.close = incoming.close

    @property
    def head(self) -> WireResponse:
        """The response without its body."""
        return WireResponse(self._status, self._headers, b"", self._received_at)

    @property
    def is_refusal(self) -> bool:
        """Whether the status says that no answer follows."""
        return not 200 <= self._status < 300

    async def read_refusal(self, limit: TimeLimit) -> WireResponse:
        """A refusal with as much of its body as comes within the limit: its status has said what matters, so that a
        body that hangs, breaks off or never ends changes nothing."""
        body = b""
        with suppress(TimeoutError, ProviderFailed), limit:
            while len(body) < _MAX_REFUSAL_BYTES and (piece := await self.read()):
                body += piece
        return WireResponse(self._status, self._headers, body, self._received_at)

    async def read_whole(self) -> WireResponse:
        """The whole response; raises ProviderFailed if it breaks off or is larger than is taken."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise ProviderFailed(Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than is taken"))
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return WireResponse(self._status, self._headers, body, self._received_at)


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
        target = _target(wire.path, wire.query) if wire.query else wire.path
        incoming = await self._transport.send(
            permit, wire.method, target, _with_own(tuple(wire.headers)), wire.body, connect_s
        )
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
    _check_headers(tuple(wire.headers))


# What an adapter writes for a deployment is nearly always the same, so that each check is made once for each value.


@lru_cache(maxsize=1024)
def _is_path(path: str) -> bool:
    # `/` alone names no segment; to some vendors' APIs it is the only path.
    return path == "/" or _PATH.fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    if not all(_HEADER_NAME.fullmatch(name) and name.lower() not in _FORBIDDEN_HEADERS for name, _ in headers):
        raise FenceBreach("an adapter's header is no valid name, or one that frames or routes the request")
    if not _HEADER_VALUES.fullmatch("".join([value for _, value in headers])):
        raise FenceBreach("an adapter's header has a value that is no single line of text")


@lru_cache(maxsize=1024)
def _target(path: str, query: tuple[tuple[str, str], ...]) -> str:
    return f"{path}?{urlencode(query)}"


@lru_cache(maxsize=1024)
def _with_own(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return (*headers, *_OWN_HEADERS)
