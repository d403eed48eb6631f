"""Where a caller is: evidence in, one location out.

Signals are judged in the order that the operator gave. Those that agree on the region are one voice; those that
disagree are a conflict; a blocked territory in any of them ends the matter. Nothing here guesses: what isn't known
is `unknown`, and what contradicts itself is a `conflict`. A believed signal that can't be read is in doubt, and a doubt
refuses: were it only ignored, a client that can spoil a signal (by sending the edge's header too) could silence it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.model.config_version import Client, ConfigVersion, Region, remember
from gateway.model.edge import LocationRules, Signal
from gateway.model.location import Evidence, Location, LocationProblem
from gateway.model.signals import CLAIM_PROBLEMS, AddressReport, ClaimProblem, ClaimReport
from gateway.policy.parts import blocked_among, code_of, is_as_strict, is_split, region_in, with_part
from providers.catalogue import territory_data
from providers.territories import Places, TerritoryError, parent, parse_territory
from providers.values import quick

_SHOWN_CHARACTERS = 40
_MOST_WORDS = 4
_HIDDEN = "hidden"


class EdgeNote(StrEnum):
    """Why no report of an edge is believed."""

    NONE = ""
    STRANGER = "ignored: the peer is no trusted edge"
    STRANGER_WITHIN = "ignored: the edge's secret is missing"
    UNPROVEN = "in doubt: the edge's secret is wrong, or was sent more than once"


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """What a trusted edge said: every value that came under its header, and under that of the part."""

    values: tuple[str, ...]
    parts: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Sighting:
    """What one request says about its place, before anyone believes it.

    edge: from a peer that the operator trusts, or None. edge_note: why a country header was not believed.
    asserted: every value of `x-gateway-territory`, from whomever. claim: None if none was sent. address: None if none
    is asked about.
    """

    edge: EdgeReport | None = None
    edge_note: EdgeNote = EdgeNote.NONE
    asserted: tuple[str, ...] = ()
    claim: ClaimReport | None = None
    address: AddressReport | None = None


@dataclass(frozen=True, slots=True)
class _Reading:
    """One signal as read. `unknown`: somebody hides, so that weaker signals don't count. `doubtful`: it is believed,
    and can't be read, so that nothing else counts either. `vague`: a country, of which only the part has a region."""

    evidence: Evidence
    region: Region | None = None
    speaks: bool = False
    unknown: bool = False
    doubtful: bool = False
    vague: bool = False

    @property
    def bounds(self) -> Places | None:
        """Where a prompt from there may go: one region's to the same places, but for those that stay at home."""
        return self.region.bounds_of(self.evidence.territory) if self.region is not None else None

    def is_as_strict(self, other: _Reading) -> bool:
        """Whether nothing happens to a prompt from here that would be forbidden there."""
        if self.region is None or other.region is None:
            return False
        return is_as_strict(self.region, self.evidence.territory, other.region, other.evidence.territory)


def resolve(table: ConfigVersion, client: Client | None, sighting: Sighting) -> Location:
    """The location of this caller, with the evidence for it, in the order of the table's signals."""
    if _is_long(sighting):
        return _resolve(table, client, sighting)
    key = ("location", client.name if client else None, sighting)
    return remember(table, key, lambda: _resolve(table, client, sighting))


def _is_long(sighting: Sighting) -> bool:
    """Whether it holds more than any honest word: the sender chooses it, and must not choose how much we remember."""
    edge = sighting.edge
    words = sighting.asserted if edge is None else (*sighting.asserted, *edge.values, *edge.parts)
    return len(words) > _MOST_WORDS or sum(map(len, words)) > _MOST_WORDS * _SHOWN_CHARACTERS


def _resolve(table: ConfigVersion, client: Client | None, sighting: Sighting) -> Location:
    asked = (_read(signal, table, client, sighting) for signal in table.location.signals)
    readings = [reading for reading in asked if reading is not None]
    evidence = tuple(reading.evidence for reading in readings)
    if blocked := blocked_among(table, evidence):
        return Location(None, blocked.territory, blocked.signal, _decided(evidence, blocked), LocationProblem.BLOCKED)
    if "claim" in table.location.signals and sighting.claim is not None and (problem := sighting.claim.problem):
        unchecked = problem is ClaimProblem.UNCHECKED
        kind = LocationProblem.CLAIM_UNCHECKED if unchecked else LocationProblem.CLAIM
        return Location(None, None, "claim", evidence, kind)
    if any(reading.doubtful for reading in readings):
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    return _weigh(table, client, readings, evidence)


def resolve_again(
    table: ConfigVersion,
    client: Client | None,
    location: Location,
    heard_by: LocationRules | None = None,
    same_edge: bool | None = None,
) -> Location:
    """What this table makes of the signals that an earlier one has heard (by `heard_by`), as far as it still hears
    them, in its own order. client: the caller as this table has it. same_edge: see `LocationRules.believes`."""
    readings: list[_Reading] = []
    ranks: dict[str, int] = {signal: rank for rank, signal in enumerate(table.location.signals)}
    rules, earlier = table.location, heard_by or table.location
    heard = [item for item in location.evidence if rules.believes(item.signal, earlier, same_edge)]
    if "claim" in ranks and "claim" in {item.signal for item in location.evidence if item not in heard}:
        # It was sent, and is somebody else's now: that is no "no claim".
        return Location(None, None, "claim", location.evidence, LocationProblem.CLAIM)
    for item in sorted(heard, key=lambda item: ranks[item.signal]):
        if item.signal == "assertion":
            # Who may not assert may have been ignored, and who may not any more is.
            reading = _read_assertion(table, client, Sighting(asserted=(item.territory or item.said,)))
            readings += [reading] if reading is not None else []
        elif item.territory is not None:
            readings.append(_territory(table, item.signal, (item.territory,)))
        elif item.note.startswith(_HIDDEN):
            readings.append(_Reading(item, unknown=True))
    evidence = tuple(reading.evidence for reading in readings)
    if any(reading.doubtful for reading in readings):
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    return _weigh(table, client, readings, evidence)


def _read(signal: Signal, table: ConfigVersion, client: Client | None, sighting: Sighting) -> _Reading | None:
    """What one signal says, None where there is nothing to be recorded."""
    match signal:
        case "claim":
            return _read_claim(table, sighting.claim)
        case "api_key":
            if client is None or client.region is None:
                return None
            return _Reading(Evidence(signal, client.name, region=client.region))
        case "assertion":
            return _read_assertion(table, client, sighting)
        case "edge_header":
            return _read_edge(table, sighting)
        case "geoip":
            return _read_address(table, sighting.address)


def _read_claim(table: ConfigVersion, claim: ClaimReport | None) -> _Reading | None:
    if claim is None:
        return None
    if claim.problem is not None:
        return _Reading(Evidence("claim", "", note=f"not believed: {CLAIM_PROBLEMS[claim.problem]}"))
    if claim.territory is None:
        return _Reading(Evidence("claim", "", note="silent: it names no territory"))
    return _territory(table, "claim", (claim.territory,))


def _read_assertion(table: ConfigVersion, client: Client | None, sighting: Sighting) -> _Reading | None:
    if not sighting.asserted:
        return None
    if client is None or "territory" not in client.may_assert:
        shown = _shown(sighting.asserted)
        return _Reading(Evidence("assertion", shown, note="ignored: this key may not assert a territory"))
    return _territory(table, "assertion", sighting.asserted)


def _read_edge(table: ConfigVersion, sighting: Sighting) -> _Reading | None:
    if sighting.edge is not None:
        return _territory(table, "edge_header", sighting.edge.values, sighting.edge.parts)
    note = sighting.edge_note
    return _Reading(Evidence("edge_header", "", note=note), doubtful=note is EdgeNote.UNPROVEN) if note else None


def _read_address(table: ConfigVersion, address: AddressReport | None) -> _Reading | None:
    if address is None:
        return None
    if address.doubtful or address.hidden or not address.country:
        evidence = Evidence("geoip", _shown((address.country,)), note=address.note)
        return _Reading(evidence, unknown=address.hidden, doubtful=address.doubtful)
    return _territory(table, "geoip", (address.country,), (address.part,))


def _territory(table: ConfigVersion, signal: str, values: tuple[str, ...], parts: tuple[str, ...] = ()) -> _Reading:
    """A signal whose words are a territory code, and perhaps that of its part. Words that are none are a doubt."""
    said = _shown((*values, *parts) if any(parts) else values)
    codes = {code_of(value) for value in values}
    if len(codes) != 1:
        return _Reading(Evidence(signal, said, note="in doubt: it says several things at once"), doubtful=True)
    code = codes.pop()
    data = territory_data()
    code = data.aliases.get(code, code)
    if not code or code in data.unknown:
        return _Reading(Evidence(signal, said, note="silent: it doesn't know the territory"))
    if code in data.hidden:
        return _Reading(
            Evidence(signal, said, note=f"{_HIDDEN}: Tor, or an anonymous proxy; no territory"), unknown=True
        )
    try:
        territory = parse_territory(with_part(code, parts))
    except TerritoryError:
        return _Reading(Evidence(signal, said, note="in doubt: no territory code"), doubtful=True)
    region = region_in(table, territory)
    name = region.name if region else None
    if not is_split(table, territory):
        return _Reading(Evidence(signal, said, territory, name), region, speaks=True)
    note = "a part of this country is in another region, and which part is not known"
    note = f"{note}: the stricter one counts" if region is not None else f"in doubt: {note}"
    return _Reading(Evidence(signal, said, territory, name, note), region, speaks=True, vague=region is None)


def _shown(values: tuple[str, ...]) -> str:
    """What was said, fit for a log line or a header: short, visible ASCII."""
    text = ", ".join(values)[: _SHOWN_CHARACTERS + 1]
    clean = "".join(character if " " <= character <= "~" else "?" for character in text)
    return clean if len(clean) <= _SHOWN_CHARACTERS else f"{clean[:_SHOWN_CHARACTERS]}..."


def _bound(table: ConfigVersion, region: Region, voices: list[_Reading], evidence: tuple[Evidence, ...]) -> Location:
    """The region that the key is bound to: final. The territory is that of the strongest signal inside it, or the part
    of it that another one names. Inside is what lies in it, also where a part of that country has another region, which
    is then the evidence's if it is the stricter one."""
    # Where somebody hides, weaker signals don't tell the territory, and every one of the region must do. A region that
    # names none has no such list: there they still say what must stay at home.
    heard = evidence if region.is_default else [voice.evidence for voice in voices]
    inside = [item.territory for item in heard if item.territory and table.region_of(item.territory) is region]
    first = inside[0] if inside else None
    territory = next((code for code in inside if parent(code) == first), first)
    winner = next((item for item in evidence if item.signal == "api_key"), None)
    if winner is None:
        winner = Evidence("api_key", "", region=region.name)
        evidence = (winner, *evidence)
    return Location(region, territory, "api_key", _decided(evidence, winner))


def _weigh(
    table: ConfigVersion, client: Client | None, readings: list[_Reading], evidence: tuple[Evidence, ...]
) -> Location:
    voices: list[_Reading] = []
    for reading in readings:
        if reading.unknown:
            break
        if reading.speaks:
            voices.append(reading)
    if client is not None and client.region is not None:
        return _bound(table, table.regions[client.region], voices, evidence)
    if not voices:
        return _unknown(table, evidence)
    # Of a country and a part of it, the part says more.
    named = {parent(voice.evidence.territory) for voice in voices if voice.evidence.territory}
    voices = [voice for voice in voices if voice.evidence.territory not in named]
    if any(voice.vague for voice in voices):
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    first = voices[0]
    if len(voices) > 1 and len({(voice.evidence.region, voice.bounds) for voice in voices}) > 1:
        strictest = _strictest(voices) if table.location.conflict == "strictest" else None
        if strictest is None:
            return Location(None, None, "conflict", evidence, LocationProblem.CONFLICT)
        first = strictest
    won = _decided(evidence, first.evidence)
    if first.region is None:
        return Location(None, first.evidence.territory, first.evidence.signal, won, LocationProblem.BLOCKED)
    return Location(first.region, first.evidence.territory, first.evidence.signal, won)


def _strictest(voices: list[_Reading]) -> _Reading | None:
    """The voice that is as strict as all the others; None where there is no such."""
    return next((voice for voice in voices if all(map(voice.is_as_strict, voices))), None)


def _unknown(table: ConfigVersion, evidence: tuple[Evidence, ...]) -> Location:
    rule = table.location.unknown
    if rule == "refuse":
        return Location(None, None, "unknown", evidence, LocationProblem.UNKNOWN)
    return Location(table.regions[rule], None, "unknown", evidence, assumed=True)


def _decided(evidence: tuple[Evidence, ...], winner: Evidence) -> tuple[Evidence, ...]:
    """The evidence with the winner marked (and its note, if it has got one)."""
    return tuple(replace(winner, decided=True) if item.signal == winner.signal else item for item in evidence)
