"""The rules of a region for minors: its age bands, and the hours in which a band may chat."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.features.duties.model import UseLimits
from gateway.model.region_text import Sentences
from providers.value import Value

TIME = "{time}"
"""The place of the time in a sentence."""


class Hours(Value, frozen=True):
    """Daily hours by the clock of a time zone, in minutes after midnight. They may go over midnight.

    Attributes:
        end: The first minute after the hours.
    """

    start: int
    end: int
    timezone: str

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the hours begin. 0 within them.

        Args:
            now_s: Unix time.
        """
        zone = ZoneInfo(self.timezone)
        now = datetime.fromtimestamp(now_s, zone)
        if self._contain(now):
            return 0.0
        first = now.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        # A clock that is set back shows a time twice in one day, and one that is set forward leaves some out.
        days = [first + timedelta(days=number) for number in range(3)]
        starts = [day.replace(fold=fold).timestamp() for day in days for fold in (0, 1)]
        return min(at for at in starts if at > now_s and self._contain(datetime.fromtimestamp(at, zone))) - now_s

    def _contain(self, time: datetime) -> bool:
        minute = time.hour * 60 + time.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        start, end = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.start, self.end))
        return f"{start}-{end} ({self.timezone})"


@dataclass(frozen=True, slots=True)
class AgeBand:
    """The rules for users of one age.

    Attributes:
        name: Empty for users of an unknown age who are refused.
        refuse: No request is answered.
        tools: Requests may have tools.
        choices: The user may prefer a choice.
        hand_off: A barrier may open.
        intent: The intent of each chat. None: that of the request.
        instructions: Instructions for the model, after the region's profile.
        hours: When requests are answered. None: always.
        later: The sentence for a user outside of them, with `TIME`. None: the operator has one for the reason.
        use: How long its users may chat. None: no limit.
        repeat_s: Its users see the label with `repeat` again after so long. None: as all of the region.
    """

    name: str
    refuse: bool = False
    tools: bool = True
    choices: bool = True
    intent: str | None = None
    instructions: str = field(default="", repr=False)
    hours: Hours | None = None
    hand_off: bool = True
    use: UseLimits | None = None
    repeat_s: float | None = None
    later: Sentences | None = field(default=None, repr=False, compare=False)


UNKNOWN_AGE = AgeBand("", refuse=True)


class AgeRules(Value, frozen=True):
    """The age bands of a region. `missing`: the rules for users whose age no claim names; None for those of adults."""

    bands: tuple[AgeBand, ...]
    missing: AgeBand | None

    def band(self, name: str) -> AgeBand | None:
        """Return the band of this name, or None."""
        return next((band for band in self.bands if band.name == name), None)
