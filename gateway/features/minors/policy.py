"""Apply the rules of a region for minors. Pure.

Only a signed claim names the age band of a user. The intent, the choices and the instructions of a band are applied
where those of other requests are.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.features.duties.policy import at_second
from gateway.features.minors.model import TIME, AgeBand, AgeRules
from gateway.model.decision import Refusal, RefusalCode
from gateway.model.location import CLAIM_PROBLEMS, ClaimProblem, ClaimReport, Location, LocationProblem
from providers.chat import ChatRequest
from providers.matching.requirements import moving_fields
from providers.value import replace

_NOT_A_BAND = f"not accepted: {CLAIM_PROBLEMS[ClaimProblem.AGE_BAND]}"


def with_age(location: Location, rules: AgeRules, claim: ClaimReport | None) -> Location:
    """Return the location with the age band of its user, or with the problem that an age is."""
    named = claim.age_band if claim is not None else None
    band = rules.band(named) if named is not None else rules.missing
    if named is not None and band is None:
        notes = {"claim": _NOT_A_BAND}
        evidence = tuple(replace(it, note=notes.get(it.signal, it.note), decided=False) for it in location.evidence)
        return Location(None, None, "claim", evidence, LocationProblem.CLAIM)
    is_refused = band is not None and band.refuse
    return replace(location, age=band, problem=LocationProblem.AGE if is_refused else None)


def refuse_age(band: AgeBand | None) -> Refusal:
    """Return the refusal of every request of a band, or of a user whose age is unknown."""
    if band is None or not band.name:
        message = "this region answers users of a known age only: send a claim with the age band in `x-gateway-claim`"
        return Refusal(RefusalCode.AGE_RESTRICTED, message)
    return Refusal(RefusalCode.AGE_RESTRICTED, f"this region answers no requests of the age band {band.name!r}")


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
