"""A schedule raises a candidate's share of a weighted step in stages, and takes it back if the candidate is worse."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.model.section import PlainSection, key
from gateway.model.units import RiseOrOff, ShareOrOff

VARIANT_BOUNDS_S = tuple(round(0.02 * 2 ** (step / 4), 6) for step in range(57))
"""Bounds of the times by which two sides are compared, from 20 ms to 328 s: each 19 % above the one before."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The candidate's share (0 to 1) for a time; None is the end of the schedule."""

    share: float
    for_s: float | None


@dataclass(frozen=True, slots=True)
class StopRule(PlainSection):
    """When a schedule takes its candidate back."""

    error_rate: ShareOrOff = field(
        default=0.02,
        metadata=key("More of its requests fail than this, and than on the other side, beyond chance.", default="2%"),
    )
    latency_p95: RiseOrOff = field(
        default=0.5,
        metadata=key("Its 95th percentile is by more than this above the other side's, beyond chance.", default="+50%"),
    )
    min_requests: int = field(
        default=200,
        metadata=key("How many each side must have had before it is judged, or raised.", ge=10, le=1_000_000),
    )


@dataclass(frozen=True, slots=True)
class Schedule:
    """The stages of one route's candidate. identity: changes with the text, and with what the candidate is."""

    candidate: str
    stages: tuple[Stage, ...]
    stop: StopRule
    identity: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The requests of one side: how many it answered, how many it didn't, and how many began to be answered in each
    class of time (see SIDE_BOUNDS_S, and one more for what is longer)."""

    ok: int = 0
    failed: int = 0
    times: tuple[int, ...] = (0,) * (len(VARIANT_BOUNDS_S) + 1)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.ok + self.failed

    @property
    def error_rate(self) -> float:
        """The share that wasn't answered, 0 of none."""
        return self.failed / self.requests if self.requests else 0.0

    def __add__(self, other: Tally) -> Tally:
        times = tuple(map(sum, zip(self.times, other.times, strict=True)))
        return Tally(self.ok + other.ok, self.failed + other.failed, times)

    def since(self, before: Tally) -> Tally:
        """What has come since then. Counts never fall; where they seem to, nothing has come."""
        times = tuple(max(now - then, 0) for now, then in zip(self.times, before.times, strict=True))
        return Tally(max(self.ok - before.ok, 0), max(self.failed - before.failed, 0), times)

    def percentile_s(self, share: float) -> float | None:
        """The time within which this share of the answers began, at most; None of no answer."""
        wanted, seen = share * sum(self.times), 0
        for bound_s, count in zip(VARIANT_BOUNDS_S, self.times, strict=False):
            seen += count
            if count and seen >= wanted:
                return bound_s
        return VARIANT_BOUNDS_S[-1] if any(self.times) else None

    def slower_than(self, limit_s: float) -> int:
        """How many answers took longer for sure: those of the classes that lie above the limit."""
        return sum(self.times[bisect_left(VARIANT_BOUNDS_S, limit_s) + 1 :])


NO_TALLY = Tally()


class Phase(StrEnum):
    """How far a schedule is."""

    RUNNING = "running"
    DONE = "done"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class ScheduleProgress:
    """Where a schedule is. elapsed_s, candidate, baseline, looks: of the present stage.

    looks: how often the two sides were compared. seen: the candidate's requests at the last of them. reason: why it was
    rolled back.
    """

    phase: Phase = Phase.RUNNING
    stage: int = 0
    elapsed_s: float = 0.0
    candidate: Tally = NO_TALLY
    baseline: Tally = NO_TALLY
    looks: int = 0
    seen: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule as an operator is told of it. waits_for: what keeps it from the next stage beyond its time."""

    assistant: str
    region: str
    schedule: Schedule
    progress: ScheduleProgress
    share: float
    waits_for: str = ""
