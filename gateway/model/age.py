"""The age bands of a region: the rules for users of one age, which a signed claim names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gateway.model.hours import Hours
from gateway.model.parts import RegionPart
from gateway.model.region_text import Sentences
from gateway.model.section import PlainSection, key, section
from gateway.model.units import WholeLifetime
from providers.value import Value


@section
class UseLimits(PlainSection):
    """How long the users of a band may chat."""

    session_s: WholeLifetime | None = key(
        "The longest session: 1m to 24h. Default: no limit.", default=None, name="session"
    )
    day_s: WholeLifetime | None = key(
        "The longest time of a calendar day: 1m to 24h. Default: no limit.", default=None, name="day"
    )

    def data(self) -> dict[str, int]:
        """Return the limits as JSON data."""
        named = {"session": self.session_s, "day": self.day_s}
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class AgeBand:
    """The rules for users of one age."""

    name: str
    """Empty for users of an unknown age who are refused."""
    refuse: bool = False
    """No request is answered."""
    tools: bool = True
    """Requests may have tools."""
    choices: bool = True
    """The user may prefer a choice."""
    intent: str | None = None
    """The intent of each chat, or None for that of the request."""
    instructions: str = field(default="", repr=False)
    """Instructions for the model, after the region's profile."""
    hours: Hours | None = None
    """When requests are answered, or None for always."""
    hand_off: bool = True
    """A barrier may open."""
    use: UseLimits | None = None
    """How long its users may chat, or None without a limit."""
    repeat_s: float | None = None
    """After how long its users see the label with `repeat` again, or None for as long as all of the region."""
    later: Sentences | None = field(default=None, repr=False, compare=False)
    """The sentence for a user outside of `hours`, with `TIME`, or None if the operator has one for the reason."""
    transcription: bool = True
    """Its users may send their voice."""
    speech: bool = True
    """Its users may get speech."""

    def may(self, use: str) -> bool:
        """Return whether its users may send requests of a use."""
        return {"transcription": self.transcription, "speech": self.speech}.get(use, True)


UNKNOWN_AGE = AgeBand("", refuse=True)


class AgeRules(RegionPart, Value, frozen=True):
    """The age bands of a region. `missing`: the rules for users whose age no claim names; None for those of adults."""

    plan_name: ClassVar[str] = "age bands"

    bands: tuple[AgeBand, ...]
    missing: AgeBand | None

    def report(self, region: Any) -> Iterator[tuple[str, str]]:
        others = "adults" if self.missing is None else self.missing.name or "refused"
        yield "age bands", f"{', '.join(band.name for band in self.bands)}; users whose age no claim names: {others}"

    def explained(self, location: Any) -> Iterator[tuple[str, object, str]]:
        if location.age is not None:
            yield "age_band", location.age_band, location.age_band or "unknown"

    def band(self, name: str) -> AgeBand | None:
        """Return the band of this name, or None."""
        return next((band for band in self.bands if band.name == name), None)
