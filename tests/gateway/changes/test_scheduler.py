"""Schedules over the counts of a running gateway, with a fake clock, store and gateway."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from gateway.changes.schedules import CHECK_INTERVAL_S, Scheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.schedule import Phase, ScheduleProgress, Tally
from gateway.operator_errors import StateError
from gateway.state.schedules import Progress, ScheduleStore
from tests.gateway.changes.scheduled_gateway import ScheduledGateway, scheduled
from tests.kit.configs import BASE, table_of

PLACE = ("assistant", "default")


_STORES: list[ScheduleStore] = []


def opened(folder: Path) -> ScheduleStore:
    _STORES.append(ScheduleStore(folder))
    return _STORES[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the databases of a test, because Python 3.13 warns of unclosed ones."""
    yield
    while _STORES:
        _STORES.pop().close()


class Cell(ScheduledGateway):
    """A gateway with schedules and a fake clock."""

    def __init__(self, folder: Path, config: ConfigVersion | None = None, *, is_pinned: bool = False) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.store = opened(folder)
        self.scheduler = Scheduler(self.store, clock=lambda: self.now_s)
        self.change(config or scheduled(), is_pinned=is_pinned)

    async def look(self, after_s: float = CHECK_INTERVAL_S, times: int = 1) -> None:
        for _ in range(times):
            self.now_s += after_s
            await self.scheduler.check(self.counts, self.restage)


async def passed(cell: Cell) -> None:
    """Let a stage pass without failures."""
    await cell.look()
    cell.serve(ok=60)
    cell.serve(ok=1000, side="gemini")
    await cell.look(times=5)


async def fails(cell: Cell) -> None:
    """Let the candidate answer worse than the others."""
    await cell.look()
    cell.serve(ok=30, failed=30)
    cell.serve(ok=1000, side="gemini")
    await cell.look()


async def rolled_back(cell: Cell) -> None:
    """Promote the candidate after the first stage, and roll back to the version with the schedule."""
    await passed(cell)
    cell.change(PROMOTED)
    cell.change(scheduled(), is_pinned=True)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


async def test_shares_rise_in_stages_to_the_whole(cell: Cell) -> None:
    assert cell.share == 0.05
    with structlog.testing.capture_logs() as logs:
        await passed(cell)
        assert (cell.share, cell.progress.candidate.requests) == (0.25, 0)
        await passed(cell)
    assert (cell.share, cell.progress.phase) == (1.0, Phase.DONE)
    assert [(line["event"], line["share"]) for line in logs] == [("schedule_stage", "25%"), ("schedule_done", "100%")]


async def test_failing_candidate_is_set_back_and_stays_back(cell: Cell, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await fails(cell)
    assert (cell.share, cell.progress.phase) == (0.0, Phase.ROLLED_BACK)
    assert [(line["event"], line["log_level"]) for line in logs] == [("schedule_rolled_back", "error")]
    assert logs[0]["detail"].startswith("30 of 60 requests failed")
    await passed(cell)
    assert cell.share == 0.0
    later = Cell(tmp_path)
    assert (later.share, later.progress) == (0.0, cell.progress)


async def test_worker_without_confirmation_is_logged(cell: Cell) -> None:
    cell.unconfirmed = (2,)
    with structlog.testing.capture_logs() as logs:
        await passed(cell)
    assert [(line["event"], line.get("workers_behind")) for line in logs][-1] == ("schedules_behind", [2])


async def test_schedule_continues_after_a_restart(cell: Cell, tmp_path: Path) -> None:
    await passed(cell)
    cell.serve(ok=40)
    cell.serve(ok=500, side="gemini")
    await cell.look(times=3)
    await cell.scheduler.stop()
    later = Cell(tmp_path)
    assert later.share == 0.25
    assert later.progress == cell.progress
    assert (later.progress.candidate.ok, later.progress.elapsed_s) == (40, 6)
    # A new process counts from zero. No request is counted twice or lost.
    await later.look()
    later.serve(ok=5)
    await later.look(times=2)
    assert (later.progress.candidate.ok, later.progress.elapsed_s) == (45, 10)


@pytest.mark.parametrize("other", [scheduled("5% for 20s, 100%"), scheduled(model="gpt-5.4-mini")])
async def test_changed_schedule_or_candidate_begins_again(cell: Cell, other: ConfigVersion) -> None:
    await passed(cell)
    cell.serve(ok=40)
    cell.change(other)
    assert (cell.share, cell.progress) == (0.05, ScheduleProgress())
    # Requests that were counted before the schedule began do not count.
    await cell.look()
    assert cell.progress.candidate == Tally()


async def test_change_elsewhere_does_not_affect_a_schedule(cell: Cell) -> None:
    await passed(cell)
    before = cell.progress
    cell.change(scheduled(route="{gemini: 10, chatgpt-us: 90}"))
    assert (cell.share, cell.progress) == (0.25, before)


async def test_removed_schedule_is_forgotten(cell: Cell, tmp_path: Path) -> None:
    await passed(cell)
    cell.change(table_of(BASE))
    assert cell.scheduler.status() == ()
    await cell.look()
    assert opened(tmp_path).load() == {}
    cell.change(scheduled())
    assert (cell.share, cell.progress) == (0.05, ScheduleProgress())


async def test_time_without_a_running_process_does_not_count(cell: Cell) -> None:
    await cell.look()
    await cell.look(after_s=86_400)
    assert cell.progress.elapsed_s == 5 * CHECK_INTERVAL_S


async def test_scheduler_without_a_state_directory_uses_configured_weights_and_warns() -> None:
    scheduler, table = Scheduler(), scheduled()
    with structlog.testing.capture_logs() as logs:
        assert scheduler.stage(table) is table
        assert scheduler.stage(table_of(BASE)).version
    assert [line["event"] for line in logs] == ["schedules_off"]
    assert "GATEWAY_STATE_DIR" in scheduler.off
    assert scheduler.status() == ()


class FullDisk:
    def load(self) -> dict[tuple[str, str], tuple[str, ScheduleProgress]]:
        return {}

    def progress_of(self, version: str) -> dict[tuple[str, str], tuple[str, ScheduleProgress]]:
        raise StateError("canary.db can't be read: disk full")

    def save(self, _: Progress, by_version: Mapping[str, Progress]) -> None:
        raise StateError("canary.db can't be written: disk full")


async def test_progress_that_cannot_be_saved_is_logged_once_and_still_applied(cell: Cell) -> None:
    cell.scheduler = Scheduler(FullDisk(), clock=lambda: cell.now_s)
    cell.change(scheduled())
    with structlog.testing.capture_logs() as logs:
        await passed(cell)
    assert cell.share == 0.25
    assert [line["event"] for line in logs].count("schedules_not_kept") == 1


# --- after a rollback -----------------------------------------------------------------------------

PROMOTED = table_of(BASE.merge("assistants: {assistant: {routes: {default: [chatgpt-us]}}}"))
"""The version after the schedule: the candidate has the route."""


async def stays(cell: Cell, share: float) -> None:
    """Check that no stage begins, however many requests there are."""
    version = cell.config.version
    for _ in range(3):
        await passed(cell)
    assert (cell.share, cell.config.version) == (share, version)
    [status] = cell.scheduler.status()
    assert status.schedule.is_frozen
    assert cell.config.assistants["assistant"].schedules["default"].is_frozen


@pytest.mark.parametrize(("stages", "share"), [(0, 0.05), (1, 0.25), (2, 1.0)])
async def test_rollback_restores_the_share_at_which_the_version_ended(
    cell: Cell, tmp_path: Path, stages: int, share: float
) -> None:
    for _ in range(stages):
        await passed(cell)
    cell.change(PROMOTED)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, share)
    restarted = Cell(tmp_path, is_pinned=True)
    await stays(restarted, share)


async def test_rollback_to_a_version_whose_candidate_was_worse_gives_it_no_users(cell: Cell) -> None:
    await fails(cell)
    cell.change(PROMOTED)
    await cell.look()
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.0)
    assert cell.progress.phase is Phase.ROLLED_BACK


async def test_candidate_that_was_worse_later_under_the_same_schedule_gets_no_users(tmp_path: Path) -> None:
    cell, other = Cell(tmp_path), scheduled(route="{gemini: 10, chatgpt-us: 90}")
    await passed(cell)
    cell.change(other)
    await fails(cell)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.0)
    cell.change(other)
    assert (cell.share, cell.progress.phase) == (0.0, Phase.ROLLED_BACK), "a release repeats no schedule"


async def test_rollback_to_a_version_whose_end_is_unknown_gives_its_candidate_no_users(tmp_path: Path) -> None:
    cell = Cell(tmp_path, PROMOTED)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.0)
    assert cell.progress.phase is Phase.HELD
    # With the release, the version is like a new one.
    cell.change(scheduled())
    assert (cell.share, cell.progress) == (0.05, ScheduleProgress())


async def test_rollback_to_the_active_version_freezes_its_share(cell: Cell) -> None:
    await passed(cell)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.25)


async def test_second_rollback_restores_the_share_of_the_version_that_the_first_replaced(tmp_path: Path) -> None:
    cell, other = Cell(tmp_path), scheduled("5% for 10s, 50% for 10s, 100%")
    await passed(cell)
    cell.change(other)
    await passed(cell)
    assert cell.share == 0.5
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.25)
    cell.change(other, is_pinned=True)
    await stays(cell, 0.5)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.25)
    await stays(Cell(tmp_path, other, is_pinned=True), 0.5)


async def test_schedule_goes_on_from_the_frozen_share_after_the_release_of_the_same_version(cell: Cell) -> None:
    await rolled_back(cell)
    await stays(cell, 0.25)
    cell.change(scheduled())
    assert (cell.share, cell.progress.candidate) == (0.25, Tally()), "requests during the pin count for no stage"
    await passed(cell)
    assert cell.share == 1.0


async def test_schedule_goes_on_from_the_frozen_share_after_a_release_without_a_gateway(tmp_path: Path) -> None:
    cell, version = Cell(tmp_path), scheduled().version
    await rolled_back(cell)
    await cell.scheduler.stop()
    at_rest = Scheduler(cell.store)
    at_rest.stage_released(scheduled(), version)
    await at_rest.stop()
    assert Cell(tmp_path).share == 0.25


async def test_schedule_of_the_file_goes_on_where_it_was_after_the_release(tmp_path: Path) -> None:
    cell, other = Cell(tmp_path), scheduled(route="{gemini: 10, chatgpt-us: 90}")
    cell.change(other)
    await passed(cell)
    cell.change(scheduled(), is_pinned=True)
    await stays(cell, 0.05)
    await cell.scheduler.stop()
    cell.change(other)
    assert cell.share == 0.25
    restarted = Cell(tmp_path, scheduled(), is_pinned=True)
    restarted.change(other)
    assert restarted.share == 0.25


async def test_new_schedule_begins_after_a_rollback(cell: Cell) -> None:
    await rolled_back(cell)
    cell.change(scheduled("5% for 20s, 100%"))
    assert (cell.share, cell.progress) == (0.05, ScheduleProgress())


async def test_progress_that_cannot_be_saved_is_still_restored(cell: Cell) -> None:
    cell.scheduler = Scheduler(FullDisk(), clock=lambda: cell.now_s)
    cell.change(scheduled())
    await rolled_back(cell)
    await stays(cell, 0.25)


def test_unreadable_row_is_ignored(tmp_path: Path) -> None:
    store = opened(tmp_path)
    kept = {PLACE: ("id", ScheduleProgress(Phase.ROLLED_BACK, 1, 2.5, Tally(1), Tally(2), 3, 4, "why"))}
    store.save(kept, {})
    assert store.load() == kept
    for text in ("{", "[]", "{}", '{"phase": "running", "candidate": {"times": [1]}, "baseline": {"times": [1]}}'):
        with closing(sqlite3.connect(tmp_path / "canary.db")) as database, database:
            database.execute("UPDATE schedules SET progress = ?", (text,))
        assert store.load() == {}
