"""The progress of schedules survives a restart, and a failed save keeps the previous progress."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gateway.model.schedule import NO_TALLY, Phase, ScheduleProgress
from gateway.operator_errors import StateError
from gateway.state.schedules import ScheduleStore, StoredProgress

PROGRESS = ScheduleProgress(stage=2, elapsed_s=10.5, candidate=replace(NO_TALLY, ok=3, times=(3, *NO_TALLY.times[1:])))
KEPT: StoredProgress = {
    ("a", "eu"): ("one", PROGRESS),
    ("a", "us"): ("two", replace(PROGRESS, stage=0, phase=Phase.ROLLED_BACK)),
    ("b", "eu"): ("three", replace(PROGRESS, baseline=replace(NO_TALLY, failed=2))),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ScheduleStore]:
    store = ScheduleStore(tmp_path)
    yield store
    store.close()


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "canary.db", isolation_level=None)) as database:
        database.execute(statement, values)


def test_saved_schedules_are_kept_and_others_are_deleted(store: ScheduleStore, tmp_path: Path) -> None:
    for progress in (KEPT, {place: KEPT[place] for place in [("b", "eu")]}, {}, KEPT):
        store.save(progress, {})
        assert store.load() == progress
    with closing(ScheduleStore(tmp_path)) as again:
        assert again.load() == KEPT


def test_failed_save_keeps_the_previous_progress(store: ScheduleStore, tmp_path: Path) -> None:
    store.save(KEPT, {})
    change(
        tmp_path,
        "CREATE TRIGGER full BEFORE INSERT ON schedules WHEN NEW.assistant = 'c' BEGIN "
        "SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    with pytest.raises(StateError, match=r"^canary\.db can't be written: database or disk is full$"):
        store.save({("a", "eu"): ("new", PROGRESS), ("c", "eu"): ("new", PROGRESS)}, {})
    assert store.load() == KEPT


def progress_text(**changed: object) -> str:
    return json.dumps(asdict(PROGRESS) | changed)


SHORT = asdict(NO_TALLY) | {"times": [0]}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        progress_text(phase="later"),
        progress_text(more=1),
        progress_text(candidate=SHORT),
        progress_text(baseline=SHORT),
        progress_text(baseline=0),
    ],
)
def test_unreadable_progress_is_ignored_and_the_others_are_loaded(
    store: ScheduleStore, tmp_path: Path, text: str
) -> None:
    store.save(KEPT, {})
    change(tmp_path, "UPDATE schedules SET progress = ? WHERE identity = 'one'", text)
    assert store.load() == {place: KEPT[place] for place in [("a", "us"), ("b", "eu")]}
