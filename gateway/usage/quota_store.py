"""Count the spent and running requests of each client with limits, over all worker processes.

There is one row of integers for each client: its tag, the time at which its allowance is full again, and the number of
running requests of each process. Workers share the rows in anonymous shared memory. A row is found by its tag alone, so
it survives every reload of the configuration.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import msgspec

from gateway.model.config_version import ClientLimitRule

MINUTE_NS = 60_000_000_000
ROWS = 4096
_PROBES = 64
_CELL_BYTES = 8
_TAG, _FULL_AT, _RUNNING = 0, 1, 2
# A lock is held for a few microseconds. If it is not free after the first tries, its holder is waiting for a CPU core,
# so this process sleeps. If that does not help, the holder is suspended: this process continues without the lock, and
# may miss a request in the count, instead of blocking all its clients.
_TRIES_AT_ONCE, _MAX_TRIES, _PAUSE_S = 50, 150, 0.0005


def spend(full_at_ns: int, now_ns: int, rpm: int) -> tuple[int, int]:
    """Spend one request of the allowance. Return when the allowance is full again, and the time to wait.

    The wait is 0 if the request was counted. A refused request spends nothing.
    """
    step_ns = MINUTE_NS // rpm
    spent_ns = max(full_at_ns, now_ns) + step_ns
    wait_ns = spent_ns - now_ns - step_ns * rpm
    return (full_at_ns, wait_ns) if wait_ns > 0 else (spent_ns, 0)


def remaining(full_at_ns: int, now_ns: int, rpm: int) -> int:
    """Return the number of requests that are allowed now."""
    step_ns = MINUTE_NS // rpm
    return max(0, (step_ns * rpm - max(0, full_at_ns - now_ns)) // step_ns)


def open_shared_memory(processes: int) -> int:
    """Return the descriptor of shared memory for the counters of so many processes.

    The memory is freed when the last process closes it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gateway-ledger")
    else:
        descriptor, path = tempfile.mkstemp(prefix="gateway-ledger-")
        os.unlink(path)
    os.ftruncate(descriptor, ROWS * (_RUNNING + processes) * _CELL_BYTES)
    return descriptor


class _Lock:
    """The lock of a row between processes. The kernel releases it when its holder exits or is killed."""

    __slots__ = ("_call", "_descriptor", "_offset")

    def __init__(self, descriptor: int, cell: int) -> None:
        import fcntl  # imported late: it does not exist on every system, and only several processes need it

        self._descriptor = descriptor
        self._offset = cell * _CELL_BYTES
        self._call = fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    def __enter__(self) -> None:
        lock, exclusively, _ = self._call
        for attempt in range(_MAX_TRIES):
            try:
                lock(self._descriptor, exclusively, _CELL_BYTES, self._offset)
            except (BlockingIOError, PermissionError):  # both mean that another process holds the lock
                if attempt >= _TRIES_AT_ONCE:
                    time.sleep(_PAUSE_S)
                continue
            return

    def __exit__(self, *_: object) -> None:
        lock, unlock = self._call[0], self._call[2]
        lock(self._descriptor, unlock, _CELL_BYTES, self._offset)


_AnyLock = AbstractContextManager[object]
"""A `_Lock`; or a lock of threads for rows that only one process uses, because its steps run in C."""


class QuotaStore:
    """The rows as one process sees them: its own, or those that worker number `process` (0, 1, …) shares with others.

    `share` is the number of this process and of all, between which other limits are divided.
    """

    def __init__(
        self,
        cells: memoryview | None = None,
        lock: Callable[[int], _AnyLock] = lambda _: threading.Lock(),
        *,
        rows: int = ROWS,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._cells = memoryview(bytearray(rows * (_RUNNING + 1) * _CELL_BYTES)).cast("q") if cells is None else cells
        self._rows = rows
        self.width = len(self._cells) // rows
        self.share = share
        self._lock = lock

    @classmethod
    def shared(cls, descriptor: int, process: int = 0) -> QuotaStore:
        """Return the store in the memory that `open_shared_memory` created."""
        cells = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("q")
        processes = len(cells) // ROWS - _RUNNING
        return cls(cells, partial(_Lock, descriptor), share=(process, processes))

    def leave(self, process: int) -> None:
        """Clear the running requests of a process that has ended. Its spent requests still count."""
        for cell in range(_RUNNING + process, len(self._cells), self.width):
            if self._cells[cell]:
                self._cells[cell] = 0

    def find_or_create(self, tag: int, now_ns: int) -> tuple[memoryview, int, _AnyLock]:
        """Return the cells that contain the row of a tag, the index of its first cell, and its lock.

        A new row is the first empty one after the position that the tag determines. If none is empty, it replaces a row
        whose client has no running request and its whole allowance, because such a row carries no information.
        Otherwise, the row is private to this process.
        """
        with self._lock(len(self._cells)):
            start = self._search(tag, now_ns)
            if start is None:
                return memoryview(bytearray(self.width * _CELL_BYTES)).cast("q"), 0, threading.Lock()
            self._cells[start + _TAG] = tag
        return self._cells, start, self._lock(start)

    def _search(self, tag: int, now_ns: int) -> int | None:
        unused = None
        for probe in range(min(_PROBES, self._rows)):
            start = (tag + probe) % self._rows * self.width
            # Rows are reused, but never emptied: a row of this tag cannot follow an empty one.
            if self._cells[start + _TAG] in (tag, 0):
                return start
            if unused is None and self._is_unused(start, now_ns):
                unused = start
        return unused

    def _is_unused(self, start: int, now_ns: int) -> bool:
        running = self._cells[start + _RUNNING : start + self.width]
        return self._cells[start + _FULL_AT] <= now_ns and not any(running)


class QuotaRow:
    """The row of one client. It may move to other cells."""

    __slots__ = ("_cells", "_lock", "_start", "_store", "_tag")

    def __init__(self, store: QuotaStore, name: str, now_ns: int) -> None:
        self._store = store
        self._tag = int.from_bytes(hashlib.sha256(name.encode()).digest()[:_CELL_BYTES], "big") >> 1 | 1
        self._find(now_ns)

    def _find(self, now_ns: int) -> None:
        self._cells, self._start, self._lock = self._store.find_or_create(self._tag, now_ns)
        self._cells[self._start + _TAG] = self._tag

    def take(self, limits: ClientLimitRule, now_ns: int) -> Admission:
        """Count one more request if the limits allow it."""
        if self._cells[self._start + _TAG] != self._tag:
            # The row carried no information, and its cells were reused for another client.
            self._find(now_ns)
        cells, start = self._cells, self._start
        with self._lock:
            full_at_ns, wait_ns = cells[start + _FULL_AT], 0
            is_free = (
                limits.concurrent is None
                or sum(cells[start + _RUNNING : start + self._store.width]) < limits.concurrent
            )
            if is_free and limits.rpm is not None:
                full_at_ns, wait_ns = spend(full_at_ns, now_ns, limits.rpm)
            if not is_free or wait_ns:
                return Admission(full_at_ns, wait_ns, None, 0)
            cells[start + _FULL_AT] = full_at_ns
            own = start + _RUNNING + self._store.share[0]
            cells[own] += 1
        return Admission(full_at_ns, 0, cells, own, is_granted=True)


class Admission(msgspec.Struct, eq=False):
    """The result of asking to run one request, and the time at which the client's allowance is full again.

    The time to wait is that of a spent allowance, or 0 if the limit of concurrent requests is reached.
    """

    full_at_ns: int
    wait_ns: int
    _cells: memoryview | None
    _own: int
    is_granted: bool = False

    def release(self) -> None:
        """Record that the request has ended. The second time it does nothing."""
        cells, self._cells = self._cells, None
        if cells is not None:
            cells[self._own] -= 1
