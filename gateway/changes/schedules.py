"""Run the schedules of the active config: compare the variants at intervals, and change the weights.

The rules are pure functions in `gateway.policy.canary_schedule`. The sources of counts and the activation are
parameters, so that a single process and a supervisor use the same code. Progress is stored in the state directory;
without one, no schedule runs.

While a version is pinned by a rollback, no schedule runs either: its candidates keep the shares with which the version
ended. The progress of the version that the rollback replaced stays as it is, for the release.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from gateway.model.config_version import ConfigVersion
from gateway.model.schedule import NO_TALLY, Phase, Schedule, ScheduleProgress, ScheduleStatus, Tally
from gateway.operator_errors import StateError
from gateway.policy.canary_schedule import advance, begin, share_at, waits_for, with_shares
from gateway.tasks import stopped
from gateway.telemetry.log import logger
from gateway.telemetry.metric_snapshots import tallies
from providers.value import replace

if TYPE_CHECKING:
    from gateway.state.schedules import ScheduleStore

CHECK_INTERVAL_S = 2.0
# A process that was stopped, or a machine that slept, served no requests in the meantime.
LONGEST_S = 5 * CHECK_INTERVAL_S
_OFF = "schedules need GATEWAY_STATE_DIR: the weights of the config are used"
_RouteKey = tuple[str, str]
_Progress = dict[_RouteKey, tuple[str, ScheduleProgress]]
"""By route: the identity of the schedule, and its progress."""
_HELD = "", ScheduleProgress(Phase.HELD, reason="it is not known at which share the version ended")
_Restage = Callable[[], Awaitable[tuple[int, ...]]]
_Tallies = Mapping[tuple[str, str, str], Tally]


class Scheduler:
    """The schedules of the active version, and their progress in the store, if there is a state directory.

    If none runs, `off` is the reason. `clock` returns monotonic seconds.
    """

    interval_s = CHECK_INTERVAL_S

    def __init__(self, store: ScheduleStore | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._progress: _Progress = store.load() if store is not None else {}
        self._frozen: _Progress | None = None
        """The progress that is shown instead while a version is pinned by a rollback."""
        self._version = ""
        """The version that `_progress` belongs to. Empty if it is that of an earlier process."""
        self._frozen_version = ""
        self._ended: dict[str, _Progress] = {}
        """The progress with which versions ended, until it is saved."""
        self._running: dict[_RouteKey, Schedule] = {}
        self._baselines: dict[_RouteKey, tuple[str, ...]] = {}
        self._seen: _Tallies | None = None
        self._fresh: set[_RouteKey] = set()
        self._judged_at = clock()
        self._has_news = False
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None
        self._started_with: tuple[Callable[[], Awaitable[list[bytes]]], _Restage] | None = None
        self.off = _OFF if store is None else ""

    def stage(self, config: ConfigVersion, *, is_pinned: bool = False) -> ConfigVersion:
        """Return the version with the weights of its schedules. They go on, or are frozen for a pinned version."""
        schedules = _schedules_of(config)
        if self._store is None:
            if schedules:
                logger().warning("schedules_off", detail=_OFF)
            routes = (parts for it in config.assistants.values() for parts in it.route_parts.values())
            every = (part for parts in routes for part in parts.every)
            for event, detail in dict.fromkeys(filter(None, (part.off_without_state() for part in every))):
                logger().warning(event, detail=detail)
            return config
        if is_pinned:
            self._freeze(config.version, schedules)
        else:
            self._go_on(config.version, schedules)
        self._running = schedules
        self._baselines = {
            key: tuple(member for member in _first_set(config, key) if member != schedule.candidate)
            for key, schedule in schedules.items()
        }
        return with_shares(config, {key: self._share(key) for key in schedules}, is_frozen=is_pinned)

    def stage_released(self, config: ConfigVersion, pinned: str) -> ConfigVersion:
        """Return what `stage` returns when the pin of this version was released while no gateway ran."""
        self._freeze(pinned, _schedules_of(config))
        return self.stage(config)

    def _freeze(self, version: str, schedules: Mapping[_RouteKey, Schedule]) -> None:
        """Restore the progress with which the version ended."""
        ended = self._ended_progress(version)
        frozen: _Progress = {}
        for key, schedule in schedules.items():
            same = _known([ended, self._progress], key, schedule)
            # If the same schedule was rolled back in a later version, its candidate stays rolled back.
            rolled_back = [it for it in same if it[1].phase is Phase.ROLLED_BACK]
            frozen[key] = [*rolled_back, *same, _HELD][0]
        self._frozen, self._frozen_version = frozen, version
        self._seen = None  # requests during the pin count for no stage

    def _ended_progress(self, version: str) -> _Progress:
        if version == self._version or self._store is None:
            return self._progress
        if version in self._ended:
            return self._ended[version]
        try:
            return self._store.progress_of(version)
        except StateError as error:
            logger().error("schedules_failed", detail=f"{error}; candidates of unknown shares get no users")
            return {}

    def _go_on(self, version: str, schedules: Mapping[_RouteKey, Schedule]) -> None:
        """Continue the schedules that are known, and begin the others."""
        before, self._progress = self._progress, self._progress_in(version, schedules)
        self._frozen, self._frozen_version = None, ""
        if self._version not in ("", version):
            self._ended[self._version] = before
        self._has_news = self._has_news or self._progress != before or self._version != version
        self._version = version

    def _progress_in(self, version: str, schedules: Mapping[_RouteKey, Schedule]) -> _Progress:
        """Return the progress of the schedules of a version, which may be the one that was frozen."""
        sources, progress = [self._progress, self._frozen or {}], {}
        for key, schedule in schedules.items():
            known = _known(sources[::-1] if version == self._frozen_version else sources, key, schedule)
            if not known:
                self._fresh.add(key)
            progress[key] = known[0] if known else (schedule.identity, begin(schedule))
        return progress

    def _shown(self, key: _RouteKey) -> ScheduleProgress:
        return (self._progress if self._frozen is None else self._frozen)[key][1]

    def _share(self, key: _RouteKey) -> float:
        return share_at(self._running[key], self._shown(key))

    def status(self) -> tuple[ScheduleStatus, ...]:
        """Return the progress of each schedule."""
        is_frozen = self._frozen is not None
        return tuple(
            ScheduleStatus(
                *key,
                replace(schedule, is_frozen=is_frozen),
                self._shown(key),
                self._share(key),
                "" if is_frozen else waits_for(schedule, self._shown(key)),
            )
            for key, schedule in self._running.items()
        )

    async def stop_schedule(self, assistant: str, region: str, who: str, restage: _Restage) -> bool:
        """Set the candidate of a schedule back for good. Return False if there is no such schedule that can be stopped.

        Raises StateError if the database of the cell does not answer. Nothing has changed then.
        """
        key = assistant, region
        if self._store is None or self._frozen is not None or key not in self._progress:
            return False
        identity, progress = self._progress[key]
        if progress.phase is not Phase.RUNNING:
            return False
        stopped = identity, replace(progress, phase=Phase.ROLLED_BACK, reason=f"stopped by {who or 'an operator'}")
        await self._store_stopped(key, stopped)
        self._progress[key], self._has_news = stopped, True
        log_stage(key, self._running[key], stopped[1])
        await restage()
        await self._save()
        return True

    async def _store_stopped(self, key: _RouteKey, stopped: tuple[str, ScheduleProgress]) -> None:
        """Store a stopped schedule for the other instances of a cell. Raises StateError."""

    def start(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Start to check at intervals. Needs a running event loop.

        `restage` calls `stage`, and returns the workers that have not confirmed the new weights.
        """
        self._started_with = counts, restage
        if self._store is not None:
            self._task = asyncio.create_task(self._watch(counts, restage))

    def resume(self) -> None:
        """Start again after `stop`."""
        if self._started_with is not None:
            self.start(*self._started_with)

    async def stop(self) -> None:
        """Stop the checks, and save the progress."""
        await stopped(self._task)
        await self._save()

    async def _watch(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        while True:
            await asyncio.sleep(self.interval_s)
            try:
                await self.check(counts, restage)
            except Exception as error:  # the loop of a background task must go on
                logger().error("schedules_failed", detail=f"{type(error).__name__}: {error}")

    async def check(self, counts: Callable[[], Awaitable[list[bytes]]], restage: _Restage) -> None:
        """Evaluate the requests since the last check, and change the weights if a stage begins or ends."""
        is_running = any(progress.phase is Phase.RUNNING for _, progress in self._progress.values())
        if is_running and self._frozen is None:
            if self._judge(await asyncio.to_thread(tallies, await counts())):
                await restaged(restage)
        else:
            # No schedule runs, so nothing is counted. A schedule that begins later counts from then on.
            self._seen, self._judged_at = None, self._clock()
        await self._save()

    def _judge(self, now: _Tallies) -> bool:
        """Advance each schedule. Return whether a weight has changed."""
        if self._frozen is not None:  # since the counts were requested
            return False
        before, self._seen = self._seen, now
        at_s = self._clock()
        elapsed_s, self._judged_at = min(at_s - self._judged_at, LONGEST_S), at_s
        fresh, self._fresh = self._fresh, set()
        if before is None:
            # It is unknown at which weights the earlier requests were counted.
            return False
        moved = False
        for key, schedule in self._running.items():
            identity, progress = self._progress[key]
            if key in fresh or progress.phase is not Phase.RUNNING:
                continue
            advanced = advance(schedule, progress, elapsed_s, *self._counted(key, before, now))
            if advanced != progress:
                self._has_news = True
            self._progress[key] = identity, advanced
            if (advanced.phase, advanced.stage) != (progress.phase, progress.stage):
                moved = True
                log_stage(key, schedule, advanced)
        return moved

    def _counted(self, key: _RouteKey, before: _Tallies, now: _Tallies) -> tuple[Tally, Tally]:
        """Return the requests of the candidate of a route and of the others, between two looks."""
        candidate, baseline = (
            sum((now.get((*key, it), NO_TALLY).since(before.get((*key, it), NO_TALLY)) for it in names), NO_TALLY)
            for names in ((self._running[key].candidate,), self._baselines[key])
        )
        return candidate, baseline

    async def _save(self) -> None:
        if self._store is None or not self._has_news:
            return
        self._has_news = False
        ended = dict(self._ended)
        current = {self._version: dict(self._progress)} if self._version else {}
        try:
            await asyncio.to_thread(self._store.save, dict(self._progress), {**ended, **current})
        except StateError as error:
            self._has_news = True
            if not self._is_lost:
                detail = f"{error}; after a restart, schedules continue from the last saved progress"
                logger().error("schedules_not_kept", detail=detail)
            self._is_lost = True
        else:
            self._is_lost = False
            self._ended = {name: it for name, it in self._ended.items() if it is not ended.get(name)}


async def restaged(restage: _Restage) -> None:
    """Stage the active version again, and log the workers that have not confirmed it."""
    if unconfirmed := await restage():
        logger().warning("schedules_behind", workers_behind=list(unconfirmed))


def _schedules_of(config: ConfigVersion) -> dict[_RouteKey, Schedule]:
    return {
        (assistant.name, region): schedule
        for assistant in config.own_assistants.values()
        for region, schedule in assistant.schedules.items()
    }


def with_stored_shares(config: ConfigVersion, store: ScheduleStore) -> ConfigVersion:
    """Return the version with the shares that its schedules have reached by the stored progress. Raises StateError."""
    stored, shares = store.load(), {}
    for key, schedule in _schedules_of(config).items():
        known = _known([stored], key, schedule)
        shares[key] = share_at(schedule, known[0][1] if known else begin(schedule))
    return with_shares(config, shares)


def _known(sources: list[_Progress], key: _RouteKey, schedule: Schedule) -> list[tuple[str, ScheduleProgress]]:
    return [known for source in sources if (known := source.get(key)) is not None and known[0] == schedule.identity]


def _first_set(config: ConfigVersion, key: _RouteKey) -> tuple[str, ...]:
    assistant, region = key
    first = config.assistants[assistant].routes[region][0]
    return tuple(getattr(first, "weights", ()))


def log_stage(key: _RouteKey, schedule: Schedule, progress: ScheduleProgress) -> None:
    """Log that a stage has begun, or that the schedule has ended."""
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
