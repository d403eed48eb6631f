"""Where a caller is, from its headers and from what they carry beyond being read: a signed claim, an address."""

from __future__ import annotations

from dataclasses import replace

from gateway.api.door import Visitor, address_of, claims_of, sighting_of
from gateway.model.location import Location
from gateway.model.speech import Voice
from gateway.model.table import Client, Table
from gateway.policy.location import Sighting, resolve
from gateway.policy.refusals import refuse_location
from gateway.policy.voice import choose_voice
from gateway.service.journey import Refused
from gateway.service.signals import Signals

__all__ = ["locate", "sighted", "voice_of"]


async def sighted(table: Table, visitor: Visitor, signals: Signals) -> Sighting:
    """What tells of the caller's place: the headers, a verified claim, the place of an address."""
    sighting = sighting_of(table, visitor)
    if not table.location.beyond_headers:
        return sighting
    return await signals.complete(table.location, sighting, claims_of(visitor), address_of(table, visitor))


def locate(table: Table, client: Client | None, sighting: Sighting) -> tuple[Location, Refused | None]:
    """Where it is, and what to raise if that place gets no answer, whatever is asked."""
    location = resolve(table, client, sighting)
    if sighting.claim is not None and sighting.claim.preferences is not None:
        location = replace(location, preferences=sighting.claim.preferences)
    refusal = refuse_location(table, location)
    return location, Refused(refusal) if refusal is not None else None


def voice_of(location: Location, visitor: Visitor) -> Voice | None:
    """How the caller is spoken to; None where the region says nothing by itself."""
    speech = location.region.speech if location.region is not None else None
    if speech is None:
        return None
    return choose_voice(speech, visitor.one(b"accept-language"), location.preferences)
