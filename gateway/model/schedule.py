"""Schedules: raise the weight of a candidate in stages, and set it back if the candidate is worse."""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum

from gateway.model.section import PlainSection, key, section
from gateway.model.units import RiseOrOff, ShareOrOff
from providers.value import Value

VARIANT_BOUNDS_S = tuple(round(0.02 * 2 ** (step / 4), 6) for step in range(57))
"""Upper bounds of the latency histogram of a variant, from 20 ms to 328 s. Each is 19 % above the previous one."""


class Stage(Value, frozen=True):
    """The candidate's share (0 to 1) and its duration. A duration of None is the end of the schedule."""

    share: float
    for_s: float | None


@section
class StopRule(PlainSection):
    """When a schedule rolls its candidate back."""

    error_rate: ShareOrOff = key(
        "Roll back if its error rate is above this and significantly above the baseline.", default=0.02, written="2%"
    )
    latency_p95: RiseOrOff = key(
        "Roll back if its p95 latency exceeds the baseline's by more than this, significantly.",
        default=0.5,
        written="+50%",
    )
    min_requests: int = key(
        "Minimum number of requests of each variant before the candidate is judged or raised.",
        default=200,
        ge=10,
        le=1_000_000,
    )


class Schedule(Value, frozen=True):
    """The stages for the candidate of one route. A rollback may keep the shares as they are (`is_frozen`).

    Progress belongs to the `identity` of the text of the schedule and the candidate's definition.
    """

    candidate: str
    stages: tuple[Stage, ...]
    stop: StopRule
    identity: str
    is_frozen: bool = False


class Tally(Value, frozen=True):
    """Counts of one variant's requests: answered, failed, and the latencies of those that began to be answered.

    The histogram of latencies is over `VARIANT_BOUNDS_S`, with one more bucket for longer ones.
    """

    ok: int = 0
    failed: int = 0
    times: tuple[int, ...] = (0,) * (len(VARIANT_BOUNDS_S) + 1)

    @property
    def requests(self) -> int:
        """The number of requests."""
        return self.ok + self.failed

    @property
    def error_rate(self) -> float:
        """The share of requests that failed. 0 if there are no requests."""
        return self.failed / self.requests if self.requests else 0.0

    def __add__(self, other: Tally) -> Tally:
        times = tuple(map(sum, zip(self.times, other.times, strict=True)))
        return Tally(self.ok + other.ok, self.failed + other.failed, times)

    def since(self, before: Tally) -> Tally:
        """Return the difference to earlier counts. Counts that seem to fall (after a restart) count as no change."""
        times = tuple(max(now - then, 0) for now, then in zip(self.times, before.times, strict=True))
        return Tally(max(self.ok - before.ok, 0), max(self.failed - before.failed, 0), times)

    def percentile_s(self, share: float) -> float | None:
        """Return an upper bound of this percentile (0 to 1) of latency, or None without answers."""
        rank, seen = share * sum(self.times), 0
        for bound_s, count in zip(VARIANT_BOUNDS_S, self.times, strict=False):
            seen += count
            if count and seen >= rank:
                return bound_s
        return VARIANT_BOUNDS_S[-1] if any(self.times) else None

    def slower_than(self, limit_s: float) -> int:
        """Return the number of answers that certainly took longer: those in buckets above the limit."""
        return sum(self.times[bisect_left(VARIANT_BOUNDS_S, limit_s) + 1 :])


NO_TALLY = Tally()


class Phase(StrEnum):
    """The phase of a schedule. It is held if a rollback restored it, and the share at its end is not known."""

    RUNNING = "running"
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    HELD = "held"


class ScheduleProgress(Value, frozen=True):
    """The progress of a schedule. `elapsed_s`, `candidate`, `baseline` and `looks` belong to the present stage."""

    phase: Phase = Phase.RUNNING
    stage: int = 0
    elapsed_s: float = 0.0
    candidate: Tally = NO_TALLY
    baseline: Tally = NO_TALLY
    looks: int = 0
    """The number of comparisons of the two variants."""
    seen: int = 0
    """The candidate's requests at the last comparison."""
    reason: str = ""
    """Why the candidate was set back."""


class ScheduleStatus(Value, frozen=True):
    """A schedule as it is shown to operators, and why the next stage has not begun although its time has come."""

    assistant: str
    region: str
    schedule: Schedule
    progress: ScheduleProgress
    share: float
    waits_for: str = ""
