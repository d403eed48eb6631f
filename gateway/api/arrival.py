"""Who asks and from where, as a request's head tells it by a table; and the memory of it for a head that comes again.

The same bytes mean the same by the same table, so that a key isn't hashed and a place isn't sought for each request of
a connection. It ends with the connection, and a reload begins it anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.api.door import Visitor
from gateway.api.line import SameHead
from gateway.model.location import Location
from gateway.model.table import Client, Table
from gateway.policy.location import Sighting

__all__ = ["Arrival", "arrived_before", "remember_arrival"]

# One is remembered for each connection: a caller must not choose how much that is.
_MOST_REMEMBERED_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who asks and from where, which is a place that gets answers, as this table judges it.

    visitor: its length is that of the request that was judged, and another one's here.
    """

    table: Table
    visitor: Visitor
    client: Client | None
    sighting: Sighting
    location: Location


def arrived_before(head: SameHead | None, table: Table) -> Arrival | None:
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
