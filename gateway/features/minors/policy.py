"""Refuse chats of minors outside their hours, and with tools that they may not use. Pure.

The intent, the choices and the instructions of a band are applied where those of other requests are.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.model.age import AgeBand
from gateway.model.decision import Refusal, RefusalCode
from gateway.model.location import Location
from gateway.model.units import at_second
from gateway.policy.doors import RegionDoor
from providers.chat import ChatRequest
from providers.matching.requirements import moving_fields
from providers.value import Value, replace

TIME = "{time}"
"""The place of the time in a sentence."""


class MinorRules(RegionDoor, Value, frozen=True):
    """The door of a region whose age bands have hours, or may use no tools."""

    def before_body(self, location: Location, now_s: float) -> Refusal | None:
        return refuse_hours(location.age, now_s)

    def before_decision(self, location: Location, request: ChatRequest) -> Refusal | None:
        return refuse_tools(location.age, request) if location.age is not None else None


def refuse_hours(band: AgeBand | None, now_s: float) -> Refusal | None:
    """Return the refusal of a request that arrives outside the hours of its band, or None."""
    if band is None or band.hours is None or not (wait_s := band.hours.wait_s(now_s)):
        return None
    begin_s = round(now_s + wait_s)  # hours begin with a minute
    at = at_second(begin_s)
    message = f"the age band {band.name!r} has hours in this region, {band.hours}: send the request at {at}"
    age = {"rule": "hours", "limit_s": None, "allowed_at": at}
    later = band.later
    if later is not None:
        time = f"{datetime.fromtimestamp(begin_s, ZoneInfo(band.hours.timezone)):%H:%M}"
        later = replace(later, texts={tag: text.replace(TIME, time) for tag, text in later.texts.items()})
    return Refusal(RefusalCode.AGE_RESTRICTED, message, retry_after_s=wait_s, age=age, sentences=later)


def refuse_tools(band: AgeBand, request: ChatRequest) -> Refusal | None:
    """Return the refusal of a chat whose band may use no tools, or None. A provider's own search is a tool too."""
    if band.tools or not (request.tools or (moving := moving_fields(request.extra))):
        return None
    param = "tools" if request.tools else min(moving)
    message = f"the age band {band.name!r} may not use tools in this region: leave out `{param}`"
    return Refusal(RefusalCode.AGE_RESTRICTED, message, param=param)
