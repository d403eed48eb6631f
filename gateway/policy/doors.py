"""The doors of a region: where the road of a request asks what features have hung on the region. Pure.

The order is that of the road. `before_body` knows headers and location only, `before_decision` the chat. Where a judge
may find that a user needs help, every refusal waits for the judge, so that the help comes first. The judges, and what
else is awaited, belong to the service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gateway.model.decision import Refusal
from gateway.model.location import Location
from gateway.model.parts import RegionPart
from providers.chat import ChatRequest
from providers.value import Value


class RegionDoor(RegionPart):
    """Base of a part of a region that may refuse a chat."""

    __slots__ = ()
    is_door: ClassVar[bool] = True

    def before_body(self, location: Location, now_s: float) -> Refusal | None:
        """Return why no chat from this location is answered at a time (Unix time), or None."""

    def before_decision(self, location: Location, request: ChatRequest) -> Refusal | None:
        """Return why this chat is not answered, or None."""


def refuse_before_body(location: Location, now_s: float) -> Refusal | None:
    """Return the first refusal of a chat that needs headers and location only, or None."""
    doors: tuple[RegionDoor, ...] = location.region.doors if location.region is not None else ()
    refusals = (door.before_body(location, now_s) for door in doors)
    return next(filter(None, refusals), None)


def refuse_before_decision(location: Location, request: ChatRequest) -> Refusal | None:
    """Return the first refusal of a chat by its content, or None."""
    doors: tuple[RegionDoor, ...] = location.region.doors if location.region is not None else ()
    refusals = (door.before_decision(location, request) for door in doors)
    return next(filter(None, refusals), None)


class PublicPath(Value, frozen=True):
    """A path of a feature that takes no key, and exists while the config version has its part."""

    path: str
    part: type
    tag: str
    """The noun in the plural for that of which a caller asks."""
    summary: str
    answer: Callable[[Any, Mapping[str, object]], dict[str, object]]
    """Returns the answer for the part and the body. Raises InvalidRequest."""
    fields: Mapping[str, str] = {}
    """The meaning of each field that a body must have. A path without fields is asked with GET."""
    most_bytes: Mapping[str, int] = {}
    """The most bytes of a text in the body, by the name of its field."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "POST" if self.fields else "GET"
