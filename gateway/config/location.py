"""How a caller's place is decided: signals, trusted edges, and what to do where they are silent or disagree."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.config.findings import Findings
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.references import Resolution, read_literal
from gateway.config.schema import EdgeSecretSection, EdgeSection
from gateway.config.validate import Draft
from gateway.model.table import Edge, EdgeSecret, LocationRules
from providers.auth import Secret

__all__ = ["compile_location"]

_Network = IPv4Network | IPv6Network
_ANY_PEER = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_DEMO_EDGE = Edge(_ANY_PEER, "cf-ipcountry")
_REFUSE = "refuse"


def compile_location(
    draft: Draft, findings: Findings, references: Mapping[str, Resolution], *, demo: bool
) -> LocationRules:
    """The rules of a draft; in demo mode every peer is an edge."""
    section = draft.config.location
    path: Path = ("location",)
    if len(set(section.signals)) < len(section.signals):
        findings.error((*path, "signals"), "a signal is named twice", "remove one")
    _check_unknown(draft, findings, section.unknown)
    if demo and section.edges:
        findings.error((*path, "edges"), "in demo mode every peer is an edge (cf-ipcountry)", "remove `edges`")
    if section.edges and "edge_header" not in section.signals:
        findings.warn((*path, "edges"), "have no effect: `edge_header` is not among `location.signals`")
    edges = tuple(
        _edge(findings, (*path, "edges", index), edge, references) for index, edge in enumerate(section.edges)
    )
    _check_overlaps(findings, edges)
    return LocationRules(
        signals=tuple(section.signals),
        edges=(_DEMO_EDGE,) if demo else edges,
        conflict=section.conflict,
        unknown=section.unknown,
    )


def _check_unknown(draft: Draft, findings: Findings, name: str) -> None:
    known = draft.names("regions")
    path: Path = ("location", "unknown")
    if name == _REFUSE:
        return
    if name in known:
        message = f"requests of unknown place go to {quoted(name)}; whether vendors serve their place is not judged"
        findings.warn(path, message, f"`{_REFUSE}` is the safe choice")
    elif not draft.is_broken("regions"):
        hint = choice_hint(name, {_REFUSE, *known})
        findings.error(path, f"must be `{_REFUSE}` or a region, not {quoted(name)}", hint)


def _edge(findings: Findings, path: Path, section: EdgeSection, references: Mapping[str, Resolution]) -> Edge:
    networks = [_network(findings, (*path, "from", index), text) for index, text in enumerate(section.networks)]
    headers = [name.lower() for name in (section.country, section.client_ip) if name is not None]
    if section.secret is not None:
        headers.append(section.secret.header.lower())
    if len(set(headers)) < len(headers):
        findings.error(path, "country, client_ip and secret must be different headers")
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
    )


def _network(findings: Findings, place: Path, text: str) -> _Network | None:
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


def _overlap(one: _Network, other: _Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _secret(
    findings: Findings, place: Path, section: EdgeSecretSection | None, references: Mapping[str, Resolution]
) -> EdgeSecret | None:
    if section is None:
        return None
    if "${" in section.value:
        found = references[section.value]
    else:
        found = read_literal(section.value)
        hint = "keep it in the environment or a file: ${EDGE_SECRET}, ${file:/run/secrets/…}"
        findings.warn(place, "a secret is written in the config", hint)
    if problem := found.mistake or found.missing:
        hint = found.hint or "without it nobody could show to be the edge; set it, or remove `secret`"
        findings.error(place, f"{found.source or 'the secret'} {problem}", hint)
    return EdgeSecret(section.header.lower(), found.secret or Secret(""))
