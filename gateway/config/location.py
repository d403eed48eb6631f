"""How a caller's place is decided: signals, trusted edges, and what to do where they are silent or disagree."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.config.loading import Document
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema.location import EdgeSecretSection, EdgeSection, LocationSection
from gateway.config.secret_references import Resolution, secret_at
from gateway.config.signals import compile_claim, compile_geoip
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, Findings
from gateway.model.edge import Edge, EdgeSecret, LocationRules, Network, Signal
from providers.auth import Secret
from providers.territories import parent

_ANY_PEER = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_DEMO_EDGE = Edge(_ANY_PEER, "cf-ipcountry")
_REFUSE = "refuse"


def compile_location(
    draft: Draft, findings: Findings, document: Document, regions: Regions, *, demo: bool
) -> LocationRules:
    """The rules of a draft; in demo mode every peer is an edge."""
    section = draft.config.location
    path: KeyPath = ("location",)
    _check_unknown(draft, findings, section.unknown)
    if demo and section.edges:
        findings.error((*path, "edges"), "in demo mode every peer is an edge (cf-ipcountry)", "remove `edges`")
    edges = tuple(
        _edge(findings, (*path, "edges", index), edge, document.references) for index, edge in enumerate(section.edges)
    )
    _check_overlaps(findings, edges)
    claim, geoip = section.claim, section.geoip
    return LocationRules(
        signals=_signals(draft, findings, section),
        edges=(_DEMO_EDGE,) if demo else edges,
        conflict=section.conflict,
        unknown=section.unknown,
        claim=compile_claim(findings, claim, document.references, document.looks) if claim is not None else None,
        geoip=compile_geoip(findings, geoip, document.looks) if geoip is not None else None,
        # Of an edge with a secret it is the secret that is trusted: others may send from its networks.
        hops=tuple(network for edge in edges if edge.secret is None for network in edge.networks),
        country_only=_country_only(findings, section.accept_country_only, regions),
    )


def _signals(draft: Draft, findings: Findings, section: LocationSection) -> tuple[Signal, ...]:
    """Those that are listed and set up; a finding for each that is only one of the two."""
    place: KeyPath = ("location", "signals")
    listed = section.signals
    if len(set(listed)) < len(listed):
        findings.error(place, "a signal is named twice", "remove one")
    sections = {"claim": section.claim, "geoip": section.geoip}
    for index, name in enumerate(listed):
        written = "signals" in section.model_fields_set and not draft.is_broken("location", name)
        if written and name in sections and sections[name] is None:
            message = f"has no effect: `{name}` is not set up"
            findings.warn((*place, index), message, f"write `location.{name}`, or remove it here")
    used = {"edge_header": section.edges, **sections}
    for name, key in (("edge_header", "edges"), ("claim", "claim"), ("geoip", "geoip")):
        if used[name] and name not in listed and not (name == "edge_header" and "geoip" in listed):
            findings.warn(("location", key), f"has no effect: `{name}` is not among `location.signals`")
    if "geoip" in listed and section.geoip is not None:
        for index, edge in enumerate(section.edges):
            if edge.client_ip is None:
                message = "tells no address, so that `geoip` says nothing of those who come through it"
                findings.warn(("location", "edges", index), message, "name the header with the address: `client_ip`")
    return tuple(name for name in listed if sections.get(name, True) is not None)


def _country_only(findings: Findings, words: list[str], regions: Regions) -> frozenset[str]:
    accepted: set[str] = set()
    for index, word in enumerate(words):
        place: KeyPath = ("location", "accept_country_only", index)
        code = read_territory(findings, place, word)
        if code is None:
            continue
        parts = {part for part in (*regions.by_territory, *(regions.blocked.included or ())) if parent(part) == code}
        if not parts:
            findings.warn(place, f"has no effect: no part of {code} is blocked or in a region", "remove it")
            continue
        accepted.add(code)
    return frozenset(accepted)


def _check_unknown(draft: Draft, findings: Findings, name: str) -> None:
    known = draft.names("regions")
    path: KeyPath = ("location", "unknown")
    if name == _REFUSE:
        return
    if name in known:
        message = f"requests of unknown place go to {quoted(name)}; whether vendors serve their place is not judged"
        findings.warn(path, message, f"`{_REFUSE}` is the safe choice")
    elif not draft.is_broken("regions"):
        hint = choice_hint(name, {_REFUSE, *known})
        findings.error(path, f"must be `{_REFUSE}` or a region, not {quoted(name)}", hint)


def _edge(findings: Findings, path: KeyPath, section: EdgeSection, references: Mapping[str, Resolution]) -> Edge:
    networks = [_network(findings, (*path, "from", index), text) for index, text in enumerate(section.networks)]
    told = (section.country, section.subdivision, section.client_ip)
    headers = [name.lower() for name in told if name is not None]
    if section.secret is not None:
        headers.append(section.secret.header.lower())
    if len(set(headers)) < len(headers):
        findings.error(path, "country, subdivision, client_ip and secret must be different headers")
    if section.country.lower() == "accept-language":
        findings.error((*path, "country"), "a language is no country; Accept-Language never decides a region")
    if section.secret is None and any(network is not None and network.prefixlen == 0 for network in networks):
        message = "everybody is trusted to say where they are"
        findings.warn((*path, "from"), message, "name the edge's networks, or add a `secret`")
    return Edge(
        networks=tuple(network for network in networks if network is not None),
        country_header=section.country.lower(),
        client_ip_header=section.client_ip.lower() if section.client_ip is not None else None,
        secret=_secret(findings, (*path, "secret", "value"), section.secret, references),
        part_header=section.subdivision.lower() if section.subdivision is not None else None,
    )


def _network(findings: Findings, place: KeyPath, text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        hint = f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        hint = "such as 10.0.0.0/8, 2001:db8::/32, or one address"
    findings.error(place, f"{quoted(text)} is no network", hint)
    return None


def _check_overlaps(findings: Findings, edges: tuple[Edge, ...]) -> None:
    for index, edge in enumerate(edges):
        for earlier, other in enumerate(edges[:index]):
            if any(_overlap(mine, theirs) for mine in edge.networks for theirs in other.networks):
                message = f"shares addresses with edge {earlier}; one peer has one country header"
                findings.error(("location", "edges", index, "from"), message, "make the networks disjoint")


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _secret(
    findings: Findings, place: KeyPath, section: EdgeSecretSection | None, references: Mapping[str, Resolution]
) -> EdgeSecret | None:
    if section is None:
        return None
    found = secret_at(findings, place, section.value, references, "EDGE_SECRET")
    if problem := found.mistake or found.missing:
        hint = found.hint or "without it nobody could prove that they are the edge; set it, or remove `secret`"
        findings.error(place, f"{found.source or 'the secret'} {problem}", hint)
    return EdgeSecret(section.header.lower(), found.secret or Secret(""))
