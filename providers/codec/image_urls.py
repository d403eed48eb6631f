"""Which URLs are never handed to a provider: those that point inside somebody's network.

The gateway fetches nothing; a provider would. Literal addresses and special names are judged here, without a DNS
look-up: a public name that resolves to a private address is the provider's to refuse (documented).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["unreachable_host"]

_INSIDE_NAMES = frozenset({"localhost", "metadata", "metadata.google.internal", "instance-data"})
_INSIDE_SUFFIXES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa", ".corp", ".home")


def unreachable_host(url: str) -> str | None:
    """Why no provider should be asked to fetch this URL, None where nothing speaks against it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is no URL"
    if not host or not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        return "is no URL of visible ASCII"
    if parts.username is not None or parts.password is not None:
        return "must not carry credentials"
    host = host.removesuffix(".").lower()
    if host in _INSIDE_NAMES or host.endswith(_INSIDE_SUFFIXES) or not (set(".:") & set(host)):
        return "points inside a network"
    address = _literal(host)
    if address is not None and not address.is_global:
        return "points to a private or special address"
    return None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the host is, in any of the spellings that resolvers take (127.1, 0x7f000001, 017700000001)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _loose_ipv4(host)
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


def _loose_ipv4(host: str) -> ipaddress.IPv4Address | None:
    """An IPv4 address as `inet_aton` reads it: one to four numbers, decimal, octal or hexadecimal."""
    numbers: list[int] = []
    for word in host.split("."):
        try:
            if word.startswith("0x"):
                numbers.append(int(word[2:] or "0", 16))
            else:
                numbers.append(int(word, 8 if word.startswith("0") and word != "0" else 10))
        except ValueError:
            return None
    *first, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):
        return None
    value = last
    for position, number in enumerate(first):
        value += number << (8 * (3 - position))
    return ipaddress.IPv4Address(value)
