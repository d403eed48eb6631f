"""Which URLs are never handed to a provider: those that point inside somebody's network.

The gateway fetches nothing; a provider would. Literal addresses and special names are judged here, without a DNS
look-up: a public name that resolves to a private address is the provider's to refuse (documented).
"""

from __future__ import annotations

import ipaddress
import re

from providers.urls import split_url

__all__ = ["unreachable_host"]

_INSIDE_NAMES = frozenset({"localhost", "metadata", "metadata.google.internal", "instance-data"})
# Beside names that networks use inside (`.svc` is Kubernetes'), those that no public server has: RFC 6761, RFC 7686.
_INSIDE_SUFFIXES = (
    *(".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".corp", ".home", ".svc"),
    *(".test", ".invalid", ".onion"),
)
_NAME = re.compile(r"[a-z0-9._-]+")
_ADDRESS = re.compile(r"[0-9a-f:.]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "2001::/23", "3fff::/20")))
"""Protocol assignments (RFC 6890) and documentation (RFC 9637), public to some versions of Python. The metadata of a
cloud is among them, and addresses whose server is the nearest one, such as one's own router (RFC 7723)."""
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
"""What IANA has given out as global unicast; the rest of IPv6 leads inside, by translation or by old forms."""


def unreachable_host(url: str) -> str | None:
    """Why no provider should be asked to fetch this URL, None where nothing speaks against it."""
    try:
        parts = split_url(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is no URL"
    if not host or not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        return "is no URL of visible ASCII"
    if parts.username is not None or parts.password is not None:
        return "must not carry credentials"
    host = host.rstrip(".").lower()
    if not (_ADDRESS if "[" in parts.netloc else _NAME).fullmatch(host):
        return "has no valid host name"
    if host in _INSIDE_NAMES or host.endswith(_INSIDE_SUFFIXES) or not (set(".:") & set(host)):
        return "points inside a network"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # 127.1, 0x7f.1 and 0177.0.0.1 are addresses to some resolvers, and not the same one to all of them.
        return "spells an address in an unusual way" if _NUMBER.fullmatch(host.rpartition(".")[2]) else None
    return None if _is_public(address) else "points to a private or special address"


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        return _is_public(inner) if inner else address in _PUBLIC_IPV6 and _is_given_out(address)
    return _is_given_out(address) and not address.is_multicast


def _is_given_out(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not any(address in network for network in _RESERVED)
