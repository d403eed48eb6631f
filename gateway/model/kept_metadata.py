"""Decide whether this cell may keep who asked from where.

Every store asks `may_keep`: receipts, recent requests, results of shadow traffic, budgets of end users, and usage rows.
If it may not, only the usage row is kept, without request id, territory and end user.
"""

from __future__ import annotations

from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location


def may_keep(location: Location | None, cell: str | None) -> bool:
    """Return whether this cell may keep who asked from where.

    It may not if it lies outside the boundary of the region (`transit`), or if prompts from the caller's territory must
    stay there and the cell lies elsewhere.

    Args:
        location: The decided location, or None if the request ended before it was decided.
        cell: The territory of the gateway, if the config states it.
    """
    if location is None or location.region is None:
        return True
    if not location.region.keeps_receipts:
        return False
    if cell is None or location.territory is None:
        return True
    required = location.region.required_places(location.territory)
    return required is None or required.contains(cell)


def regions_without_callers(config: ConfigVersion) -> frozenset[str]:
    """Return the names of the regions whose usage rows name no request and no caller in this cell."""
    return frozenset(name for name, region in config.regions.items() if not region.keeps_receipts)
