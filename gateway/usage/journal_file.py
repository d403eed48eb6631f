"""The file of a journal: its lock, its transactions, and the cells of counters that this thread has read already.

One environment of LMDB maps the file in each process. A transaction is under the lock of the file (flock), which the
kernel releases when its process ends. The lock is taken without a wait, or by `take_now`.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from gateway.undo import undone_on_failure
from gateway.usage.gate import GateUnavailable

SUFFIX = ".lmdb"
WAIT_S = 1.0
"""The time that an operation waits for the lock."""

MAP_BYTES = 2**34
"""The most bytes of the file. It has as many as it needs."""

PAUSE_S = 0.0005
LOCKED = "another process has locked the counters for more than a second; it may be stopped"
_SHOWN_S = 5.0
"""How long a failure is shown: perhaps nothing is written after it that would show its end."""

_OPEN_WAIT_S = 10.0
_MOST_KNOWN = 65_536
_WRITER = b"last"

_CELLS = struct.Struct("<6q")
_pack, unpack_cells = _CELLS.pack, _CELLS.unpack
Cells = tuple[int, int, int, int, int, int]
"""Generation, start and end of the window, spent, held and credit. Of a rate: its last change, and when it is full.

The generation changes with each window: a call is settled only in the window in which it was admitted."""

_NO_CELLS = (0, 0, 0, 0, 0, 0)

# A file is opened once in a process, whatever number of threads use it.
_environments: dict[Path, tuple[lmdb.Environment, int]] = {}
_one_opens = threading.Lock()

_T = TypeVar("_T")


class JournalFile:
    """The open file. The caller of `transact` holds its lock.

    Attributes:
        known: Cells of the file, by key. They are right as long as no other process has written.
        changed: The keys of the cells that the present transaction has changed.
        take: Takes the lock. Raises BlockingIOError if another process has it.
        give: Releases the lock.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._writes = flags != os.O_RDONLY
        self._descriptor = os.open(path, flags, 0o600)
        self.take = partial(fcntl.flock, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.give = partial(fcntl.flock, self._descriptor, fcntl.LOCK_UN)
        with undone_on_failure(partial(os.close, self._descriptor)):
            self.take_now(_OPEN_WAIT_S)
            try:
                self.begin = _opened(path)
            finally:
                self.give()
        self.known: dict[bytes, Cells] = {}
        self.changed: set[bytes] = set()
        self._name = os.urandom(8)
        self._failed_at, self._failure = -math.inf, ""

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        _release(self._path)

    @property
    def failure(self) -> str:
        """Why the file could not be written a moment ago, or an empty text."""
        return self._failure if time.monotonic() - self._failed_at < _SHOWN_S else ""

    def do_now(self, operation: Callable[[lmdb.Transaction, Any], _T], argument: object = None) -> _T:
        """Run an operation where there is no event loop to wait in. Raises GateUnavailable."""
        self.take_now()
        try:
            return self.transact(operation, argument)
        finally:
            self.give()

    def take_now(self, wait_s: float = WAIT_S) -> None:
        """Take the lock, and wait for it. Raises GateUnavailable after this time."""
        until_s = time.monotonic() + wait_s
        while True:
            try:
                return self.take()
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise GateUnavailable(LOCKED) from None
                time.sleep(PAUSE_S)

    def transact(self, operation: Callable[[lmdb.Transaction, Any], _T], argument: object) -> _T:
        """Run an operation in one transaction, under the lock, and return its result. Raises GateUnavailable."""
        known = self.known
        try:
            txn = self.begin(None, None, self._writes)
            try:
                if txn.get(_WRITER) != self._name or len(known) > _MOST_KNOWN:
                    known.clear()
                    if self._writes:
                        txn.put(_WRITER, self._name)
                result = operation(txn, argument)
                self.write_cells(txn)
            except BaseException:
                known.clear()
                self.changed.clear()
                txn.abort()
                raise
            txn.commit()
        except lmdb.Error as error:
            known.clear()
            self._failed_at, self._failure = time.monotonic(), f"{self._path} can't be written: {words_of(error)}"
            raise GateUnavailable(self._failure) from error
        return result

    def get(self, txn: lmdb.Transaction, key: bytes) -> Cells:
        """Return the cells of a counter or rate as this transaction finds them."""
        cells = self.known.get(key)
        if cells is None:
            stored = txn.get(key)
            cells = self.known[key] = unpack_cells(stored) if stored is not None else _NO_CELLS
        return cells

    def set(self, key: bytes, cells: Cells) -> None:
        """Change cells in this transaction."""
        self.known[key] = cells
        self.changed.add(key)

    def write_cells(self, txn: lmdb.Transaction) -> None:
        """Write the cells that were changed in this transaction, each once."""
        if self.changed:
            known = self.known
            txn.cursor().putmulti(zip(self.changed, starmap(_pack, map(known.__getitem__, self.changed)), strict=True))
            self.changed.clear()


def items(txn: lmdb.Transaction, prefix: bytes, most: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys with this prefix, and their values."""
    cursor = txn.cursor()
    if not cursor.set_range(prefix):
        return
    for number, (key, value) in enumerate(cursor):
        if number == most or key[: len(prefix)] != prefix:
            return
        yield bytes(key), bytes(value)


def words_of(error: Exception) -> str:
    """Return the text of an error, without the path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def current_file(directory: Path) -> Path:
    """Return the file of this start of the machine, which has the name `0` if the system does not state its start."""
    return directory / f"{_boot()}{SUFFIX}"


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return "0"


def _opened(path: Path) -> Callable[..., lmdb.Transaction]:
    with _one_opens:
        environment, users = _environments.get(path, (None, 0))
        if environment is None:
            # The lock is ours, because that of LMDB waits, and believes two containers to be one process.
            environment = lmdb.open(
                str(path),
                map_size=MAP_BYTES,
                subdir=False,
                readonly=not os.access(path, os.W_OK),
                lock=False,
                sync=False,
                metasync=False,
                mode=0o600,
            )
        _environments[path] = environment, users + 1
        return environment.begin


def _release(path: Path) -> None:
    with _one_opens:
        environment, users = _environments[path]
        if users > 1:
            _environments[path] = environment, users - 1
            return
        del _environments[path]
        environment.close()
