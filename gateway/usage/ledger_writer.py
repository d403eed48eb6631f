"""Move usage rows from the journal into the ledger, recover the calls of killed processes, and delete old rows.

One thread does this, in the single process or in the supervisor. Nothing waits for it: a row is safe in the journal,
and a report reads the rows that were not moved yet. If the ledger can't be written (a full disk, a damaged file), the
rows stay in the journal until it can.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.files import path_exists
from gateway.model.config_version import ConfigVersion
from gateway.model.kept_metadata import StoredRequest, regions_without_callers
from gateway.operator_errors import StateError
from gateway.undo import undone_on_failure
from gateway.usage.amounts import NANO
from gateway.usage.gate import GateUnavailable
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.journal_reading import former_files, read_former
from gateway.usage.ledger import NAME, Ledger, ledger_file, regions_of, remove_caller, rows_from
from gateway.usage.quotas import QuotaLimit
from gateway.usage.spending_limits import calendar_of, has_budget
from gateway.usage.usage_row import decode_row
from providers.value import Value

_MOVE_S = 0.1
_RETRY_S = 0.5
_MOST_ROWS = 2_000
_ERASE_S = 10.0
_LONGEST_SWEEP_S, _SHORTEST_SWEEP_S = 600.0, 1.0


class LedgerRules(Value, frozen=True):
    """The rules of a config version for the rows of the ledger: the time zone of its hours and days, and two more.

    Rows are kept for `keep_s`, or for ever (None). In the regions `without_callers` they have no territory and end
    user.
    """

    zone: tzinfo
    keep_s: float | None = None
    without_callers: frozenset[str] = frozenset()


def ledger_rules(config: ConfigVersion) -> LedgerRules:
    """Return the rules of a config version."""
    usage = config.usage
    return LedgerRules(ZoneInfo(usage.timezone), usage.retention.ledger_s, regions_without_callers(config))


class LedgerWriter:
    """Moves rows into the ledger of a state directory, from `start` to `close`.

    Args:
        directory: The state directory. It must have one ledger writer.
        rules: Returns the present rules. Rows of an earlier version also lose their callers.
        failed: Called with a message when rows can't be read or deleted.
        clock: Returns Unix time.
        ledger: The shared ledger, which may be unreachable at first. Default: the SQLite ledger of the directory.
        recovered: Called with the number of calls that killed processes left open, after their rows were written.
        erase: Removes the data that this instance keeps of a person whom another instance was asked to erase.
            It may raise StateError.

    Raises:
        StateError: The ledger cannot be used.

    Attributes:
        problem: Why rows can't be moved at the moment, or None.
        is_of_journal: Whether the problem is that of the journal, and not of the ledger.
        waits_until_s: How long `close` waits for a shared ledger that does not answer, as `time.monotonic()`.
    """

    def __init__(
        self,
        directory: Path,
        rules: Callable[[], LedgerRules],
        failed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        ledger: Ledger | None = None,
        recovered: Callable[[int], None] = lambda _number: None,
        erase: Callable[[list[StoredRequest]], object] = lambda _requests: None,
    ) -> None:
        self._erase = erase
        self._recovered = recovered
        self._rules = rules
        self._failed = failed
        self._clock = clock
        self.problem: str | None = None
        self.is_of_journal = False
        self.waits_until_s = 0.0
        self._is_shared = ledger is not None
        self._swept_at = self._forgot_at = self._erased_at = -math.inf
        self._erased: set[str] = set()
        self._counted = 0
        self._ended = threading.Event()
        self._turn, self._beginning = threading.Lock(), threading.Lock()
        self._is_paused = self._is_cleaned = self._has_begun = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._directory = directory
        self._journal = Journal.open(directory / FOLDER)
        with undone_on_failure(self._journal.close):
            self._ledger = ledger or Ledger(ledger_file(directory), lambda: rules().zone)
            if ledger is None:
                with undone_on_failure(self._ledger.close):
                    self._clean()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Move the rows that wait, and end the thread. Blocks."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._is_paused:
            self.move()
            self._wait_for_the_ledger()
        self._journal.close()
        self._ledger.close()

    def _wait_for_the_ledger(self) -> None:
        """Move the rows as soon as the shared ledger answers, until `waits_until_s`. Report what is left."""
        if (left := self._left()) and self._is_shared and (seconds := self.waits_until_s - time.monotonic()) > 0:
            self._failed(
                f"{left} usage rows wait for the database, and this process waits up to {seconds:.0f} s for it"
            )
            while self.problem is not None and time.monotonic() < self.waits_until_s:
                time.sleep(_RETRY_S)
                self.move()
            left = self._left()
        if left:
            folder = self._directory / FOLDER
            self._failed(
                f"{left} usage rows are still in {folder}: a start with this directory moves them to the ledger"
            )

    def _left(self) -> int:
        """Return the number of rows that could not be moved."""
        with suppress(GateUnavailable):
            return len(self._journal.waiting(sys.maxsize)) if self.problem is not None else 0
        return 0

    def pause(self) -> None:
        """Wait for the end of a move, and begin no other until `resume`. Meanwhile another process moves the rows."""
        with self._turn:
            self._is_paused = True

    def resume(self) -> None:
        """Move rows again."""
        with self._turn:
            self._is_paused = False

    def rebuild_new_counters(self, config: ConfigVersion) -> int:
        """Count the budgets of open windows again from the ledger if the journal is new: they must not begin at 0.

        The config version has the stored clients. Returns the number of counters. Raises StateError if the ledger or
        the journal cannot be used now.
        """
        try:
            if not self._journal.is_new:
                return 0
            windows, is_wanted = calendar_of(config).at(time.time_ns()), has_budget(config)
            self.move()  # the rows that wait count too
            if self.problem is not None:
                raise StateError(self.problem)
            _, numbers = self._ledger.sum_up(windows, config, time.time_ns())
            wanted = [it for it in numbers if isinstance(it[0], QuotaLimit) or is_wanted(it[0])]
            return self._journal.rebuild(wanted, windows)
        except GateUnavailable as error:
            raise StateError(str(error)) from error

    def _work(self) -> None:
        while not self._ended.wait(_MOVE_S):
            with self._turn:
                if not self._is_paused:
                    self.move()
                    self._sweep()

    def move(self) -> None:
        """Move all rows that wait now. An error is in `problem`."""
        try:
            with self._beginning:
                if not self._has_begun:
                    self._begin()
            if lost := self._journal.recover():
                self._recovered(lost)
            while found := self._journal.waiting(_MOST_ROWS):
                self._insert([row for _, row in found])
                self._journal.remove([key for key, _ in found])
                if len(found) < _MOST_ROWS:
                    break
            changes, duties = self._journal.duties(self._counted)
            if duties.numbers:
                self._ledger.keep_duties(duties)
                self._counted = changes
        except Exception as error:  # the thread must not end, or all later rows would stay in the journal
            self.is_of_journal = isinstance(error, GateUnavailable)
            self.problem = _description(error)
            self._counted = 0  # the ledger may be another one afterwards, such as a restored backup
        else:
            self.problem = None

    def _begin(self) -> None:
        """Finish what is left of earlier starts of the machine."""
        if not self._is_cleaned:
            self._clean()
        own = self._directory / f"{NAME}.db"
        if self._is_shared and path_exists(own):
            self._move_own_ledger(own)
        for path in former_files(self._directory / FOLDER):
            self._move_former(path)
        self._has_begun = True

    def _move_own_ledger(self, path: Path) -> None:
        """Move the rows of the time without a shared ledger. The file stays for the totals of rows that were deleted.

        It is left without end users, because nothing that erases a person reads it.
        """
        without, number = self._rules().without_callers, 0
        with closing(Ledger(ledger_file(self._directory), lambda: self._rules().zone)) as own:
            while found := rows_from(own.database, number, _MOST_ROWS):
                rows, number = [row for _, row in found], found[-1][0]
                for row in rows:
                    if row.region in without:
                        remove_caller(row)
                self._ledger.insert(rows)
            for counts in own.duties():
                self._ledger.keep_duties(counts)
            own.remove_callers(regions_of(own.database))
        path.rename(path.with_name(f"{path.name}.moved"))

    def _insert(self, found: list[bytes]) -> None:
        without, rows = self._rules().without_callers, []
        for data in found:
            try:
                row = decode_row(data)
            except ValueError as error:
                self._failed(f"a usage row can't be read: {error}")
                continue
            if row.region in without:
                remove_caller(row)
            rows.append(row)
        for start in range(0, len(rows), _MOST_ROWS):
            self._ledger.insert(rows[start : start + _MOST_ROWS])

    def _move_former(self, path: Path) -> None:
        """Move the rows of a journal of an earlier start of the machine, or of another machine."""
        if (former := read_former(path)) is not None:
            self._insert(former.rows)
            if former.duties.numbers:
                self._ledger.keep_duties(former.duties)
            path.unlink()
        else:
            path.rename(path.with_name(f"{path.name}.damaged"))
            self._failed(f"{path}.damaged can't be read: usage rows of the last moment before a failure are lost")

    def _clean(self) -> None:
        """Remove the callers from rows that an earlier version wrote, or that were allowed to have them then."""
        self._ledger.remove_callers(self._rules().without_callers)
        self._is_cleaned = True

    def _sweep(self) -> None:
        """Delete rows that are older than configured, a limited number at a time, and counters that have ended."""
        now_s, keep_s = time.monotonic(), self._rules().keep_s
        if self._is_shared and self.problem is None and now_s - self._erased_at > _ERASE_S:
            self._erased_at = now_s
            self._follow_erasures()
        if now_s - self._forgot_at > _LONGEST_SWEEP_S:
            self._forgot_at = now_s
            with suppress(GateUnavailable):
                self._journal.forget()
        if keep_s is None or self.problem is not None:
            return
        if now_s - self._swept_at < max(_SHORTEST_SWEEP_S, min(_LONGEST_SWEEP_S, keep_s / 10)):
            return
        try:
            deleted = self._ledger.delete_rows(int((self._clock() - keep_s) * NANO))
        except StateError as error:
            self._failed(f"old usage rows can't be deleted: {error}")
            deleted = 0
        if not deleted:
            self._swept_at = now_s

    def _follow_erasures(self) -> None:
        """Remove what this instance keeps of the requests of persons whom another instance was asked to erase."""
        try:
            for name, requests in self._ledger.erasures(self._erased):
                self._erase(requests)
                self._erased.add(name)
        except StateError as error:
            self._failed(f"the erasure of an end user can't be done here yet: {error}")


def _description(error: Exception) -> str:
    if isinstance(error, StateError | GateUnavailable):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'the journal'}: {error.strerror}"
    return type(error).__name__  # without its text, which may quote a row
