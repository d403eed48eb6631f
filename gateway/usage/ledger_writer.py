"""Move usage rows from the spools of all processes into the ledger, and delete rows that are older than configured.

One thread does this, in the single process or in the supervisor. Nothing waits for it: a row is safe in its spool, and
a report reads the rows that were not moved yet. If the ledger can't be written (a full disk, a damaged file), the rows
stay in the spools until it can.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from gateway.operator_errors import StateError
from gateway.undo import undone_on_failure
from gateway.usage.amounts import NANO
from gateway.usage.counter_sums import CounterSums
from gateway.usage.ledger import Ledger
from gateway.usage.spool import SpoolBatch, SpoolFile, batches, spool_files
from gateway.usage.usage_row import UsageRow

_MOVE_S = 0.1
_MOST_ROWS = 2_000
"""The number of rows in a transaction, except that those of one read of a file stay together."""

_LONGEST_SWEEP_S, _SHORTEST_SWEEP_S = 600.0, 1.0


class LedgerStore(Protocol):
    """The part of a ledger that the writer needs: `Ledger`, or `PostgresLedger`. Every method raises StateError."""

    def close(self) -> None:
        """Close it."""

    def check(self) -> None:
        """Raise StateError if later processes would not find its rows."""

    def positions(self) -> dict[str, int]:
        """Return how far each spool file was read."""

    def insert(self, rows: Sequence[UsageRow], positions: Mapping[str, int] | None = None) -> int:
        """Insert rows whose calls have none yet, and store positions. Return the number of inserted rows."""

    def sum_up(self, sums: CounterSums) -> None:
        """Sum up what the counters of open windows must show."""

    def forget_positions(self, names: Iterable[str]) -> None:
        """Delete the positions of spool files that were deleted."""

    def remove_callers(self, regions: frozenset[str]) -> None:
        """Remove territory and end user from the rows and totals of these regions."""

    def delete_rows(self, before_ns: int) -> int:
        """Delete a part of the rows of earlier calls. Return their number."""


class LedgerWriter:
    """Moves rows into the ledger of a state directory, from `start` to `close`.

    Args:
        directory: The state directory. It must have one ledger writer.
        zone: Returns the time zone of hours and days (`usage.timezone`).
        keep_s: Returns how long rows are kept (`usage.retention.ledger`), or None if they are never deleted.
        failed: Called with a message when rows can't be moved, and when a spool file is damaged.
        clock: Returns Unix time.
        without_callers: Returns the regions whose rows have neither territory nor end user. Rows of an earlier version
            that have them lose them.
        ledger: The shared ledger, which may be unreachable at first. Default: the SQLite ledger of the directory.

    Raises:
        StateError: The ledger cannot be used.

    Attributes:
        problem: Why rows can't be moved at the moment, or None.
    """

    def __init__(
        self,
        directory: Path,
        zone: Callable[[], tzinfo],
        keep_s: Callable[[], float | None],
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        without_callers: Callable[[], frozenset[str]] = frozenset,
        ledger: LedgerStore | None = None,
    ) -> None:
        self._directory = directory
        self._keep_s = keep_s
        self._failed = failed
        self._clock = clock
        self.problem: str | None = None
        self._swept_at = -math.inf
        self._opened: dict[str, SpoolFile] = {}
        self._reported: dict[str, set[str]] = {}
        self._rows: list[UsageRow] = []
        self._read_positions: dict[str, int] = {}
        self._ended = threading.Event()
        self._turn = threading.Lock()
        self._is_paused = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._positions: dict[str, int] | None = None
        self._without_callers = without_callers
        self._is_cleaned = False
        self._ledger: LedgerStore = ledger or Ledger(directory, zone)
        if ledger is None:
            with undone_on_failure(self._ledger.close):
                self._positions = self._ledger.positions()
                self._clean()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Move the rows that are in the spools, and end the thread. Blocks."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._is_paused:
            self.move()
        self._close_files()
        self._ledger.close()

    def _close_files(self) -> None:
        for file in self._opened.values():
            file.close()
        self._opened.clear()

    def pause(self) -> None:
        """Wait for the end of a move, and begin no other until `resume`. Meanwhile another process moves the rows."""
        with self._turn:
            self._is_paused = True

    def resume(self) -> None:
        """Move rows again, from where the other process has stopped."""
        with self._turn:
            self._close_files()
            self._positions = None
            self._is_paused = False

    def sum_up(self, sums: CounterSums) -> None:
        """Sum up what the counters of open windows must show, with the rows that are still in spools. Call it first.

        Raises:
            StateError: The ledger cannot be used now.
        """
        self.move()
        if self.problem is not None:
            raise StateError(self.problem)
        self._ledger.sum_up(sums)

    def _work(self) -> None:
        while not self._ended.wait(_MOVE_S):
            with self._turn:
                if not self._is_paused:
                    self.move()
                    self._sweep()

    def move(self) -> None:
        """Move all rows that the spools have now. Report an error instead of raising it."""
        try:
            self._move()
        except Exception as error:  # the thread must not end, or all later rows would stay in the spools
            # The rows that were read are read again.
            self._rows.clear()
            self._read_positions.clear()
            message = _description(error)
            if self.problem is None:
                self._failed(f"usage rows stay in the spools until this is fixed: {message}")
            self.problem = message
        else:
            self.problem = None

    def _move(self) -> None:
        self._ledger.check()
        if not self._is_cleaned:
            self._clean()
        positions = self._positions
        if positions is None:
            positions = self._positions = self._ledger.positions()
        # A process that has ended may have written the row of a call itself before another process recovered the call.
        # Its own row must come first. So recovered rows are read first and inserted last.
        recovered = self._files(recovered=True)
        last = [(file, file.take(), [*batches(file, positions.get(file.name, 0))]) for file in recovered]
        files = [(file, file.take()) for file in self._files(recovered=False)]
        for file, _ in files:
            for batch in batches(file, positions.get(file.name, 0)):
                self._add(file, batch)
        self._write()
        for file, _, found in last:
            for batch in found:
                self._add(file, batch)
        self._write()
        for file, is_abandoned in [*files, *((file, is_abandoned) for file, is_abandoned, _ in last)]:
            if is_abandoned:  # since before it was read to its end
                file.delete()
                file.close()
                del self._opened[file.name]
        if gone := positions.keys() - self._opened.keys():
            self._ledger.forget_positions(gone)
            for name in gone:
                del positions[name]

    def _clean(self) -> None:
        """Remove the callers from rows that an earlier version wrote, or that were allowed to have them then."""
        self._ledger.remove_callers(self._without_callers())
        self._is_cleaned = True

    def _files(self, *, recovered: bool) -> list[SpoolFile]:
        """Return all spool files of one kind, also those that were deleted while they were open."""
        self._opened.update(
            (file.name, file) for file in spool_files(self._directory, self._opened, recovered=recovered)
        )
        return [file for file in self._opened.values() if file.is_recovered is recovered]

    def _add(self, file: SpoolFile, batch: SpoolBatch) -> None:
        if batch.damaged:
            self._report_damage(file, batch)
        without = self._without_callers()
        self._rows += [replace(row, user=None, territory=None) if row.region in without else row for row in batch.rows]
        self._read_positions[file.name] = batch.end
        if len(self._rows) >= _MOST_ROWS:
            self._write()

    def _write(self) -> None:
        """Insert the rows that were read, with the positions after them."""
        if self._read_positions and self._positions is not None:
            self._ledger.insert(self._rows, self._read_positions)
            self._positions.update(self._read_positions)
            self._rows.clear()
            self._read_positions.clear()

    def _report_damage(self, file: SpoolFile, batch: SpoolBatch) -> None:
        ranges = ", ".join(f"{start} to {end}" for start, end in batch.damaged)
        if ranges in self._reported.get(file.name, ()):
            return
        self._reported[file.name] = {*self._reported.get(file.name, ()), ranges}
        with suppress(OSError):
            kept = file.keep_damaged()
            self._failed(f"{kept} is damaged: the usage rows in its bytes {ranges} can't be read; the file is kept")

    def _sweep(self) -> None:
        """Delete rows that are older than configured, a limited number at a time."""
        keep_s = self._keep_s()
        if keep_s is None or self.problem is not None:
            return
        if time.monotonic() - self._swept_at < max(_SHORTEST_SWEEP_S, min(_LONGEST_SWEEP_S, keep_s / 10)):
            return
        try:
            deleted = self._ledger.delete_rows(int((self._clock() - keep_s) * NANO))
        except StateError as error:
            self._failed(f"old usage rows can't be deleted: {error}")
            deleted = 0
        if not deleted:
            self._swept_at = time.monotonic()


def _description(error: Exception) -> str:
    if isinstance(error, StateError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a spool file'}: {error.strerror}"
    return type(error).__name__  # without its text, which may quote a row
