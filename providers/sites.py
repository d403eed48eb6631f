"""A provider's hosts and their facts: where they store and process content, which territories they serve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from providers.evidence import NO_CITATION, Citation
from providers.territories import ANYWHERE, Places
from providers.value import Value

_BRACKETED = re.compile(r"\[[^][]*\](?::.*)?")
PROJECT = "PROJECT"
"""The placeholder for the operator's project in a site's base path or host."""
HOST_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_url(url: str) -> SplitResult:
    """Split a URL into its parts. Raises ValueError for a text that is not a URL.

    Brackets must enclose the whole host (RFC 3986, section 3.2.2). Older releases of Python take the text between the
    brackets as the host and ignore the rest (CVE-2025-0938), which the next reader of the URL may not ignore.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if "[" in host and not _BRACKETED.fullmatch(host):
        raise ValueError("brackets enclose only a part of the host")
    return parts


class Residency(Value, frozen=True):
    """Where content is stored and where it is processed."""

    stores: Places
    """The territories in which content may be stored."""
    processes: Places
    """The territories in which content may be processed."""

    def within(self, boundary: Places) -> bool:
        """Return whether content is stored and processed inside a boundary. `any` fits only a bare `*`."""
        return self.stores.within(boundary) and self.processes.within(boundary)


_NO_PROMISE = Residency(ANYWHERE, ANYWHERE)


class Availability(Value, frozen=True):
    """The territories that a vendor serves."""

    places: Places
    """The territories."""
    published: bool = False
    """Whether the vendor publishes a list. If it does not, `places` is where the site stores content, and an operator
    may widen it, except to territories in `never`."""
    never: frozenset[str] = frozenset()
    """Territories that an operator may not add."""
    listed_as: str = ""
    """The name of the shared list in `availability.toml`, or empty."""
    citation: Citation | None = None
    """The evidence for a shared list, or None if the site's own evidence covers the territories."""


class Scope(Value, frozen=True):
    """Models with a residency of their own at a site."""

    models: tuple[str, ...]
    """Names or glob patterns."""
    residency: Residency
    """Where these models store and process content."""
    citation: Citation | None = None
    """The evidence, or None if the site's covers it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A host of a provider, with its facts."""

    name: str
    """The site's name in configurations."""
    origin: str
    """The origin, such as `https://us.api.openai.com`. If the first label of the host is `PROJECT`, the operator's own
    project replaces it."""
    base_path: str
    """The prefix of every path, such as `/v1`. The operator's project replaces a segment `PROJECT`."""
    residency: Residency
    """Where models without a scope of their own store and process content, so the widest residency."""
    availability: Availability
    """The territories that the vendor serves from here."""
    hosts: tuple[str, ...] = ()
    """Patterns of further hosts with the same facts, such as host names for each workspace."""
    scopes: tuple[Scope, ...] = ()
    """Models with a residency of their own."""
    excepts: frozenset[str] = frozenset()
    """Features and parameters that the vendor excludes from its promise of residency; `decisions` if the site has
    none."""
    requires: tuple[frozenset[str], ...] = ()
    """Attestations without which the promise does not hold. Each entry is a set of which one is enough."""
    allows: frozenset[str] = frozenset()
    """Data-moving request fields that the promise covers."""
    pins: Mapping[str, object] = field(default_factory=dict)
    """Body fields that are written last into every request."""
    api_key_env: str = ""
    """The environment variable that usually holds the key for this site."""
    citation: Citation = NO_CITATION
    """The page that states these facts, a quotation, and the day on which it was read."""
    counts: Citation | None = None
    """The evidence that this site counts the tokens of a prompt, where not every site of the provider does, or None
    without evidence."""

    def residency_of(self, model: str) -> Residency:
        """Return where content of a model is stored and processed: by the first scope that matches, or by the site."""
        scope = self._scope_of(model)
        return self.residency if scope is None else scope.residency

    def citation_of(self, model: str) -> Citation:
        """Return the evidence for where the content of a model is stored and processed.

        It is that of the first scope that matches and has one, or else that of the site.
        """
        scope = self._scope_of(model)
        return self.citation if scope is None or scope.citation is None else scope.citation

    def _scope_of(self, model: str) -> Scope | None:
        for scope in self.scopes:
            if any(fnmatchcase(model, pattern) for pattern in scope.models):
                return scope
        return None

    def origin_of(self, project: str) -> str:
        """Return the origin to send requests to, with the operator's project if the host has a placeholder for it.

        Raises OriginError if the project is not a valid label of a host name.
        """
        if not self.wants_project_in_host:
            return self.origin
        if not _LABEL.fullmatch(project):
            raise OriginError("must be one label of a host name: letters, digits and hyphens")
        return self.origin.replace(f"//{PROJECT}.", f"//{project.lower()}.")

    @property
    def wants_project_in_host(self) -> bool:
        """Whether each customer has its own host at this site."""
        return self.origin.startswith(f"https://{PROJECT}.")

    def owns(self, origin: str) -> bool:
        """Return whether an origin belongs to this site: its host is the site's, or matches a pattern in `hosts`.

        Scheme and port are not compared.
        """
        host = _hostname(origin)
        return host == _hostname(self.origin) or any(fnmatchcase(host, pattern) for pattern in self.hosts)

    def covers(self, origin: str) -> bool:
        """Return whether an origin that no site owns has the facts of this one, because the vendor promises nothing.

        Its host (`https://eu-west-1.api.x.ai`) is below the site's. Below a whole domain are other services.
        """
        own = _hostname(self.origin)
        return self.residency == _NO_PROMISE and own.count(".") > 1 and _hostname(origin).endswith(f".{own}")


@lru_cache(maxsize=512)
def _hostname(origin: str) -> str:
    """Cached, because each origin of a configuration is compared with every site of the catalogue."""
    return split_url(origin).hostname or ""


class OriginError(ValueError):
    """A URL to which requests cannot be sent. The message reads on after the name of the setting."""


def parse_origin(url: str) -> tuple[str, str | None]:
    """Split an endpoint URL into origin (`https://host` or `http://host:8000`) and path.

    The origin is in lower case, without a default port and without a trailing dot, so that each host has one spelling.
    The path has no trailing slash; None: the URL has no path. Raises OriginError if requests cannot be sent to this
    URL.

    Examples:
        >>> from providers.contract import parse_origin
        >>> parse_origin("https://LLM.example.com:443/v1/")
        ('https://llm.example.com', '/v1')
    """
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        raise OriginError("must be visible ASCII without spaces or braces; write an international name as xn--…")
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
    """Return the normalised spelling of a host, or None if it is invalid.

    A host whose last label is a number must be an IPv4 address.
    """
    name = name.lower().removesuffix(".")
    if not bracketed and not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return name if HOST_PATTERN.fullmatch(name) else None
    try:
        if not bracketed or "%" in name:
            return str(IPv4Address(name))
        address = IPv6Address(name)
    except ValueError:
        return None
    # An IPv4-mapped IPv6 address leads to the same server as the IPv4 address (RFC 4291, section 2.5.5.2).
    return str(address.ipv4_mapped or f"[{address}]")
