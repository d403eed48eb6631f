"""Compile the section `location`: the signals, trusted edges, the claim issuer and the GeoIP database."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.config.loading import CheckedFiles, Document, key_file
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema.location import ClaimSection, EdgeSecretSection, EdgeSection, LocationSection
from gateway.config.secret_references import Resolution, secret_at
from gateway.config.service_permits import read_service
from gateway.config.territories import read_territory
from gateway.config.validation import Draft, Findings
from gateway.model.location_rules import (
    ClaimRules,
    Edge,
    EdgeSecret,
    GeoIpRules,
    KeyFile,
    KeySource,
    KeyUrl,
    LocationRules,
    Network,
    SharedKey,
    SignalName,
)
from gateway.policy.location import SIGNALS, SignalLocator
from providers.auth import Secret
from providers.territories import parent

_CLAIM: KeyPath = ("location", "claim")
_GEOIP: KeyPath = ("location", "geoip")
_DAY_S = 86_400.0
_ANY_PEER = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_DEMO_EDGE = Edge(_ANY_PEER, "cf-ipcountry")
_REFUSE = "refuse"


def compile_location(
    draft: Draft, findings: Findings, document: Document, regions: Regions, *, demo: bool
) -> SignalLocator:
    """Compile the section `location` of a draft. In demo mode every peer is an edge."""
    section = draft.config.location
    path: KeyPath = ("location",)
    _check_unknown(draft, findings, section.unknown)
    if demo and section.edges:
        findings.error((*path, "edges"), "in demo mode every peer is an edge (cf-ipcountry)", "remove `edges`")
    edges = tuple(
        _edge(findings, (*path, "edges", index), edge, document.references) for index, edge in enumerate(section.edges)
    )
    _check_overlaps(findings, edges)
    if section.geoip is not None:
        _check_geoip(findings, section.geoip, document.looks)
    claim = section.claim
    rules = LocationRules(
        signals=_signals(draft, findings, section),
        edges=(_DEMO_EDGE,) if demo else edges,
        conflict=section.conflict,
        unknown=section.unknown,
        claim=_claim(findings, claim, document.references, document.looks) if claim is not None else None,
        geoip=section.geoip,
        # An edge with a secret is trusted for its secret: other hosts may send from its networks.
        hops=tuple(network for edge in edges if edge.secret is None for network in edge.networks),
        country_only=_country_only(findings, section.accept_country_only, regions),
    )
    return SignalLocator(rules)


def _signals(draft: Draft, findings: Findings, section: LocationSection) -> tuple[SignalName, ...]:
    """Return the signals that are listed and set up, with a finding for each that is only one of the two."""
    path: KeyPath = ("location", "signals")
    listed = section.signals
    if len(set(listed)) < len(listed):
        findings.error(path, "a signal is named twice", "remove one")
    # The sections by their keys. A list is set up even if it is empty.
    sections = {"edges": section.edges, "claim": section.claim, "geoip": section.geoip}
    set_up: list[SignalName] = []
    for index, name in enumerate(listed):
        key = SIGNALS[name].section
        if key is None or sections[key] is not None:
            set_up.append(name)
        elif "signals" in section.model_fields_set and not draft.is_broken("location", key):
            message = f"has no effect: `{name}` is not set up"
            findings.warn((*path, index), message, f"write `location.{key}`, or remove it here")
    for name, signal in SIGNALS.items():
        # Edges serve `geoip` too.
        is_used = name in listed or (signal.section == "edges" and "geoip" in listed)
        if signal.section is not None and sections[signal.section] and not is_used:
            findings.warn(("location", signal.section), f"has no effect: `{name}` is not among `location.signals`")
    if "geoip" in set_up:
        for index, edge in enumerate(section.edges):
            if edge.client_ip is None:
                message = "tells no address, so that `geoip` says nothing of those who come through it"
                findings.warn(("location", "edges", index), message, "name the header with the address: `client_ip`")
    return tuple(set_up)


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


def _claim(
    findings: Findings, section: ClaimSection, references: Mapping[str, Resolution], files: Mapping[str, CheckedFiles]
) -> ClaimRules | None:
    """Compile the rules of claims, or None where they are wrong."""
    shared = [name for name in section.algorithms if name.startswith("HS")]
    if section.secret is not None and len(shared) < len(section.algorithms):
        findings.error((*_CLAIM, "algorithms"), "with a `secret` only HS256, HS384 and HS512 can be used")
    if section.secret is None and shared:
        message = f"{', '.join(shared)} would take a public key for a secret"
        findings.error((*_CLAIM, "algorithms"), message, "leave it out, or configure a `secret` instead of `jwks`")
    if (section.jwks is None) == (section.secret is None):
        findings.error(_CLAIM, "needs `jwks` or a `secret`, and not both", "public keys (`jwks`) are the better choice")
        return None
    if section.secret is not None:
        keys: KeySource | None = _claim_secret(findings, section.secret, max(shared, default="HS256"), references)
    else:
        keys = _key_set(findings, section.jwks or "", files)
    if keys is None:
        return None
    algorithms, members = frozenset(section.algorithms), (section.territory, section.preferences, section.consents)
    return ClaimRules(section.issuer, section.audience, algorithms, keys, *members)


def _key_set(findings: Findings, jwks: str, files: Mapping[str, CheckedFiles]) -> KeySource | None:
    place = (*_CLAIM, "jwks")
    if path := key_file(jwks):
        if (look := files.get(path)) is not None and look.problem:
            findings.warn(place, f"the file {look.problem}", "until it can be read, every claim is refused")
        return KeyFile(path)
    if "://" not in jwks:
        findings.error(place, "is neither a URL nor the whole path of a file", "such as https://issuer.example/jwks")
        return None
    service = read_service(findings, place, jwks)
    return KeyUrl(service.permit, service.path) if service is not None else None


def _claim_secret(
    findings: Findings, text: str, algorithm: str, references: Mapping[str, Resolution]
) -> KeySource | None:
    place = (*_CLAIM, "secret")
    found = secret_at(findings, place, text, references, "CLAIM_SECRET")
    if problem := found.mistake or found.missing:
        findings.error(place, f"{found.source or 'the secret'} {problem}", found.hint or "set it, or remove `claim`")
    if found.secret is None:
        return None
    # RFC 7518, section 3.2: a key as long as the hash.
    least = int(algorithm[2:]) // 8
    if not found.is_stand_in and len(found.secret.reveal()) < least:
        findings.error(place, f"is shorter than {least} characters, which {algorithm} needs", "make a longer one")
    return SharedKey(found.secret)


def _check_geoip(findings: Findings, rules: GeoIpRules, files: Mapping[str, CheckedFiles]) -> None:
    place = (*_GEOIP, "path")
    look = files.get(rules.path)
    if key_file(rules.path) is None:
        findings.error(place, "must be the whole path of a file", "such as /var/lib/GeoIP/GeoLite2-Country.mmdb")
    elif look is not None and look.problem:
        findings.warn(place, f"the file {look.problem}", "until it can be read, `geoip` says nothing")
    elif look is not None and look.age_s > rules.max_age_s:
        message = f"the database is {look.age_s / _DAY_S:.0f} days old by its own date, more than `max_age`"
        findings.warn(place, message, "`geoip` says nothing until it is replaced by a newer one")
    elif look is not None and look.age_s < -_DAY_S:
        message = f"the database is from a day {-look.age_s / _DAY_S:.0f} days ahead, by its own date"
        findings.warn(place, message, "`geoip` says nothing until that day: is the clock of this machine right?")
