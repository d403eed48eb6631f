"""The content of a journal for its readers: the rows that wait, and the files of earlier starts of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import lmdb
import msgspec

from gateway.child_process import child_command, child_environment
from gateway.files import path_exists
from gateway.operator_errors import StateError
from gateway.usage.duty_counts import SourceCounts
from gateway.usage.gate import GateUnavailable
from gateway.usage.journal import FOLDER, Journal, decode_call, duties_of, last_sign
from gateway.usage.journal_file import MAP_BYTES, SUFFIX, current_file, items, words_of
from gateway.usage.usage_row import UsageRow, decode_row

_READ_S = 60.0
"""The time in which a journal of an earlier start is read. A damaged one may have no end."""

_T = TypeVar("_T")


class Backlog(NamedTuple):
    """The usage rows of a state directory that are not in the ledger: their number, and the Unix time of the oldest."""

    rows: int = 0
    oldest_ns: int | None = None


class _RowStart(msgspec.Struct, array_like=True):
    """The first fields of a `UsageRow`."""

    call: str
    time_ns: int


def backlog(directory: Path) -> Backlog:
    """Return what waits for the ledger. Raises StateError."""
    decode = msgspec.msgpack.Decoder(_RowStart).decode
    times = [start.time_ns for start in _read_waiting(directory, decode)]
    return Backlog(len(times), min(times, default=None))


def waiting_rows(directory: Path, most: int = sys.maxsize) -> list[UsageRow]:
    """Return rows of a state directory that are not in the ledger, or were not a moment ago. Raises StateError."""
    return _read_waiting(directory, decode_row, most)


def waiting_duties(directory: Path) -> list[SourceCounts]:
    """Return the counts of duties of a state directory, also those that are in the ledger already. Raises StateError.

    They have those of journals that the next start will move.
    """
    former = [one.duties for _, one in _former(directory)]
    return [*former, *_read(directory, lambda journal: [journal.duties()[1]])]


def _read_waiting(directory: Path, decode: Callable[[bytes], _T], most: int = sys.maxsize) -> list[_T]:
    return _read(directory, lambda journal: [decode(row) for _, row in journal.waiting(most)])


def _read(directory: Path, read: Callable[[Journal], list[_T]]) -> list[_T]:
    """Return what the journal of this start of the machine has. Nothing without one. Raises StateError."""
    path = current_file(directory / FOLDER)
    try:
        journal = Journal(path.parent, path, time.time_ns, os.O_RDONLY)
    except FileNotFoundError:
        return []
    except (OSError, lmdb.Error, GateUnavailable) as error:
        raise StateError(f"{path} can't be read: {words_of(error)}") from error
    with closing(journal):
        try:
            return read(journal)
        except (GateUnavailable, ValueError) as error:
            raise StateError(f"{path} can't be read: {error}") from error


# Files of earlier starts of the machine.


def former_files(directory: Path) -> list[Path]:
    """Return the journals of earlier starts of the machine, and of other machines."""
    with suppress(OSError):
        return sorted(path for path in directory.glob(f"*{SUFFIX}") if path != current_file(directory))
    return []


class FormerJournal(NamedTuple):
    """The content of such a journal: its rows with those of its open calls, and its counts of duties."""

    rows: list[bytes]
    duties: SourceCounts


def read_former(path: Path) -> FormerJournal | None:
    """Return the content of such a journal, or None if it is damaged. Blocks.

    Another process reads it (`main`), because a file that a power failure has damaged may end that process.
    """
    child = subprocess.Popen(  # noqa: S603  # our own module
        child_command("gateway.usage.journal_reading", str(path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )
    try:
        content, _ = child.communicate(timeout=_READ_S)
    except subprocess.TimeoutExpired:
        child.kill()
        content, _ = child.communicate()
    return msgspec.msgpack.decode(content, type=FormerJournal) if child.returncode == 0 else None


def former_rows(directory: Path) -> list[UsageRow]:
    """Return the rows that the next start will move: after a restart of the machine, or in a restored directory.

    Raises StateError for a damaged file, which the next start sets aside.
    """
    found: list[UsageRow] = []
    for path, former in _former(directory):
        try:
            found += map(decode_row, former.rows)
        except ValueError as error:
            raise StateError(f"{path} can't be read: {error}") from error
    return found


def _former(directory: Path) -> Iterator[tuple[Path, FormerJournal]]:
    for path in former_files(directory / FOLDER):
        if (former := read_former(path)) is not None:
            yield path, former
        elif path_exists(path):  # otherwise a start has just moved its rows
            raise StateError(f"{path} can't be read; the next start of the gateway sets it aside")


def main() -> int:
    """Print the content of a journal of an earlier start, for `read_former`."""
    path = Path(sys.argv[1])
    with lmdb.open(str(path), map_size=MAP_BYTES, subdir=False, readonly=True, lock=False).begin() as txn:
        rows = [value for _, value in items(txn, b"w", sys.maxsize)]
        for place, value in items(txn, b"o", sys.maxsize):
            if row := decode_call(value).lost(last_sign(path.parent, place[1:9])).row:
                rows.append(row)
        former = FormerJournal(rows, duties_of(txn, 0)[1])
    sys.stdout.buffer.write(msgspec.msgpack.encode(former))
    return 0


if __name__ == "__main__":
    sys.exit(main())
