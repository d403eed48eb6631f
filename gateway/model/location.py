"""Where a caller is, and how we know."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model.config_version import Region
from gateway.model.region_text import NO_PREFERENCES, Preferences


class LocationProblem(StrEnum):
    """Why a location is no place to answer in."""

    UNKNOWN = "unknown"
    CONFLICT = "conflict"
    BLOCKED = "blocked"
    CLAIM = "claim"  # a signed claim was sent that can't be believed
    CLAIM_UNCHECKED = "claim_unchecked"  # a signed claim was sent that can't be checked right now


@dataclass(frozen=True, slots=True)
class Evidence:
    """One signal: what it said (cleaned for display), what that means, and what became of it.

    region: the name of the region it points to, None where it points nowhere. note: why it was ignored or what it
    means, for people. decided: whether this is the signal that won.
    """

    signal: str
    said: str
    territory: str | None = None
    region: str | None = None
    note: str = ""
    decided: bool = False


@dataclass(frozen=True, slots=True)
class Location:
    """What was decided about a caller's place.

    region is None exactly where there is a problem. territory may be unknown inside a known region.
    why: the winning signal, or `unknown`; assumed: the region was taken for want of evidence. preferences: what the
    caller wishes of the way in which it is spoken to; no evidence of a place.
    """

    region: Region | None
    territory: str | None
    why: str
    evidence: tuple[Evidence, ...]
    problem: LocationProblem | None = None
    assumed: bool = False
    preferences: Preferences = field(default=NO_PREFERENCES, repr=False)
