"""Parts of countries (ISO 3166-2) that are blocked or have a region, and signals that give only the country."""

from __future__ import annotations

from gateway.model.config_version import ConfigVersion, Region
from gateway.model.location import Evidence
from providers.territories import TerritoryError, may_overlap, parent, parts_of, territory_data
from providers.value import replace


def code_of(word: str) -> str:
    """Return the word in upper case. A word that is not ASCII is unchanged: `ß` would become `SS`, South Sudan."""
    return word.strip(" \t").upper() if word.isascii() else word


def with_part(code: str, parts: tuple[str, ...]) -> str:
    """Return the code with its part (`US-CA`), the part's own code (`HK` for CN and HK), or the code itself.

    Raises TerritoryError for several parts, and for the part of a part.
    """
    country = code[:2]
    named = {code_of(part) for part in parts}
    if len(named) > 1:
        raise TerritoryError("several parts of a country")
    # Edges and databases name districts of Hong Kong and others, which ISO 3166-2 does not divide. No rule can name
    # such a part, so the country alone decides.
    known = parts_of(country)
    silent = {"", *(word for word in territory_data().unknown if f"{country}-{word}" not in known)}
    part = (named - silent if known else set()) or {code[3:]}
    whole = {each if each.startswith(f"{country}-") else f"{country}-{each}" for each in part if each}
    if parent(code) is not None and whole != {code}:
        raise TerritoryError("a part of a part")
    full_code = whole.pop() if whole else code
    return territory_data().aliases.get(full_code, full_code)


def is_split(config: ConfigVersion, territory: str) -> bool:
    """Return whether a part of this country is in another region than the country, so that the part must be known."""
    if territory in config.location.rules.country_only:
        return False
    own = config.region_of(territory)
    return any(region is not own for region in _regions_of_parts(config, territory))


def is_cut(config: ConfigVersion, territory: str) -> bool:
    """Return whether a rule is for a part that may contain this part, or lie in it: GB-ENG and GB-LND."""
    if parent(territory) is None:
        return False
    rules = (*config.region_by_territory, *(config.blocked.included or ()), *config.blocked.excluded)
    return any(may_overlap(territory, code) for code in rules)


def region_in(config: ConfigVersion, territory: str) -> Region | None:
    """Return the region of a caller in this territory.

    For a split country without its part, it is the strictest region of the country and its parts (`is_as_strict`).
    None where there is no strictest one, or where the operator refuses conflicts.
    """
    own = config.region_of(territory)
    if own is None or not is_split(config, territory):
        return own
    possible = {region.name: region for region in (own, *_regions_of_parts(config, territory))}.values()
    strict = [
        region for region in possible if all(is_as_strict(region, territory, other, territory) for other in possible)
    ]
    return strict[0] if len(strict) == 1 and config.location.rules.conflict == "strictest" else None


def _regions_of_parts(config: ConfigVersion, territory: str) -> list[Region]:
    return [region for code, region in config.region_by_territory.items() if parent(code) == territory]


def is_as_strict(region: Region, territory: str | None, other: Region, elsewhere: str | None) -> bool:
    """Return whether the region allows nothing for its territory that the other region forbids for its own.

    The comparison covers the boundary, the transit through this cell, and whether approvals are required.
    """
    bounds = other.bounds_of(elsewhere)
    passes = region.transit.within(bounds) or region.transit.within(other.transit)
    stays = region.boundary.within(other.boundary) and region.bounds_of(territory).within(bounds)
    return passes and stays and region.approvals_required >= other.approvals_required


def blocked_among(config: ConfigVersion, evidence: tuple[Evidence, ...]) -> Evidence | None:
    """Return the first signal that points to a blocked territory, or to a country that has a blocked part."""
    for item in evidence:
        if item.territory is None:
            continue
        if config.blocked.contains(item.territory):
            return replace(item, note="blocked")
        if item.territory in config.location.rules.country_only:
            continue
        if any(parent(code) == item.territory for code in config.blocked.included or ()):
            return replace(item, note="a part of this country is blocked, and which part is not known")
    return None
