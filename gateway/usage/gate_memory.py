"""The memory-mapped file of the default gate: its layout, how it is created, checked and repaired.

The file has integers of 64 bits ("cells") in the byte order of the machine:

| part | content |
|---|---|
| header | magic, version, sizes; whether it is new; the free slots; the runs of the processes that use it (`SEATS`) |
| redo record | the cells that the current operation sets. Its length is the commit point |
| owners | one cell per slot: the run of the open call, `kept_by` of a run, or the link to the next free slot |
| slots | open calls: their amounts, the counters that they hold, the call id and the unfinished usage row |
| rows | counters and rates, found by a digest (open addressing) |

An operation writes its changes to the redo record, sets the length, applies the changes, and clears the length. A
process may be killed at any point: if the length is set, the next one applies the changes again. The pages survive the
end of every process. The file is sparse; space is reserved before a page is used, because a full disk would otherwise
end the process (SIGBUS).
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from gateway.operator_errors import StateError
from gateway.state.lock import STOP_AND_START, are_upgrades_refused
from gateway.usage.gate import GateUnavailable, HoldRequest, LostCall, Tag
from gateway.usage.windows import MINUTE_NS

FILE_NAME = "counters"
ROWS = 2**20
SLOTS = 2**14
SEATS = 256

_PAGE = 4096
_CELL = 8
_MAGIC = int.from_bytes(b"AGW-gate", "little")
_VERSION = 1

# Cells of the header.
_MAGIC_AT, _VERSION_AT, _ROWS_AT, _SLOTS_AT, _BOOT_AT, IS_NEW = range(6)
COMMIT, FREE_SLOT, USED_SLOTS, LAST_RUN = range(8, 12)
SEAT_RUNS = 256
REDO = 512
_MAX_REDO = 1024
_REDO_BYTES = REDO * _CELL
_OWNERS = REDO + _MAX_REDO

# Cells of a row.
ROW_CELLS = 8
TAG_HIGH, TAG_LOW, GENERATION, START, END, SPENT, HELD, CREDIT = range(ROW_CELLS)

# Cells of a slot, then its entries, then the bytes of the call id and of the usage row.
SLOT_CELLS = _PAGE // _CELL
SLOT_HEAD = 4
ENTRY_CELLS = 4
MAX_ENTRIES = 48
TEXT_AT_BYTES = (SLOT_HEAD + MAX_ENTRIES * ENTRY_CELLS) * _CELL
MAX_TEXT_BYTES = _PAGE - TEXT_AT_BYTES

_MAX_PROBES = 512
# A row is not reused at once, so that an operation cannot reuse a row that it has just read.
_KEPT_NS = MINUTE_NS
_KEPT = -(2**62)
row_of = struct.Struct(f"{ROW_CELLS}q").unpack_from
"""Return the cells of a row from the map and the offset in bytes."""


def kept_by(run: int) -> int:
    """Return the owner cell of a slot that a run keeps for a later call. It is neither a run nor a link."""
    return _KEPT + run


class GateMemory:
    """The cells of the file, shared by all processes that map it. The caller holds the lock, except for `find`.

    Args:
        descriptor: The open file. Its owner closes it.
        path: The path of the file, for messages.

    Raises:
        StateError: The file is damaged, or another version wrote it.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path = path
        self._descriptor = descriptor
        head = os.pread(descriptor, _PAGE, 0)
        fields = struct.unpack_from("5q", head) if len(head) == _PAGE else (0,) * 5
        if fields[_MAGIC_AT] != _MAGIC:
            raise StateError(f"{path} is not the file of the gate, or it is damaged; {_ADVICE}")
        if fields[_VERSION_AT] != _VERSION:
            advice = STOP_AND_START if are_upgrades_refused() else _ADVICE
            raise StateError(f"{path} was written by another version of the gateway ({fields[_VERSION_AT]}); {advice}")
        rows: int = fields[_ROWS_AT]
        slots: int = fields[_SLOTS_AT]
        size = os.fstat(descriptor).st_size
        if rows < 1 or rows & (rows - 1) or slots < 1 or size != _size(rows, slots):
            raise StateError(f"{path} is damaged: it has {size} bytes; {_ADVICE}")
        self.rows, self.slots = rows, slots
        self.owners = _OWNERS
        self.first_slot = _align(_OWNERS + slots)
        self.first_row = self.first_slot + slots * SLOT_CELLS
        self._mask = rows - 1
        self.map = mmap.mmap(descriptor, size)
        self.cells: memoryview[int] = memoryview(self.map).cast("q")

    def close(self) -> None:
        """Unmap the file."""
        self.cells.release()
        self.map.close()

    def row(self, place: int) -> tuple[int, ...]:
        """Return the cells of a row."""
        return row_of(self.map, place * _CELL)

    def commit(self, changes: list[int]) -> None:
        """Set cells, all of them or none.

        Args:
            changes: The index of a cell and its value, in turn.
        """
        cells, length, pairs = self.cells, len(changes), iter(changes)
        packer(length)(self.map, _REDO_BYTES, *changes)
        cells[COMMIT] = length
        for cell, value in zip(pairs, pairs, strict=True):
            cells[cell] = value
        cells[COMMIT] = 0

    def apply(self, changes: list[int]) -> None:
        """Apply committed changes. They may have been applied before, in part or completely."""
        cells, pairs = self.cells, iter(changes)
        for cell, value in zip(pairs, pairs, strict=True):
            cells[cell] = value
        cells[COMMIT] = 0

    def redo(self) -> None:
        """Complete the operation of a process that ended in the middle of it.

        Raises:
            GateUnavailable: The record is damaged.
        """
        length = self.cells[COMMIT]
        if not 0 < length <= _MAX_REDO or length % 2:
            raise GateUnavailable(f"{self.path} is damaged: its redo record has {length} cells; {_ADVICE}")
        changes = self.cells[REDO : REDO + length].tolist()
        if not all(0 < cell < len(self.cells) for cell in changes[::2]):
            raise GateUnavailable(f"{self.path} is damaged: its redo record names unknown cells; {_ADVICE}")
        self.apply(changes)

    def find(self, tag: Tag) -> int | None:
        """Return the first cell of the row of a tag, or None if there is none."""
        cells, (high, low) = self.cells, tag
        for probe in range(min(_MAX_PROBES, self.rows)):
            place = self.first_row + ((low + probe) & self._mask) * ROW_CELLS
            found = cells[place]
            if found == high and cells[place + TAG_LOW] == low:
                return place
            if found == 0:
                return None
        return None

    def create(self, tag: Tag, now_ns: int, start_ns: int, end_ns: int) -> int:
        """Return the first cell of a new row for a tag that has none.

        It is the first empty row, or the first whose window ended some time ago and that no running call holds.

        Raises:
            GateUnavailable: There is no such row, or the disk is full.
        """
        high, low = tag
        for probe in range(min(_MAX_PROBES, self.rows)):
            place = self.first_row + ((low + probe) & self._mask) * ROW_CELLS
            row = self.row(place)
            if row[TAG_HIGH] and (row[HELD] or row[END] > now_ns - _KEPT_NS):
                continue
            if not row[TAG_HIGH]:
                self.reserve(place, ROW_CELLS)
            values = (high, low, row[GENERATION] + 1, start_ns, end_ns, 0, 0, 0)
            self.commit([part for pair in enumerate(values, place) for part in pair])
            return place
        raise GateUnavailable(f"{self.path} is full: {self.rows} counters of open windows")

    def reserve(self, first: int, cells: int) -> None:
        """Reserve space on the disk for the pages of cells. Raises GateUnavailable."""
        _reserve(self._descriptor, self.path, first, cells)

    def repair_after_power_failure(self) -> None:
        """Compute the holds of all rows again if the machine was started since the file was last opened.

        The kernel writes pages in any order, so after a power failure rows and slots may not fit together.
        """
        boot = _boot()
        if self.cells[_BOOT_AT] == boot:
            return
        cells = self.cells
        held = cells[self.first_row + HELD :: ROW_CELLS]
        for index, amount in enumerate(held.tolist()):
            if amount:
                held[index] = 0
        owners = cells[self.owners : self.owners + self.slots].tolist()
        open_slots = [slot for slot, run in enumerate(owners) if run > 0]
        for slot in open_slots:
            entries = iter(self.entries(slot))
            for place, generation, amount, measure in zip(entries, entries, entries, entries, strict=True):
                if cells[place + GENERATION] == generation:
                    cells[place + HELD] += amount if measure >= 0 else 1
        runs = {owners[slot] for slot in open_slots}
        free = 0
        used = max(open_slots, default=-1) + 1
        for slot in range(used):
            if owners[slot] <= 0:
                cells[self.owners + slot] = -1 - free
                free = slot + 1
        cells[COMMIT], cells[FREE_SLOT], cells[USED_SLOTS] = 0, free, used
        cells[LAST_RUN] = max(cells[LAST_RUN], *runs, 0)
        for seat, run in enumerate([*sorted(runs)[-SEATS:], *[0] * SEATS][:SEATS]):
            cells[SEAT_RUNS + seat] = run
        cells[_BOOT_AT] = boot

    def take_slot(self, run: int, changes: list[int]) -> int:
        """Return a free slot. The changes make it an open call of the run when they are committed.

        Raises:
            GateUnavailable: All slots are used, or the disk is full.
        """
        cells = self.cells
        free = cells[FREE_SLOT]
        if free:
            slot = free - 1
            changes += (FREE_SLOT, -1 - cells[self.owners + slot], self.owners + slot, run)
            return slot
        slot = cells[USED_SLOTS]
        if slot >= self.slots:
            raise GateUnavailable(f"{self.path} is full: {self.slots} calls are open")
        self.reserve(self.first_slot + slot * SLOT_CELLS, SLOT_CELLS)
        changes += (USED_SLOTS, slot + 1, self.owners + slot, run)
        return slot

    def freed(self, slot: int) -> tuple[int, int, int, int]:
        """Return the changes that make a slot free."""
        return self.owners + slot, -1 - self.cells[FREE_SLOT], FREE_SLOT, slot + 1

    def write_slot(self, slot: int, request: HoldRequest, entries: list[int]) -> None:
        """Write an open call with its `entries`. A process needs no lock for a slot that it keeps.

        Raises:
            ValueError: The call has too many entries, or its text is too long.
        """
        call = request.call.encode()
        text = call + request.row
        if len(entries) > MAX_ENTRIES * ENTRY_CELLS:
            raise ValueError(f"a hold must name at most {MAX_ENTRIES} budgets and rates")
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError(f"the call id and the usage row of a hold have more than {MAX_TEXT_BYTES} bytes")
        start = (self.first_slot + slot * SLOT_CELLS) * _CELL
        lengths = len(call) << 16 | len(request.row)
        cell_count = SLOT_HEAD + len(entries)
        packer(cell_count)(self.map, start, cell_count, request.tokens, request.amount_nano, lengths, *entries)
        start += TEXT_AT_BYTES
        self.map[start : start + len(text)] = text

    def lost_call(self, slot: int) -> LostCall:
        """Return the call of a slot, whose process has ended. Its place is the slot and the run."""
        first = self.first_slot + slot * SLOT_CELLS
        _, tokens, amount_nano, lengths = self.cells[first : first + SLOT_HEAD].tolist()
        start = first * _CELL + TEXT_AT_BYTES
        call_bytes, row_bytes = lengths >> 16 & 0xFFFF, lengths & 0xFFFF
        call = self.map[start : start + call_bytes].decode(errors="replace")
        row = self.map[start + call_bytes : start + call_bytes + row_bytes]
        return LostCall(call, row, tokens, amount_nano, (slot, self.cells[self.owners + slot]))

    def entries(self, slot: int) -> list[int]:
        """Return the entries of an open slot: for each counter and rate its place, generation, amount and measure.

        The measure of a rate is the negative size of its bucket.

        Raises:
            GateUnavailable: The slot is damaged.
        """
        first = self.first_slot + slot * SLOT_CELLS
        cell_count = self.cells[first]
        found = self.cells[first + SLOT_HEAD : first + min(cell_count, SLOT_HEAD + MAX_ENTRIES * ENTRY_CELLS)].tolist()
        places = found[::ENTRY_CELLS]
        if len(found) != ENTRY_CELLS * len(places) or not all(
            self.first_row <= place < len(self.cells) for place in places
        ):
            raise GateUnavailable(f"{self.path} is damaged: an open call has wrong entries; {_ADVICE}")
        return found


@cache
def packer(cells: int) -> Callable[..., None]:
    """Return the function that writes so many cells: it takes a buffer, the offset in bytes, and the values."""
    return struct.Struct(f"{cells}q").pack_into


_ADVICE = "restore it, or move it away: the gate then begins with empty counters"


def open_file(directory: Path, rows: int, slots: int) -> tuple[int, Path]:
    """Open the file of the gate in a directory, and create it if there is none. Return its descriptor and path.

    Raises:
        StateError: The file cannot be used.
    """
    path = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NONBLOCK), path
        _create(directory, path, rows, slots)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK), path
    except OSError as error:
        raise StateError(f"{error.filename or path} can't be used: {error.strerror or error}") from error


def _create(directory: Path, path: Path, rows: int, slots: int) -> None:
    """Create the file complete, in one step. If another process creates it at the same time, one of them is used."""
    new = directory / f".{FILE_NAME}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, _size(rows, slots))
        _reserve(descriptor, path, 0, _align(_OWNERS + slots))
        os.pwrite(descriptor, struct.pack("6q", _MAGIC, _VERSION, rows, slots, _boot(), 1), 0)
        os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(new, path)
    except GateUnavailable as error:
        raise StateError(str(error)) from error
    finally:
        os.close(descriptor)
        os.unlink(new)


def _reserve(descriptor: int, path: Path, first: int, cells: int) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, first * _CELL, cells * _CELL)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise GateUnavailable(f"{path} cannot grow: {error.strerror}") from error


def _boot() -> int:
    """Return a number of this start of the machine. 0 if the system does not name it."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return 0
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _size(rows: int, slots: int) -> int:
    return (_align(_OWNERS + slots) + slots * SLOT_CELLS + rows * ROW_CELLS) * _CELL


def _align(cells: int) -> int:
    per_page = _PAGE // _CELL
    return -(-cells // per_page) * per_page
