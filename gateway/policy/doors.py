"""The doors of a region: where the road of a request asks what features have hung on the region. Pure.

The order is that of the road. `before_body` knows headers and location only, `before_decision` the chat. Where a judge
may find that a user needs help, every refusal waits for the judge, so that the help comes first. The judges, and what
else is awaited, belong to the service.
"""

from __future__ import annotations

from gateway.model.config_version import Region
from gateway.model.decision import Refusal
from gateway.model.location import Location
from gateway.model.parts import RegionPart
from providers.chat import ChatRequest


class RegionDoor(RegionPart):
    """Base of a part of a region that may refuse a chat."""

    __slots__ = ()

    def before_body(self, location: Location, now_s: float) -> Refusal | None:
        """Return why no chat from this location is answered at a time (Unix time), or None."""

    def before_decision(self, location: Location, request: ChatRequest) -> Refusal | None:
        """Return why this chat is not answered, or None."""


class HelpsFirst(RegionPart):
    """Base of a part by which a user may get help in place of a refusal."""

    __slots__ = ()


def helps_first(region: Region | None) -> bool:
    """Return whether refusals of a region wait until its judges have looked for a user who needs help."""
    return region is not None and region.parts.of(HelpsFirst) is not None


def refuse_before_body(location: Location, now_s: float) -> Refusal | None:
    """Return the first refusal of a chat that needs headers and location only, or None.

    Args:
        location: Where it comes from.
        now_s: When it arrived, in Unix time.
    """
    doors = location.region.parts.every if location.region is not None else ()
    refusals = (door.before_body(location, now_s) for door in doors if isinstance(door, RegionDoor))
    return next(filter(None, refusals), None)


def refuse_before_decision(location: Location, request: ChatRequest) -> Refusal | None:
    """Return the first refusal of a chat by its content, or None."""
    doors = location.region.parts.every if location.region is not None else ()
    refusals = (door.before_decision(location, request) for door in doors if isinstance(door, RegionDoor))
    return next(filter(None, refusals), None)
