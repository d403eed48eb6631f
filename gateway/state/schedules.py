"""Store the progress of schedules over restarts: `canary.db`, one row for each route.

A second table keeps the last progress of every config version, for a rollback to it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.model.schedule import NO_TALLY, Phase, ScheduleProgress, Tally
from gateway.state.database import SqliteDatabase, layout_of

_LAYOUT = layout_of(__file__)

_SIDES = ("candidate", "baseline")

Progress = Mapping[tuple[str, str], tuple[str, ScheduleProgress]]
StoredProgress = dict[tuple[str, str], tuple[str, ScheduleProgress]]
"""By assistant and region: the identity of the schedule, and its progress."""


class ScheduleStore:
    """The database of schedules."""

    def __init__(self, directory: Path) -> None:
        self._database = SqliteDatabase.open(directory, "canary", _LAYOUT)
        self._one_at_a_time = threading.Lock()

    def load(self) -> StoredProgress:
        """Return the stored progress. Rows that cannot be read are ignored. Raises StateError."""
        return self._stored("SELECT assistant, region, identity, progress FROM schedules")

    def progress_of(self, version: str) -> StoredProgress:
        """Return the last progress of a config version. Rows that cannot be read are ignored. Raises StateError."""
        sql = "SELECT assistant, region, identity, progress FROM version_schedules WHERE version = ?"
        return self._stored(sql, version)

    def _stored(self, sql: str, *values: str) -> StoredProgress:
        with self._one_at_a_time, self._database.transaction(reads_only=True) as statements:
            rows = statements.execute(sql, values).fetchall()
        stored: StoredProgress = {}
        for assistant, region, identity, text in rows:
            progress = decode_progress(text)
            if progress is not None:
                stored[assistant, region] = identity, progress
        return stored

    def save(self, stored: Progress, by_version: Mapping[str, Progress]) -> None:
        """Replace the stored progress, and the progress of these versions, or change nothing. Raises StateError."""
        with self._one_at_a_time, self._database.transaction() as statements:
            statements.execute("DELETE FROM schedules")
            statements.executemany("INSERT INTO schedules VALUES (?, ?, ?, ?)", _rows(stored))
            for version, progress in by_version.items():
                statements.execute("DELETE FROM version_schedules WHERE version = ?", (version,))
                rows = [(version, *row) for row in _rows(progress)]
                statements.executemany("INSERT INTO version_schedules VALUES (?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _rows(stored: Progress) -> list[tuple[str, ...]]:
    return [(*key, identity, encode_progress(progress)) for key, (identity, progress) in stored.items()]


def encode_progress(progress: ScheduleProgress) -> str:
    """Return the progress as JSON."""
    return json.dumps(asdict(progress))


def decode_progress(text: str) -> ScheduleProgress | None:
    """Return the progress of a JSON text, or None if it cannot be read."""
    try:
        fields = json.loads(text)
        sides = {name: _tally(fields[name]) for name in _SIDES}
        return ScheduleProgress(**(fields | sides | {"phase": Phase(fields["phase"])}))
    except (ValueError, TypeError, KeyError):
        return None


def decode_tally(text: str) -> Tally:
    """Return the counts of a JSON text. Unreadable counts are zero."""
    try:
        return _tally(json.loads(text))
    except (ValueError, TypeError, KeyError):
        return NO_TALLY


def _tally(fields: Mapping[str, Any]) -> Tally:
    """Raises ValueError, TypeError and KeyError."""
    tally = Tally(**(dict(fields) | {"times": tuple(fields["times"])}))
    if len(tally.times) != len(NO_TALLY.times):
        raise ValueError("the histogram has other buckets")
    return tally
