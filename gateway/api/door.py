"""The door: who is asking and from where, read from the headers alone, before any byte of the body.

What leaves here is values: a `Caller` and a `Sighting`. Nobody behind the door sees a header.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl

from gateway.api.errors import ApiError
from gateway.api.forwarded import Address, parse_address, read_client_ip
from gateway.model.config_version import Client, ConfigVersion, remember
from gateway.model.edge import ASSERTION, Edge, EdgeSecret
from gateway.model.signals import AddressReport
from gateway.policy.location import EdgeNote, EdgeReport, Sighting

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MAX_HEADER_BYTES = 64 * 1024
_MOST_MS = 999_999_999
_KEY_QUERY_NAMES = frozenset({"key", "api_key", "access_token"})
# What no page has to itself: an address, a name without a dot, or one below a name that nobody can register (RFC 6761,
# sections 6.2 and 6.3; `internal` is kept for private use by ICANN since 2024).
_NO_PAGES_NAME = re.compile(
    r"([a-z0-9_-]+|([^:]*\.)?(localhost|internal|test)\.?|[0-9]+(\.[0-9]+){3}|\[[0-9a-f:.]+\])(:[0-9]*)?"
)
# Around a header's value (RFC 9110, section 5.6.3). What else a text may end with can be a byte of a key's last letter.
_SPACE = b" \t"
_FORWARDING = re.compile(
    r"forwarded|x-forwarded-.*|x-real-ip|true-client-ip|via|cf-.*|cloudfront-viewer-.*|x-vercel-ip-.*|fastly-.*"
    r"|x-appengine-.*|x-client-geo-.*|ali-.*|eo-client-.*|cdn-requestcountrycode|x-akamai-.*|x-country|x-nf-geo"
    r"|cdn-loop|x-original-forwarded-for|(x-(cluster-)?)?client-ip|(wl-)?proxy-client-ip|x-envoy-.*|x-azure-.*"
    r"|fly-.*|do-connecting-ip|x-amz-cf-.*|x-amzn-trace-id|x-cloud-trace-context|x-country-code|x-geo-.*"
)
# Unique over processes and time; drawn once, because asking the system for chance costs more than the rest of an id.
_PROCESS = f"req_{os.urandom(8).hex()}"
_NUMBERS = itertools.count(1)
_NONE: Mapping[bytes, tuple[bytes, ...]] = {}


@dataclass(slots=True)
class Visitor:
    """Who is at the door: the headers by lower-case name and their size, the peer's address, and the raw query.

    headers: one value of each, enough to ask whether it is there. repeated: all values of those that came more than
    once; two servers may read these differently, so that what is decided by a value is decided by `values`.
    """

    headers: Mapping[bytes, bytes]
    header_bytes: int
    peer: str | None
    query: str
    repeated: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=lambda: _NONE)

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Every value of a header, in the order in which they came."""
        value = self.headers.get(name)
        if value is None:
            return ()
        return self.repeated.get(name) or (value,)

    def all(self, name: bytes) -> tuple[str, ...]:
        """Every value of a header, as text, without the space around it: the server leaves what stands behind."""
        return tuple([value.strip(_SPACE).decode("latin-1") for value in self.values(name)])

    def one(self, name: bytes) -> str | None:
        """The first value of a header, None if absent."""
        values = self.values(name)
        return values[0].strip(_SPACE).decode("latin-1") if values else None


def headers_of(scope: Any) -> Visitor:
    """The visitor of an ASGI scope."""
    pairs: Collection[tuple[bytes, bytes]] = scope["headers"]
    headers: dict[bytes, bytes] = dict(pairs)
    if len(headers) == len(pairs):
        repeated, size = _NONE, len(b"".join([*headers, *headers.values()]))
    else:
        repeated, size = _repeated(pairs), len(b"".join(chain.from_iterable(pairs)))
    client, query = scope.get("client"), scope.get("query_string")
    return Visitor(headers, size, client[0] if client else None, query.decode("latin-1") if query else "", repeated)


def _repeated(pairs: Collection[tuple[bytes, bytes]]) -> dict[bytes, tuple[bytes, ...]]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: tuple(held) for name, held in values.items() if len(held) > 1}


def request_id_of(visitor: Visitor) -> str:
    """The client's `x-request-id` if it is sane, else a new one."""
    if b"x-request-id" in visitor.headers:
        given = visitor.one(b"x-request-id")
        if given and _SANE_ID.fullmatch(given):
            return given
    return _PROCESS + str(next(_NUMBERS))


def timeout_s_of(visitor: Visitor) -> float:
    """What `x-gateway-timeout-ms` asks for, in seconds; raises ApiError for anything but a positive whole number, also
    where there is none."""
    value = visitor.one(b"x-gateway-timeout-ms") or ""
    if len(set(visitor.all(b"x-gateway-timeout-ms"))) > 1:
        raise ApiError("invalid_request", "`x-gateway-timeout-ms` was sent more than once, with different values")
    if not value.isascii() or not value.isdigit() or len(value) > len(str(_MOST_MS)) or int(value) == 0:
        message = f"`x-gateway-timeout-ms` must be a whole number of milliseconds between 1 and {_MOST_MS}"
        raise ApiError("invalid_request", message)
    return int(value) / 1000


def authenticate(table: ConfigVersion, visitor: Visitor) -> Client | None:
    """The client whose key this is; None where the config asks for no keys. Raises ApiError."""
    if visitor.header_bytes > _MAX_HEADER_BYTES:
        raise ApiError("headers_too_large", f"the headers are larger than {_MAX_HEADER_BYTES} bytes")
    if visitor.query and any(
        name.lower() in _KEY_QUERY_NAMES for name, _ in parse_qsl(visitor.query, keep_blank_values=True)
    ):
        raise _no_key("keys are not taken from the query, where they end up in logs: use `authorization: Bearer KEY`")
    if table.demo:
        return None
    if not table.clients:
        _only_from_here(table, visitor)
        return None
    key = _key_of(visitor)
    client = table.clients.get(_hash(key))
    if client is None and not key.isascii():
        # The bytes of a header are UTF-8 where a program writes them, and Latin-1 where a browser does.
        client = table.clients.get(_hash(key.decode("latin-1").encode("utf-8")))
    if client is None:
        raise _no_key("this key is not known here: send one that this gateway's operator gave you, not a provider's")
    return client


def key_digest(table: ConfigVersion, visitor: Visitor) -> str:
    """What tells this caller's key from every other; empty where no key is asked for. Raises ApiError, as above."""
    return _hash(_key_of(visitor)) if table.clients and not table.demo else ""


def _hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _key_of(visitor: Visitor) -> bytes:
    headers = visitor.headers
    given = headers.get(b"authorization", b"")
    if given.startswith(b"Bearer ") and not visitor.repeated and b"x-api-key" not in headers:
        # One key, as every client library writes it.
        key = given[7:]
        if key and key.isascii() and key == key.strip():
            return key
    return _sought_key(visitor).encode("latin-1")


def _sought_key(visitor: Visitor) -> str:
    keys = set(visitor.all(b"x-api-key")) - {""}
    for value in visitor.all(b"authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() != "bearer" or not (key := key.lstrip(" \t")):
            raise _no_key("`authorization` must be `Bearer KEY`")
        keys.add(key)
    if not keys:
        raise _no_key("no key was sent: use `authorization: Bearer KEY`")
    if len(keys) > 1:
        raise _no_key("two different keys were sent; send one")
    return keys.pop()


def _no_key(message: str) -> ApiError:
    """A 401 names the scheme that would do (RFC 9110, section 15.5.2)."""
    return ApiError("invalid_api_key", message, headers={"www-authenticate": "Bearer"})


def _only_from_here(table: ConfigVersion, visitor: Visitor) -> None:
    """Without client keys this gateway is for its own machine: not for what a proxy brings from elsewhere."""
    address = _address(visitor.peer)
    if address is None or not address.is_loopback:
        raise ApiError("permission_denied", "this gateway has no client keys, so it serves its own machine only")
    # A page in a browser on this machine comes from here too, by a name of its own for this address (CWE-350).
    host = visitor.one(b"host")
    if host is not None and not _NO_PAGES_NAME.fullmatch(host.lower()):
        raise ApiError(
            "permission_denied",
            "this gateway has no client keys, so it serves its own machine only: call it by its address, such as "
            "http://127.0.0.1, or add `clients` to the config",
        )
    edges = {header for edge in table.location.edges for header in edge.headers}
    names = (name.decode("latin-1") for name in visitor.headers)
    brought = sorted(name for name in names if name in edges or _FORWARDING.fullmatch(name))
    if brought:
        raise ApiError(
            "permission_denied",
            "this gateway has no client keys, so it serves its own machine only, and this request came through a "
            f"proxy (it has {', '.join(brought)[:200]}): add `clients` to the config",
        )


def sighting_of(table: ConfigVersion, visitor: Visitor) -> Sighting:
    """What the headers say about the place: those of a trusted peer for that, and any assertion."""
    asserted = visitor.all(ASSERTION.encode())
    edges = table.location.edges
    if not edges:
        return Sighting(asserted=asserted)
    edge = edge_at(table, visitor)
    if edge is None:
        unbelieved = any(edge.country_name in visitor.headers for edge in edges)
        return Sighting(None, EdgeNote.STRANGER if unbelieved else EdgeNote.NONE, asserted)
    values = visitor.all(edge.country_name)
    if edge.secret is not None and (note := _unproven(edge.secret, visitor)):
        return Sighting(None, note if values or note is EdgeNote.UNPROVEN else EdgeNote.NONE, asserted)
    if not values:
        return Sighting(asserted=asserted)
    parts = visitor.all(edge.part_header.encode()) if edge.part_header is not None else ()
    return Sighting(EdgeReport(values, parts), EdgeNote.NONE, asserted)


def claims_of(visitor: Visitor) -> tuple[str, ...]:
    """Every signed claim that was sent; more than one is for nobody to choose from."""
    return visitor.all(b"x-gateway-claim")


def address_of(table: ConfigVersion, visitor: Visitor) -> Address | AddressReport:
    """The person's address: the peer's, or what a trusted edge says; or why there is none."""
    edge = edge_at(table, visitor)
    if edge is None:
        return parse_address(visitor.peer or "") or AddressReport(note="silent: the peer has no address")
    if edge.secret is not None and (note := _unproven(edge.secret, visitor)):
        if note is EdgeNote.UNPROVEN:
            return AddressReport(note=note, doubtful=True)
        return AddressReport(note="silent: the peer didn't prove that it is the edge")
    header = edge.client_ip_header
    values = visitor.all(header.encode()) if header is not None else ()
    return read_client_ip(header or "", values, table.location.hops)


def edge_at(table: ConfigVersion, visitor: Visitor) -> Edge | None:
    """The edge that the peer is, if it is one."""
    edges = table.location.edges
    return remember(table, ("edge", visitor.peer), lambda: _edge_of(edges, visitor.peer)) if edges else None


def _address(peer: str | None) -> Address | None:
    """The peer's address, without the zone of a link."""
    return parse_address((peer or "").partition("%")[0])


def _edge_of(edges: tuple[Edge, ...], peer: str | None) -> Edge | None:
    address = _address(peer)
    if address is None:
        return None
    return next((edge for edge in edges if any(address in network for network in edge.networks)), None)


def _unproven(secret: EdgeSecret, visitor: Visitor) -> EdgeNote:
    """Why the peer hasn't shown to be the edge; empty if it has.

    One that shows nothing is somebody else of the same network. A wrong or second secret is a doubt: it may be what a
    client sent through the edge to have it disbelieved.
    """
    values = visitor.values(secret.header.encode())
    if not values:
        return EdgeNote.STRANGER_WITHIN
    shown = len(values) == 1 and hmac.compare_digest(values[0], secret.value.reveal().encode("utf-8"))
    return EdgeNote.NONE if shown else EdgeNote.UNPROVEN
