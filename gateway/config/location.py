"""Compile the section `location`: the signals with their own sections, and the trusted edges."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema.location import EdgeSecretSection, EdgeSection, LocationSection
from gateway.config.service_permits import read_service
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, Findings
from gateway.model.location_rules import Edge, EdgeSecret, LocationRules, Network
from gateway.model.permit import ServicePermit
from gateway.policy.location import SIGNALS, SignalLocator
from gateway.policy.location.signal import FileState
from providers.auth import Secret
from providers.territories import parent
from providers.value import Value

_ANY_PEER = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_DEMO_EDGE = Edge(_ANY_PEER, "cf-ipcountry")
_REFUSE = "refuse"


def compile_location(draft: Draft, regions: Regions, *, demo: bool, demo_territory: str | None = None) -> SignalLocator:
    """Compile the section `location` of a draft. In demo mode every peer is an edge, and may have a default."""
    section = draft.config.location
    path: KeyPath = ("location",)
    _check_unknown(draft, section.unknown)
    if demo and section.edges:
        draft.error((*path, "edges"), "in demo mode every peer is a trusted edge (cf-ipcountry)", "remove `edges`")
    edges = tuple(_edge(draft, (*path, "edges", index), edge) for index, edge in enumerate(section.edges))
    _check_overlaps(draft, edges)
    rules = LocationRules(
        signals=_signals(draft, section),
        edges=(_DEMO_EDGE,) if demo else edges,
        conflict=section.conflict,
        unknown=section.unknown,
        own=tuple(_own_rules(draft)),
        # An edge with a secret is trusted because of its secret. Other hosts may be in its networks.
        hops=tuple(network for edge in edges if edge.secret is None for network in edge.networks),
        country_only=_country_only(draft, section.accept_country_only, regions),
        demo_territory=demo_territory if demo else None,
    )
    return SignalLocator(rules)


def _signals(draft: Draft, section: LocationSection) -> tuple[str, ...]:
    """Return the signals that are listed and set up, with a finding for each that is only one of the two."""
    path: KeyPath = ("location", "signals")
    listed = section.signals
    if len(set(listed)) < len(listed):
        draft.error(path, "a signal is listed twice", "remove one")
    # The sections by their keys. A list is set up even if it is empty.
    sections = dict(section)
    set_up: list[str] = []
    for index, name in enumerate(listed):
        key = SIGNALS[name].section
        if key is None or sections[key] is not None:
            set_up.append(name)
        elif "signals" in section.model_fields_set and not draft.is_broken("location", key):
            message = f"has no effect: `{name}` is not configured"
            draft.warn((*path, index), message, f"write `location.{key}`, or remove it here")
    used = {SIGNALS[name].section for name in listed}
    if any(SIGNALS[name].reads_edges for name in listed):
        used.add("edges")
    for name, signal in SIGNALS.items():
        if signal.section is not None and sections[signal.section] and signal.section not in used:
            draft.warn(("location", signal.section), f"has no effect: `{name}` is not among `location.signals`")
    if "geoip" in set_up:
        for index, edge in enumerate(section.edges):
            if edge.client_ip is None:
                message = "reports no client address, so `geoip` gives no result for requests through this edge"
                draft.warn(("location", "edges", index), message, "name the header with the address: `client_ip`")
    return tuple(set_up)


def _own_rules(draft: Draft) -> Iterator[Hashable]:
    """Yield the rules of the signals whose section is written and valid."""
    sections = dict(draft.config.location)
    for signal in SIGNALS.values():
        written = sections.get(signal.section or "")
        if signal.settings is not None and written is not None:
            rules = signal.settings.compiled(written, SectionProblems(draft, ("location", str(signal.section))))
            if rules is not None:
                yield rules


class SectionProblems(Value, frozen=True):
    """Reports the mistakes of one section, and resolves its references. See `SectionReader`."""

    draft: Draft
    path: KeyPath

    def error(self, key: str, message: str, hint: str = "") -> None:
        self.draft.error(self._at(key), message, hint)

    def warn(self, key: str, message: str, hint: str = "") -> None:
        self.draft.warn(self._at(key), message, hint)

    def secret(self, key: str, texts: Sequence[str], variable: str, *, least: int) -> tuple[Secret, ...]:
        unset = f"set it, or remove `{self.path[-1]}`"
        return self.draft.secret_versions(self._at(key), texts, variable, unset=unset, least=least)

    def service(self, key: str, url: str) -> tuple[ServicePermit, str] | None:
        service = read_service(self.draft, self._at(key), url)
        return (service.permit, service.path) if service is not None else None

    @property
    def folder(self) -> str:
        return self.draft.document.folder

    def file(self, path: str) -> FileState | None:
        return self.draft.document.signal_files.get(path)

    def _at(self, key: str) -> KeyPath:
        return (*self.path, key) if key else self.path


def _country_only(findings: Findings, words: list[str], regions: Regions) -> frozenset[str]:
    accepted: set[str] = set()
    for index, word in enumerate(words):
        path: KeyPath = ("location", "accept_country_only", index)
        code = read_territory(findings, path, word)
        if code is None:
            continue
        parts = {part for part in (*regions.by_territory, *(regions.blocked.included or ())) if parent(part) == code}
        if not parts:
            findings.warn(path, f"has no effect: no part of {code} is blocked or in a region", "remove it")
            continue
        accepted.add(code)
    return frozenset(accepted)


def _check_unknown(draft: Draft, name: str) -> None:
    known = draft.names("regions")
    path: KeyPath = ("location", "unknown")
    if name == _REFUSE:
        return
    if name in known:
        message = (
            f"requests from an unknown location go to {quoted(name)}; whether vendors serve the location is not checked"
        )
        draft.warn(path, message, f"`{_REFUSE}` is the safe choice")
    elif not draft.is_broken("regions"):
        draft.error(path, f"must be `{_REFUSE}` or a region, not {quoted(name)}", choice_hint(name, {_REFUSE, *known}))


def _edge(draft: Draft, path: KeyPath, section: EdgeSection) -> Edge:
    networks = [_network(draft, (*path, "from", index), text) for index, text in enumerate(section.networks)]
    names = (section.country, section.subdivision, section.client_ip)
    headers = [name.lower() for name in names if name is not None]
    if section.secret is not None:
        headers.append(section.secret.header.lower())
    if len(set(headers)) < len(headers):
        draft.error(path, "country, subdivision, client_ip and secret must be different headers")
    country = section.country.lower() if section.country is not None else None
    if country is None and section.client_ip is None:
        draft.error((*path, "country"), "is missing", "add the header with the country, or `client_ip` for `geoip`")
    if country == "accept-language":
        draft.error((*path, "country"), "a language is not a country; Accept-Language never decides a region")
    if section.secret is None and any(network is not None and network.prefixlen == 0 for network in networks):
        message = "every client can choose its own country"
        draft.warn((*path, "from"), message, "name the edge's networks, or add a `secret`")
    return Edge(
        networks=tuple(network for network in networks if network is not None),
        country_header=country,
        client_ip_header=section.client_ip.lower() if section.client_ip is not None else None,
        secret=_secret(draft, (*path, "secret", "value"), section.secret),
        part_header=section.subdivision.lower() if section.subdivision is not None else None,
    )


def _network(findings: Findings, path: KeyPath, text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        hint = f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        hint = "such as 10.0.0.0/8, 2001:db8::/32, or one address"
    findings.error(path, f"{quoted(text)} is not a network", hint)
    return None


def _check_overlaps(findings: Findings, edges: tuple[Edge, ...]) -> None:
    for index, edge in enumerate(edges):
        for earlier, other in enumerate(edges[:index]):
            if any(_overlap(network, taken) for network in edge.networks for taken in other.networks):
                message = f"shares addresses with edge {earlier}; one peer has one country header"
                findings.error(("location", "edges", index, "from"), message, "make the networks disjoint")


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _secret(draft: Draft, path: KeyPath, section: EdgeSecretSection | None) -> EdgeSecret | None:
    if section is None:
        return None
    unset = "without it the edge cannot be verified; set it, or remove `secret`"
    versions = draft.secret_versions(path, section.value, "EDGE_SECRET", unset=unset)
    return EdgeSecret(section.header.lower(), versions or (Secret(""),))
