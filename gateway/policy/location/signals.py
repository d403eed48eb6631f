"""The location signals: what each reads of a request, and what that means.

A signal works in two steps. `report` takes the peer and the headers of a request and returns a frozen value of
`gateway.model.location`, which may be a `Question` that `service/location.py` answers. `read` turns the report into a
`Reading`: evidence for people, and its meaning for the decision. The strength of a signal is not a property of it: the
operator's order in `location.signals` decides.

The cache of locations is keyed by the headers that the signals declare, and a location is computed from that key
alone. A header that a signal reads and does not declare raises `KeyError`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.location import (
    CLAIM_PROBLEMS,
    AddressQuestion,
    AddressReport,
    AssertionReport,
    ClaimProblem,
    ClaimQuestion,
    ClaimReport,
    EdgeNote,
    EdgeReport,
    Evidence,
    LocationProblem,
    Reports,
)
from gateway.model.location_rules import LocationRules, SignalName
from gateway.policy.location.client_address import address_headers, client_address
from gateway.policy.location.subdivisions import code_of, is_as_strict, is_cut, is_split, region_in, with_part
from gateway.policy.location.trusted_edge import SignalInput, check_secret, secret_headers
from providers.territories import Places, TerritoryError, parse_territory, territory_data
from providers.value import Value

_SHOWN_CHARACTERS = 40
_CLAIM, _TERRITORY = "x-gateway-claim", "x-gateway-territory"


class Reading(Value, frozen=True):
    """The result of reading one signal.

    Attributes:
        speaks: It gives a territory.
        unknown: The client hides its location, so weaker signals do not count.
        doubtful: The signal is trusted and cannot be read, so no other signal counts either.
        vague: It gives a country of which only the part has a region.
        problem: The signal ends the decision with this problem.
    """

    evidence: Evidence
    region: Region | None = None
    speaks: bool = False
    unknown: bool = False
    doubtful: bool = False
    vague: bool = False
    problem: LocationProblem | None = None

    @property
    def bounds(self) -> Places | None:
        """The territories to which a prompt from this location may go.

        They differ inside one region if prompts of some territories must stay at home.
        """
        return self.region.bounds_of(self.evidence.territory) if self.region is not None else None

    def is_as_strict(self, other: Reading) -> bool:
        """Return whether everything that is allowed for a prompt from here is allowed for one from there too."""
        if self.region is None or other.region is None:
            return False
        return is_as_strict(self.region, self.evidence.territory, other.region, other.evidence.territory)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that can show where a caller is.

    Attributes:
        report: Returns the report of a request under these rules, or None if the signal is absent.
        read: Returns the meaning of the report in a config version, or None if there is nothing to record.
        headers: Returns every header that `report` reads under these rules.
        can_locate: Returns whether a config version has everything with which the signal can locate some caller.
        section: The key of `location` that sets the signal up, or None if it needs none.
        client_right: The word in a client's `may_assert` without which the signal is ignored, or None.
        reads_edges: Whether it reads headers that trusted edges add: such a request came through a proxy.
        needs_lookup: Whether its report may be a question that must be answered first.
        suppose: Returns the report that `explain` assumes for a territory, or None if it is not used for that.
    """

    name: SignalName
    report: Callable[[LocationRules, SignalInput], Hashable | None]
    read: Callable[[ConfigVersion, Client | None, Reports], Reading | None]
    headers: Callable[[LocationRules], Iterable[str]]
    can_locate: Callable[[ConfigVersion], bool]
    section: str | None = None
    client_right: str | None = None
    reads_edges: bool = False
    needs_lookup: bool = False
    suppose: Callable[[str], Hashable | None] = field(default=lambda _: None)

    @property
    def setup_key(self) -> str | None:
        """The configuration that sets the signal up, as it is written in messages, or None if it needs none."""
        if self.section is not None:
            return f"location.{self.section}"
        return f"may_assert: [{self.client_right}]" if self.client_right is not None else None


# --- claim: a token about the user that an issuer has signed; a rejected one ends the decision ----


def _report_claim(_: LocationRules, given: SignalInput) -> ClaimQuestion | ClaimReport | None:
    tokens = given.values(_CLAIM)
    if len(tokens) > 1:
        return ClaimReport(problem=ClaimProblem.REPEATED)
    return ClaimQuestion(tokens[0]) if tokens else None


def _read_claim(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    claim = claim_of(reports)
    if claim is None:
        return None
    if claim.problem is not None:
        is_unchecked = claim.problem is ClaimProblem.UNCHECKED
        problem = LocationProblem.CLAIM_UNCHECKED if is_unchecked else LocationProblem.CLAIM
        return Reading(Evidence("claim", "", note=f"not accepted: {CLAIM_PROBLEMS[claim.problem]}"), problem=problem)
    if claim.territory is None:
        return Reading(Evidence("claim", "", note="silent: it names no territory"))
    return read_territory(config, "claim", (claim.territory,))


def claim_of(reports: Reports) -> ClaimReport | None:
    """Return the report of a request's claim, or None. Raises TypeError if it has not been verified yet."""
    report = reports.get("claim")
    if report is None or isinstance(report, ClaimReport):
        return report
    raise TypeError("the claim has not been verified yet")


# --- api_key: the region to which the client's keys are bound; it is final ------------------------


def _read_key(_: ConfigVersion, client: Client | None, __: Reports) -> Reading | None:
    if client is None or client.region is None:
        return None
    return Reading(Evidence("api_key", client.name, region=client.region))


# --- assertion: the territory that a backend states for its user ----------------------------------


def _report_assertion(_: LocationRules, given: SignalInput) -> AssertionReport | None:
    values = given.values(_TERRITORY)
    return AssertionReport(values) if values else None


def _read_assertion(config: ConfigVersion, client: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("assertion")
    if not isinstance(report, AssertionReport):
        return None
    if client is None or "territory" not in client.may_assert:
        note = "ignored: this key may not assert a territory"
        return Reading(Evidence("assertion", shown(report.values), note=note))
    return read_territory(config, "assertion", report.values)


# --- edge_header: the country and the part of it that a trusted edge reports ----------------------


def _edge_headers(rules: LocationRules) -> frozenset[str]:
    parts = {edge.part_header for edge in rules.edges if edge.part_header is not None}
    return secret_headers(rules) | {edge.country_header for edge in rules.edges} | parts


def _report_edge(rules: LocationRules, given: SignalInput) -> EdgeReport | None:
    edge = given.edge
    if edge is None:
        is_sent = any(given.raw_values(edge.country_header) for edge in rules.edges)
        return EdgeReport(note=EdgeNote.STRANGER) if is_sent else None
    values = given.values(edge.country_header)
    if note := check_secret(edge.secret, given):
        return EdgeReport(note=note) if values or note is EdgeNote.UNPROVEN else None
    if not values:
        return None
    return EdgeReport(values, given.values(edge.part_header) if edge.part_header is not None else ())


def _read_edge(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("edge_header")
    if not isinstance(report, EdgeReport):
        return None
    if note := report.note:
        return Reading(Evidence("edge_header", "", note=note), doubtful=note is EdgeNote.UNPROVEN)
    return read_territory(config, "edge_header", report.values, report.parts)


# --- geoip: the country of the client's address, from a database ----------------------------------


def _report_address(rules: LocationRules, given: SignalInput) -> AddressQuestion | AddressReport:
    address = client_address(rules, given)
    return address if isinstance(address, AddressReport) else AddressQuestion(address)


def _read_address(config: ConfigVersion, _: Client | None, reports: Reports) -> Reading | None:
    report = reports.get("geoip")
    if report is None:
        return None
    if not isinstance(report, AddressReport):
        raise TypeError("the address has not been looked up yet")
    if report.doubtful or report.hidden or not report.country:
        evidence = Evidence("geoip", shown((report.country,)), note=report.note)
        return Reading(evidence, unknown=report.hidden, doubtful=report.doubtful)
    return read_territory(config, "geoip", (report.country,), (report.part,))


# --- all of them ----------------------------------------------------------------------------------


def _nothing(*_: object) -> None:
    return None


SIGNALS: Mapping[SignalName, Signal] = {
    signal.name: signal
    for signal in (
        Signal(
            "claim",
            _report_claim,
            _read_claim,
            headers=lambda _: (_CLAIM,),
            can_locate=lambda config: config.location.rules.claim is not None,
            section="claim",
            needs_lookup=True,
        ),
        Signal(
            "api_key",
            _nothing,
            _read_key,
            headers=lambda _: (),
            can_locate=lambda config: any(client.region is not None for client in config.clients.values()),
        ),
        Signal(
            "assertion",
            _report_assertion,
            _read_assertion,
            headers=lambda _: (_TERRITORY,),
            can_locate=lambda config: any("territory" in client.may_assert for client in config.clients.values()),
            client_right="territory",
        ),
        Signal(
            "edge_header",
            _report_edge,
            _read_edge,
            headers=_edge_headers,
            can_locate=lambda config: bool(config.location.rules.edges),
            section="edges",
            reads_edges=True,
            suppose=lambda territory: EdgeReport((territory,)),
        ),
        Signal(
            "geoip",
            _report_address,
            _read_address,
            headers=address_headers,
            can_locate=lambda config: config.location.rules.geoip is not None,
            section="geoip",
            reads_edges=True,
            needs_lookup=True,
        ),
    )
}
"""Every signal by its name."""
if {*SIGNALS} != {*get_args(SignalName)}:
    raise TypeError(f"the signals {sorted(SIGNALS)} are not those of `SignalName`")


def read_territory(config: ConfigVersion, signal: str, values: tuple[str, ...], parts: tuple[str, ...] = ()) -> Reading:
    """Read a signal whose values are a territory code and perhaps the code of its part. Other values are a doubt."""
    text = shown((*values, *parts) if any(parts) else values)
    codes = {code_of(value) for value in values}
    if len(codes) != 1:
        return Reading(Evidence(signal, text, note="in doubt: it has several different values"), doubtful=True)
    code = codes.pop()
    data = territory_data()
    code = data.aliases.get(code, code)
    if not code or code in data.unknown:
        return Reading(Evidence(signal, text, note="silent: the territory is unknown"))
    if code in data.hidden:
        return Reading(Evidence(signal, text, note="hidden: Tor, or an anonymous proxy; no territory"), unknown=True)
    try:
        whole = with_part(code, parts)
    except TerritoryError:
        return Reading(Evidence(signal, text, note="in doubt: not a territory code"), doubtful=True)
    try:
        territory = parse_territory(whole)
    except TerritoryError:
        what = "a territory code" if whole[:2] not in data.names else "a part of this country in ISO 3166-2"
        return Reading(Evidence(signal, text, note=f"in doubt: not {what}"), doubtful=True)
    if is_cut(config, territory):
        return Reading(
            Evidence(signal, text, note="in doubt: a larger or smaller part has its own rule"), doubtful=True
        )
    region = region_in(config, territory)
    name = region.name if region else None
    if not is_split(config, territory):
        return Reading(Evidence(signal, text, territory, name), region, speaks=True)
    note = "a part of this country is in another region, and which part is not known"
    note = f"{note}: the stricter one applies" if region is not None else f"in doubt: {note}"
    return Reading(Evidence(signal, text, territory, name, note), region, speaks=True, vague=region is None)


def shown(values: tuple[str, ...]) -> str:
    """Return the values as short, visible ASCII for a log line or a header."""
    text = ", ".join(values)[: _SHOWN_CHARACTERS + 1]
    clean = "".join(character if " " <= character <= "~" else "?" for character in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else f"{clean[:_SHOWN_CHARACTERS]}..."
