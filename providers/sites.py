"""A provider's named hosts with their facts: where they store and process, whom they serve, what they require.

Jurisdiction is a fact of a site, sometimes of a site and a model, and never derived from a host's name: the same
region code means different places at different vendors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from providers.catalogue import CatalogueError, read
from providers.catalogue.shapes import TABLE, TABLES, TEXT, TEXTS, Shape, check_table, check_tables
from providers.territories import ANYWHERE, Places, TerritoryError, parse_places
from providers.urls import split_url

__all__ = [
    "PROJECT",
    "Availability",
    "OriginError",
    "Residency",
    "Scope",
    "Site",
    "load_sites",
    "parse_origin",
    "sites_of",
]

PROJECT = "PROJECT"
"""Stands in a site's base path for the operator's own project there, which is a segment of every path."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
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
        return name if _HOST.fullmatch(name) else None
    try:
        if not bracketed or "%" in name:
            return str(IPv4Address(name))
        address = IPv6Address(name)
    except ValueError:
        return None
    # An IPv4 address dressed as IPv6 leads to the same server (RFC 4291, section 2.5.5.2).
    return str(address.ipv4_mapped or f"[{address}]")


@cache
def load_sites(provider: str) -> Mapping[str, Site]:
    """The catalogue's sites of a provider, by name."""
    return sites_of(read(provider))


def sites_of(data: Any) -> Mapping[str, Site]:
    """The sites of a parsed catalogue file (`[sites.NAME]`), ours or a stranger's. Raises CatalogueError."""
    return {
        name: _site(f"sites.{name}", name, row)
        for name, row in check_tables("sites", data.get("sites", {}), TABLE).items()
    }


_LISTED = Shape(
    "a list of texts, or the name of a published list", lambda value: isinstance(value, str) or TEXTS.fits(value)
)
_SHAPES: Mapping[str, Shape] = {
    **{"origin": TEXT, "base_path": TEXT, "hosts": TEXTS, "stores": TEXTS, "processes": TEXTS, "scopes": TABLES},
    **{"available": _LISTED, "never": TEXTS, "except": TEXTS, "requires": TEXTS, "allows": TEXTS, "pins": TABLE},
    **{"api_key_env": TEXT},
}
_SCOPE: Mapping[str, Shape] = {"models": TEXTS, "stores": TEXTS, "processes": TEXTS}


def _site(place: str, name: str, row: Any) -> Site:
    check_table(place, row, _SHAPES, ("origin", "base_path", "stores", "processes"))
    residency = _residency(place, row)
    return Site(
        name=name,
        origin=_origin(place, row["origin"]),
        base_path=_base_path(place, row["base_path"]),
        residency=residency,
        availability=_availability(place, row, residency),
        hosts=tuple(_pattern(place, host) for host in row.get("hosts", ())),
        scopes=tuple(_scope(f"{place}.scopes", scope) for scope in row.get("scopes", ())),
        excepts=frozenset(row.get("except", ())),
        requires=tuple(frozenset(one.split("|")) for one in row.get("requires", ())),
        allows=frozenset(row.get("allows", ())),
        pins=row.get("pins", {}),
        api_key_env=row.get("api_key_env", ""),
    )


def _origin(place: str, text: str) -> str:
    usual = text.replace(f"//{PROJECT}.", "//project.")
    try:
        spelt = parse_origin(usual) == (usual, None)
    except OriginError as error:
        raise CatalogueError(f"{place}.origin: {error}") from None
    if not spelt or not usual.startswith("https://"):
        raise CatalogueError(f"{place}.origin: must be https:// and a host in small letters, without a path")
    return text


def _base_path(place: str, text: str) -> str:
    if text and (not text.startswith("/") or text.endswith("/")):
        raise CatalogueError(f"{place}.base_path: must begin with / and not end with it, such as /v1")
    return text


def _pattern(place: str, text: str) -> str:
    """In another spelling than hosts have it would match none of them."""
    name = text.removeprefix("*.")
    if not _HOST.fullmatch(name) or "." not in name:
        raise CatalogueError(f"{place}.hosts: {text!r} is no host in small letters, such as *.example.com")
    return text


def _scope(place: str, row: Any) -> Scope:
    check_table(place, row, _SCOPE, _SCOPE)
    return Scope(tuple(row["models"]), _residency(place, row))


def _residency(place: str, row: Any) -> Residency:
    return Residency(_named(f"{place}.stores", row["stores"]), _named(f"{place}.processes", row["processes"]))


def _named(place: str, words: list[str]) -> Places:
    """Nowhere lies inside every boundary."""
    places = _places(place, words)
    if places.included is not None and not places.included:
        raise CatalogueError(f"{place}: names no territory; write any if unknown")
    return places


def _places(place: str, words: list[str]) -> Places:
    try:
        return parse_places(words)
    except TerritoryError as error:
        raise CatalogueError(f"{place}: {error}") from None


def _availability(place: str, row: Any, residency: Residency) -> Availability:
    never = _never(f"{place}.never", row["never"]) if "never" in row else frozenset()
    listed: Any = row.get("available")
    if listed is not None:
        names: Any = read("availability")
        if isinstance(listed, str) and listed not in names:
            raise CatalogueError(f"{place}.available: {listed!r} is no list; there are {', '.join(sorted(names))}")
        words = names[listed]["territories"] if isinstance(listed, str) else listed
        return Availability(_places(f"{place}.available", words), published=True, never=never)
    own = residency.stores if residency.stores.included is not None else ANYWHERE
    return Availability(own, never=never)


def _never(place: str, words: list[str]) -> frozenset[str]:
    named = _named(place, words).included
    if named is None:
        raise CatalogueError(f"{place}: must name territories")
    return named
