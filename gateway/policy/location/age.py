"""The age band of a user, which only a signed claim names, as a part of the location. Pure."""

from __future__ import annotations

from gateway.model.age import AgeBand, AgeRules
from gateway.model.decision import Refusal, RefusalCode
from gateway.model.location import ClaimProblem, ClaimReport, Location, LocationProblem
from providers.value import replace

_NOT_A_BAND = f"not accepted: {ClaimProblem.AGE_BAND.words}"


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


def refuse_use_of_age(band: AgeBand | None, use: str) -> Refusal | None:
    """Return the refusal of a use that users of this age may not have, such as their own voice; else None."""
    if band is None or band.may(use):
        return None
    message = f"the age band {band.name!r} has no {use} in this region"
    return Refusal(RefusalCode.AGE_RESTRICTED, message, age={"rule": use, "limit_s": None, "allowed_at": None})


def refuse_age(band: AgeBand | None) -> Refusal:
    """Return the refusal of every request of a band, or of a user whose age is unknown."""
    if band is None or not band.name:
        message = "this region answers users of a known age only: send a claim with the age band in `x-gateway-claim`"
        return Refusal(RefusalCode.AGE_RESTRICTED, message)
    return Refusal(RefusalCode.AGE_RESTRICTED, f"this region answers no requests of the age band {band.name!r}")
