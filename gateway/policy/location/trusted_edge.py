"""The parts of a request that a signal may read, the trusted edge that a peer is, and the parser of IP addresses.

A trusted edge is not a signal. Two signals, `edge_header` and `geoip`, and the limiter of failed keys use it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address

from gateway.model.location import Address
from gateway.model.location_rules import Edge, EdgeSecret, LocationRules

PORT_PATTERN = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_SPACE = b" \t"
_V4 = re.compile(rf"([0-9.]+){PORT_PATTERN}")
_V6 = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{PORT_PATTERN}")
_SHORT = 64


class EdgeNote(StrEnum):
    """Why the headers of an edge are not used."""

    NONE = ""
    STRANGER = "ignored: the peer is not a trusted edge"
    STRANGER_WITHIN = "ignored: the edge's secret is missing"
    UNPROVEN = "in doubt: the edge's secret is wrong, or was sent more than once"


class SignalInput:
    """The part of a request that a signal may read: the peer, the trusted edge that it is, and the declared headers."""

    __slots__ = ("_edge", "_reads_edges", "_values", "peer")

    def __init__(
        self, peer: str | None, edge: Edge | None, values: Mapping[str, tuple[bytes, ...]], *, reads_edges: bool = True
    ) -> None:
        self.peer = peer
        self._edge = edge
        self._values = values
        self._reads_edges = reads_edges

    @property
    def edge(self) -> Edge | None:
        """The trusted edge that the peer is, or None; raises KeyError for a signal that does not read edges."""
        if not self._reads_edges:
            raise KeyError("the signal reads an edge, and its `reads_edges` is False")
        return self._edge

    def raw_values(self, header: str) -> tuple[bytes, ...]:
        """Return every value of a header as it arrived; raises KeyError for a header that is not declared."""
        return self._values[header]

    def values(self, header: str) -> tuple[str, ...]:
        """Return every value of a header as text, without the space around it."""
        return tuple([value.strip(_SPACE).decode("latin-1") for value in self._values[header]])


def secret_headers(rules: LocationRules) -> frozenset[str]:
    """Return the headers with which edges prove their identity."""
    return frozenset(edge.secret.header for edge in rules.edges if edge.secret is not None)


def edge_of(edges: tuple[Edge, ...], peer: str | None) -> Edge | None:
    """Return the edge that the peer is, or None."""
    address = parse_peer(peer)
    if address is None:
        return None
    return next((edge for edge in edges if any(address in network for network in edge.networks)), None)


def check_secret(secret: EdgeSecret | None, given: SignalInput) -> EdgeNote:
    """Return why a peer with an edge's address has not proved to be the edge; empty if it has.

    A peer that sends no secret is another host of the same network. A wrong or a second secret is a doubt: a client
    may have sent it through the edge, so the headers of the edge are not trusted.
    """
    if secret is None:
        return EdgeNote.NONE
    values = given.raw_values(secret.header)
    if not values:
        return EdgeNote.STRANGER_WITHIN
    is_valid = len(values) == 1 and any(
        hmac.compare_digest(values[0], value.reveal().encode("utf-8")) for value in secret.values
    )
    return EdgeNote.NONE if is_valid else EdgeNote.UNPROVEN


def parse_peer(peer: str | None) -> Address | None:
    """Parse the address of a peer, without the zone of a link-local address."""
    return parse_address((peer or "").partition("%")[0])


def parse_address(text: str) -> Address | None:
    """Parse an address with or without brackets and port. An IPv4 address may be mapped into IPv6."""
    return _short_address(text) if len(text) <= _SHORT else _address(text)


def _address(text: str) -> Address | None:
    match = _V4.fullmatch(text) or _V6.fullmatch(text)
    try:
        address = ip_address(match[1] if match else "" if "%" in text else text)
    except ValueError:
        return None
    if match is not None and (address.version == 6) != (match.re is _V6):
        return None
    return (address.ipv4_mapped or address) if address.version == 6 else address


_short_address = lru_cache(maxsize=4096)(_address)
