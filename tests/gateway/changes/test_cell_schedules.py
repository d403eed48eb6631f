"""Schedules that several instances share: one judge, summed counts, the same shares, and what holds without a database.

Each test runs against a database in memory, and against a real PostgreSQL in `make ci`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from gateway.cell.cell_database import JUDGE, CellDatabase, ScheduleKey, ScheduleRow
from gateway.cell.postgres import upgrade
from gateway.changes.cell_schedules import CellScheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.schedule import NO_TALLY, Phase, ScheduleProgress, Tally
from gateway.operator_errors import DatabaseUnreachable
from gateway.state.schedules import ScheduleStore
from providers.value import replace
from tests.gateway.changes.scheduled_gateway import ScheduledGateway, scheduled
from tests.kit.postgres_server import RunningPostgres, running_postgres


class Backend(Protocol):
    """The shared tables, of which each instance gets its own view."""

    is_away: bool

    def member(self, name: str) -> CellDatabase: ...

    def lapse(self) -> None:
        """Let the lease of the judge end."""

    def set_back(self) -> None:
        """Give each row the revision and the time of an older one, as a restored backup has it."""


class MemoryTables:
    def __init__(self) -> None:
        self.is_away, self.now_s = False, 1.0
        self.lease: tuple[str, int, bool] = ("", 0, False)
        self.rows: dict[tuple[str, str, str], tuple[ScheduleRow, int]] = {}
        self.counts: dict[tuple[str, ScheduleKey, int], tuple[Tally, Tally]] = {}

    def member(self, name: str) -> MemoryMember:
        return MemoryMember(self, name)

    def lapse(self) -> None:
        self.lease = (*self.lease[:2], False)

    def set_back(self) -> None:
        self.rows = {at: (replace(row, revision=1, changed_at=1.0), it) for at, (row, it) in self.rows.items()}


class MemoryMember:
    def __init__(self, tables: MemoryTables, owner: str) -> None:
        self._tables, self._owner = tables, owner

    @property
    def _found(self) -> MemoryTables:
        if self._tables.is_away:
            raise DatabaseUnreachable("the database can't be reached")
        self._tables.now_s += 1
        return self._tables

    def hold(self, lease: str) -> int | None:
        assert lease == JUDGE
        holder, epoch, is_valid = self._found.lease
        if is_valid and holder != self._owner:
            return None
        self._tables.lease = self._owner, epoch + (not is_valid), True
        return self._tables.lease[1]

    def leave(self) -> None:
        self._tables.lapse()

    def schedules(self, since_s: float) -> tuple[list[ScheduleRow], float]:
        tables = self._found
        return [row for row, _ in tables.rows.values() if row.changed_at >= since_s - 60], tables.now_s

    def save_schedule(self, row: ScheduleRow, epoch: int) -> ScheduleRow | None:
        tables, place = self._found, (row.version, *row.key[:2])
        known, last_epoch = tables.rows.get(place, (None, 0))
        if tables.lease != (self._owner, epoch, True) or last_epoch > epoch:
            return None
        if (known.revision if known is not None else 0) != row.revision:
            return None
        saved = ScheduleRow(row.version, row.key, row.progress, row.revision + 1, tables.now_s)
        tables.rows[place] = saved, epoch
        return saved

    def stop_schedule(self, row: ScheduleRow) -> None:
        tables, place = self._found, (row.version, *row.key[:2])
        known, epoch = tables.rows.get(place, (row, 0))
        tables.rows[place] = ScheduleRow(row.version, row.key, row.progress, known.revision + 1, tables.now_s), epoch

    def deliver(self, own: Mapping[ScheduleKey, ScheduleProgress]) -> None:
        for key, progress in own.items():
            self._found.counts[self._owner, key, progress.stage] = progress.candidate, progress.baseline

    def counted(self, key: ScheduleKey, stage: int) -> tuple[Tally, Tally]:
        found = [sides for (_, *place), sides in self._found.counts.items() if place == [key, stage]]
        return sum((it[0] for it in found), NO_TALLY), sum((it[1] for it in found), NO_TALLY)

    def forget_counts(self, key: ScheduleKey) -> None:
        self._tables.counts = {place: it for place, it in self._found.counts.items() if place[1] != key}


class PostgresTables:
    def __init__(self, server: RunningPostgres) -> None:
        self.server, self.is_away = server, False
        self.members: list[CellDatabase] = []

    def member(self, name: str) -> CellDatabase:
        tables = self

        class Member(CellDatabase):
            def fetch(self, sql: str, *values: object) -> list[object]:
                if tables.is_away:
                    raise DatabaseUnreachable("the database can't be reached")
                return super().fetch(sql, *values)

        self.members.append(Member(self.server.address(), name))
        return self.members[-1]

    def lapse(self) -> None:
        self.server.sql("UPDATE cell_lease SET until = clock_timestamp() - interval '1 s'")

    def set_back(self) -> None:
        self.server.sql("UPDATE cell_schedule SET revision = 1, changed_at = 1")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningPostgres]:
    with running_postgres() as running:
        upgrade(running.address())
        yield running


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.slow("starts a database"))])
def tables(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param == "memory":
        yield MemoryTables()
        return
    server: RunningPostgres = request.getfixturevalue("server")
    server.empty()
    tables = PostgresTables(server)
    yield tables
    for member in tables.members:
        member.close()


class Instance(ScheduledGateway):
    """An instance with its schedules and its counts. All instances of a test have one fake clock."""

    now_s = 1000.0

    def __init__(self, folder: Path, tables: Backend, name: str, config: ConfigVersion | None = None) -> None:
        super().__init__()
        (folder / name).mkdir(exist_ok=True)
        self.store = ScheduleStore(folder / name)
        self.member = tables.member(name)
        self.scheduler = CellScheduler(self.store, self.member, clock=lambda: Instance.now_s)
        self.change(config or scheduled())

    def serve_well(self, ok: int, others: int) -> None:
        """Serve requests by the candidate, and others by the baseline."""
        self.serve(ok=ok)
        self.serve(ok=others, side="gemini")

    async def look(self, after_s: float = 3.0) -> None:
        Instance.now_s += after_s
        await self.scheduler.check(self.counts, self.restage)


@pytest.fixture
def pair(tmp_path: Path, tables: Backend) -> Iterator[tuple[Instance, Instance]]:
    both = Instance(tmp_path, tables, "one"), Instance(tmp_path, tables, "two")
    yield both
    for one in both:
        one.store.close()


Pair = tuple[Instance, Instance]


async def looks(*instances: Instance, times: int = 1) -> None:
    for _ in range(times):
        for one in instances:
            await one.look()


async def test_counts_of_both_are_summed_and_both_use_the_same_shares(pair: Pair) -> None:
    one, two = pair
    await looks(one, two)
    for each in pair:  # each alone has too few requests
        each.serve_well(30, 300)
    await looks(two, one, times=3)
    assert (one.share, two.share) == (0.25, 0.25)
    two.serve(ok=30, failed=30)
    one.serve(ok=300, side="gemini")
    await looks(two, one, two)
    assert (one.share, two.share) == (0.0, 0.0)
    assert one.progress == two.progress
    assert one.progress.reason.startswith("30 of 60 requests failed")


async def test_judge_goes_on_after_its_database_was_restored(pair: Pair, tables: Backend) -> None:
    one, two = pair
    for _ in range(3):
        for each in pair:
            each.serve_well(30, 300)
        await looks(two, one)
    assert (one.share, two.share) == (0.25, 0.25)
    tables.set_back()
    two.serve(ok=30, failed=60)
    one.serve(ok=300, side="gemini")
    await looks(two, one, times=3)
    assert (one.share, two.share) == (0.0, 0.0)


async def test_judge_that_was_paused_changes_nothing(pair: Pair, tables: Backend) -> None:
    one, two = pair
    await looks(one, two, one)
    epoch = one.member.hold(JUDGE)
    [row], _ = one.member.schedules(0)
    assert (epoch, two.member.hold(JUDGE)) == (1, None)
    tables.lapse()
    stale = ScheduleRow(row.version, row.key, ScheduleProgress(stage=1), row.revision)
    assert one.member.save_schedule(stale, 1) is None, "its lease has ended"
    for each in pair:
        each.serve_well(60, 600)
    await looks(two, times=6)
    assert (two.share, one.share) == (0.25, 0.05)
    [row], _ = one.member.schedules(0)
    stale = ScheduleRow(row.version, row.key, ScheduleProgress(stage=2, phase=Phase.DONE), row.revision)
    assert one.member.save_schedule(stale, 1) is None, "another process has the lease"
    await looks(one)
    assert (two.share, one.share) == (0.25, 0.25)
    assert two.member.hold(JUDGE) == 2


async def test_judge_that_leaves_is_followed_by_a_higher_epoch(pair: Pair, tables: Backend) -> None:
    one, two = pair
    assert one.member.hold(JUDGE) == 1
    tables.lapse()
    assert two.member.hold(JUDGE) == 2
    await looks(two)
    two.member.leave()
    await looks(one, two)
    assert one.member.hold(JUDGE) == 3


async def test_without_database_no_share_rises_and_own_requests_convict(pair: Pair, tables: Backend) -> None:
    one, two = pair
    await looks(one, two, one)
    tables.is_away = True
    one.serve(ok=60)
    two.serve(ok=10, failed=50)
    for each in pair:
        each.serve(ok=600, side="gemini")
    await looks(one, two, times=8)
    assert (one.share, two.share) == (0.05, 0.0)
    assert "decided by this instance alone" in two.progress.reason
    tables.is_away = False
    await looks(two)
    assert two.share == 0.0, "before the judge has looked again"
    await looks(one, two, times=2)
    assert (one.share, two.share) == (0.0, 0.0)
    assert two.progress.reason.startswith("50 of 120 requests failed")


async def test_instance_that_starts_without_database_gives_an_unknown_candidate_no_users(
    pair: Pair, tables: Backend, tmp_path: Path
) -> None:
    one, _ = pair
    await looks(one)
    tables.is_away = True
    late = Instance(tmp_path, tables, "three")
    assert (late.share, late.progress.phase) == (0.0, Phase.HELD)
    tables.is_away = False
    await looks(late)
    assert (late.share, late.progress.phase) == (0.05, Phase.RUNNING)
    late.store.close()


async def test_stopped_schedule_is_stopped_in_the_cell_and_later(pair: Pair, tables: Backend, tmp_path: Path) -> None:
    one, two = pair
    await looks(one, two, one)
    assert await two.scheduler.stop_schedule("assistant", "default", "ada", two.restage)
    assert two.share == 0.0
    one.serve_well(60, 600)
    await looks(one, two, times=4)
    late = Instance(tmp_path, tables, "three", scheduled(log={"sample": 0.5}))
    assert [each.share for each in (one, two, late)] == [0.0, 0.0, 0.0]
    assert one.progress.reason == "stopped by ada"
    assert not await one.scheduler.stop_schedule("assistant", "default", "ada", one.restage), "it does not run"
    late.store.close()


async def test_rollback_freezes_the_shares_with_which_the_version_ended_in_the_cell(
    pair: Pair, tables: Backend, tmp_path: Path
) -> None:
    one, _ = pair
    await looks(one, one)
    first, second = scheduled(), scheduled(log={"sample": 0.5})
    one.change(second)
    await looks(one)
    one.serve_well(60, 600)
    await looks(one, times=5)
    late = Instance(tmp_path, tables, "three", second)
    assert (one.share, late.share) == (0.25, 0.25)
    late.change(first, is_pinned=True)
    assert late.share == 0.05
    late.store.close()
