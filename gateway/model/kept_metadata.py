"""Decide whether this cell may keep who asked from where.

Every store asks `may_keep`: receipts, recent requests, results of shadow traffic, budgets of end users, and usage rows.
If it may not, only the usage row is kept, without request id, territory and end user.
"""

from __future__ import annotations

from gateway.model.config_version import ConfigVersion
from gateway.model.location import Location
from providers.value import Value

_LONGEST_S = 86_400.0


class StoredRequest(Value, frozen=True):
    """A request of a usage row, by which its shadow record and its receipt are found: they name no end user.

    Its client may have chosen the id, which another request may have too. One of its calls was admitted at the time.
    """

    request: str
    client: str | None
    assistant: str | None
    time_ns: int

    def is_of(self, at_s: float) -> bool:
        """Return whether what was stored at this Unix time may be of this request."""
        return -1.0 <= at_s - self.time_ns / 1e9 <= _LONGEST_S


def may_keep(location: Location | None, cell: str | None) -> bool:
    """Return whether this cell, in this territory, may keep who asked from where.

    It may not if it lies outside the boundary of the region (`transit`), or if prompts from the caller's territory must
    stay there and the cell lies elsewhere. The location is None if the request ended before it was decided.
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
