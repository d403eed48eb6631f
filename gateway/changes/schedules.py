"""Carries out the schedules of the live config: looks at what both sides have done, and moves the shares.

The rules are pure, in `policy.schedule`; how counts are read and a table becomes active are parameters, so that one
process and the supervisor of several do the same. What is known is kept in the state directory; without one, nothing
runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from gateway.model.config_version import ConfigVersion
from gateway.model.schedule import NO_TALLY, Phase, Schedule, ScheduleProgress, ScheduleStatus, Tally
from gateway.operator_errors import StateError
from gateway.policy.canary_schedule import advance, begin, share_at, waits_for, with_shares
from gateway.telemetry.log import logger
from gateway.telemetry.metric_snapshots import tallies

LOOK_S = 2.0
# A process that was stopped, or a machine that slept, has served nobody meanwhile.
_LONGEST_S = 5 * LOOK_S
_OFF = "GATEWAY_STATE_DIR is not set: the shares are those that the config writes"
_Place = tuple[str, str]
_Restage = Callable[[], Awaitable[tuple[int, ...]]]


class Store(Protocol):
    """Where the progress is kept; either method may raise StateError."""

    def load(self) -> dict[_Place, tuple[str, ScheduleProgress]]:
        """What was saved last."""
        ...

    def save(self, kept: Mapping[_Place, tuple[str, ScheduleProgress]]) -> None:
        """Keep exactly this."""
        ...


class Scheduler:
    """The schedules of the table that is live, and how far each is. off: why none runs, empty where they do.

    clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._wait = wait
        self._kept = store.load() if store is not None else {}
        self._running: dict[_Place, Schedule] = {}
        self._baselines: dict[_Place, tuple[str, ...]] = {}
        self._seen: dict[tuple[str, str, str], Tally] | None = None
        self._fresh: set[_Place] = set()
        self._looked_at = clock()
        self._has_news = False
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None
        self.off = _OFF if store is None else ""

    # --- the shares -------------------------------------------------------------------------------

    def stage(self, table: ConfigVersion) -> ConfigVersion:
        """The table with the shares that its schedules are at: the known ones go on, others begin or are forgotten."""
        found = _schedules_of(table)
        if self._store is None:
            if found:
                logger().warning("schedules_off", detail=_OFF)
            if any(assistant.shadows for assistant in table.assistants.values()):
                logger().warning("shadows_off", detail="GATEWAY_STATE_DIR is not set: no shadow is asked")
            return table
        before, self._kept = self._kept, {}
        for place, schedule in found.items():
            known = before.get(place)
            if known is None or known[0] != schedule.identity:
                known = schedule.identity, begin(schedule)
                self._fresh.add(place)
            self._kept[place] = known
        self._has_news = self._has_news or self._kept != before
        self._running = found
        self._baselines = {
            place: tuple(member for member in _first_set(table, place) if member != schedule.candidate)
            for place, schedule in found.items()
        }
        return with_shares(table, {place: self._share(place) for place in found})

    def _share(self, place: _Place) -> float:
        return share_at(self._running[place], self._kept[place][1])

    def status(self) -> tuple[ScheduleStatus, ...]:
        """Where each of them is."""
        return tuple(
            ScheduleStatus(
                *place, schedule, self._kept[place][1], self._share(place), waits_for(schedule, self._kept[place][1])
            )
            for place, schedule in self._running.items()
        )

    # --- the looks --------------------------------------------------------------------------------

    def start(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Begin to look; needs a running loop. counts: the metrics of all processes. restage: has `stage` called, and
        says which workers haven't confirmed it."""
        if self._store is not None:
            self._task = asyncio.create_task(self._watch(counts, restage))

    async def stop(self) -> None:
        """Look no longer, and keep what is known."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._save()

    async def _watch(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        while True:
            await self._wait(LOOK_S)
            try:
                await self.look(counts, restage)
            except Exception as error:  # the top of a background task: the next look must be taken all the same
                logger().error("schedules_failed", detail=f"{type(error).__name__}: {error}")

    async def look(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Judge once by what has come since the last look, and have the shares moved where they should be others."""
        if any(progress.phase is Phase.RUNNING for _, progress in self._kept.values()):
            snapshots = await counts()
            if self._judge(await asyncio.to_thread(tallies, snapshots)):
                behind = await restage()
                if behind:
                    logger().warning("schedules_behind", workers_behind=list(behind))
        else:
            # Nobody counts: who begins later begins at that moment.
            self._seen, self._looked_at = None, self._clock()
        await self._save()

    def _judge(self, now: dict[tuple[str, str, str], Tally]) -> bool:
        """Whether a share has changed."""
        before, self._seen = self._seen, now
        at_s = self._clock()
        by_s, self._looked_at = min(at_s - self._looked_at, _LONGEST_S), at_s
        fresh, self._fresh = self._fresh, set()
        if before is None:
            # Of what the processes have counted before we looked, nobody knows at which share it was.
            return False
        moved = False
        for place, schedule in self._running.items():
            identity, progress = self._kept[place]
            if place in fresh or progress.phase is not Phase.RUNNING:
                continue
            came = {
                name: now.get((*place, name), NO_TALLY).since(before.get((*place, name), NO_TALLY))
                for name in (schedule.candidate, *self._baselines[place])
            }
            candidate = came.pop(schedule.candidate)
            further = advance(schedule, progress, by_s, candidate, sum(came.values(), NO_TALLY))
            if further != progress:
                self._has_news = True
            self._kept[place] = identity, further
            if (further.phase, further.stage) != (progress.phase, progress.stage):
                moved = True
                _tell(place, schedule, further)
        return moved

    async def _save(self) -> None:
        if self._store is None or not self._has_news:
            return
        self._has_news = False
        try:
            await asyncio.to_thread(self._store.save, dict(self._kept))
        except StateError as error:
            self._has_news = True
            if not self._is_lost:
                logger().error("schedules_not_kept", detail=f"{error}; a restart would begin where it was kept last")
            self._is_lost = True
        else:
            self._is_lost = False


def _schedules_of(table: ConfigVersion) -> dict[_Place, Schedule]:
    return {
        (assistant.name, region): schedule
        for name, assistant in table.assistants.items()
        if name == assistant.name  # and no alias
        for region, schedule in assistant.schedules.items()
    }


def _first_set(table: ConfigVersion, place: _Place) -> tuple[str, ...]:
    assistant, region = place
    first = table.assistants[assistant].routes[region][0]
    return tuple(getattr(first, "weights", ()))


def _tell(place: _Place, schedule: Schedule, progress: ScheduleProgress) -> None:
    assistant, region = place
    log = logger().bind(assistant=assistant, region=region, candidate=schedule.candidate)
    share = f"{share_at(schedule, progress):.0%}"
    match progress.phase:
        case Phase.ROLLED_BACK:
            log.error("schedule_rolled_back", share=share, stage=progress.stage + 1, detail=progress.reason)
        case Phase.DONE:
            log.info("schedule_done", share=share)
        case Phase.RUNNING:
            log.info("schedule_stage", share=share, stage=progress.stage + 1)
