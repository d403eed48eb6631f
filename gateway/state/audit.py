"""The audit trail: one JSON line for each action of an operator or of the gateway, chained by hashes.

Each line contains the hash of the line before it, and its own hash over that and its content. A line that is changed,
removed or moved breaks the chain from there on. A truncated end is detected by the head, which is the number and the
hash of the last line: the history stores it, and the log has it with each line's event.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from gateway.files import is_file_at, open_file
from gateway.operator_errors import StateError, moved_error
from gateway.state.history import BEGINNING, TrailHead
from gateway.state.lock import take
from gateway.undo import undone_on_failure
from providers.value import Value

_FILE = "audit.jsonl"
_MOST_LINE_BYTES = 4 * 1024 * 1024
_OWN = ("number", "at", "event", "previous", "hash")
_SWITCHES = frozenset({"activated", "rolled_back", "reloaded"})
_OF_A_SWITCH = _SWITCHES | {"kill_switch"}
_OF_A_BLOCK = frozenset({"key_blocked", "key_unblocked"})
_LOST_HASH = frozenset({*_OWN, "key", "client", "who", "how", "changed_at"})
"""The members of a line in which 1.0.0 counted the hash of a key as `hash`, and then wrote the line's own in its place.

Such a line has its `hash` before `previous`. The hash of the key is looked for in the stored versions.
"""
_SHA256 = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", re.ASCII)


class Fault(Value, frozen=True):
    """An invalid line (by its position from 1), and the reason."""

    line: int
    reason: str


class TrailVerdict(Value, frozen=True):
    """The result of verifying the whole trail."""

    lines: int
    head: TrailHead
    """The last line that can be read."""
    faults: tuple[Fault, ...] = ()
    """Each invalid line, in order."""
    unconfirmed: tuple[int, ...] = ()
    """See the function of that name."""
    chained: tuple[int, ...] = ()
    """The lines of 1.0.0 (`_LOST_HASH`) whose key is not known: only their place in the chain is verified."""

    def findings(self) -> Iterator[str]:
        """Yield a sentence for each fault."""
        return (f"line {fault.line} {fault.reason}" for fault in self.faults)


def unconfirmed(after: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
    """Return the numbers of the last lines that describe a switch, among those `after` the known head.

    A switch is confirmed by storing the head, after its lines. If a full disk or the end of the process prevented that,
    the new version was never served although its lines exist.
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
    """Return the lines after the known one, as far as they can be read."""
    lines_after: list[Mapping[str, object]] = []
    for data in reversed(lines):
        head, line = _head_of(data), _read(data + b"\n")
        if head is None or line is None or head.number <= known.number:
            break
        lines_after.append(line)
    return lines_after[::-1]


def path_of(directory: Path) -> Path:
    """Return the path of the trail in a state directory."""
    return directory / _FILE


class Audit:
    """Appends lines to the trail. There is one writer for a directory at a time.

    It holds a lock on the trail itself in addition to the directory's lock file, which an operator may delete as stale.
    Two writers would break the chain.

    Attributes:
        head: The last line.
        repair: The repair of the file's end that was necessary at the start, as a sentence. Empty if there was none.
        unconfirmed: The lines of a switch that was never completed.

    Args:
        known: The head that the history has.
    """

    def __init__(self, directory: Path, known: TrailHead) -> None:
        self._path = path_of(directory)
        self.head, self.repair = known, ""
        self.unconfirmed: tuple[int, ...] = ()
        self._torn_at: int | None = None
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with undone_on_failure(partial(os.close, self._descriptor)):
                if not take(self._descriptor):
                    raise StateError(
                        f"{self._path} is written by another gateway, whose gateway.lock is gone: stop it first"
                    )
                self._find_head(known)
        except OSError as error:
            raise StateError(f"{self._path} can't be used: {error.strerror}") from error

    def _find_head(self, known: TrailHead) -> None:
        """Find the head to continue from.

        An incomplete last line, as a power failure leaves one, was never acted on and is removed. Missing lines at the
        end are not hidden: the next line is chained to the known head, so that the gap shows.
        """
        size = os.fstat(self._descriptor).st_size
        data = os.pread(self._descriptor, _MOST_LINE_BYTES, max(0, size - _MOST_LINE_BYTES))
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, size - len(torn))
            self.repair = f"removed {len(torn)} bytes of an incomplete last line"
        last = _head_of(whole.rpartition(b"\n")[2]) if whole else BEGINNING
        if last is None or last.number < known.number:
            details = f"its last line is {last.number}" if last is not None else "its last line can't be read"
            self.repair = f"line {known.number} should exist, but {details}: run `gateway audit verify`"
            return
        self.head = last
        if known != BEGINNING:  # a new history knows no head
            self.unconfirmed = unconfirmed(_after(whole.split(b"\n"), known))

    def append(self, event: str, at: datetime, fields: Mapping[str, object]) -> TrailHead:
        """Write one line, wait until it is on the disk, and return the new head. Raises StateError.

        Raises ValueError for a field with a name that each line has: the line would not match its own hash.
        """
        if not fields.keys().isdisjoint(_OWN):
            raise ValueError(f"the entry {event!r} must not have the fields {sorted(fields.keys() & {*_OWN})}")
        number, previous = self.head.number + 1, self.head.hash
        content = {**fields, "number": number, "at": at.isoformat(timespec="milliseconds"), "event": event}
        line = {**content, "previous": previous}
        line["hash"] = _hash(line)
        ordered = {name: line[name] for name in (*_OWN[:3], *fields, *_OWN[3:])}
        data = _encode(ordered)
        try:
            if not is_file_at(self._path, os.fstat(self._descriptor)):
                raise moved_error(self._path)
            self._write(data)
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from error
        self.head = TrailHead(number, str(line["hash"]))
        return self.head

    def _write(self, data: bytes) -> None:
        """Write all of the data or nothing. If a partial line cannot be removed, the next write removes it first."""
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
        """Close the file."""
        os.close(self._descriptor)


class AuditLine(Value, frozen=True):
    """A line of an audit trail as it is in the file, with its position from 1, and its hash."""

    number: int
    hash: str
    data: bytes


class TrailReader:
    """Reads the lines of a trail, and continues where it has read last."""

    def __init__(self, directory: Path) -> None:
        self._path = path_of(directory)
        self._number = self._offset = 0

    def after(self, number: int, limit: int) -> list[AuditLine]:
        """Return at most this many lines after a number. Raises StateError."""
        if number < self._number:
            self._number = self._offset = 0
        lines: list[AuditLine] = []
        try:
            with open_file(self._path) as file:
                file.seek(self._offset)
                while len(lines) < limit and (data := file.readline(_MOST_LINE_BYTES)).endswith(b"\n"):
                    self._number, self._offset = self._number + 1, self._offset + len(data)
                    if self._number > number:
                        head = _head_of(data)
                        lines.append(AuditLine(self._number, head.hash if head is not None else "", data))
        except OSError as error:
            raise StateError(f"{self._path} can't be read: {error.strerror}") from error
        return lines


def key_hashes(texts: Iterable[bytes | None]) -> frozenset[str]:
    """Return the SHA-256 (hex) of each key in the texts of stored versions."""
    return frozenset(
        found for text in texts for found in _SHA256.findall((text or b"").decode("utf-8", "replace").lower())
    )


def verify_trail(
    directory: Path, heads: Mapping[str, TrailHead | str], keys: Collection[str] = frozenset()
) -> TrailVerdict:
    """Verify the whole trail against the known heads, of which one may be a hash only, by the name of their source.

    `keys` are the hashes of keys that lines of 1.0.0 may name. Raises StateError if the trail cannot be read.
    """
    try:
        return verify_lines(_lines(path_of(directory)), heads, keys)
    except FileNotFoundError:
        return verify_lines((), heads)
    except OSError as error:
        raise StateError(f"{path_of(directory)} can't be read: {error.strerror}") from error


def verify_lines(
    lines: Iterable[bytes], heads: Mapping[str, TrailHead | str], keys: Collection[str] = frozenset()
) -> TrailVerdict:
    """Verify all lines of a trail. See `verify_trail`. After a fault, each line is compared with the previous line."""
    hashes = {
        source: head.hash if isinstance(head, TrailHead) else head
        for source, head in heads.items()
        if head != BEGINNING
    }
    confirmed = max((head.number for head in heads.values() if isinstance(head, TrailHead)), default=0)
    last, missing = BEGINNING, dict(hashes)
    after: list[Mapping[str, object]] = []
    faults: list[Fault] = []
    chained: list[int] = []
    count = 0
    for count, data in enumerate(lines, 1):
        line = _read(data)
        proof = _is_proved(line, keys) if line is not None else False
        if (reason := _fault_of(data, line, last, proof)) is not None:
            faults.append(Fault(count, reason))
        elif proof is None:
            chained.append(count)
        last = _head_of(data) or last
        missing = {source: known for source, known in missing.items() if known != last.hash}
        if 0 < confirmed < last.number:
            after.append({"number": (line or {}).get("number"), "event": (line or {}).get("event")})
    for source, known in missing.items():
        head = heads[source]
        which = f"line {head.number}" if isinstance(head, TrailHead) else "a line"
        reason = f"the trail ends here, but {source} has {which} with the hash {known}: the end is missing"
        faults.append(Fault(count + 1, reason))
    return TrailVerdict(count, last, tuple(faults), () if faults else unconfirmed(after), tuple(chained))


def _lines(path: Path) -> Iterator[bytes]:
    with open_file(path) as file:
        while data := file.readline(_MOST_LINE_BYTES):
            yield data


def _fault_of(data: bytes, line: Mapping[str, object] | None, last: TrailHead, proof: bool | None) -> str | None:
    """Return why this line is not the next one of the chain, or None if it is. For `proof` see `_is_proved`."""
    if line is None:
        return "is not a line of the trail" if data.endswith(b"\n") else "is incomplete"
    if proof is False:
        return "was changed: its hash does not match"
    if data != _encode(line):
        return "was changed: its format is not the gateway's"
    if line.get("number") != last.number + 1:
        return f"has the number {line.get('number')}: a line was removed, inserted or moved"
    if line.get("previous") != last.hash:
        return "does not follow the line before it"
    return None


def _is_proved(line: Mapping[str, object], keys: Collection[str]) -> bool | None:
    """Return whether the hash of a line is that of its content; None if it counted a key that is not known."""
    content = {name: value for name, value in line.items() if name != "hash"}
    if line.get("hash") == _hash(content):
        return True
    match [*line], line:
        case [*_, "previous"], {"event": str(event), "key": str(key), "hash": str(digest)} if event in _OF_A_BLOCK:
            known = [one for one in keys if one.startswith(key)]
            if line.keys() <= _LOST_HASH and not known:
                return None
            return line.keys() <= _LOST_HASH and any(
                digest == _hash({**content, "hash": f"sha256:{one}"}) for one in known
            )
    return False


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
    """Return the line as it is written. A repeated key is read only once, so the hash alone would not show it."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _hash(line: Mapping[str, object]) -> str:
    """Return the hash of a line without its own hash. The hash of the previous line is part of it."""
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
