"""Store the results of shadow traffic: `shadow.db`, one row for each request, and texts in a separate table.

The other parts of a shadow's answer (a provider's text for a refusal, tool calls) are in the table `extras`, and the
client's own answer is in `besides`. docs/operate/shadow.md describes every column.

The number of rows is limited: the oldest are deleted first. Readers change nothing, even while the gateway writes.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from gateway.features.shadow.model import ShadowRecord
from gateway.free_space import RESERVED, Measure, free_space_of, is_reserved
from gateway.model.kept_metadata import StoredRequest
from gateway.operator_errors import StateError
from gateway.state.database import (
    SqliteDatabase,
    describe_damage,
    layout_of,
    open_database,
    open_to_read,
    sqlite_error,
    transaction,
)
from providers.chat import Usage

MOST_ROWS = 100_000
MOST_TEXTS = 1_000

_LAYOUT = layout_of(__file__)
_READ = (
    "SELECT answers.*, prompt, answer, refusal, calls, beside_answer FROM answers LEFT JOIN texts USING (id) "
    "LEFT JOIN extras USING (id) LEFT JOIN {client_answers} USING (id) WHERE {where} ORDER BY id"
)
_OF_ROUTE, _OF_REQUESTS = "assistant = ? AND region = ?", "request_id IN (SELECT value FROM json_each(?))"
_FIND, _NO_BESIDES = "SELECT 1 FROM sqlite_master WHERE name = 'besides'", "(SELECT 0 AS id, NULL AS beside_answer)"
_OTHERWISE = frozenset({"at_s", "config_version", "stream", "usage", "beside_usage", "calls"})
"""The fields of a record that are not a column of their name."""
_REMOVE = "DELETE FROM answers WHERE {column} IN (SELECT value FROM json_each(?))"


class ShadowStore:
    """The database of shadow results, opened at the first result. Several processes and threads may write to it."""

    def __init__(
        self,
        directory: Path,
        *,
        most_rows: int = MOST_ROWS,
        most_texts: int = MOST_TEXTS,
        measure: Measure = free_space_of,
    ) -> None:
        self._directory = directory
        self._measure = measure
        self._most_rows = most_rows
        self._most_texts = most_texts
        self._database: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()

    def store(self, record: ShadowRecord) -> None:
        """Store a result. Raises StateError, also if what is left of the disk is for usage rows."""
        if is_reserved(self._directory, self._measure):
            raise StateError(f"shadow.db is not written: {RESERVED}")
        with self._one_at_a_time, sqlite_error("shadow.db can't be written"):
            if self._database is None:
                self._database = open_database(self._directory, "shadow", _LAYOUT)
            self._add(self._database, record)

    def _add(self, database: sqlite3.Connection, it: ShadowRecord) -> None:
        row = (
            it.at_s, it.config_version, it.request_id, it.assistant, it.region, it.deployment, it.model, it.stream,
            it.outcome, it.first_s, it.total_s, *_tokens(it.usage), it.finish_reason, it.answer_characters,
            it.tool_calls, it.beside, it.beside_first_s, it.beside_total_s, *_tokens(it.beside_usage),
        )  # fmt: skip
        with transaction(database):
            add = f"INSERT INTO answers VALUES (NULL{', ?' * len(row)})"  # noqa: S608  # of question marks
            number = database.execute(add, row).lastrowid or 0
            database.execute("DELETE FROM answers WHERE id <= ?", (number - self._most_rows,))
            if it.prompt is not None:
                database.execute("INSERT INTO texts VALUES (?, ?, ?)", (number, it.prompt, it.answer or ""))
                if it.refusal is not None or it.calls:
                    calls = json.dumps([{"name": name, "arguments": text} for name, text in it.calls])
                    database.execute("INSERT INTO extras VALUES (?, ?, ?)", (number, it.refusal, calls))
                if it.beside_answer is not None:
                    database.execute('INSERT INTO "besides" VALUES (?, ?)', (number, it.beside_answer))
                last = "SELECT id FROM texts ORDER BY id DESC LIMIT 1 OFFSET ?"
                database.execute(f"DELETE FROM texts WHERE id <= ({last})", (self._most_texts,))  # noqa: S608  # constant
                for table in ("extras", "besides"):
                    database.execute(f"DELETE FROM {table} WHERE id < (SELECT min(id) FROM texts)")  # noqa: S608  # constants

    def close(self) -> None:
        with self._one_at_a_time:
            if self._database is not None:
                self._database.close()
                self._database = None


def remove_shadow_records(directory: Path, regions: frozenset[str]) -> None:
    """Delete the stored results of these regions, also from free space of the file. Raises StateError."""
    _remove(directory, "region", sorted(regions))


def remove_shadow_requests(directory: Path, requests: Iterable[StoredRequest]) -> int:
    """Delete the stored results of these requests, as above. Return their number."""
    return _remove(directory, "id", [number for number, _ in shadow_records_of(directory, requests)])


def _remove(directory: Path, column: str, values: Sequence[object]) -> int:
    if not values or not (directory / "shadow.db").exists():
        return 0
    with closing(SqliteDatabase.open(directory, "shadow", _LAYOUT)) as database:
        with database.transaction() as statements:
            removed = statements.execute(_REMOVE.format(column=column), (json.dumps(values),)).rowcount
            for table in ("texts", "extras", "besides"):
                statements.execute(f'DELETE FROM "{table}" WHERE id NOT IN (SELECT id FROM answers)')  # noqa: S608  # constants
        if removed:
            database.compact()
    return removed


def _tokens(usage: Usage | None) -> tuple[int | None, int | None]:
    return (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (None, None)


def read_shadow_records(directory: Path, assistant: str, region: str) -> Iterator[tuple[int, ShadowRecord]]:
    """Yield the stored results of one route's shadow with their numbers, the oldest first. Raises StateError."""
    return _read(directory, _OF_ROUTE, (assistant, region))


def shadow_records_of(directory: Path, requests: Iterable[StoredRequest]) -> Iterator[tuple[int, ShadowRecord]]:
    """Yield the stored results of these requests with their numbers. Raises StateError."""
    if not (directory / "shadow.db").exists():
        return
    wanted: dict[str, list[StoredRequest]] = {}
    for one in requests:
        wanted.setdefault(one.request, []).append(one)
    for number, record in _read(directory, _OF_REQUESTS, (json.dumps([*wanted]),)):
        if any(
            one.is_of(record.at_s) and one.assistant in (None, record.assistant) for one in wanted[record.request_id]
        ):
            yield number, record


def _read(directory: Path, where: str, values: Sequence[object]) -> Iterator[tuple[int, ShadowRecord]]:
    problem = f"{directory / 'shadow.db'} can't be read"
    try:
        with sqlite_error(problem), closing(open_to_read(directory, "shadow")) as database:
            database.row_factory = sqlite3.Row
            # A file without writes since an upgrade does not have this table.
            client_answers = "besides" if database.execute(_FIND).fetchone() else _NO_BESIDES
            for row in database.execute(_READ.format(client_answers=client_answers, where=where), values):
                yield row["id"], _record(row)
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"{problem}: {describe_damage('its tool calls are not valid')}") from error


def _record(row: sqlite3.Row) -> ShadowRecord:
    return ShadowRecord(
        **{one.name: row[one.name] for one in fields(ShadowRecord) if one.name not in _OTHERWISE},
        at_s=row["at"],
        config_version=row["table_version"],
        stream=bool(row["stream"]),
        usage=_usage(row["prompt_tokens"], row["completion_tokens"]),
        beside_usage=_usage(row["beside_prompt_tokens"], row["beside_completion_tokens"]),
        calls=tuple((call["name"], call["arguments"]) for call in json.loads(row["calls"] or "[]")),
    )


def _usage(prompt_tokens: int | None, completion_tokens: int | None) -> Usage | None:
    return Usage(prompt_tokens or 0, completion_tokens or 0) if prompt_tokens is not None else None
