"""The audit trail: one line of JSON for each thing that an operator or the gateway did, chained by hashes.

Each line has the hash of the one before it, and its own over that and its content: a line that is changed, taken out or
put elsewhere breaks the chain from there on. That the end was cut off is seen by the head: the number and hash of the
last line, which `heads` keeps elsewhere, and which every line's event in the log has too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.files import open_file, stands_at
from gateway.operator_errors import StateError, moved
from gateway.state.lock import take

_FILE = "audit.jsonl"
_MOST_LINE_BYTES = 4 * 1024 * 1024
_OWN = ("number", "at", "event", "previous", "hash")
_SWITCHES = frozenset({"activated", "rolled_back", "reloaded"})
_OF_A_SWITCH = _SWITCHES | {"kill_switch"}


@dataclass(frozen=True, slots=True)
class TrailHead:
    """The last line: its number (from 1) and its hash."""

    number: int
    hash: str


BEGINNING = TrailHead(0, "0" * 64)
"""What the first line is chained to."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first line that is not as it was written (from 1), and what is wrong there."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class TrailVerdict:
    """What reading the whole trail showed. unconfirmed: see `unconfirmed`."""

    lines: int
    head: TrailHead
    fault: Fault | None = None
    unconfirmed: tuple[int, ...] = ()


def unconfirmed(after: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
    """The numbers of the lines at the end that tell of a switch, among those `after` the head that is known.

    A switch is confirmed with that head, after its lines: one that a full disk or the end of the process came between
    was never served, though its lines are there.
    """
    numbers: list[int] = []
    for line in reversed(after):
        match line:
            case {"event": str(event), "number": int(number)} if event in _OF_A_SWITCH:
                numbers.append(number)
                if event in _SWITCHES:
                    return tuple(reversed(numbers))
            case _:
                break
    return ()


def _after(lines: Sequence[bytes], known: TrailHead) -> list[Mapping[str, object]]:
    """The lines behind the one that is known, as far as they can be read."""
    found: list[Mapping[str, object]] = []
    for data in reversed(lines):
        head, line = _head_of(data), _read(data + b"\n")
        if head is None or line is None or head.number <= known.number:
            break
        found.append(line)
    return found[::-1]


def path_of(directory: Path) -> Path:
    """Where the trail of a state directory is."""
    return directory / _FILE


class Audit:
    """The writer; there is one at a time for a directory, which holds its lock, and that of the trail itself: somebody
    may take the other file for a stale one, and two writers would break the chain.

    known: the head that was kept elsewhere. mended: what had to be done to the end of the file before going on, in
    words; empty if nothing. unconfirmed: the lines of a switch that was never finished.
    """

    def __init__(self, directory: Path, known: TrailHead) -> None:
        self._path = path_of(directory)
        self.head, self.mended = known, ""
        self.unconfirmed: tuple[int, ...] = ()
        self._torn_at: int | None = None
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if not take(self._descriptor):
                    raise StateError(
                        f"{self._path} is written by another gateway, whose gateway.lock is gone: stop it first"
                    )
                self._find_head(known)
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as error:
            raise StateError(f"{self._path} can't be used: {error.strerror}") from error

    def _find_head(self, known: TrailHead) -> None:
        """Where to go on. A line that was never finished, as a loss of power leaves one, was never told of: it goes. An
        end that is missing stays missing: what follows is chained to the head that is known, so that it shows."""
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, _MOST_LINE_BYTES, max(0, size - _MOST_LINE_BYTES))
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, size - len(torn))
            self.mended = f"{len(torn)} bytes of a line that was never finished were removed"
        last = _head_of(whole.rpartition(b"\n")[2]) if whole else BEGINNING
        if last is None or last.number < known.number:
            told = f"its last line is {last.number}" if last is not None else "its last line can't be read"
            self.mended = f"line {known.number} is known to have been written, and {told}: `gateway audit verify`"
            return
        self.head = last
        if known != BEGINNING:  # a history that is new knows of nothing
            self.unconfirmed = unconfirmed(_after(whole.split(b"\n"), known))

    def append(self, event: str, at: datetime, fields: Mapping[str, object]) -> TrailHead:
        """Write one line, and wait until it is on the disk; the new head. Raises StateError."""
        number, previous = self.head.number + 1, self.head.hash
        content = {**fields, "number": number, "at": at.isoformat(timespec="milliseconds"), "event": event}
        line = {**content, "previous": previous}
        line["hash"] = _hash(line)
        ordered = {name: line[name] for name in (*_OWN[:3], *fields, *_OWN[3:])}
        data = _encode(ordered)
        try:
            if not stands_at(self._path, os.fstat(self._descriptor)):
                raise moved(self._path)
            self._write(data)
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from error
        self.head = TrailHead(number, str(line["hash"]))
        return self.head

    def _write(self, data: bytes) -> None:
        """All of it or nothing. Where not even a part can be taken away again, the next line begins with that."""
        if self._torn_at is not None:
            os.ftruncate(self._descriptor, self._torn_at)
        self._torn_at = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._torn_at)
            self._torn_at = None
            raise
        self._torn_at = None

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


def verify_trail(directory: Path, heads: Mapping[str, TrailHead | str]) -> TrailVerdict:
    """Read the whole trail. heads: what is known of it, by who knows: a head, or the hash alone; raises StateError."""
    wanted = {
        who: head.hash if isinstance(head, TrailHead) else head for who, head in heads.items() if head != BEGINNING
    }
    confirmed = max((head.number for head in heads.values() if isinstance(head, TrailHead)), default=0)
    last, missing = BEGINNING, dict(wanted)
    after: list[Mapping[str, object]] = []
    count = 0
    try:
        for count, data in enumerate(_lines(path_of(directory)), 1):
            fault = _check(data, count, last)
            if fault is not None:
                return TrailVerdict(count, last, Fault(count, fault))
            last = _head_of(data) or last
            missing = {who: known for who, known in missing.items() if known != last.hash}
            if 0 < confirmed < last.number:
                line = _read(data) or {}
                after.append({"number": line.get("number"), "event": line.get("event")})
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StateError(f"{path_of(directory)} can't be read: {error.strerror}") from error
    for who, known in missing.items():
        told = heads[who]
        which = f"line {told.number}" if isinstance(told, TrailHead) else "a line"
        reason = f"the trail ends here, and {who} knows of {which} with the hash {known}: the end is missing"
        return TrailVerdict(count, last, Fault(count + 1, reason))
    return TrailVerdict(count, last, unconfirmed=unconfirmed(after))


def _lines(path: Path) -> Iterator[bytes]:
    with open_file(path) as file:
        while data := file.readline(_MOST_LINE_BYTES):
            yield data


def _check(data: bytes, number: int, last: TrailHead) -> str | None:
    """Why this line is not the next one of the chain; None if it is."""
    line = _read(data)
    if line is None:
        return "is no line of the trail" if data.endswith(b"\n") else "was never finished"
    if line.get("hash") != _hash({name: value for name, value in line.items() if name != "hash"}):
        return "was changed: its hash is of something else"
    if data != _encode(line):
        return "was changed: it is not written as the gateway writes it"
    if line.get("number") != number:
        return f"has the number {line.get('number')}: a line was taken out, put in or moved"
    if line.get("previous") != last.hash:
        return "doesn't follow the line before it"
    return None


def _read(data: bytes) -> dict[str, object] | None:
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and data.endswith(b"\n") else None


def _head_of(data: bytes) -> TrailHead | None:
    line = _read(data if data.endswith(b"\n") else data + b"\n")
    match line:
        case {"number": int(number), "hash": str(digest)}:
            return TrailHead(number, digest)
    return None


def _encode(line: Mapping[str, object]) -> bytes:
    """A line as it is written. A name that stands in it twice is read once: the hash alone wouldn't show the other."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _hash(line: Mapping[str, object]) -> str:
    """Over the canonical JSON of a line without its hash; the hash of the line before is a part of it."""
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
