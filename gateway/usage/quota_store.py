"""What each client with limits has spent and has running, counted over all processes that serve.

One row of whole numbers a client: its tag, the moment at which its allowance is full again, and for each process (its
*seat*) how many requests it has running. Several processes share the rows through one piece of memory that has no
name; a process by itself has them to itself. A row is found by its tag alone, so that it outlives every table.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from types import TracebackType

from gateway.model.config_version import ClientLimitRule

MINUTE_NS = 60_000_000_000


def spend(full_at_ns: int, now_ns: int, rpm: int) -> tuple[int, int]:
    """When the allowance is full again, with one request more counted, and 0; or, if there is none left, the moment
    that was given, and the time to wait. Who is refused spends nothing."""
    step_ns = MINUTE_NS // rpm
    spent_ns = max(full_at_ns, now_ns) + step_ns
    wait_ns = spent_ns - now_ns - step_ns * rpm
    return (full_at_ns, wait_ns) if wait_ns > 0 else (spent_ns, 0)


def remaining(full_at_ns: int, now_ns: int, rpm: int) -> int:
    """How many requests are left right now."""
    step_ns = MINUTE_NS // rpm
    return max(0, (step_ns * rpm - max(0, full_at_ns - now_ns)) // step_ns)


ROWS = 4096
_PROBES = 64
_CELL_BYTES = 8
_TAG, _FULL_AT, _RUNNING = 0, 1, 2
# A lock is held for some microseconds. Where it isn't to be had by then, its holder waits for a core, and gets ours. If
# that doesn't help either, it has been suspended: better to go on without it, and perhaps miss a request in the count,
# than to keep every client of this process waiting.
_TRIES_AT_ONCE, _MOST_TRIES, _PAUSE_S = 50, 150, 0.0005


def open_shared_memory(seats: int) -> int:
    """The descriptor of memory for the ledger of so many processes; it goes when the last of them has let go of it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gateway-ledger")
    else:
        descriptor, path = tempfile.mkstemp(prefix="gateway-ledger-")
        os.unlink(path)
    os.ftruncate(descriptor, ROWS * (_RUNNING + seats) * _CELL_BYTES)
    return descriptor


class _NoLock:
    """Of rows that one process has to itself: it does one thing at a time."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Lock:
    """A row's lock between processes. The system lifts it when its holder ends, however that ends."""

    __slots__ = ("_call", "_descriptor", "_offset")

    def __init__(self, descriptor: int, cell: int) -> None:
        import fcntl  # not on every system, and of use to several processes only

        self._descriptor = descriptor
        self._offset = cell * _CELL_BYTES
        self._call = fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    def __enter__(self) -> None:
        lock, exclusively, _ = self._call
        for tried in range(_MOST_TRIES):
            try:
                lock(self._descriptor, exclusively, _CELL_BYTES, self._offset)
            except (BlockingIOError, PermissionError):  # either says that another has it
                if tried >= _TRIES_AT_ONCE:
                    time.sleep(_PAUSE_S)
                continue
            return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lock, _, nobody = self._call
        lock(self._descriptor, nobody, _CELL_BYTES, self._offset)


_AnyLock = _Lock | _NoLock


class QuotaStore:
    """The rows, as one process sees them: its own by default, else those of several, from its seat (0, 1, …)."""

    def __init__(
        self,
        cells: memoryview | None = None,
        seat: int = 0,
        lock: Callable[[int], _AnyLock] = lambda _: _NoLock(),
        *,
        rows: int = ROWS,
    ) -> None:
        self._cells = memoryview(bytearray(rows * (_RUNNING + 1) * _CELL_BYTES)).cast("q") if cells is None else cells
        self._rows = rows
        self.width = len(self._cells) // rows
        self.seat = seat
        self.seats = self.width - _RUNNING
        self._lock = lock

    @classmethod
    def shared(cls, descriptor: int, seat: int = 0) -> QuotaStore:
        """The rows in what `open_shared_memory` gave."""
        memory = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        return cls(memory.cast("q"), seat, lambda cell: _Lock(descriptor, cell))

    def leave(self, seat: int) -> None:
        """The process of that seat is gone, and with it all that it had running. What it has spent stays spent."""
        for cell in range(_RUNNING + seat, len(self._cells), self.width):
            if self._cells[cell]:
                self._cells[cell] = 0

    def place(self, tag: int, now_ns: int) -> tuple[memoryview, int, _AnyLock]:
        """The cells in which the row of that tag is, where it begins, and its lock.

        It is the first empty one near the tag's own place; where all are taken, one whose client has nothing running
        and its whole allowance, because such a row says nothing; and where there is none, one of this process's own.
        """
        with self._lock(len(self._cells)):
            start = self._search(tag, now_ns)
            if start is None:
                return memoryview(bytearray(self.width * _CELL_BYTES)).cast("q"), 0, _NoLock()
            self._cells[start + _TAG] = tag
        return self._cells, start, self._lock(start)

    def _search(self, tag: int, now_ns: int) -> int | None:
        silent = None
        for probe in range(min(_PROBES, self._rows)):
            start = (tag + probe) % self._rows * self.width
            # Rows are reused, but never emptied: no row of this tag is behind an empty one.
            if self._cells[start + _TAG] in (tag, 0):
                return start
            if silent is None and self._is_silent(start, now_ns):
                silent = start
        return silent

    def _is_silent(self, start: int, now_ns: int) -> bool:
        running = self._cells[start + _RUNNING : start + self.width]
        return self._cells[start + _FULL_AT] <= now_ns and not any(running)


class QuotaRow:
    """One client's row, wherever it is at the moment."""

    __slots__ = ("_cells", "_ledger", "_lock", "_start", "_tag")

    def __init__(self, ledger: QuotaStore, name: str, now_ns: int) -> None:
        self._ledger = ledger
        self._tag = int.from_bytes(hashlib.sha256(name.encode()).digest()[:_CELL_BYTES], "big") >> 1 | 1
        self._find(now_ns)

    def _find(self, now_ns: int) -> None:
        self._cells, self._start, self._lock = self._ledger.place(self._tag, now_ns)
        self._cells[self._start + _TAG] = self._tag

    def take(self, limits: ClientLimitRule, now_ns: int) -> Admission:
        """Count one request more, if the limits leave one."""
        if self._cells[self._start + _TAG] != self._tag:
            # It had nothing to say, and another client needed the place.
            self._find(now_ns)
        cells, start = self._cells, self._start
        with self._lock:
            full_at_ns, wait_ns = cells[start + _FULL_AT], 0
            running = sum(cells[start + _RUNNING : start + self._ledger.width])
            is_free = limits.concurrent is None or running < limits.concurrent
            if is_free and limits.rpm is not None:
                full_at_ns, wait_ns = spend(full_at_ns, now_ns, limits.rpm)
            if not is_free or wait_ns:
                return Admission(full_at_ns, wait_ns, None, 0)
            cells[start + _FULL_AT] = full_at_ns
            own = start + _RUNNING + self._ledger.seat
            cells[own] += 1
        return Admission(full_at_ns, 0, cells, own)


class Admission:
    """Leave for one request, or not: then it says how long to wait, 0 for as long as others run."""

    __slots__ = ("_cells", "_own", "full_at_ns", "wait_ns")

    def __init__(self, full_at_ns: int, wait_ns: int, cells: memoryview | None, own: int) -> None:
        self.full_at_ns = full_at_ns
        self.wait_ns = wait_ns
        self._cells = cells
        self._own = own

    @property
    def is_leave(self) -> bool:
        """Whether the request may run."""
        return self._cells is not None

    def give_back(self) -> None:
        """The request has ended."""
        cells, self._cells = self._cells, None
        if cells is not None:
            cells[self._own] -= 1
