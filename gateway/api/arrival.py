"""Who asks and from where, as a request's head tells it by a table; and the memory of it for a head that comes again.

The same bytes mean the same by the same table, so that a key isn't hashed and a place isn't sought for each request of
a connection. It ends with the connection, and a reload begins it anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.api.door import Visitor, claims_of, edge_at, sighting_of
from gateway.api.line import SameHead
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.edge import ASSERTION
from gateway.model.location import Location
from gateway.policy.location import EdgeNote, Sighting

# One is remembered for each connection: a caller must not choose how much that is.
_MOST_REMEMBERED_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who asks and from where, which is a place that gets answers, as this table judges it.

    visitor: its length is that of the request that was judged, and another one's here.
    """

    table: ConfigVersion
    visitor: Visitor
    client: Client | None
    sighting: Sighting
    location: Location

    def brought_more(self, now: ConfigVersion) -> bool:
        """Whether something came along that tells a place by another table, and which this one did not ask for: nobody
        has judged it. An edge whose secret alone was replaced tells the same."""
        rules, before, visitor = now.location, self.table.location, self.visitor
        if "geoip" in rules.signals and not ("geoip" in before.signals and rules.believes("geoip", before)):
            # What the address tells isn't known without waiting for it.
            return True
        added = {*rules.signals} - {*before.signals}
        if ("claim" in added and claims_of(visitor)) or ("assertion" in added and visitor.all(ASSERTION.encode())):
            return True
        if edge_at(now, visitor) is None or "edge_header" not in rules.signals:
            return False
        if "edge_header" not in added and self.has_same_edge(now):
            return False
        told = sighting_of(now, visitor)
        return told.edge is not None or told.edge_note is EdgeNote.UNPROVEN

    def has_same_edge(self, now: ConfigVersion) -> bool:
        """Whether its peer is the same edge by another table, or none by either; whatever became of other edges."""
        edge, was = edge_at(now, self.visitor), edge_at(self.table, self.visitor)
        if edge is None or was is None:
            return edge is was
        return edge.identity == was.identity


def arrived_before(head: SameHead | None, table: ConfigVersion) -> Arrival | None:
    """What this table made of this head before, if anything."""
    arrival: Arrival | None = head.made if head is not None else None
    return arrival if arrival is not None and arrival.table is table else None


def remember_arrival(head: SameHead | None, arrival: Arrival) -> None:
    """It needn't be judged again, unless more than the headers told of it."""
    if (
        head is not None
        and not arrival.table.location.beyond_headers
        and arrival.visitor.header_bytes <= _MOST_REMEMBERED_BYTES
    ):
        head.made = arrival
