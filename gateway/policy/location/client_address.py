"""The client's IP address, and the signal `geoip`, which looks it up in a database.

The address is the peer's, or the one in a header of a trusted edge. Lists of addresses are read from the right, and
strictly: an entry left of the first untrusted hop can be anything that a client sent, and is not read. An entry that
should be an address and is not one is a doubt. An entry that names no address (`unknown`, `_hidden`) is silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gateway.model.location import Address, AddressReport
from gateway.model.location_rules import LocationRules, Network
from gateway.policy.location.trusted_edge import EdgeNote, SignalInput, check_secret, parse_address, secret_headers

# This header always has a port, and IPv6 addresses have no brackets: the port follows the last colon (AWS, "Add
# CloudFront request headers").
_ALWAYS_WITH_PORT = frozenset({"cloudfront-viewer-address"})
_HIDDEN_ADDRESS = re.compile(r"unknown|_[A-Za-z0-9._-]+", re.IGNORECASE)
# RFC 7239, section 4, with the tokens and quoted strings of RFC 9110, section 5.6.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")')
_SEPARATOR = re.compile(r"[ \t]*([,;])[ \t]*")
_ESCAPE = re.compile(r"\\(.)")


def address_headers(rules: LocationRules) -> frozenset[str]:
    """Return the headers from which the client's address is read."""
    addresses = {edge.client_ip_header for edge in rules.edges if edge.client_ip_header is not None}
    return secret_headers(rules) | addresses


def client_address(rules: LocationRules, given: SignalInput) -> Address | AddressReport:
    """Return the client's address, or why there is none: the peer's, or what a trusted edge reports."""
    edge = given.edge
    if edge is None:
        return parse_address(given.peer or "") or AddressReport(note="silent: the peer has no address")
    if note := check_secret(edge.secret, given):
        if note is EdgeNote.UNPROVEN:
            return AddressReport(note=note, doubtful=True)
        return AddressReport(note="silent: the peer did not send the secret of the edge")
    header = edge.client_ip_header
    values = given.values(header) if header is not None else ()
    return read_client_ip(header or "", values, rules.hops)


def read_client_ip(header: str, values: Sequence[str], hops: Iterable[Network]) -> Address | AddressReport:
    """Return the address in an edge's header, or why there is none. hops: the proxies that may be in a list."""
    if not values:
        return AddressReport(note="silent: the edge reports no address")
    if header == "x-forwarded-for":
        return _from_the_right([entry.strip(" \t") for value in values for entry in value.split(",")], hops)
    if header == "forwarded":
        elements = _elements(", ".join(values))
        return _doubtful_report() if elements is None else _from_the_right([each.get("for") for each in elements], hops)
    distinct = {value.strip(" \t") for value in values}
    if len(distinct) != 1:
        return _doubtful_report()
    text = distinct.pop()
    if header in _ALWAYS_WITH_PORT:
        host, _, port = text.rpartition(":")
        text = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else text if host else ""
    return _read(text)


def _from_the_right(entries: Sequence[str | None], hops: Iterable[Network]) -> Address | AddressReport:
    trusted = tuple(hops)
    for entry in reversed(entries):
        read = AddressReport(note="silent: a proxy reports no address") if entry is None else _read(entry)
        if isinstance(read, AddressReport) or not any(read in network for network in trusted):
            return read
    return AddressReport(note="silent: every reported address is that of a proxy")


def _read(text: str) -> Address | AddressReport:
    if _HIDDEN_ADDRESS.fullmatch(text):
        return AddressReport(note="silent: a proxy hides the address")
    return parse_address(text) or _doubtful_report()


def _doubtful_report() -> AddressReport:
    return AddressReport(note="in doubt: the edge's header is not one valid address", doubtful=True)


def _elements(text: str) -> list[dict[str, str]] | None:
    """Return the elements of a `Forwarded` header as parameters by lower-case name, or None if it is malformed."""
    text = text.strip(" \t")
    elements: list[dict[str, str]] = [{}]
    position = 0
    while pair := _PAIR.match(text, position):
        name = pair[1].lower()
        if name in elements[-1]:
            return None
        elements[-1][name] = pair[2] if pair[2] is not None else _ESCAPE.sub(r"\1", pair[3])
        if pair.end() == len(text):
            return elements
        separator = _SEPARATOR.match(text, pair.end())
        if separator is None:
            return None
        if separator[1] == ",":
            elements.append({})
        position = separator.end()
    return None
