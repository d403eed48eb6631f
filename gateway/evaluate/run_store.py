"""What a run has found out so far: SQLite in its directory, so that nothing that was answered is asked again.

One process writes. A row is there once its question is answered; what was on its way when the process died is not.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.evaluate.candidate_client import Asked, Timing
from gateway.evaluate.items import RecordedAnswer
from gateway.operator_errors import StateError
from gateway.state.database import describe_damage, describe_error, open_database
from providers.chat import ToolCall, Usage

_LAYOUT = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answer (
    candidate TEXT NOT NULL, axis TEXT NOT NULL, item TEXT NOT NULL, answered INTEGER NOT NULL, value TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, total_s REAL NOT NULL,
    PRIMARY KEY (candidate, axis, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS load (
    candidate TEXT NOT NULL, step INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (candidate, step)
) WITHOUT ROWID;
"""
_LOAD = "load tokens "


class StoreError(Exception):
    """The directory of a run can't be used, or not any more; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One question and what came of it. failure: in words, where there is no answer."""

    candidate: str
    axis: str
    item: str
    answer: RecordedAnswer | None
    failure: str | None
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One request of a load step: when it was due (seconds from the step's begin), and what came of it.

    late_s: how much later than due it was sent: our own delay, which its times include. failure: its kind.
    """

    due_s: float
    total_s: float
    first_s: float | None = None
    between_s: float | None = None
    tokens: int = 0
    late_s: float = 0.0
    failure: str | None = None
    status: int | None = None


class RunStore:
    """The rows of one run. `key` names what is asked and whom: a directory holds one run.

    Each method raises StoreError where the disk is full or the file is damaged.
    """

    def __init__(self, directory: Path, key: Mapping[str, object], *, fresh: bool = False) -> None:
        """Open it, or begin it; raises StoreError, also where another run is in the directory, or is running."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{directory} can't be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StoreError(f"another evaluation is writing to {directory}") from None
        if fresh:
            for name in ("run.db", "run.db-wal", "run.db-shm"):
                (directory / name).unlink(missing_ok=True)
        try:
            self._database = open_database(directory, "run", _LAYOUT)
        except StateError as error:
            os.close(self._lock)
            raise StoreError(str(error)) from error
        self._path = directory / "run.db"
        try:
            self._begin(key)
        except BaseException:
            self.close()
            raise

    def _begin(self, key: Mapping[str, object]) -> None:
        self.remember("key", key)
        found = self.fact("key")
        if found != key:
            differs = (
                [name for name, value in found.items() if key.get(name) != value] if isinstance(found, dict) else []
            )
            raise StoreError(
                f"{self._path.parent} holds another run ({', '.join(differs) or 'what is asked'} differs): "
                "name another --out, or begin it anew with --fresh"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """An evaluation takes hours: what fails on its way is one line with the file, and no trace of our own code."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} can't be used: {describe_error(error)}") from error

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._told():
            self._database.execute(statement, values)

    def _first(self, statement: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        with self._told():
            found: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
            return found

    def _read(self, statement: str, values: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        with self._told():
            # Not `yield from`: who stops reading would close the cursor with it, perhaps behind the database.
            for row in self._database.execute(statement, values):  # noqa: UP028
                yield row

    def _value(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise StoreError(f"{self._path} can't be used: {describe_damage('it holds what nobody wrote')}") from error

    def close(self) -> None:
        """Let go of the directory."""
        self._database.close()
        os.close(self._lock)

    def remember(self, name: str, value: object) -> None:
        """Keep a fact of the run, the first time that it is told."""
        self._write("INSERT OR IGNORE INTO run VALUES (?, ?)", (name, json.dumps(value)))

    def replace(self, name: str, value: object) -> None:
        """Keep a fact of the run, instead of what was told before."""
        self._write("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, json.dumps(value)))

    def remember_all(self, facts: Iterable[tuple[str, object]]) -> None:
        """Keep all of them, or none."""
        with self._told(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            rows = ((name, json.dumps(value)) for name, value in facts)
            self._database.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", rows)

    def facts(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """The facts whose names begin like that, and what follows in the name."""
        where = "WHERE substr(key, 1, ?) = ?"
        for name, value in self._read(f"SELECT key, value FROM run {where}", (len(prefix), prefix)):  # noqa: S608  # constant
            yield name[len(prefix) :], self._value(value)

    def fact(self, name: str) -> object:
        """A fact that was kept; None if it wasn't."""
        found = self._first("SELECT value FROM run WHERE key = ?", (name,))
        return self._value(found[0]) if found is not None else None

    def add(self, candidate: str, axis: str, item: str, asked: Asked) -> None:
        """Keep what came of a question. A failure gives way to a later answer, and an answer to nothing."""
        failure = f"{asked.failure.kind}: {asked.failure.message}" if asked.failure is not None else None
        usage = asked.usage or Usage()
        value = {
            "answer": None if asked.answer is None else asdict(asked.answer),
            "failure": failure,
            "timing": asdict(asked.timing),
        }
        self._write(
            "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET answered = excluded.answered, value = excluded.value, prompt_tokens = excluded.prompt_tokens, "
            "completion_tokens = excluded.completion_tokens, total_s = excluded.total_s WHERE answered = 0",
            (
                candidate,
                axis,
                item,
                asked.answer is not None,
                json.dumps(value, ensure_ascii=True),
                usage.prompt_tokens,
                usage.completion_tokens,
                asked.timing.total_s,
            ),
        )

    def answered(self, candidate: str, axis: str) -> set[str]:
        """The items that a candidate has answered on an axis."""
        found = self._read("SELECT item FROM answer WHERE candidate = ? AND axis = ? AND answered", (candidate, axis))
        return {item for (item,) in found}

    def rows(self, candidate: str, axis: str) -> Iterator[StoredAnswer]:
        """What came of each question, one after another: a run may be larger than memory."""
        found = self._read(
            "SELECT item, value, prompt_tokens, completion_tokens FROM answer WHERE candidate = ? AND axis = ? "
            "ORDER BY item",
            (candidate, axis),
        )
        for item, text, prompt_tokens, completion_tokens in found:
            value = self._value(text)
            usage = Usage(prompt_tokens, completion_tokens)
            answer = _answer(value["answer"])
            yield StoredAnswer(candidate, axis, item, answer, value["failure"], usage, Timing(**value["timing"]))

    def answer_to(self, candidate: str, axis: str, item: str) -> RecordedAnswer | None:
        """What a candidate has answered to one question; None if it hasn't."""
        found = self._first(
            "SELECT value FROM answer WHERE candidate = ? AND axis = ? AND item = ?", (candidate, axis, item)
        )
        return _answer(self._value(found[0])["answer"]) if found is not None else None

    def tokens(self, candidate: str | None = None) -> tuple[int, int]:
        """The tokens so far, of prompts and of answers; of one candidate, or of all."""
        where = "" if candidate is None else "WHERE candidate = ?"
        names = () if candidate is None else (candidate,)
        sums = "coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)"
        statement = f"SELECT {sums} FROM answer {where}"  # noqa: S608  # constant
        prompts, answers = self._first(statement, names) or (0, 0)
        return int(prompts), int(answers)

    def count_load(self, candidate: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of a load step, also of one that was broken off."""
        before = self.load_tokens(candidate)
        self.replace(f"{_LOAD}{candidate}", [before[0] + prompt_tokens, before[1] + completion_tokens])

    def load_tokens(self, candidate: str) -> tuple[int, int]:
        """The tokens of all its load so far, of prompts and of answers; they are no part of `tokens`."""
        found = self.fact(f"{_LOAD}{candidate}")
        return (int(found[0]), int(found[1])) if isinstance(found, list) else (0, 0)

    def add_load(self, candidate: str, step: int, rows: list[LoadRow], facts: Mapping[str, float]) -> None:
        """Keep a whole load step: a step that was broken off is run again from its begin."""
        value = {"facts": dict(facts), "rows": [list(asdict(row).values()) for row in rows]}
        self._write("INSERT OR REPLACE INTO load VALUES (?, ?, ?)", (candidate, step, json.dumps(value)))

    def load_step(self, candidate: str, step: int) -> tuple[list[LoadRow], dict[str, float]] | None:
        """A load step that was kept, with what was noted of it."""
        found = self._first("SELECT value FROM load WHERE candidate = ? AND step = ?", (candidate, step))
        if found is None:
            return None
        value = self._value(found[0])
        return [LoadRow(*row) for row in value["rows"]], value["facts"]


def _answer(value: dict[str, object] | None) -> RecordedAnswer | None:
    if value is None:
        return None
    calls = value.pop("calls")
    made = tuple(ToolCall(**call) for call in calls) if isinstance(calls, list) else ()
    return RecordedAnswer(calls=made, **value)  # type: ignore[arg-type]  # as `add` wrote it
