"""Territories with rules of their own: parts of a country that are blocked or have a region, and signals that tell the
country alone; and countries that prompts may not leave. Pure."""

from __future__ import annotations

from dataclasses import replace

from gateway.model.config_version import ConfigVersion, Region
from gateway.model.location import Evidence
from providers.catalogue import territory_data
from providers.territories import TerritoryError, parent


def code_of(word: str) -> str:
    """The word as codes are written. What isn't ASCII is left as it is: `ß` in upper case would be South Sudan."""
    return word.strip(" \t").upper() if word.isascii() else word


def with_part(code: str, parts: tuple[str, ...]) -> str:
    """The code with its part behind it (`US-CA`), or the part's own (`HK` for CN and HK), itself if no part is told;
    raises TerritoryError."""
    named = {code_of(part) for part in parts}
    if len(named) > 1:
        raise TerritoryError("several parts of a country at once")
    part = (named - territory_data().unknown - {""}) or {code[3:]}
    whole = {each if each.startswith(f"{code[:2]}-") else f"{code[:2]}-{each}" for each in part if each}
    if parent(code) is not None and whole != {code}:
        raise TerritoryError("a part of a part")
    told = whole.pop() if whole else code
    return territory_data().aliases.get(told, told)


def is_split(table: ConfigVersion, territory: str) -> bool:
    """Whether a part of this country is in another region than the country itself, and the operator doesn't accept
    that nobody tells which part it is."""
    if territory in table.location.country_only:
        return False
    own = table.region_of(territory)
    return any(region is not own for region in _regions_of_parts(table, territory))


def region_in(table: ConfigVersion, territory: str) -> Region | None:
    """The region of somebody who is in this territory. Of a split country without its part that is the stricter of the
    regions that it may be, see `is_as_strict`. None where none is that, or the operator refuses where signals
    conflict."""
    own = table.region_of(territory)
    if own is None or not is_split(table, territory):
        return own
    possible = {region.name: region for region in (own, *_regions_of_parts(table, territory))}.values()
    strict = [
        region for region in possible if all(is_as_strict(region, territory, other, territory) for other in possible)
    ]
    return strict[0] if len(strict) == 1 and table.location.conflict == "strictest" else None


def _regions_of_parts(table: ConfigVersion, territory: str) -> list[Region]:
    return [region for code, region in table.region_by_territory.items() if parent(code) == territory]


def is_as_strict(region: Region, territory: str | None, other: Region, elsewhere: str | None) -> bool:
    """Whether nothing happens to a prompt from the region's territory that the other one forbids for its own: no place
    beyond its boundary, not the gateway's own either, and nobody unapproved."""
    bounds = other.bounds_of(elsewhere)
    passes = region.transit.within(bounds) or region.transit.within(other.transit)
    stays = region.boundary.within(other.boundary) and region.bounds_of(territory).within(bounds)
    return passes and stays and region.approvals_required >= other.approvals_required


def blocked_among(table: ConfigVersion, evidence: tuple[Evidence, ...]) -> Evidence | None:
    """The first signal that points to a blocked territory, or to a country that has a blocked part."""
    for item in evidence:
        if item.territory is None:
            continue
        if table.blocked.contains(item.territory):
            return replace(item, note="blocked")
        if item.territory in table.location.country_only:
            continue
        if any(parent(code) == item.territory for code in table.blocked.included or ()):
            return replace(item, note="a part of this country is blocked, and which part is not known")
    return None
