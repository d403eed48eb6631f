"""Write usage rows to a spool: a file of one process, from which the ledger writer moves them into the ledger.

A row must be safe before the last byte of its answer is sent, and the event loop must not wait for a database. So each
process appends its rows to a file of its own, with one system call for each row. The data survives `kill -9`, because
the kernel owns it. It does not survive a power failure.

**Format.** A record is a header (`_HEADER`: mark, length and CRC-32 of the content) and a row as JSON. Its mark cannot
occur in JSON. The file is filled with zeros in advance, so a mark of zeros is the end of the data.

**Full disk.** Space is reserved before a call is sent (`Spool.reserve`), so that the row of a call that was sent always
fits. If no space can be reserved, the call must be refused. If writing fails in spite of that (a broken disk), the rows
stay in memory, they are tried again, and no further call can reserve space until they are written.

**Owner.** A process locks its file (flock) until it ends, by whatever cause. A file without an owner that was read to
its end is deleted. An incomplete last record belongs to a call whose answer did not end, and is ignored.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.operator_errors import StateError
from gateway.state.lock import take
from gateway.usage.usage_row import UsageRow, decode_row

FOLDER = "spool"
"""The folder of all spool files, in the state directory."""

_SUFFIX, _RECOVERED_SUFFIX, _DAMAGED_SUFFIX = ".rows", ".recovered", ".damaged"
_HEADER = struct.Struct("<4sII")
_MARK, _UNUSED = b"\xffrow", bytes(4)
_ROW_BYTES = 2048
"""The space that is reserved for a row. A row has about 600 bytes."""

_GROW_BYTES = 256 * 1024
_ROTATE_BYTES = 8 * 1024 * 1024
_MOST_RECORD_BYTES = 256 * 1024
_READ_BYTES = 2 * _MOST_RECORD_BYTES
_FIRST_READ_BYTES = 64 * 1024
"""The bytes that are read first: enough for the new rows of most moves. The rest of the file is mostly unused."""


class SpoolError(StateError):
    """The spool cannot take the row of another call, so no further call may be sent."""


class Spool:
    """The spool of one process. Use it from one thread.

    Args:
        directory: The state directory.
        failed: Called with a message when rows can't be written.
        recovered: Whether the rows are of calls that another process left open. The ledger writer moves them after all
            other rows, so that the row that such a process wrote itself comes first.

    Raises:
        SpoolError: The file cannot be created.
    """

    def __init__(self, directory: Path, failed: Callable[[str], None], *, recovered: bool = False) -> None:
        self._folder = directory / FOLDER
        self._failed = failed
        self._suffix = _RECOVERED_SUFFIX if recovered else _SUFFIX
        self._waiting: deque[bytes] = deque()
        self._reserved_rows = 0
        self._is_failing = False
        self._path, self._descriptor, self._allocated = self._create()
        self._end = 0

    @property
    def unwritten_rows(self) -> int:
        """The number of rows that are only in memory, because writing failed."""
        return len(self._waiting)

    def reserve(self) -> None:
        """Reserve space for the row of one call. Call it before the call is sent.

        Raises:
            SpoolError: There is no space, or earlier rows can't be written.
        """
        if self._waiting and not self._write():
            raise SpoolError(f"{len(self._waiting)} usage rows can't be written to {self._path}")
        try:
            if self._needed() > self._allocated:
                if not os.fstat(self._descriptor).st_nlink:
                    self._rotate()  # a person deleted the file
                if self._needed() > self._allocated:
                    self._allocated = _allocate(self._descriptor, self._allocated, self._needed())
        except OSError as error:
            raise SpoolError(
                f"there is no space for usage rows in {self._folder}: {error.strerror}; free some space, or no call to "
                "a provider can be sent"
            ) from error
        self._reserved_rows += 1

    def _needed(self) -> int:
        """Return the size of the file with the reserved rows and one more."""
        return self._end + (self._reserved_rows + 1) * _ROW_BYTES

    def release(self) -> None:
        """Give back the space of a call that was not sent."""
        self._reserved_rows = max(0, self._reserved_rows - 1)

    def append(self, row: bytes) -> bool:
        """Write the row, and use up one reservation if there is one.

        Args:
            row: The row as `encode_row` or `encode_call` returns it.

        Returns:
            Whether the row survives the end of this process. If not, it is tried again with each further call.
        """
        self.release()
        self._waiting.append(_record(row))
        return self._write()

    def close(self) -> None:
        """Write the remaining rows and give the file to the ledger writer."""
        if not self._write():
            self._failed(f"{len(self._waiting)} usage rows are lost: {self._path} can't be written")
        os.close(self._descriptor)

    def _write(self) -> bool:
        """Write the waiting rows in order. Return whether none is left."""
        waiting = self._waiting
        try:
            while waiting:
                if self._end >= _ROTATE_BYTES:
                    self._rotate()
                record = waiting[0]
                _write_at(self._descriptor, record, self._end)
                self._end += len(record)
                self._allocated = max(self._allocated, self._end)
                waiting.popleft()
        except OSError as error:
            if not self._is_failing:
                self._failed(f"usage rows can't be written to {self._path} and wait in memory: {error.strerror}")
            self._is_failing = True
            return False
        self._is_failing = False
        return True

    def _rotate(self) -> None:
        """Continue in a new file, if there is space for one. The old one has no owner then."""
        with suppress(SpoolError):  # the file can still grow
            path, descriptor, allocated = self._create()
            os.close(self._descriptor)
            self._path, self._descriptor, self._allocated, self._end = path, descriptor, allocated, 0

    def _create(self) -> tuple[Path, int, int]:
        """Create a file that this process owns. Return its path, its descriptor and the size of its space."""
        path = self._folder
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            while True:
                path = self._folder / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}{self._suffix}"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    # The ledger writer may lock and delete an empty file before its owner has locked it.
                    if take(descriptor) and os.fstat(descriptor).st_nlink:
                        return path, descriptor, _allocate(descriptor, 0, (self._reserved_rows + 1) * _ROW_BYTES)
                except BaseException:
                    os.close(descriptor)
                    with suppress(OSError):
                        path.unlink()
                    raise
                os.close(descriptor)
        except OSError as error:
            raise SpoolError(f"{path} can't be used: {error.strerror}; name another state directory") from error


def _record(content: bytes) -> bytes:
    return _HEADER.pack(_MARK, len(content), zlib.crc32(content)) + content


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


def _allocate(descriptor: int, start: int, needed: int) -> int:
    """Fill the file with zeros up to at least `needed`. Return its new size. Raises OSError."""
    size = start + -(-(needed - start) // _GROW_BYTES) * _GROW_BYTES
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, size - start)
    else:  # macOS
        _write_at(descriptor, bytes(size - start), start)
    return size


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """Rows that were read from a spool file.

    Attributes:
        rows: The rows.
        end: The position after them.
        damaged: The ranges of bytes before `end` that are not rows.
    """

    rows: tuple[UsageRow, ...]
    end: int
    damaged: tuple[tuple[int, int], ...] = ()


class SpoolFile:
    """A spool file that is open for reading.

    Attributes:
        name: The name of the file. It is never used again for another file.
        is_recovered: Whether its rows are of calls that another process left open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self.is_recovered = path.suffix == _RECOVERED_SUFFIX
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._is_abandoned = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def take(self) -> bool:
        """Return whether the file has no owner any more, so that nothing is added to it."""
        self._is_abandoned = self._is_abandoned or take(self._descriptor)
        return self._is_abandoned

    def delete(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def keep_damaged(self) -> Path:
        """Give the file a second name, under which it is kept when it is deleted. Return that path."""
        kept = self._path.with_name(self.name + _DAMAGED_SUFFIX)
        with suppress(FileExistsError):
            try:
                os.link(self._path, kept)
            except FileExistsError:
                raise
            except OSError:  # the file system has no hard links
                shutil.copyfile(self._path, kept)
        return kept

    def read(self, position: int) -> SpoolBatch:
        """Return the next rows from the position on. There are none if `end` is the position. Raises StateError."""
        try:
            return self._read(position)
        except OSError as error:
            raise StateError(f"{self._path} can't be read: {error.strerror}") from error

    def _read(self, position: int) -> SpoolBatch:
        if not self._is_abandoned and os.pread(self._descriptor, len(_UNUSED), position) in (_UNUSED, b""):
            return SpoolBatch((), position)
        first = os.pread(self._descriptor, _FIRST_READ_BYTES, position)
        rows, offset = _rows_from(first)
        if first[offset : offset + len(_UNUSED)] == _UNUSED and not self._is_abandoned:
            return SpoolBatch(tuple(rows), position + offset)
        data = os.pread(self._descriptor, _READ_BYTES, position)
        is_last = len(data) < _READ_BYTES
        damaged: list[tuple[int, int]] = []
        while is_last or offset + _MOST_RECORD_BYTES <= len(data):
            found = _row_at(data, offset)
            if found is None:
                if data[offset : offset + 4] == _UNUSED and not self._is_abandoned:
                    break
                later = self._next_record(position + offset)
                if later is None:
                    if self._is_abandoned and _is_damaged(data, offset):
                        damaged.append((position + offset, position + len(data)))
                        offset = len(data)
                    break
                if _row_at(os.pread(self._descriptor, _MOST_RECORD_BYTES, position + offset), 0) is None:
                    damaged.append((position + offset, later))
                    offset = later - position
                # Otherwise the record was still being written when it was first read.
                break
            row, offset = found
            rows.append(row)
        return SpoolBatch(tuple(rows), position + offset, tuple(damaged))

    def _next_record(self, position: int) -> int | None:
        """Return the position of the next valid record after this position, or None."""
        position += 1
        while data := os.pread(self._descriptor, _READ_BYTES, position):
            offset = data.find(_MARK)
            while offset >= 0:
                if _row_at(os.pread(self._descriptor, _MOST_RECORD_BYTES, position + offset), 0) is not None:
                    return position + offset
                offset = data.find(_MARK, offset + 1)
            if len(data) < _READ_BYTES:
                break
            position += len(data) - len(_MARK) + 1
        return None


def _rows_from(data: bytes) -> tuple[list[UsageRow], int]:
    """Return the rows at the beginning, and the offset after them."""
    rows: list[UsageRow] = []
    offset = 0
    while (found := _row_at(data, offset)) is not None:
        row, offset = found
        rows.append(row)
    return rows, offset


def _row_at(data: bytes, offset: int) -> tuple[UsageRow, int] | None:
    """Return the row at this offset, and the offset after it, or None if there is no complete valid record."""
    start = offset + _HEADER.size
    if len(data) < start:
        return None
    mark, length, checksum = _HEADER.unpack_from(data, offset)
    if mark != _MARK or length > _MOST_RECORD_BYTES - _HEADER.size:
        return None
    content = data[start : start + length]
    if len(content) < length or zlib.crc32(content) != checksum:
        return None
    try:
        return decode_row(content), start + length
    except ValueError:
        return None


def _is_damaged(data: bytes, offset: int) -> bool:
    """Return whether the rest of an abandoned file is neither unused space nor an incomplete last record.

    A record that was not written completely ends with zeros, and a complete one does not.
    """
    rest = data[offset:]
    if not rest.strip(b"\0"):
        return False
    if rest[: len(_MARK)] != _MARK[: len(rest)] or len(rest) < _HEADER.size:
        return len(rest.rstrip(b"\0")) >= _HEADER.size
    end = _HEADER.size + _HEADER.unpack_from(rest)[1]
    return end > _MOST_RECORD_BYTES or bool(rest[end - 1 :].strip(b"\0"))


def has_spool(directory: Path) -> bool:
    """Return whether a state directory has spool files."""
    with suppress(OSError):
        return any(name.endswith((_SUFFIX, _RECOVERED_SUFFIX)) for name in os.listdir(directory / FOLDER))
    return False


def spool_files(directory: Path, opened: Mapping[str, SpoolFile], *, recovered: bool) -> Iterator[SpoolFile]:
    """Open and yield the spool files of one kind, oldest first, except those that are open already. Raises OSError."""
    folder = directory / FOLDER
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    suffix = _RECOVERED_SUFFIX if recovered else _SUFFIX
    for name in sorted(name for name in names if name.endswith(suffix)):
        if name not in opened:
            with suppress(FileNotFoundError):  # the ledger writer deleted it after it was listed
                yield SpoolFile(folder / name)


def batches(file: SpoolFile, position: int) -> Iterator[SpoolBatch]:
    """Yield everything in the file from the position on. Raises StateError."""
    while (batch := file.read(position)).end != position:
        yield batch
        position = batch.end
