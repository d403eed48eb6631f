"""Where a caller is: evidence in, one location out.

Signals are judged in the order that the operator gave. Those that agree on the region are one voice; those that
disagree are a conflict; a blocked territory in any of them ends the matter. Nothing here guesses: what isn't known
is `unknown`, and what contradicts itself is a `conflict`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.model.location import Evidence, Location, LocationProblem
from gateway.model.table import Client, Region, Signal, Table
from gateway.policy.memo import remember
from providers.catalogue import territory_data
from providers.territories import TerritoryError, parent, parse_territory
from providers.values import quick

__all__ = ["EdgeReport", "Sighting", "blocked_among", "resolve"]

_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What a trusted edge said: the name of its header and every value that came under it."""

    header: str
    values: tuple[str, ...]


@quick
@dataclass(frozen=True, slots=True)
class Sighting:
    """What one request says about its place, before anyone believes it.

    edge: from a peer that the operator trusts, or None. edge_note: why a country header was not believed.
    asserted: every value of `x-gateway-territory`, from whomever.
    """

    edge: EdgeReport | None = None
    edge_note: str = ""
    asserted: tuple[str, ...] = ()


NOWHERE = Sighting()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One signal as read. `unknown`: it was asked and doesn't know, so that weaker signals don't count."""

    evidence: Evidence
    region: Region | None = None
    speaks: bool = False
    unknown: bool = False


def resolve(table: Table, client: Client | None, sighting: Sighting) -> Location:
    """The location of this caller, with the evidence for it, in the order of the table's signals."""
    key = ("location", client.name if client else None, sighting)
    return remember(table, key, lambda: _resolve(table, client, sighting))


def _resolve(table: Table, client: Client | None, sighting: Sighting) -> Location:
    asked = (_read(signal, table, client, sighting) for signal in table.location.signals)
    readings = [reading for reading in asked if reading is not None]
    evidence = tuple(reading.evidence for reading in readings)
    if blocked := blocked_among(table, evidence):
        return Location(None, blocked.territory, blocked.signal, _decided(evidence, blocked), LocationProblem.BLOCKED)
    if client is not None and client.region is not None:
        return _bound(table.regions[client.region], evidence)
    return _weigh(table, readings, evidence)


def _read(signal: Signal, table: Table, client: Client | None, sighting: Sighting) -> _Reading | None:
    """What one signal says, None where there is nothing to be recorded."""
    match signal:
        case "api_key":
            if client is None or client.region is None:
                return None
            return _Reading(Evidence(signal, client.name, region=client.region), table.regions[client.region], True)
        case "assertion":
            return _read_assertion(table, client, sighting)
        case "edge_header":
            if sighting.edge is None:
                return _Reading(Evidence(signal, "", note=sighting.edge_note)) if sighting.edge_note else None
            return _territory(table, signal, sighting.edge.values)


def _read_assertion(table: Table, client: Client | None, sighting: Sighting) -> _Reading | None:
    if not sighting.asserted:
        return None
    if client is None or "territory" not in client.may_assert:
        shown = _shown(sighting.asserted)
        return _Reading(Evidence("assertion", shown, note="ignored: this key may not assert a territory"))
    return _territory(table, "assertion", sighting.asserted)


def _territory(table: Table, signal: Signal, values: tuple[str, ...]) -> _Reading:
    """A signal whose words are a territory code. Words that are none make the place unknown: no weaker guess."""
    said = _shown(values)
    codes = {value.strip(" \t").upper() for value in values}
    if len(codes) != 1:
        return _Reading(Evidence(signal, said, note="says several things at once"), unknown=True)
    code = codes.pop()
    data = territory_data()
    code = data.aliases.get(code, code)
    if not code or code in data.unknown:
        return _Reading(Evidence(signal, said, note="silent: it doesn't know the territory"))
    if code in data.tor:
        return _Reading(Evidence(signal, said, note="the Tor network: no territory"), unknown=True)
    try:
        territory = parse_territory(code)
    except TerritoryError:
        return _Reading(Evidence(signal, said, note="no territory code"), unknown=True)
    region = table.region_of(territory)
    name = region.name if region else None
    return _Reading(Evidence(signal, said, territory, name), region, speaks=True)


def _shown(values: tuple[str, ...]) -> str:
    """What was said, fit for a log line or a header: short, visible ASCII."""
    text = ", ".join(values)[: _SHOWN_CHARACTERS + 1]
    clean = "".join(character if " " <= character <= "~" else "?" for character in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else f"{clean[:_SHOWN_CHARACTERS]}..."


def blocked_among(table: Table, evidence: tuple[Evidence, ...]) -> Evidence | None:
    """The first signal that points to a blocked territory, or to a country that has a blocked part."""
    for item in evidence:
        if item.territory is None:
            continue
        if table.blocked.contains(item.territory):
            return replace(item, note="blocked")
        if any(parent(code) == item.territory for code in table.blocked.included or ()):
            return replace(item, note="a part of this country is blocked, and which part is not known")
    return None


def _bound(region: Region, evidence: tuple[Evidence, ...]) -> Location:
    """The region that the key is bound to: final. The territory is that of the strongest signal inside it."""
    territory = next((item.territory for item in evidence if item.territory and item.region == region.name), None)
    winner = next((item for item in evidence if item.signal == "api_key"), None)
    if winner is None:
        winner = Evidence("api_key", "", region=region.name)
        evidence = (winner, *evidence)
    return Location(region, territory, "api_key", _decided(evidence, winner))


def _weigh(table: Table, readings: list[_Reading], evidence: tuple[Evidence, ...]) -> Location:
    voices: list[_Reading] = []
    for reading in readings:
        if reading.unknown:
            break
        if reading.speaks:
            voices.append(reading)
    if not voices:
        return _unknown(table, evidence)
    first = voices[0]
    regions = {voice.evidence.region for voice in voices}
    if len(regions) > 1:
        strictest = _strictest(voices) if table.location.conflict == "strictest" else None
        if strictest is None:
            return Location(None, None, "conflict", evidence, LocationProblem.CONFLICT)
        first = strictest
    won = _decided(evidence, first.evidence)
    if first.region is None:
        return Location(None, first.evidence.territory, first.evidence.signal, won, LocationProblem.BLOCKED)
    return Location(first.region, first.evidence.territory, first.evidence.signal, won)


def _strictest(voices: list[_Reading]) -> _Reading | None:
    """The voice whose region's boundary lies within all the others'; None where there is no such region."""
    for voice in voices:
        boundary = voice.region.boundary if voice.region else None
        if boundary is not None and all(
            other.region is not None and boundary.within(other.region.boundary) for other in voices
        ):
            return voice
    return None


def _unknown(table: Table, evidence: tuple[Evidence, ...]) -> Location:
    rule = table.location.unknown
    if rule == "refuse":
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    return Location(table.regions[rule], None, "unknown", evidence, assumed=True)


def _decided(evidence: tuple[Evidence, ...], winner: Evidence) -> tuple[Evidence, ...]:
    """The evidence with the winner marked (and its note, if it has got one)."""
    return tuple(replace(winner, decided=True) if item.signal == winner.signal else item for item in evidence)
