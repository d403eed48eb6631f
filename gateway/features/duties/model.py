"""Time of use: the rules of a region and of its age bands, the record of a user, and the verdict on a chat.

Times are whole milliseconds of Unix time, and lengths are milliseconds, because a store of floats would not be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import msgspec

from gateway.model.age import AgeRules
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.model.parts import RegionPart
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.model.region_text import Sentences

DEFAULT_GAP_S = 1800.0
KEPT_MS = 48 * 3_600_000
"""A record is deleted so long after the end of its user's time."""

UseRule = Literal["session", "day", "user_unknown"]
"""Why a chat is refused: the limit that its user has reached, or that the user is not known."""


def _span(seconds: float) -> str:
    """Return a time as the file writes it: 90m, 2h."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


@dataclass(frozen=True, slots=True)
class UseRules(RegionPart):
    """The rules of a region for the time of its users."""

    gap_s: float = DEFAULT_GAP_S
    """A chat that arrives so long after the end of the user's time begins a new session."""
    timezone: str = "UTC"
    """The time zone of its days."""
    repeat_s: float | None = None
    """The label with `repeat` is shown again after so long. None if no label has `repeat`."""
    pause: Sentences | None = field(default=None, repr=False, compare=False)
    """The sentence for a user who has reached a limit, or None if the operator has one for the reason."""
    gap_ms: int = field(init=False, repr=False, compare=False)

    plan_name: ClassVar[str] = "time of use"

    def report(self, region: Region) -> Iterator[tuple[str, str]]:
        ages = region.parts.of(AgeRules)
        bands = ages.bands if ages is not None else ()
        limits = [
            f"{band.name} {' and '.join(f'{_span(limit)} a {name}' for name, limit in band.use.data().items())}"
            for band in bands
            if band.use is not None
        ]
        session = f"a session ends after a pause of {_span(self.gap_s)}, days of {self.timezone}"
        yield "time of use", f"{'; '.join(limits) or 'no limits'} ({session})"
        if self.repeat_s is not None:
            of_bands = [f"{band.name} each {_span(band.repeat_s)}" for band in bands if band.repeat_s is not None]
            yield "notices", "; ".join([f"again each {_span(self.repeat_s)} of a session", *of_bands])

    def explained(self, location: Location) -> Iterator[tuple[str, object, str]]:
        if location.age is not None and location.age.use is not None:
            limits = location.age.use.data()
            yield "use_limit", limits, ", ".join(f"{_span(limit)} a {name}" for name, limit in limits.items())

    def zone_of_days(self) -> str:
        return self.timezone

    def kept_by(self) -> str:
        return "use" if self.repeat_s is None else "labels, with `repeat`,"

    def __post_init__(self) -> None:
        object.__setattr__(self, "gap_ms", round(self.gap_s * 1000))


class UseRecord(NamedTuple):
    """When one user used the time of the last 48 hours. Stores keep it as an array in MessagePack."""

    timezone: str
    """That of the region of the last chat."""
    gap_ms: int
    """The longest gap of the regions in which the last session ran. 0: unknown."""
    noticed_ms: int
    """When the label with `repeat` was last shown in this session. 0: it was not."""
    pieces: tuple[int, ...]
    """The beginning and the end of each session, the last one at the end. They do not overlap."""

    @property
    def began_ms(self) -> int:
        """The beginning of the last session."""
        return self.pieces[-2]

    @property
    def seen_ms(self) -> int:
        """The end of the user's time."""
        return self.pieces[-1]


class UsedDay(NamedTuple):
    """The time of one user on one day, as an export shows it.

    The date is that of the end of the user's time (`seen_ms`). It has the beginning of the last session, the lengths of
    the sessions on that day, and when the label with `repeat` was last shown in this session, or 0.
    """

    date: str
    began_ms: int
    seen_ms: int
    day_ms: int
    noticed_ms: int = 0


class UseKey(NamedTuple):
    """The key of a record: a user by the pseudonym, and the client that asserts the user. Empty: a claim names it."""

    pseudonym: str
    client: str = ""


class UseNote(FeatureNote, msgspec.Struct):
    """The effect of the time of its user on a chat: the limit that refused it, or None.

    `use` is the time of the user and its limits, in seconds, for a header, or None if it is not shown.
    """

    use_limit: UseRule | None = None
    use: str | None = None

    def header_lines(self) -> Iterator[bytes]:
        if self.use is not None:
            yield f"x-gateway-use: {self.use}".encode()

    def log_fields(self) -> Mapping[str, object]:
        return {"use_limit": self.use_limit}

    def receipt_members(self, _recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        return {"use_limit": self.use_limit}
