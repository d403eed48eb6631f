"""Store the results of a run in SQLite, in the run's directory, so that a resumed run repeats no question.

One process writes. A row is written when its question is answered. Questions that were open when the process ended are
asked again.
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

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.items import RecordedAnswer
from gateway.operator_errors import StateError
from gateway.state.database import describe_damage, describe_error, open_database
from gateway.undo import undone_on_failure
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
_LOAD_TOKENS = "load tokens "


class StoreError(Exception):
    """The directory of a run can't be used. The message states the reason and the fix."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One question with its answer, or its failure in words. `first_failure` is the kind of the first attempt's."""

    candidate: str
    axis: str
    item: str
    answer: RecordedAnswer | None
    failure: str | None
    usage: Usage
    timing: Timing
    first_failure: str | None = None


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One request of a load step.

    Attributes:
        due_s: When it was due, in seconds since the start of the step.
        late_s: How much later it was sent. All times include this delay of the measuring machine.
        failure: The kind of failure.
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
    """The stored results of one run.

    Each method raises StoreError if the disk is full or the file is damaged.
    """

    def __init__(self, directory: Path, key: Mapping[str, object], *, fresh: bool = False) -> None:
        """Open or create the store.

        `key` identifies the run: its questions and deployments. With `fresh`, stored results are discarded.

        Raises:
            StoreError: The directory contains another run, or another process uses it.
        """
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
        with undone_on_failure(self.close):
            self._begin(key)

    def _begin(self, key: Mapping[str, object]) -> None:
        self.remember("key", key)
        stored = self.fact("key")
        if stored != key:
            differs = (
                [name for name, value in stored.items() if key.get(name) != value] if isinstance(stored, dict) else []
            )
            raise StoreError(
                f"{self._path.parent} contains another run (different {', '.join(differs) or 'questions'}): "
                "name another --out, or start again with --fresh"
            )

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Convert SQLite errors to StoreError, so that the command prints one line with the file's name."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} can't be used: {describe_error(error)}") from error

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._store_errors():
            self._database.execute(statement, values)

    def _first(self, statement: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        with self._store_errors():
            row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
            return row

    def _read(self, statement: str, values: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        with self._store_errors():
            # `yield from` would close the cursor together with this generator, perhaps after the database.
            for row in self._database.execute(statement, values):  # noqa: UP028
                yield row

    def _value(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            damage = describe_damage("it has a value that is not JSON")
            raise StoreError(f"{self._path} can't be used: {damage}") from error

    def close(self) -> None:
        """Close the database and release the directory."""
        self._database.close()
        os.close(self._lock)

    def remember(self, name: str, value: object) -> None:
        """Store a fact of the run, unless it is already stored."""
        self._write("INSERT OR IGNORE INTO run VALUES (?, ?)", (name, json.dumps(value)))

    def replace(self, name: str, value: object) -> None:
        """Store a fact of the run, replacing an earlier value."""
        self._write("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, json.dumps(value)))

    def remember_all(self, facts: Iterable[tuple[str, object]]) -> None:
        """Store these facts in one transaction."""
        with self._store_errors(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            rows = ((name, json.dumps(value)) for name, value in facts)
            self._database.executemany("INSERT OR IGNORE INTO run VALUES (?, ?)", rows)

    def facts(self, prefix: str) -> Iterator[tuple[str, Any]]:
        """Yield the facts whose names start with the prefix. The prefix is removed from the names."""
        where = "WHERE substr(key, 1, ?) = ?"
        for name, value in self._read(f"SELECT key, value FROM run {where}", (len(prefix), prefix)):  # noqa: S608  # constant
            yield name[len(prefix) :], self._value(value)

    def fact(self, name: str) -> object:
        """Return a stored fact, or None."""
        row = self._first("SELECT value FROM run WHERE key = ?", (name,))
        return self._value(row[0]) if row is not None else None

    def add(self, candidate: str, axis: str, item: str, asked: QuestionResult) -> None:
        """Store the result of a question. A later answer replaces a failure; an answer is never replaced."""
        failure = f"{asked.failure.kind}: {asked.failure.message}" if asked.failure is not None else None
        usage = asked.usage or Usage()
        value = {
            "answer": None if asked.answer is None else asdict(asked.answer),
            "failure": failure,
            "timing": asdict(asked.timing),
        }
        if (first_failure := self._first_failure(candidate, axis, item) or asked.first_failure) is not None:
            value["first_failure"] = first_failure
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

    def _first_failure(self, candidate: str, axis: str, item: str) -> str | None:
        """Return the kind of failure of the first attempt, if the question was asked before and failed."""
        where = "candidate = ? AND axis = ? AND item = ? AND NOT answered"
        row = self._first(f"SELECT value FROM answer WHERE {where}", (candidate, axis, item))  # noqa: S608  # constant
        return self._value(row[0]).get("first_failure") if row is not None else None

    def answered(self, candidate: str, axis: str) -> set[str]:
        """Return the ids of the items that a candidate has answered on an axis."""
        rows = self._read("SELECT item FROM answer WHERE candidate = ? AND axis = ? AND answered", (candidate, axis))
        return {item for (item,) in rows}

    def rows(self, candidate: str, axis: str) -> Iterator[StoredAnswer]:
        """Yield the results one after another, because a run may be larger than memory."""
        rows = self._read(
            "SELECT item, value, prompt_tokens, completion_tokens FROM answer WHERE candidate = ? AND axis = ? "
            "ORDER BY item",
            (candidate, axis),
        )
        for item, text, prompt_tokens, completion_tokens in rows:
            value = self._value(text)
            usage = Usage(prompt_tokens, completion_tokens)
            answer = _answer(value["answer"])
            timing, first_failure = Timing(**value["timing"]), value.get("first_failure")
            yield StoredAnswer(candidate, axis, item, answer, value["failure"], usage, timing, first_failure)

    def answer_to(self, candidate: str, axis: str, item: str) -> RecordedAnswer | None:
        """Return a candidate's answer to one question, or None."""
        row = self._first(
            "SELECT value FROM answer WHERE candidate = ? AND axis = ? AND item = ?", (candidate, axis, item)
        )
        return _answer(self._value(row[0])["answer"]) if row is not None else None

    def tokens(self, candidate: str | None = None) -> tuple[int, int]:
        """Return the prompt and answer tokens so far, of one candidate or of all."""
        where = "" if candidate is None else "WHERE candidate = ?"
        names = () if candidate is None else (candidate,)
        sums = "coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)"
        statement = f"SELECT {sums} FROM answer {where}"  # noqa: S608  # constant
        prompts, answers = self._first(statement, names) or (0, 0)
        return int(prompts), int(answers)

    def count_load(self, candidate: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of a load step, also of an interrupted one."""
        before = self.load_tokens(candidate)
        self.replace(f"{_LOAD_TOKENS}{candidate}", [before[0] + prompt_tokens, before[1] + completion_tokens])

    def load_tokens(self, candidate: str) -> tuple[int, int]:
        """Return the prompt and answer tokens of a candidate's load tests. `tokens` does not include them."""
        stored = self.fact(f"{_LOAD_TOKENS}{candidate}")
        return (int(stored[0]), int(stored[1])) if isinstance(stored, list) else (0, 0)

    def add_load(self, candidate: str, step: int, rows: list[LoadRow], facts: Mapping[str, float]) -> None:
        """Store a complete load step. An interrupted step is repeated from its start."""
        value = {"facts": dict(facts), "rows": [list(asdict(row).values()) for row in rows]}
        self._write("INSERT OR REPLACE INTO load VALUES (?, ?, ?)", (candidate, step, json.dumps(value)))

    def load_step(self, candidate: str, step: int) -> tuple[list[LoadRow], dict[str, float]] | None:
        """Return a stored load step with its facts, or None."""
        row = self._first("SELECT value FROM load WHERE candidate = ? AND step = ?", (candidate, step))
        if row is None:
            return None
        value = self._value(row[0])
        return [LoadRow(*row) for row in value["rows"]], value["facts"]


def _answer(value: dict[str, object] | None) -> RecordedAnswer | None:
    if value is None:
        return None
    calls = value.pop("calls")
    made = tuple(ToolCall(**call) for call in calls) if isinstance(calls, list) else ()
    return RecordedAnswer(calls=made, **value)  # type: ignore[arg-type]  # as `add` wrote it
