"""Where a caller is, from its headers and from what they carry beyond being read: a signed claim, an address."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from gateway.api.door import Visitor, address_of, claims_of, sighting_of
from gateway.model.config_version import Client, ConfigVersion, remember
from gateway.model.decision import Refusal
from gateway.model.location import Location
from gateway.model.region_text import Locale
from gateway.policy.location import Sighting, resolve
from gateway.policy.refusals import refuse_location
from gateway.policy.region_text import choose_locale
from gateway.service.journey import Refused
from gateway.service.signals import Signals

# Longer heads are judged each time: a caller chooses them, and must not choose how much is remembered.
_MOST_REMEMBERED_BYTES = 2048


async def sighted(table: ConfigVersion, visitor: Visitor, signals: Signals) -> Sighting:
    """What tells of the caller's place: the headers, a verified claim, the place of an address."""
    sighting = sighting_of(table, visitor)
    if not table.location.beyond_headers:
        return sighting
    return await signals.complete(table.location, sighting, claims_of(visitor), address_of(table, visitor))


def placed(table: ConfigVersion, client: Client | None, visitor: Visitor) -> tuple[Sighting, Location, Refused | None]:
    """`sighting_of` and `locate` in one, for a table whose signals are all in the headers.

    Remembered by what those two read: the same caller comes from the same place over and over.
    """
    if visitor.header_bytes > _MOST_REMEMBERED_BYTES:
        sighting = sighting_of(table, visitor)
        return sighting, *locate(table, client, sighting)
    name = client.name if client is not None else None
    read = visitor.values if visitor.repeated else visitor.headers.get
    key = ("placed", name, visitor.peer, *map(read, table.location.read_headers))
    sighting, location, refusal = table.memo.get(key) or remember(table, key, partial(_place, table, client, visitor))
    return sighting, location, Refused(refusal) if refusal is not None else None


def _place(table: ConfigVersion, client: Client | None, visitor: Visitor) -> tuple[Sighting, Location, Refusal | None]:
    sighting = sighting_of(table, visitor)
    location = resolve(table, client, sighting)
    return sighting, location, refuse_location(table, location)


def locate(table: ConfigVersion, client: Client | None, sighting: Sighting) -> tuple[Location, Refused | None]:
    """Where it is, and what to raise if that place gets no answer, whatever is asked."""
    location = resolve(table, client, sighting)
    if sighting.claim is not None and sighting.claim.preferences is not None:
        location = replace(location, preferences=sighting.claim.preferences)
    refusal = refuse_location(table, location)
    return location, Refused(refusal) if refusal is not None else None


def voice_of(location: Location, visitor: Visitor) -> Locale | None:
    """How the caller is spoken to; None where the region says nothing by itself."""
    speech = location.region.speech if location.region is not None else None
    if speech is None:
        return None
    return choose_locale(speech, visitor.one(b"accept-language"), location.preferences)
