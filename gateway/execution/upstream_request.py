"""One request to one permitted origin, checked before it is sent.

The output of an adapter is not trusted. The host comes only from the permit; the path must not be readable as a host;
headers that frame or route a request are refused. Redirects are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlencode

import msgspec

from gateway.model.permit import AnyPermit, Permit
from providers.transport.connection import BodyPiece
from providers.transport.pool import PoolRequest, Recheck, request_start
from providers.transport.tls import Link
from providers.wire import WireRequest

Headers = Sequence[tuple[str, str]]

_PATH = re.compile(r"(?:/(?!\.{0,2}(?:/|$))(?![^/]*%2[eE])[!$%&'()*+,\-.0-9:;=@A-Z_a-z~]+)+/?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUES = re.compile(r"[\t -~\x80-\xff]*")
_FORBIDDEN_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect proxy-connection "
    "proxy-authorization forwarded via x-real-ip x-forwarded-for x-forwarded-host x-forwarded-proto cookie".split()
)
# A proxy in front of a server may take a token of its own. The server or its proxy gets it, no other host.
_OF_CREDENTIALS = _FORBIDDEN_HEADERS - {"proxy-authorization"}
_METHODS = frozenset({"GET", "POST"})
_SERVICE_METHODS = _METHODS | {"PUT"}
_OWN_HEADERS = [("user-agent", "assistant-gateway"), ("accept-encoding", "identity")]


class FenceBreach(RuntimeError):
    """Code tried to send a request that may not be sent.

    Nothing was sent. A bug or an attack, not a provider failure.
    """


@dataclass(frozen=True, slots=True)
class Credential:
    """The headers that authenticate a request, checked, and the same headers as bytes."""

    headers: Headers = field(repr=False)
    lines: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The checked head of a request to one origin, without its credential and its length.

    It has the adapter's headers and our own, and all of it as bytes (`providers.transport.pool.request_start`).
    """

    origin: str
    method: str
    target: str
    headers: Headers = field(repr=False)
    start: bytes = field(repr=False)


class UpstreamRequest(msgspec.Struct):
    """One checked request, given to `Transport.send`, which consumes it.

    Sending takes the body out, so that no copy of a large prompt is held while the provider thinks.
    """

    permit: AnyPermit
    head: RequestHead
    credential: Credential
    body: bytes
    connect_s: float
    """Limit for DNS, TCP and TLS together."""
    recheck: Recheck | None = None
    """Called again if a connection had to be made, which may take seconds. Its exceptions are passed on."""
    link: Link | None = None
    """How connections to the origin are made. Without one, they are direct, with the public authorities."""
    anew: bool = False
    """It is sent on a new connection, because a kept one has ended under an earlier sending."""
    was_sent: bool = False
    """Set by a transport when it sends a part of it."""
    pooled: PoolRequest | None = None
    """The request of the pool that sends it, if one does."""
    rest: tuple[BodyPiece, ...] = ()
    """See `WireRequest`."""

    @property
    def is_sent(self) -> bool:
        """Whether a part of it may have been sent. It is up to date at any moment, also while the transport waits."""
        return self.was_sent or (self.pooled is not None and self.pooled.is_sent)

    def __repr__(self) -> str:
        """Do not show the body, which holds a prompt."""
        return f"UpstreamRequest(permit={self.permit!r}, head={self.head!r}, connect_s={self.connect_s!r})"


def upstream_request(
    permit: AnyPermit,
    wire: WireRequest,
    connect_s: float,
    credential: tuple[tuple[str, str], ...] = (),
    recheck: Recheck | None = None,
    link: Link | None = None,
) -> UpstreamRequest:
    """Check what an adapter wrote and bind it to the permit's origin.

    The credential is further headers, see `providers.auth.credential`. Raises FenceBreach if the request or its
    credential could choose where it goes.
    """
    if wire.method not in (_METHODS if isinstance(permit, Permit) else _SERVICE_METHODS):
        raise FenceBreach("a method must be GET or POST, or PUT at a service")
    head = _request_head(permit.origin, wire.method, wire.path, wire.query, tuple(wire.headers))
    return UpstreamRequest(
        permit, head, _credential(credential), wire.body, connect_s, recheck, link, rest=wire.rest
    )  # fmt: skip


# The head of a request to a deployment is nearly always the same, so each is checked once. The credential is apart from
# it, because a signature differs in each request.


@lru_cache(maxsize=1024)
def _request_head(
    origin: str, method: str, path: str, query: tuple[tuple[str, str], ...], headers: tuple[tuple[str, str], ...]
) -> RequestHead:
    # `/` alone names no segment; some vendors' APIs have no other path, which a base path precedes.
    if path != "/" and not _PATH.fullmatch(path):
        raise FenceBreach(
            "an adapter's path must be segments of visible ASCII, each after one slash: no host, query or dot segment"
        )
    target = f"{path}?{urlencode(query)}" if query else path
    headers = (*headers, *_OWN_HEADERS)
    return RequestHead(origin, method, target, headers, request_start(origin, method, target, _checked_lines(headers)))


@lru_cache(maxsize=1024)
def _credential(headers: tuple[tuple[str, str], ...]) -> Credential:
    return Credential(headers, _checked_lines(headers, _OF_CREDENTIALS).encode("latin-1"))


def _checked_lines(headers: Headers, forbidden: frozenset[str] = _FORBIDDEN_HEADERS) -> str:
    if not all(_HEADER_NAME.fullmatch(name) and name.lower() not in forbidden for name, _ in headers):
        raise FenceBreach("an adapter's header has an invalid name, or it frames or routes the request")
    if not _HEADER_VALUES.fullmatch("".join([value for _, value in headers])):
        raise FenceBreach("an adapter's header has a value that is not a single line of text")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])
