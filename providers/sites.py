"""A provider's named hosts, with their facts: where they store and process, whom they serve, what they require."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from providers.territories import Places

_BRACKETED = re.compile(r"\[[^][]*\](?::.*)?")


def split_url(url: str) -> SplitResult:
    """The parts of a URL. Raises ValueError where it is none.

    Brackets hold the whole host (RFC 3986, section 3.2.2). Older releases of Python take the host from between them and
    leave out what stands beside it (CVE-2025-0938), which whoever reads the URL next may not.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if "[" in host and not _BRACKETED.fullmatch(host):
        raise ValueError("brackets hold a part of the host")
    return parts


PROJECT = "PROJECT"
"""Stands in a site's base path for the operator's own project there, which is a segment of every path."""


HOST_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Residency:
    """Where content is kept and where it is computed on."""

    stores: Places
    processes: Places

    def within(self, boundary: Places) -> bool:
        """Whether neither leaves the boundary. `any` fits only a bare `*`."""
        return self.stores.within(boundary) and self.processes.within(boundary)


@dataclass(frozen=True, slots=True)
class Availability:
    """Which territories a vendor serves.

    published: whether the vendor has a list; where it has none, `places` is the site's own storage territory and
    an operator may widen it, but not to what is in `never`.
    """

    places: Places
    published: bool = False
    never: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Scope:
    """Models (glob patterns) whose deployment scope has a residency of its own at a site."""

    models: tuple[str, ...]
    residency: Residency


@dataclass(frozen=True, slots=True)
class Site:
    """One named host.

    origin: `https://us.api.openai.com`; base_path: the prefix of every path there, such as `/v1`; a segment PROJECT in
        it is the operator's own project. Where it is the first label of the host, that is the operator's own too.
    hosts: patterns of further hosts with the same facts (a vendor's per-workspace names).
    residency: of every model without a scope of its own, so the widest.
    excepts: capabilities and parameters that the vendor leaves out of its promise of residency.
    requires: what must be attested for the promise to hold; each entry is a set of which one is enough.
    allows: data-moving request fields that this site's promise covers.
    pins: body fields that are written last into every request.
    api_key_env: the environment variable that people keep this site's key in.
    """

    name: str
    origin: str
    base_path: str
    residency: Residency
    availability: Availability
    hosts: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = ()
    excepts: frozenset[str] = frozenset()
    requires: tuple[frozenset[str], ...] = ()
    allows: frozenset[str] = frozenset()
    pins: Mapping[str, object] = field(default_factory=dict)
    api_key_env: str = ""

    def residency_of(self, model: str) -> Residency:
        """Where this model's content is stored and processed here; an unknown model takes the widest scope."""
        for scope in self.scopes:
            if any(fnmatchcase(model, pattern) for pattern in scope.models):
                return scope.residency
        return self.residency

    def origin_of(self, project: str) -> str:
        """The origin, with the operator's project in it where it wants one; raises OriginError for what is no label."""
        if not self.wants_project_in_host:
            return self.origin
        if not _LABEL.fullmatch(project):
            raise OriginError("must be one label of a host name: letters, digits and hyphens")
        return self.origin.replace(f"//{PROJECT}.", f"//{project.lower()}.")

    @property
    def wants_project_in_host(self) -> bool:
        """Whether every customer has a host of their own here."""
        return self.origin.startswith(f"https://{PROJECT}.")

    def owns(self, origin: str) -> bool:
        """Whether the origin is this site's, whatever its scheme and port say."""
        host = _hostname(origin)
        return host == _hostname(self.origin) or any(fnmatchcase(host, pattern) for pattern in self.hosts)


@lru_cache(maxsize=512)
def _hostname(origin: str) -> str:
    """A config's origins are each compared with every site of the catalogue."""
    return split_url(origin).hostname or ""


class OriginError(ValueError):
    """A URL that can't be a place to send requests to; the message says why."""


def parse_origin(url: str) -> tuple[str, str | None]:
    """The origin (`https://host`, `http://host:8000`) and the path of an endpoint URL; path None if none is written.

    Lower case, no default port, no trailing dot, so that one host has one spelling. Raises OriginError.
    """
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        raise OriginError("must be visible ASCII without spaces; write an international name in its xn-- form")
    try:
        parts = split_url(url)
    except ValueError as error:
        raise OriginError("is not a URL") from error
    scheme = parts.scheme.lower()
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    if scheme not in _DEFAULT_PORTS:
        raise OriginError("must start with https:// (or http:// for a server on this machine)")
    if host is None:
        raise OriginError("has no valid host name")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise OriginError("must have a port from 1 to 65535")
    if parts.username is not None or parts.password is not None:
        raise OriginError("must not carry a user name or password; use api_key")
    if "?" in url or "#" in url:
        raise OriginError("must have no query and no fragment")
    path = parts.path
    if path and ("//" in path or any(segment in (".", "..") for segment in path.split("/")) or "%" in path):
        raise OriginError("has a path with empty, dot or percent-encoded segments")
    suffix = "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{suffix}", path.removesuffix("/") if path else None


def _host(name: str, *, bracketed: bool) -> str | None:
    """The one spelling of a host, None if it is no host. What ends in a number is an address, or nothing."""
    name = name.lower().removesuffix(".")
    if not bracketed and not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return name if HOST_PATTERN.fullmatch(name) else None
    try:
        if not bracketed or "%" in name:
            return str(IPv4Address(name))
        address = IPv6Address(name)
    except ValueError:
        return None
    # An IPv4 address dressed as IPv6 leads to the same server (RFC 4291, section 2.5.5.2).
    return str(address.ipv4_mapped or f"[{address}]")
