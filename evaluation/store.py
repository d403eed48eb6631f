"""Store the results of a run in SQLite, in the run's directory, so that a resumed run repeats no question.

One process writes. A row is written when its question is answered. Questions that were open when the process ended are
asked again.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.asking import QuestionResult
from evaluation.checks import RecordedAnswer
from gateway.operator_errors import StateError
from gateway.state.database import describe_damage, describe_error, layout_of, open_database
from gateway.undo import undone_on_failure
from providers.chat import ToolCall

_LAYOUT = layout_of(__file__)
_ADD = (
    "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET answered = excluded.answered, "
    "value = excluded.value, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
    "completion_tokens = completion_tokens + excluded.completion_tokens WHERE answered = 0"
)


class StoreError(Exception):
    """The directory of a run can't be used. The message states the reason and the fix."""


class RunStore:
    """The stored results of one run. Each method raises StoreError if the disk is full or the file is damaged."""

    def __init__(self, directory: Path, key: Mapping[str, object], *, fresh: bool = False) -> None:
        """Open or create the store.

        `key` identifies the run by its questions and deployments. With `fresh`, stored results are discarded. Raises
        StoreError if the directory contains another run, or if another process uses it.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{directory} can't be used: {error.strerror}") from None
        with undone_on_failure(lambda: os.close(self._lock)):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(f"another evaluation is writing to {directory}") from None
            if fresh:
                for name in ("run.db", "run.db-wal", "run.db-shm"):
                    (directory / name).unlink(missing_ok=True)
            try:
                self._database = open_database(directory, "run", _LAYOUT)
            except StateError as error:
                raise StoreError(str(error)) from error
        self._path = directory / "run.db"
        with undone_on_failure(self.close):
            self.remember("key", key)
            if (stored := self.fact("key")) != key:
                differs = [one for one, value in stored.items() if key.get(one) != value] if stored else []
                what = ", ".join(differs) or "questions"
                hint = "name another --out, or start again with --fresh"
                raise StoreError(f"{directory} contains another run (different {what}): {hint}")

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Convert errors of SQLite to StoreError, so that the command prints one line with the file's name."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} can't be used: {describe_error(error)}") from error
        except (ValueError, TypeError, KeyError) as error:
            damage = describe_damage("it has a value that is not JSON")
            raise StoreError(f"{self._path} can't be used: {damage}") from error

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._store_errors():
            return self._database.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the database and release the directory."""
        self._database.close()
        os.close(self._lock)

    def remember(self, name: str, value: object) -> None:
        """Store a fact of the run, unless it is already stored."""
        self._all("INSERT OR IGNORE INTO run VALUES (?, ?)", name, json.dumps(value))

    def fact(self, name: str) -> Any:
        rows = self._all("SELECT value FROM run WHERE key = ?", name)
        with self._store_errors():
            return json.loads(rows[0][0]) if rows else None

    def add(self, candidate: str, axis: str, item: str, asked: QuestionResult) -> None:
        """Store the result of a question. A later answer replaces a failure; an answer is never replaced."""
        before = self._all(
            "SELECT value FROM answer WHERE candidate = ? AND axis = ? AND item = ?", candidate, axis, item
        )
        value = asdict(asked)
        if before:
            value["first_failure"] = json.loads(before[0][0])["first_failure"] or asked.first_failure
        row = (candidate, axis, item, asked.answer is not None, json.dumps(value), *(asked.tokens or (0, 0)))
        self._all(_ADD, *row)

    def answered(self, candidate: str, axis: str) -> set[str]:
        """Return the ids of the items that a candidate has answered on an axis."""
        rows = self._all("SELECT item FROM answer WHERE candidate = ? AND axis = ? AND answered", candidate, axis)
        return {item for (item,) in rows}

    def rows(self, candidate: str, axis: str) -> Iterator[tuple[str, QuestionResult]]:
        """Yield the results with their items, one after another, because a run may be larger than memory."""
        select = "SELECT item, value FROM answer WHERE candidate = ? AND axis = ? ORDER BY item"
        with self._store_errors():
            for item, text in self._database.execute(select, (candidate, axis)):  # closes the cursor here
                yield item, _asked(text)

    def answer_to(self, candidate: str, axis: str, item: str) -> RecordedAnswer | None:
        rows = self._all(
            "SELECT value FROM answer WHERE candidate = ? AND axis = ? AND item = ?", candidate, axis, item
        )
        with self._store_errors():
            return _asked(rows[0][0]).answer if rows else None

    def tokens(self, candidate: str, axis: str = "%") -> tuple[int, int]:
        """Return the prompt and answer tokens of a candidate so far, on the axes whose names are like this."""
        sums = "coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)"
        select = f"SELECT {sums} FROM answer WHERE candidate = ? AND axis LIKE ?"  # noqa: S608  # constants
        ((prompts, answers),) = self._all(select, candidate, axis)
        return int(prompts), int(answers)


def _asked(text: str) -> QuestionResult:
    value = json.loads(text)
    if value["answer"] is not None:
        calls = tuple(ToolCall(**call) for call in value["answer"].pop("calls"))
        value["answer"] = RecordedAnswer(calls=calls, **value["answer"])
    return QuestionResult(**{**value, "tokens": None if value["tokens"] is None else tuple(value["tokens"])})
