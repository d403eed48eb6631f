"""The person's address, from the peer or from what a trusted edge wrote: lists are read from the right, strictly.

What stands left of the first untrusted hop is whatever somebody sent, and is not read. An entry that ought to be an
address and is none is a doubt; one that says that nobody knows (`unknown`, `_hidden`) is silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from gateway.model.edge import Network
from gateway.model.signals import AddressReport

Address = IPv4Address | IPv6Address
# The whole addresses of an interface have a port here, and IPv6 has no brackets: the last colon is the port's (AWS,
# "Add CloudFront request headers").
_ALWAYS_WITH_PORT = frozenset({"cloudfront-viewer-address"})
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_V4 = re.compile(rf"([0-9.]+){_PORT}")
_V6 = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{_PORT}")
_UNTOLD = re.compile(r"unknown|_[A-Za-z0-9._-]+", re.IGNORECASE)
# RFC 7239, section 4, with the tokens and quoted strings of RFC 9110, section 5.6.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")')
_SEPARATOR = re.compile(r"[ \t]*([,;])[ \t]*")
_ESCAPE = re.compile(r"\\(.)")


def read_client_ip(header: str, values: Sequence[str], hops: Iterable[Network]) -> Address | AddressReport:
    """The address that an edge's header tells, or why it tells none. `hops`: the proxies that may stand in a list."""
    if not values:
        return AddressReport(note="silent: the edge tells no address")
    if header == "x-forwarded-for":
        return _from_the_right([entry.strip(" \t") for value in values for entry in value.split(",")], hops)
    if header == "forwarded":
        elements = _elements(", ".join(values))
        return _doubt() if elements is None else _from_the_right([each.get("for") for each in elements], hops)
    told = {value.strip(" \t") for value in values}
    if len(told) != 1:
        return _doubt()
    text = told.pop()
    if header in _ALWAYS_WITH_PORT:
        text = _bracketed(text)
    return _read(text)


def parse_address(text: str) -> Address | None:
    """An address, with or without brackets and port; an IPv4 one also where it comes dressed as IPv6."""
    match = _V4.fullmatch(text) or _V6.fullmatch(text)
    try:
        address = ip_address(match[1] if match else "" if "%" in text else text)
    except ValueError:
        return None
    if match is not None and (address.version == 6) != (match.re is _V6):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _from_the_right(entries: Sequence[str | None], hops: Iterable[Network]) -> Address | AddressReport:
    trusted = tuple(hops)
    for entry in reversed(entries):
        read = AddressReport(note="silent: a proxy tells no address") if entry is None else _read(entry)
        if isinstance(read, AddressReport) or not any(read in network for network in trusted):
            return read
    return AddressReport(note="silent: every address that is told is a proxy's")


def _read(text: str) -> Address | AddressReport:
    if _UNTOLD.fullmatch(text):
        return AddressReport(note="silent: a proxy doesn't tell the address")
    return parse_address(text) or _doubt()


def _doubt() -> AddressReport:
    return AddressReport(note="in doubt: the edge's header is no address, or several", doubtful=True)


def _bracketed(text: str) -> str:
    host, _, port = text.rpartition(":")
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else text if host else ""


def _elements(text: str) -> list[dict[str, str]] | None:
    """The elements of a `Forwarded` header, each with its parameters by lower-case name; None if it is malformed."""
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
