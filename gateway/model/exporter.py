"""Where spans are sent, and of whose requests it may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.permit import ServicePermit
from providers.auth import Secret
from providers.sites import Residency

if TYPE_CHECKING:
    from gateway.model.table import Region

__all__ = ["Exporter"]


@dataclass(frozen=True, slots=True)
class Exporter:
    """One collector of traces.

    residency: where what it is told is stored and processed, wherever the collector itself stands.
    regions: the names of those whose requests it is told of. hears_of_unplaced: whether it is told of requests of no
    region too (an unknown key, an unknown place), because it lies inside every boundary.
    ratio: the share of new traces that it gets; a trace that a caller began follows the caller's flag.
    missing: where an unset header should have come from; nothing is exported without it.
    """

    name: str
    permit: ServicePermit
    path: str
    headers: tuple[tuple[str, Secret], ...]
    residency: Residency
    regions: frozenset[str]
    hears_of_unplaced: bool = False
    ratio: float = 1.0
    missing: tuple[str, ...] = ()

    def may_hear_of(self, region: Region | None, territory: str | None = None) -> bool:
        """Whether a request of this region, from this territory where it is known, may be told of: by this config, and
        by the region's own boundary too, which may be that of an earlier config. What must stay at home isn't told of
        elsewhere."""
        if region is None:
            return self.hears_of_unplaced
        return region.name in self.regions and self.residency.within(region.bounds_of(territory))
