"""Build receipts from records, keep them in SQLite, and find them again."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, Step, client_detail
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, Record
from gateway.operator_errors import StateError
from gateway.state.database import damaged, explained, open_database, transaction
from providers.failures import FailureKind

_VERSION = 1


_ABANDONED = "abandoned"


def receipt_of(record: Record, ended_at_s: float, cell: str | None) -> dict[str, object] | None:
    """The receipt of a finished request (`ended_at_s`: Unix time), as JSON shows it; None where none may be kept: of a
    request of no known region, of a region whose boundary this cell does not lie in, and of people whose prompts must
    stay in a territory where it is not.

    cell: the territory where the gateway stands, if the config says.
    """
    location = record.location
    region = location.region if location is not None else None
    if location is None or region is None or not region.keeps_receipts or _is_taken_away(location, cell):
        return None
    stores, processes = record.places or (None, None)
    return {
        "version": _VERSION,
        "id": record.request_id,
        "at": datetime.fromtimestamp(ended_at_s, UTC).isoformat(timespec="milliseconds"),
        "client": record.client,
        "assistant": record.assistant,
        "region": region.name,
        "territory": location.territory,
        "evidence": location.why,
        "boundary": str(region.bounds_of(location.territory)),
        "gateway": cell,
        "table": record.table,
        "outcome": record.outcome,
        "status": record.status,
        "code": record.code,
        "answered_by": record.deployment,
        "stores": stores,
        "processes": processes,
        "tried": _tried(record),
        "shadow": _shadow(record),
        "passed_over": _passed_over(record),
        "resumed_after": record.resumed.broken if record.resumed is not None else None,
        "consent": str(record.consent) if record.consent is not None else None,
        "side": record.side,
        "dropped": sorted(record.dropped),
        "labels": list(record.labels),
        "profile": record.profile,
    }


def _is_taken_away(location: Location, cell: str | None) -> bool:
    """Whether to keep it here would take it out of a territory that what comes from there must not leave."""
    if location.region is None or location.territory is None or cell is None:
        return False
    kept = location.region.kept_at_home(location.territory)
    return kept is not None and not kept.contains(cell)


def _passed_over(record: Record) -> dict[str, str]:
    """Who was not asked, and why: those that routing kept out of the plan, those in whose words the request has no
    form, so that there was nothing to be sent, and steps of the plan that were skipped."""
    judged = record.decision.judged if record.decision is not None else ()
    kept_out = {
        deployment.name: client_detail(*verdict) for deployment, verdict in judged if not isinstance(verdict, Step)
    }
    unsaid = {
        attempt.deployment: f"can't do {attempt.failure.code}"
        for attempt in record.attempts
        if attempt.failure is not None and attempt.failure.kind is FailureKind.UNSUPPORTED
    }
    return kept_out | unsaid | {skipped.deployment: skipped.reason for skipped in record.skipped}


def _tried(record: Record) -> list[dict[str, object]]:
    """Every deployment that was sent the prompt, or that it was begun to be sent to, in order."""
    hidden = _hides_model(record)
    tried = [_attempt(attempt, _outcome(attempt, record), hidden=hidden) for attempt in record.sent]
    tried += [_attempt(attempt, _ABANDONED, hidden=hidden) for attempt in record.abandoned]
    return tried


def _shadow(record: Record) -> dict[str, object] | None:
    """Who was sent the prompt too, once the request was answered; what came of it is known only later."""
    return _asked(record.shadow, hidden=_hides_model(record)) if record.shadow is not None else None


def _hides_model(record: Record) -> bool:
    outcome = record.decision.outcome if record.decision is not None else None
    return isinstance(outcome, Plan) and not outcome.assistant.reveal_model


def _outcome(attempt: AttemptRecord, record: Record) -> str:
    """An attempt is over when its answer begins; that it broke off, or was left, is known of the request alone."""
    if attempt.outcome != "ok":
        return attempt.outcome
    if record.outcome == "interrupted":
        return FailureKind.INTERRUPTED
    # One JSON had come whole before anything of it was sent.
    return _ABANDONED if record.outcome == "cancelled" and record.stream else "ok"


def _attempt(attempt: AttemptRecord, outcome: str, *, hidden: bool) -> dict[str, object]:
    return {**_asked(attempt, hidden=hidden), "outcome": str(outcome)}


def _asked(attempt: AttemptRecord, *, hidden: bool) -> dict[str, object]:
    stores, processes = attempt.places or (None, None)
    return {
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "model": None if hidden else attempt.model,
        "stores": stores,
        "processes": processes,
    }


_NAME = "receipts"


_LAYOUT = """
CREATE TABLE IF NOT EXISTS receipt (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, client TEXT NOT NULL, at_s REAL NOT NULL, content TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS receipt_of_id ON receipt (id, client);
CREATE INDEX IF NOT EXISTS receipt_of_age ON receipt (at_s);
"""


_MOST_WAITING = 20_000


_MOST_AT_ONCE = 500


_WRITE_S = 0.25


_SWEEP_S = 600.0


_SWEPT_AT_ONCE = 5_000


_NOBODY = ""


def prepare(directory: Path) -> None:
    """Make the database, before several processes want it; raises StateError."""
    open_database(directory, _NAME, _LAYOUT).close()


class Receipts:
    """One process's hand on the receipts of the state directory; raises StateError.

    current: the table that is active.
    """

    def __init__(
        self,
        directory: Path,
        current: Callable[[], ConfigVersion],
        failed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # Two counts, as two threads count: the one that takes, and the one that writes.
        self._too_many = 0
        self._unwritten = 0
        self._current = current
        self._failed = failed
        self._clock = clock
        self._waiting: deque[tuple[Record, float]] = deque()
        self._writer = open_database(directory, _NAME, _LAYOUT)
        self._reader = open_database(directory, _NAME, _LAYOUT)
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._swept_at = -math.inf
        self._is_failing = False
        self._is_closed = False
        self._told_of = 0
        self._is_too_slow = False
        self._thread = threading.Thread(target=self._work, name="receipts", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many were not kept, because they came too fast or after the end, or the disk failed."""
        # What comes after the last look at the queue is counted by what is still in it: `take` waits for no lock.
        return self._too_many + self._unwritten + (len(self._waiting) if self._is_closed else 0)

    def take(self, record: Record) -> None:
        """Keep the receipt of this finished request, soon. Neither raises nor waits."""
        if len(self._waiting) >= _MOST_WAITING:
            self._too_many += 1
            return
        self._waiting.append((record, self._clock()))

    def find(self, request_id: str, client: str | None) -> dict[str, object] | None:
        """The last receipt of that id that is this client's; blocks. Raises StateError."""
        with self._reading:
            try:
                row = self._reader.execute(
                    "SELECT content FROM receipt WHERE id = ? AND client = ? ORDER BY number DESC LIMIT 1",
                    (request_id, client or _NOBODY),
                ).fetchone()
            except sqlite3.Error as error:
                raise StateError(f"receipts.db can't be read: {explained(error)}") from error
        if row is None:
            return None
        try:
            found = json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise StateError(f"receipts.db can't be read: {damaged('what it holds is no receipt')}")
        return found

    def close(self) -> None:
        """Write what is waiting, and let go of the files; blocks."""
        self._ended.set()
        self._thread.join()
        self._is_closed = True
        with self._reading:
            self._reader.close()
        self._writer.close()

    def _work(self) -> None:
        while not self._ended.wait(_WRITE_S):
            self._write()
            self._tell_of_too_many()
            self._sweep()
        self._write()
        self._tell_of_too_many()

    def _write(self) -> None:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
            try:
                self._insert(taken)
            except Exception as error:  # the border of the thread: if it ended here, all that comes would be lost
                self._unwritten += len(taken)
                if not self._is_failing:
                    why = explained(error) if isinstance(error, sqlite3.Error) else _kind_of(error)
                    self._failed(f"receipts.db can't be written, and receipts are lost until that is mended: {why}")
                self._is_failing = True
            else:
                self._is_failing = False

    def _tell_of_too_many(self) -> None:
        """Once, until all that comes is kept again."""
        more, self._told_of = self._too_many - self._told_of, self._too_many
        if more and not self._is_too_slow:
            self._failed("receipts come faster than they can be written, and some are lost")
        self._is_too_slow = more > 0

    def _insert(self, taken: list[tuple[Record, float]]) -> None:
        cell = self._current().cell
        rows = [row for record, at_s in taken if (row := _row(record, at_s, cell.territory if cell else None))]
        if rows:
            with transaction(self._writer):
                self._writer.executemany("INSERT INTO receipt (id, client, at_s, content) VALUES (?, ?, ?, ?)", rows)

    def _sweep(self) -> None:
        """Drop what is older than the config says, a part at a time."""
        if time.monotonic() - self._swept_at < _SWEEP_S:
            return
        oldest_s = self._clock() - self._current().receipts_keep_s
        try:
            dropped = self._writer.execute(
                "DELETE FROM receipt WHERE number IN (SELECT number FROM receipt WHERE at_s < ? LIMIT ?)",
                (oldest_s, _SWEPT_AT_ONCE),
            ).rowcount
        except sqlite3.Error as error:
            self._failed(f"old receipts can't be dropped from receipts.db: {explained(error)}")
            dropped = 0
        if dropped < _SWEPT_AT_ONCE:
            self._swept_at = time.monotonic()


def _row(record: Record, at_s: float, cell: str | None) -> tuple[str, str, float, str] | None:
    receipt = receipt_of(record, at_s, cell)
    if receipt is None:
        return None
    content = json.dumps(receipt, separators=(",", ":"), ensure_ascii=False)
    return record.request_id, record.client or _NOBODY, at_s, content


def _kind_of(error: Exception) -> str:
    """What it is, without words that may be a request's."""
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
