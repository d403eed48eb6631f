"""Run the schedules of the active config: compare the variants at intervals, and change the weights.

The rules are pure functions in `gateway.policy.canary_schedule`. The sources of counts and the activation are
parameters, so that a single process and a supervisor use the same code. Progress is stored in the state directory;
without one, no schedule runs.
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

CHECK_INTERVAL_S = 2.0
# A process that was stopped, or a machine that slept, served no requests in the meantime.
_LONGEST_S = 5 * CHECK_INTERVAL_S
_OFF = "schedules need GATEWAY_STATE_DIR: the weights of the config are used"
_RouteKey = tuple[str, str]
_Restage = Callable[[], Awaitable[tuple[int, ...]]]


class Store(Protocol):
    """Stores the progress of schedules. Both methods may raise StateError."""

    def load(self) -> dict[_RouteKey, tuple[str, ScheduleProgress]]:
        """Return the progress that was saved last."""
        ...

    def save(self, progress: Mapping[_RouteKey, tuple[str, ScheduleProgress]]) -> None:
        """Replace the saved progress by this one."""
        ...


class Scheduler:
    """The schedules of the active version, and their progress.

    Attributes:
        off: Why no schedule runs. Empty if schedules run.

    Args:
        store: Where progress is stored. None if there is no state directory.
        clock: Returns monotonic seconds.
        wait: Sleeps between two checks.
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
        self._progress = store.load() if store is not None else {}
        self._running: dict[_RouteKey, Schedule] = {}
        self._baselines: dict[_RouteKey, tuple[str, ...]] = {}
        self._seen: dict[tuple[str, str, str], Tally] | None = None
        self._fresh: set[_RouteKey] = set()
        self._judged_at = clock()
        self._has_news = False
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None
        self.off = _OFF if store is None else ""

    # --- the shares -------------------------------------------------------------------------------

    def stage(self, config: ConfigVersion) -> ConfigVersion:
        """Return the version with the weights of its schedules. Known schedules go on; new ones begin."""
        schedules = _schedules_of(config)
        if self._store is None:
            if schedules:
                logger().warning("schedules_off", detail=_OFF)
            if any(assistant.shadows for assistant in config.assistants.values()):
                logger().warning("shadows_off", detail="shadows need GATEWAY_STATE_DIR: no request is sent to one")
            return config
        before, self._progress = self._progress, {}
        for key, schedule in schedules.items():
            known = before.get(key)
            if known is None or known[0] != schedule.identity:
                known = schedule.identity, begin(schedule)
                self._fresh.add(key)
            self._progress[key] = known
        self._has_news = self._has_news or self._progress != before
        self._running = schedules
        self._baselines = {
            key: tuple(member for member in _first_set(config, key) if member != schedule.candidate)
            for key, schedule in schedules.items()
        }
        return with_shares(config, {key: self._share(key) for key in schedules})

    def _share(self, key: _RouteKey) -> float:
        return share_at(self._running[key], self._progress[key][1])

    def status(self) -> tuple[ScheduleStatus, ...]:
        """Return the progress of each schedule."""
        return tuple(
            ScheduleStatus(
                *key, schedule, self._progress[key][1], self._share(key), waits_for(schedule, self._progress[key][1])
            )
            for key, schedule in self._running.items()
        )

    # --- the looks --------------------------------------------------------------------------------

    def start(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Start to check at intervals. Needs a running event loop.

        Args:
            counts: Returns the metrics of all processes.
            restage: Calls `stage`, and returns the workers that have not confirmed the new weights.
        """
        if self._store is not None:
            self._task = asyncio.create_task(self._watch(counts, restage))

    async def stop(self) -> None:
        """Stop the checks, and save the progress."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._save()

    async def _watch(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        while True:
            await self._wait(CHECK_INTERVAL_S)
            try:
                await self.check(counts, restage)
            except Exception as error:  # the loop of a background task must go on
                logger().error("schedules_failed", detail=f"{type(error).__name__}: {error}")

    async def check(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Evaluate the requests since the last check, and change the weights if a stage begins or ends."""
        if any(progress.phase is Phase.RUNNING for _, progress in self._progress.values()):
            snapshots = await counts()
            if self._judge(await asyncio.to_thread(tallies, snapshots)):
                unconfirmed = await restage()
                if unconfirmed:
                    logger().warning("schedules_behind", workers_behind=list(unconfirmed))
        else:
            # No schedule runs, so nothing is counted. A schedule that begins later counts from then on.
            self._seen, self._judged_at = None, self._clock()
        await self._save()

    def _judge(self, now: dict[tuple[str, str, str], Tally]) -> bool:
        """Advance each schedule. Return whether a weight has changed."""
        before, self._seen = self._seen, now
        at_s = self._clock()
        elapsed_s, self._judged_at = min(at_s - self._judged_at, _LONGEST_S), at_s
        fresh, self._fresh = self._fresh, set()
        if before is None:
            # It is unknown at which weights the earlier requests were counted.
            return False
        moved = False
        for key, schedule in self._running.items():
            identity, progress = self._progress[key]
            if key in fresh or progress.phase is not Phase.RUNNING:
                continue
            counted = {
                name: now.get((*key, name), NO_TALLY).since(before.get((*key, name), NO_TALLY))
                for name in (schedule.candidate, *self._baselines[key])
            }
            candidate = counted.pop(schedule.candidate)
            advanced = advance(schedule, progress, elapsed_s, candidate, sum(counted.values(), NO_TALLY))
            if advanced != progress:
                self._has_news = True
            self._progress[key] = identity, advanced
            if (advanced.phase, advanced.stage) != (progress.phase, progress.stage):
                moved = True
                _log_stage(key, schedule, advanced)
        return moved

    async def _save(self) -> None:
        if self._store is None or not self._has_news:
            return
        self._has_news = False
        try:
            await asyncio.to_thread(self._store.save, dict(self._progress))
        except StateError as error:
            self._has_news = True
            if not self._is_lost:
                detail = f"{error}; after a restart, schedules continue from the last saved progress"
                logger().error("schedules_not_kept", detail=detail)
            self._is_lost = True
        else:
            self._is_lost = False


def _schedules_of(config: ConfigVersion) -> dict[_RouteKey, Schedule]:
    return {
        (assistant.name, region): schedule
        for name, assistant in config.assistants.items()
        if name == assistant.name  # an alias names the same assistant
        for region, schedule in assistant.schedules.items()
    }


def _first_set(config: ConfigVersion, key: _RouteKey) -> tuple[str, ...]:
    assistant, region = key
    first = config.assistants[assistant].routes[region][0]
    return tuple(getattr(first, "weights", ()))


def _log_stage(key: _RouteKey, schedule: Schedule, progress: ScheduleProgress) -> None:
    assistant, region = key
    log = logger().bind(assistant=assistant, region=region, candidate=schedule.candidate)
    share = f"{share_at(schedule, progress):.0%}"
    match progress.phase:
        case Phase.ROLLED_BACK:
            log.error("schedule_rolled_back", share=share, stage=progress.stage + 1, detail=progress.reason)
        case Phase.DONE:
            log.info("schedule_done", share=share)
        case Phase.RUNNING:
            log.info("schedule_stage", share=share, stage=progress.stage + 1)
