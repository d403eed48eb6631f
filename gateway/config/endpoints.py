"""Compile the endpoint of a deployment: its origin, its base path and the facts of its site.

All sections that name one server must state the same facts about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.config.ended_providers import ended_message
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.service_permits import is_this_machine
from gateway.config.territories import read_territories
from gateway.config.validation import Draft
from providers.adapter import Adapter, HasModelsElsewhere, KnowsBasePath
from providers.catalogue.ended import ended_providers
from providers.catalogue.sites import cloud_regions, vendor_domain
from providers.registry import Registry
from providers.sites import PROJECT, OriginError, Residency, Site, parse_origin
from providers.territories import Places
from providers.value import Value

# A connection to an unspecified address (0.0.0.0 or ::) reaches this machine.
_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104  # not used to listen
SIMULATOR = "simulator"
_NOT_STARTED = "http://127.0.0.1:0"
_COMPATIBLE_PATHS = ("/openai", "/openapi")
_USUAL_BASE_PATH = "/v1"
_CLOUD_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}")
# The paths that adapters append to the base path. A URL that already ends in one of them is wrong.
_CALL = re.compile(
    r"/(?:(?:chat/)?completions|messages(?:/count_tokens)?|responses|embeddings|moderations|models(?:/[^/]+:\w+)?"
    r"|tokenize|api/(?:chat|generate|embed)|generate(?:_stream)?)$"
)


def server_of(origin: str) -> tuple[str, int]:
    """Return host and port, http or https, with `localhost` for every name and address of this machine."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    is_own = host in _UNSPECIFIED or host.endswith(".localhost") or is_this_machine(origin)
    return "localhost" if is_own else host, parts.port or (443 if parts.scheme == "https" else 80)


class Endpoint(Value, frozen=True):
    """The address of a provider. `facts` is None for a host that only the operator knows."""

    origin: str
    base_path: str
    residency: Residency
    facts: Site | None
    simulates: str | None = None

    @property
    def site(self) -> str:
        """The name of the site, or the origin."""
        return self.facts.name if self.facts is not None else self.origin


@dataclass(slots=True)
class Endpoints:
    """Compile endpoints."""

    draft: Draft
    registry: Registry
    simulators: Mapping[tuple[str, str], str] | None
    """The origin of each simulator by provider and site, or None if none is started, as in a check."""
    demo: bool
    simulated: bool
    """Whether every deployment is put at a simulator, as in a rehearsal."""
    owners: dict[tuple[str, str], Site | None] = field(default_factory=dict)
    guessed: set[KeyPath] = field(default_factory=set)
    """The deployments whose provider is unknown and was guessed. Its missing settings are not reported."""
    _stated: dict[tuple[str, int], tuple[KeyPath, Residency]] = field(default_factory=dict)
    """The residency that the operator states for each server, and the section that stated it first."""
    origins: tuple[str, ...] = ()
    """The origins of all known sites, those of ended providers too, once they are asked for."""

    def read(self, name: str, section: DeploymentSection, adapter: Adapter) -> Endpoint | None:
        """Return the endpoint of the deployment `name`, or None after its errors have been reported."""
        path: KeyPath = ("deployments", name)
        text = section.endpoint
        if (self.demo and name not in self.draft.document.real) or text == SIMULATOR:
            return self._simulator(path, section, adapter)
        if section.simulates is not None:
            self.draft.error((*path, "simulates"), "is only valid for a simulator", f"write `endpoint: {SIMULATOR}`")
            return None
        if text is not None and ":" in text:
            return self._url(name, section, adapter, text)
        site = self._site(path, section, adapter)
        if site is None:
            return None
        origin = self._own_host(path, section, site)
        return self._at(path, section, site, origin) if origin is not None else None

    def agree(self, section: KeyPath, origin: str, residency: Residency) -> bool:
        """Return whether no other section states other facts about this server. Report an error otherwise."""
        first, facts = self._stated.setdefault(server_of(origin), (section, residency))
        if facts == residency:
            return True
        kind, name = first[0], str(first[1])
        where = f"{str(kind).removesuffix('s')} {quoted(name)} (line {self.draft.line(first)})"
        message = f"{origin} has different facts (stores, processes) in {where}"
        self.draft.error((*section, "endpoint"), message, "one server has one set of facts; state the same in both")
        return False

    def origin_of(self, path: KeyPath, provider: str, endpoint: Endpoint) -> str:
        """Return the origin that a deployment calls: that of its simulator, if it has one. Report a missing one."""
        if endpoint.simulates is None and not self.simulated:
            return endpoint.origin
        origin = _NOT_STARTED
        if self.simulators is not None:
            origin = self.simulators.get((provider, endpoint.site), "")
        if not origin:
            self.draft.error(path, f"no simulator of {provider} {endpoint.site} is running", "start the gateway again")
        return origin

    def _own_host(self, path: KeyPath, section: DeploymentSection, site: Site) -> str | None:
        """Return the origin of the site, with the operator's workspace where it must be; report a missing one."""
        if site.wants_project_in_host and section.project is None:
            message = f"is missing: every customer of {section.provider} has its own host at {site.name}"
            self.draft.error((*path, "project"), message, "write the id of your workspace")
            return None
        try:
            return site.origin_of(section.project or "")
        except OriginError as error:
            self.draft.error((*path, "project"), str(error), "write the id of your workspace")
            return None

    def _simulator(self, path: KeyPath, section: DeploymentSection, adapter: Adapter) -> Endpoint | None:
        if section.endpoint != SIMULATOR:
            hint = f"write `endpoint: {SIMULATOR}` and `simulates: <site>`"
            self.draft.error((*path, "endpoint"), "in demo mode every deployment is a simulator", hint)
            return None
        if not self.demo:
            hint = "write `demo: true` or use `gateway demo`; for a real provider, name a site or a URL"
            self.draft.error((*path, "endpoint"), "a simulator is available in demo mode only", hint)
            return None
        if section.simulates is None:
            hint = choice_hint("", adapter.sites, none="the provider has no site that could be simulated")
            self.draft.error((*path, "simulates"), "is missing: the site whose facts the simulator takes", hint)
            return None
        site = self._named((*path, "simulates"), section.simulates, section, adapter)
        if site is None:
            return None
        found = self._at(path, section, site, _NOT_STARTED)
        return None if found is None else Endpoint(_NOT_STARTED, found.base_path, found.residency, site, site.name)

    def _site(self, path: KeyPath, section: DeploymentSection, adapter: Adapter) -> Site | None:
        """Return the provider's site that `endpoint` names, or its only site."""
        if section.endpoint is not None:
            return self._named((*path, "endpoint"), section.endpoint, section, adapter)
        if len(adapter.sites) == 1:
            return next(iter(adapter.sites.values()))
        if path in self.guessed:
            return None
        if adapter.sites:
            message, hint = "is missing", choice_hint("", adapter.sites)
        else:
            message = f"is missing: {section.provider} has no site of its own"
            hint = "write the URL of the server, and the territories where it `stores` and `processes`"
        self.draft.error((*path, "endpoint"), message, hint)
        return None

    def _named(self, path: KeyPath, text: str, section: DeploymentSection, adapter: Adapter) -> Site | None:
        site = adapter.sites.get(text)
        if site is None:
            hint = choice_hint(text, adapter.sites, none="write the server's URL, beginning with https://")
            if "." in text or "/" in text:
                hint = "a URL begins with https://"
            self.draft.error(path, f"unknown site {quoted(text)} of {section.provider}", hint)
        return site

    def _url(self, name: str, section: DeploymentSection, adapter: Adapter, url: str) -> Endpoint | None:
        path: KeyPath = ("deployments", name)
        try:
            origin, written = parse_origin(url)
        except OriginError as error:  # the URL may contain a password, so it is not shown
            self.draft.error((*path, "endpoint"), f"the URL {error}")
            return None
        site = self._owner(section.provider, origin)
        # A lone slash is the root of one's own server. The API of a vendor begins elsewhere, so there it is left out.
        is_vendor = site is not None or (isinstance(adapter, KnowsBasePath) and bool(adapter.usual_base_path))
        base_path = written if written or (written is not None and not is_vendor) else _usual_base_path(adapter)
        if (call := _CALL.search(base_path)) is not None:  # other gateways expect such URLs
            message = f"the URL ends in {quoted(call[0])}, and the path of each request is appended to it"
            self.draft.warn((*path, "endpoint"), message, f"write {origin}{base_path.removesuffix(call[0])}")
        if site is None:
            begins_at_v1 = section.provider != "openai-compatible" and _usual_base_path(adapter) == _USUAL_BASE_PATH
            if begins_at_v1 and "/v" not in base_path:
                message = f"the API of {section.provider} begins at {_USUAL_BASE_PATH}, which this URL does not have"
                self.draft.warn((*path, "endpoint"), message, f"write {origin}{base_path}{_USUAL_BASE_PATH}")
            return self._own_server(name, section, origin, base_path)
        if not origin.startswith("https://") or urlsplit(origin).port is not None:
            message = f"{urlsplit(origin).hostname} is a provider's host: it must be https with the default port"
            self.draft.error((*path, "endpoint"), message, f"write https://{urlsplit(origin).hostname}")
            return None
        if section.provider == "openai-compatible" and base_path.rstrip("/").endswith(_COMPATIBLE_PATHS):
            # A vendor's API in OpenAI's form, such as Google's, has less than its own.
            owners = (name for name, other in self.registry.adapters.items() if site in other.sites.values())
            owner = next(owners, section.provider)
            message = f"the URL is that of {owner} in OpenAI's form, which has less than its own API"
            self.draft.warn((*path, "provider"), message, f"write `provider: {owner}` and `endpoint: {site.name}`")
        return self._at(path, section, site, origin, base_path)

    def _owner(self, provider: str, origin: str) -> Site | None:
        """Return the site in the catalogue that owns the host, or None. Sites of the provider itself come first."""
        key = provider, origin
        if key not in self.owners:
            self.owners[key] = self._find_owner(provider, origin)
        return self.owners[key]

    def _find_owner(self, provider: str, origin: str) -> Site | None:
        adapters = self.registry.adapters
        # A provider for some models at the hosts of another one comes after it: a URL alone names no model.
        some = [one.models_elsewhere for one in adapters.values() if isinstance(one, HasModelsElsewhere)]
        of_some = {name for elsewhere in some for name in elsewhere.values()}
        for name in sorted(adapters, key=lambda name: (name != provider, name in of_some, name)):
            owned = [site for site in adapters[name].sites.values() if site.owns(origin)]
            if owned:
                # Several sites may share a host and differ in what they pin. A URL means the one with the weakest
                # promise.
                host = urlsplit(origin).hostname
                return min(owned, key=lambda site: (urlsplit(site.origin).hostname != host, bool(site.scopes)))
        sites = (site for name in sorted(adapters) for site in adapters[name].sites.values())
        return next((site for site in sites if site.covers(origin)), None)

    def _at(
        self, path: KeyPath, section: DeploymentSection, site: Site, origin: str, base_path: str | None = None
    ) -> Endpoint | None:
        """Return the endpoint with the facts of the catalogue. Report an error if the section states other facts."""
        residency = site.residency_of(section.model)
        is_valid = True
        for key, words, fact in (
            ("stores", section.stores, residency.stores),
            ("processes", section.processes, residency.processes),
        ):
            stated = read_territories(self.draft, (*path, key), words) if words is not None else fact
            if stated is not None and stated != fact:
                host = urlsplit(site.origin).hostname
                message = f"contradicts the known facts of the site {site.name} ({host}): it {key} in {fact}"
                self.draft.error((*path, key), message, "remove it; the facts of the site are used")
            is_valid = is_valid and stated == fact
        _, wants_project, suffix = site.base_path.partition(f"/{PROJECT}/")
        if wants_project and base_path is not None and not base_path.endswith(f"/{suffix}"):
            message = f"does not lead to the site {site.name}, whose path ends in /{suffix}"
            self.draft.error((*path, "endpoint"), message, f"write the site's name, {site.name}, and the `project`")
            return None
        in_host = site.wants_project_in_host and section.endpoint == site.name
        base_path = site.base_path if base_path is None else base_path
        full_path = self._in_project(path, section, base_path, in_host=in_host)
        return Endpoint(origin, full_path, residency, site) if is_valid and full_path is not None else None

    def _in_project(
        self, path: KeyPath, section: DeploymentSection, base_path: str, *, in_host: bool = False
    ) -> str | None:
        """Return the path with the operator's project in it, if the provider requires one; report a missing one."""
        if PROJECT not in base_path.split("/"):
            if section.project is not None and not in_host:
                self.draft.error((*path, "project"), "the path of this endpoint has no project", "remove it")
                return None
            return base_path
        if section.project is None:
            if section.endpoint == SIMULATOR:
                return base_path
            message = f"is missing: it is a part of the path at {section.provider}"
            self.draft.error((*path, "project"), message, "write the id of your cloud project")
            return None
        if not _CLOUD_PROJECT.fullmatch(section.project):
            message = "must be the id of a cloud project: lower-case letters, digits, `-`, `.` and `:`"
            self.draft.error((*path, "project"), message)
            return None
        return base_path.replace(f"/{PROJECT}/", f"/{section.project}/")

    def _vendor(self, host: str, provider: str = "") -> str:
        """Return the known vendor's domain that a host is below, or "". See `vendor_domain`."""
        if not self.origins:
            sites = (site for adapter in self.registry.adapters.values() for site in adapter.sites.values())
            ended = (f"https://{name}" for one in ended_providers().values() for name in one.hosts)
            self.origins = (*(site.origin for site in sites), *ended)
        return vendor_domain(host, provider, self.origins)

    def _warn_of_vendor(self, path: KeyPath, provider: str, host: str) -> None:
        """Warn of a host below a known vendor's domain that the catalogue does not know, or knew."""
        if (ended := _ended(host)) is not None:
            successor = ended_providers()[ended].successor
            message = ended_message(ended, ended_providers()[ended])
            self.draft.warn(path, message, f"write `provider: {successor}`, which replaces it")
        elif domain := self._vendor(host, provider):
            message = f"{host} is below {domain}, a vendor's domain, but no site in the catalogue has this host"
            hint = "check in the vendor's documents where it stores and processes: only your statement counts"
            self.draft.warn(path, message, hint)

    def _is_where_its_name_says(self, path: KeyPath, host: str, stated: Mapping[str, Places]) -> bool:
        """Return whether the stated facts of a vendor's host have the country of the region in its name. Report others.

        The catalogue knows only some regions of a cloud as sites. The places of a host that a provider had are those
        that were known while it was offered.
        """
        known = ended_providers()[ended].hosts[host] if (ended := _ended(host)) is not None else None
        for key, places in stated.items():
            if known is not None and places != known:
                message = f"contradicts the known facts of {host}, a vendor's host: it {key} in {known}"
                self.draft.error((*path, key), message, f"write {key}: {known}")
                return False
        names = {label.partition("-aiplatform")[0] for label in host.split(".")} if self._vendor(host) else set()
        for regions in cloud_regions().values():
            for region in sorted(names & regions.keys()):
                country = regions[region]
                for key, places in stated.items():
                    is_part = any(code.startswith(f"{country}-") for code in places.included or ())
                    if not (places.contains(country) or is_part):
                        message = f"contradicts the name of the host: {host} is in {region}, and so in {country}"
                        self.draft.error((*path, key), message, f"write {key}: {country}")
                        return False
        return True

    def _own_server(self, name: str, section: DeploymentSection, origin: str, base_path: str) -> Endpoint | None:
        """Return the endpoint of a host outside the catalogue, with the facts that the operator states."""
        path: KeyPath = ("deployments", name)
        territories: dict[str, Places] = {}
        for key, words in (("stores", section.stores), ("processes", section.processes)):
            if words is None:
                hint = f"state the territories: {key}: DE, or any if unknown"
                self.draft.error((*path, key), "is missing: there are no known facts about this URL", hint)
            elif (read := read_territories(self.draft, (*path, key), words)) is not None:
                territories[key] = read
        self._warn_of_vendor((*path, "endpoint"), section.provider, urlsplit(origin).hostname or "")
        if origin.startswith("http://") and not section.insecure and not is_this_machine(origin):
            message = "http:// sends prompts and keys in clear text"
            self.draft.error((*path, "endpoint"), message, "use https://, or allow it with `insecure: true`")
            return None
        in_project = self._in_project(path, section, base_path)
        if len(territories) < 2 or in_project is None:
            return None
        residency = Residency(territories["stores"], territories["processes"])
        if not self._is_where_its_name_says(path, urlsplit(origin).hostname or "", territories):
            return None
        if not self.agree(path, origin, residency):
            return None
        return Endpoint(origin, in_project, residency, None)


def _ended(host: str) -> str | None:
    """Return the name of the former provider that had the host, or None."""
    return next((name for name, one in ended_providers().items() if host in one.hosts), None)


def _usual_base_path(adapter: Adapter) -> str:
    """Return the base path of the API for a URL without a path."""
    known = adapter.usual_base_path if isinstance(adapter, KnowsBasePath) else ""
    return known or next((site.base_path for site in adapter.sites.values()), _USUAL_BASE_PATH)
