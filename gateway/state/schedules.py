"""Store the progress of schedules over restarts: `canary.db`, one row for each route."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from gateway.model.schedule import Phase, ScheduleProgress, Tally
from gateway.operator_errors import StateError
from gateway.state.database import describe_error, open_database, transaction

_LAYOUT = """
CREATE TABLE IF NOT EXISTS schedules (
  assistant TEXT NOT NULL,
  region TEXT NOT NULL,
  identity TEXT NOT NULL,
  progress TEXT NOT NULL,
  PRIMARY KEY (assistant, region)
) STRICT
"""

StoredProgress = dict[tuple[str, str], tuple[str, ScheduleProgress]]
"""By assistant and region: the identity of the schedule, and its progress."""


class ScheduleStore:
    """The database of schedules."""

    def __init__(self, directory: Path) -> None:
        self._database = open_database(directory, "canary", _LAYOUT)
        self._one_at_a_time = threading.Lock()

    def load(self) -> StoredProgress:
        """Return the stored progress. Rows that cannot be read are ignored."""
        try:
            rows = self._database.execute("SELECT assistant, region, identity, progress FROM schedules").fetchall()
        except sqlite3.Error as error:
            raise StateError(f"canary.db can't be read: {describe_error(error)}") from error
        stored: StoredProgress = {}
        for assistant, region, identity, text in rows:
            progress = _decode(text)
            if progress is not None:
                stored[assistant, region] = identity, progress
        return stored

    def save(self, stored: Mapping[tuple[str, str], tuple[str, ScheduleProgress]]) -> None:
        """Replace the stored progress. If that fails, the previous progress stays. Raises StateError."""
        rows = [(*key, identity, json.dumps(asdict(progress))) for key, (identity, progress) in stored.items()]
        with self._one_at_a_time:
            try:
                self._replace(rows)
            except sqlite3.Error as error:
                raise StateError(f"canary.db can't be written: {describe_error(error)}") from error

    def _replace(self, rows: Sequence[tuple[str, ...]]) -> None:
        with transaction(self._database):
            self._database.execute("DELETE FROM schedules")
            self._database.executemany("INSERT INTO schedules VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _decode(text: str) -> ScheduleProgress | None:
    try:
        fields = json.loads(text)
        sides = {name: Tally(**(fields[name] | {"times": tuple(fields[name]["times"])})) for name in _SIDES}
        if any(len(tally.times) != len(Tally().times) for tally in sides.values()):
            return None
        return ScheduleProgress(**(fields | sides | {"phase": Phase(fields["phase"])}))
    except (ValueError, TypeError, KeyError):
        return None


_SIDES = ("candidate", "baseline")
