"""Run the schedules of a cell: one process judges them, by the requests of all, and all use the same shares.

The rows in the shared database are the truth. Every process delivers its counts and reads the rows once a second. The
process that holds the lease of the judge sums up the counts, and writes the next progress in one statement that
compares its epoch. It uses the new shares only after it has read them back, like the others.

While the database does not answer, no share rises. A process whose own requests convict the candidate gives it no more
users, until the judge has looked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from gateway.cell.cell_database import JUDGE, CellDatabase, ScheduleKey, ScheduleRow
from gateway.changes.schedules import LONGEST_S, Scheduler, log_stage, restaged
from gateway.model.schedule import NO_TALLY, Phase, Schedule, ScheduleProgress, Tally
from gateway.operator_errors import StateError
from gateway.policy.canary_schedule import advance, begin
from gateway.state.schedules import ScheduleStore
from gateway.telemetry.log import logger
from gateway.telemetry.metric_snapshots import tallies
from providers.value import Value, replace

LOOK_S = 1.0
_JUDGED_S = 2.0
_RouteKey = tuple[str, str]
_Rows = Mapping[tuple[str, str, str], ScheduleRow]
"""By version, assistant and region."""
_UNKNOWN = ScheduleProgress(Phase.HELD, reason="the database of the cell has not answered yet")


class _Conviction(Value, frozen=True):
    """A candidate that this process rolled back on its own evidence while the database did not answer.

    It answered again at `back_at`, in its own time.
    """

    reason: str
    back_at: float | None = None


class _Order(Value, frozen=True):
    """The values of the scheduler that a look needs, so that it can run in a thread."""

    rows: _Rows
    since_s: float
    version: str
    running: Mapping[ScheduleKey, tuple[Schedule, ScheduleProgress]]
    own: Mapping[ScheduleKey, ScheduleProgress]


class CellScheduler(Scheduler):
    """The schedules of the active version of an instance of a cell.

    `store` keeps the progress for a start while the database does not answer. `clock` returns monotonic seconds.
    """

    interval_s = LOOK_S

    def __init__(
        self, store: ScheduleStore, cell: CellDatabase, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(store, clock=clock)
        self._cell = cell
        self._rows: _Rows = {}
        self._looked_at = 0.0
        """The time of the last look, in the time of the server, or 0 before the first."""
        self._own: dict[ScheduleKey, ScheduleProgress] = {}
        """The counts of this process in the present stage."""
        self._convicted: dict[ScheduleKey, _Conviction] = {}
        self._epoch: int | None = None
        self._is_behind = False
        """Whether the database may have other rows: those of a restored backup are older."""
        self._last_error = ""
        try:
            self._adopt(*cell.schedules(0.0))
        except StateError as error:
            self._report(error)

    def _progress_in(
        self, version: str, schedules: Mapping[_RouteKey, Schedule]
    ) -> dict[_RouteKey, tuple[str, ScheduleProgress]]:
        known = {}
        for route, schedule in schedules.items():
            key = ScheduleKey(*route, schedule.identity)
            row, conviction = _latest(self._rows, key), self._convicted.get(key)
            progress = row.progress if row is not None else self._progress_without_row(route, schedule)
            if conviction is not None:
                progress = replace(progress, phase=Phase.ROLLED_BACK, reason=conviction.reason)
            known[route] = schedule.identity, progress
        return known

    def _progress_without_row(self, route: _RouteKey, schedule: Schedule) -> ScheduleProgress:
        identity, progress = self._progress.get(route, ("", _UNKNOWN))
        if identity == schedule.identity and progress.phase is not Phase.HELD:
            return progress
        return begin(schedule) if self._looked_at else _UNKNOWN

    def _ended_progress(self, version: str) -> dict[_RouteKey, tuple[str, ScheduleProgress]]:
        ended = super()._ended_progress(version)
        rows = [row for (name, _, _), row in self._rows.items() if name == version]
        return {**ended, **{row.key[:2]: (row.key.identity, row.progress) for row in rows}}

    async def check(
        self, counts: Callable[[], Awaitable[list[bytes]]], restage: Callable[[], Awaitable[tuple[int, ...]]]
    ) -> None:
        """Deliver and read what the cell knows, and judge if this process is the judge."""
        running = self._judged_here()
        if running:
            self._count(await asyncio.to_thread(tallies, await counts()))
        else:
            self._seen = None
        version, since_s = self._version, self._looked_at
        if self._is_behind:
            # A candidate that was rolled back gets no users again.
            self._rows = {at: row for at, row in self._rows.items() if row.progress.phase is Phase.ROLLED_BACK}
            since_s = 0.0
        order = _Order(self._rows, since_s, version, running, {key: self._own[key] for key in running})
        try:
            rows, now_s = await asyncio.to_thread(self._look, order)
        except StateError as error:
            self._report(error)
            self._convict(running)
        else:
            self._last_error = ""
            self._adopt(rows, now_s)
        if self._frozen is None and version == self._version:
            before = {key: self._share(key) for key in self._running}
            self._progress, last = self._progress_in(version, self._running), self._progress
            self._has_news = self._has_news or self._progress != last
            if before != {key: self._share(key) for key in self._running}:
                await restaged(restage)
        await self._save()

    def _judged_here(self) -> dict[ScheduleKey, tuple[Schedule, ScheduleProgress]]:
        """Return the schedules whose stage runs, and set their own counts to the counts of the current stage."""
        running: dict[ScheduleKey, tuple[Schedule, ScheduleProgress]] = {}
        for route, (identity, progress) in self._progress.items() if self._frozen is None else ():
            key = ScheduleKey(*route, identity)
            if progress.phase is Phase.RUNNING or key in self._convicted:
                running[key] = self._running[route], progress
                if key not in self._own or self._own[key].stage != progress.stage:
                    self._own[key] = ScheduleProgress(stage=progress.stage)
        self._own = {key: own for key, own in self._own.items() if key in running}
        return running

    def _count(self, now: dict[tuple[str, str, str], Tally]) -> None:
        before, self._seen = self._seen, now
        if before is None:
            # It is unknown at which weights the earlier requests were counted.
            return
        for key, own in self._own.items():
            candidate, baseline = self._counted(key[:2], before, now)
            self._own[key] = replace(own, candidate=own.candidate + candidate, baseline=own.baseline + baseline)

    def _look(self, order: _Order) -> tuple[list[ScheduleRow], float]:
        """Deliver the counts, judge if this process is the judge, and return the changed rows and the time."""
        self._cell.deliver(order.own)
        changed, now_s = self._cell.schedules(order.since_s)
        self._is_behind = False
        epoch = self._cell.hold(JUDGE) if order.running else None
        by_s = self._time_to_judge(epoch)
        if epoch is not None and by_s is not None:
            changed += self._judge_cell(order, _merged(order.rows, changed), epoch, by_s)
        return changed, now_s

    def _time_to_judge(self, epoch: int | None) -> float | None:
        """Return how much longer the stages have run, or None if this process does not judge now."""
        now_s = self._clock()
        if epoch is None:
            self._epoch = None
        if epoch is None or (epoch == self._epoch and now_s - self._judged_at < _JUDGED_S):
            return None
        by_s = min(now_s - self._judged_at, LONGEST_S) if epoch == self._epoch else 0.0
        self._epoch, self._judged_at = epoch, now_s
        return by_s

    def _judge_cell(self, order: _Order, rows: _Rows, epoch: int, by_s: float) -> list[ScheduleRow]:
        """Advance each schedule by the counts of all processes. Return the rows that were written."""
        written = []
        for key, (schedule, shown) in order.running.items():
            row = _latest(rows, key)
            progress = row.progress if row is not None else shown
            if progress.phase is not Phase.RUNNING:
                continue
            candidate, baseline = self._cell.counted(key, progress.stage)
            counted = replace(progress, candidate=candidate, baseline=baseline)
            advanced = advance(schedule, counted, by_s, NO_TALLY, NO_TALLY)
            if advanced == progress and row is not None and row.version == order.version:
                continue
            present = rows.get((order.version, *key[:2]))
            next_row = ScheduleRow(order.version, key, advanced, present.revision if present is not None else 0)
            saved = self._cell.save_schedule(next_row, epoch)
            if saved is None:
                # Another process judges now, an operator has stopped the schedule, or the database was restored.
                self._epoch, self._is_behind = None, True
                break
            written.append(saved)
            if (advanced.phase, advanced.stage) != (progress.phase, progress.stage):
                log_stage(key[:2], schedule, advanced)
                self._cell.forget_counts(key)
        return written

    def _adopt(self, changed: list[ScheduleRow], now_s: float) -> None:
        self._rows, self._looked_at = _merged(self._rows, changed), now_s
        for key, conviction in list(self._convicted.items()):
            row = _latest(self._rows, key)
            back_at = conviction.back_at
            if back_at is None:
                self._convicted[key] = replace(conviction, back_at=now_s)
            elif row is not None and (row.progress.phase is not Phase.RUNNING or row.changed_at > back_at):
                del self._convicted[key]
                if key in self._own:
                    self._own[key] = replace(self._own[key], phase=Phase.RUNNING)

    def _convict(self, running: Mapping[ScheduleKey, tuple[Schedule, ScheduleProgress]]) -> None:
        """Give a candidate no more users if the requests of this process alone convict it."""
        for key, (schedule, _) in running.items():
            own = self._own[key] = advance(schedule, self._own[key], 0.0, NO_TALLY, NO_TALLY)
            if own.phase is Phase.ROLLED_BACK:
                if key not in self._convicted:
                    log_stage(key[:2], schedule, own)
                reason = f"{own.reason}; decided by this instance alone, because the database does not answer"
                self._convicted[key] = _Conviction(reason)

    def _report(self, error: StateError) -> None:
        """Log a failure once."""
        if str(error) != self._last_error:
            logger().error("schedules_failed", detail=f"{error}; until it answers, no share rises")
        self._last_error = str(error)

    async def _store_stopped(self, route: _RouteKey, stopped: tuple[str, ScheduleProgress]) -> None:
        row = ScheduleRow(self._version, ScheduleKey(*route, stopped[0]), stopped[1])
        await asyncio.to_thread(self._cell.stop_schedule, row)
        self._adopt(*await asyncio.to_thread(self._cell.schedules, self._looked_at))


def _merged(rows: _Rows, changed: list[ScheduleRow]) -> _Rows:
    """Return the rows with the changed ones. Of two states of a row, the one of the higher revision or time counts."""
    merged = dict(rows)
    for row in changed:
        place = row.version, *row.key[:2]
        known = merged.get(place)
        if known is None or known.revision <= row.revision or known.changed_at < row.changed_at:
            merged[place] = row
    return merged


def _latest(rows: _Rows, key: ScheduleKey) -> ScheduleRow | None:
    """Return the row of a schedule that was written last. One that was rolled back or stopped stays so."""
    same = [row for row in rows.values() if row.key == key]
    return max(same, key=lambda row: (row.progress.phase is Phase.ROLLED_BACK, row.changed_at), default=None)
