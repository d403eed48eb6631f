"""How far each schedule is, kept over a restart: `canary.db`, a row for each route."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from gateway.model.schedule import Phase, ScheduleProgress, Tally
from gateway.operator_errors import StateError
from gateway.state.database import explained, open_database, transaction

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
"""By assistant and region: the identity of the schedule, and how far it is."""


class ScheduleStore:
    """The file."""

    def __init__(self, directory: Path) -> None:
        self._database = open_database(directory, "canary", _LAYOUT)
        self._one_at_a_time = threading.Lock()

    def load(self) -> StoredProgress:
        """What is kept; a row that can't be read is as if it weren't there."""
        try:
            rows = self._database.execute("SELECT assistant, region, identity, progress FROM schedules").fetchall()
        except sqlite3.Error as error:
            raise StateError(f"canary.db can't be read: {explained(error)}") from error
        kept: StoredProgress = {}
        for assistant, region, identity, text in rows:
            progress = _decode(text)
            if progress is not None:
                kept[assistant, region] = identity, progress
        return kept

    def save(self, kept: Mapping[tuple[str, str], tuple[str, ScheduleProgress]]) -> None:
        """Keep exactly this, and on any trouble what was kept before; raises StateError."""
        rows = [(*place, identity, json.dumps(asdict(progress))) for place, (identity, progress) in kept.items()]
        with self._one_at_a_time:
            try:
                self._replace(rows)
            except sqlite3.Error as error:
                raise StateError(f"canary.db can't be written: {explained(error)}") from error

    def _replace(self, rows: Sequence[tuple[str, ...]]) -> None:
        with transaction(self._database):
            self._database.execute("DELETE FROM schedules")
            self._database.executemany("INSERT INTO schedules VALUES (?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
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
