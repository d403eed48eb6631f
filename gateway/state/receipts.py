"""Build receipts from records, store them in SQLite, and find them."""

from __future__ import annotations

import hmac
import json
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from gateway.free_space import RESERVED, Measure, free_space_of, is_reserved
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan
from gateway.model.kept_metadata import StoredRequest, may_keep
from gateway.model.record import ABANDONED, AttemptRecord, Record
from gateway.model.sampling import is_kept, is_sampled
from gateway.operator_errors import ReceiptDamaged, StateError
from gateway.public_names import names_in, with_rows_of_features
from gateway.state.database import (
    describe_damage,
    describe_error,
    layout_of,
    open_database,
    open_large_to_read,
    open_to_read,
    sqlite_error,
    transaction,
)
from gateway.state.generated_key import RECEIPT_KEY, generated_key
from providers.failures import FailureKind
from providers.json_values import JsonError, dumps_text, loads, repair_escapes, repair_surrogates
from providers.territories import territory_data

_VERSION = 1
_MICROS = 1_000_000
_SEAL_BYTES = 16
_SEAL_FORM = "2"
_NAME = "receipts"
_LAYOUT = layout_of(__file__)
_INSERT = "INSERT INTO receipt (id, client, at_s, content, seal) VALUES (?, ?, ?, ?, ?)"
_MOST_WAITING = 20_000
_MOST_AT_ONCE = 500
_WRITE_S = 0.05
"""With the 0.05 s for which finished requests are collected, a kill loses at most 0.1 s."""
_SWEEP_S = 600.0
_SWEPT_AT_ONCE = 5_000
_PAGE = 1_000
_NO_NOTES = dict.fromkeys(names_in(with_rows_of_features("receipt_fields", {}, is_sorted=True)))
"""The members of features, for a request with which none of them did anything."""
_NO_CLIENT = ""


def receipt_of(record: Record, ended_at_s: float, cell: str | None, share: float = 1.0) -> dict[str, object] | None:
    """Return the receipt of a finished request as JSON data, or None if no receipt may be stored.

    There is no receipt if the region is unknown, if this cell may not keep it (`may_keep`), if the sample leaves it
    out, or if a limit of the client refused the request before it was read.

    `ended_at_s` is Unix time, `cell` the territory of the gateway if the config states it, and `share` (0 to 1) the
    share of successful requests whose receipt is kept.
    """
    decided, shown, by = record.decided, record.shown, record.answered_by
    location = decided.location
    if not is_kept(record, share) or (shown.code == "rate_limited" and decided.assistant is None):
        return None
    if location is None or (region := location.region) is None or not may_keep(location, cell):
        return None
    stores, processes = by.places or (None, None)
    dropped = record.named_dropped
    return {
        "version": _VERSION,
        "id": record.request_id,
        "at": shown_time(ended_at_s),
        "client": record.client,
        "assistant": decided.assistant,
        "use": decided.use,
        "transport": record.transport,
        "region": region.name,
        "territory": location.territory,
        "evidence": location.why,
        "boundary": str(region.bounds_of(location.territory)),
        "gateway": cell,
        "config_version": record.config_version,
        "outcome": record.outcome,
        "status": shown.status,
        "code": shown.code,
        "answered_by": by.deployment,
        "stores": stores,
        "processes": processes,
        "tried": _tried(record),
        **(_notes(record) if record.notes else _NO_NOTES),
        "passed_over": record.passed_over,
        "resumed_after": record.resumed.broken if record.resumed is not None else None,
        "consent": str(record.consent) if record.consent is not None else None,
        "side": decided.variant,
        "dropped": dropped,
        "dropped_unknown": len(shown.dropped) - len(dropped),
        "labels": list(shown.labels),
        "repeated": shown.repeated,
        "marked": shown.marked,
        "profile": decided.profile,
        "intent": decided.intent,
        "preference": decided.preference.fields(by.deployment) if decided.preference is not None else None,
        "hand_off": decided.hand_off.fields() if decided.hand_off is not None else None,
        "emulated": sorted(shown.emulated),
        "redacted": note.fields() if (note := record.redaction) is not None else None,
        "moderation": record.moderation.fields() if record.moderation is not None else None,
        "judges": _judges(record) if record.judges else [],
        "age_band": location.age_band,
        "sample": share if is_sampled(record, share) else 1.0,
    }


def shown_time(at_s: float) -> str:
    """Return a Unix time as `isoformat` writes it in UTC with milliseconds."""
    fraction, whole = math.modf(at_s)
    second, micros = divmod(int(whole) * _MICROS + round(fraction * _MICROS), _MICROS)
    return f"{_second(second)}.{micros // 1000:03d}+00:00"


@lru_cache(maxsize=4)
def _second(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%S}"


def _tried(record: Record) -> list[dict[str, object]]:
    """Return every deployment that was sent the prompt, completely or in part, in order."""
    reveal_model = _reveals_model(record)
    sent = (*record.sent, *record.abandoned)
    return [_attempt(attempt, _outcome(attempt, record), reveal_model=reveal_model) for attempt in sent]


def _judges(record: Record) -> list[dict[str, object]]:
    """Return each deployment that was sent a text of the request or of its answer for a verdict."""
    return [_attempt(attempt, attempt.outcome, reveal_model=_reveals_model(record)) for attempt in record.judges]


def _notes(record: Record) -> dict[str, object]:
    """Return the members of features, null for those that did nothing."""
    recipient = partial(_recipient, reveal_model=_reveals_model(record))
    return _NO_NOTES | {name: it for note in record.notes for name, it in note.receipt_members(recipient).items()}


def _reveals_model(record: Record) -> bool:
    decision = record.decided.decision
    if decision is None:
        return record.decided.reveal_model
    return not isinstance(decision.outcome, Plan) or decision.outcome.assistant.reveal_model


def _outcome(attempt: AttemptRecord, record: Record) -> str:
    """Return the outcome of an attempt. That an answer broke off or was abandoned is known only from the record."""
    if attempt.outcome != "ok":
        return attempt.outcome
    if record.outcome == "interrupted":
        return FailureKind.INTERRUPTED
    # A JSON answer had arrived completely before any of it was sent to the client.
    return ABANDONED if record.outcome == "cancelled" and record.stream else "ok"


def _attempt(attempt: AttemptRecord, outcome: str, *, reveal_model: bool) -> dict[str, object]:
    return {**_recipient(attempt, reveal_model=reveal_model), "outcome": str(outcome), **attempt.decision_fields()}


def _recipient(attempt: AttemptRecord, *, reveal_model: bool) -> dict[str, object]:
    stores, processes = attempt.places or (None, None)
    return {
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "model": attempt.model if reveal_model else None,
        "redirected_to": attempt.redirected_to if reveal_model else None,
        "stores": stores,
        "processes": processes,
        "redacted": attempt.redacted.fields() if attempt.redacted is not None else None,
        **({"proxy": attempt.proxy.facts()} if attempt.proxy is not None else {}),
    }


class ReceiptSeals:
    """Makes and checks the seal of a stored receipt: a keyed hash of its text, id, client and time.

    A seal has a hash by the key of the state directory, and one by a key that is derived from the signing key, if there
    is one. Only a receipt with the second one is signed: a reader of the state directory can make the first one.
    """

    def __init__(self, directory_key: bytes, signing_keys: Sequence[bytes] = ()) -> None:
        """Make seals with the first of the signing keys, and accept those of each."""
        self._of_directory, *self._signing = [
            hmac.new(key, digestmod="sha256") for key in (directory_key, *signing_keys)
        ]

    def seal(self, row: tuple[str, str, float, object]) -> str:
        """Return the seal of a row."""
        text = _sealed(row)
        return ".".join([_SEAL_FORM, *[_hash(begun, text) for begun in (self._of_directory, *self._signing[:1])]])

    def check(self, row: tuple[str, str, float, object], seal: object) -> bool:
        """Return whether the receipt may be signed. Raises ReceiptDamaged if it does not match its seal."""
        parts = seal.split(".") if isinstance(seal, str) else []
        if parts[:1] == [_SEAL_FORM]:
            text, parts = _sealed(row), parts[1:]
        else:
            text = _sealed_as_form_1(row)
        first, second = [*parts, "", ""][:2]
        if not hmac.compare_digest(first.encode(), _hash(self._of_directory, text).encode()):
            raise ReceiptDamaged("the stored text, id, client or time of the receipt was changed")
        return not self._signing or any(
            hmac.compare_digest(second.encode(), _hash(begun, text).encode()) for begun in self._signing
        )


def _sealed(row: tuple[str, str, float, object]) -> bytes:
    """Return the bytes whose keyed hashes are the seal, by form 2: the lengths separate id, client and stored text.

    It is defined for every value that SQLite can return, and no JSON library writes a number of it: the next version
    of one may write the same number in another way.
    """
    request_id, client, at_s, content = row
    text = f"receipt 2 {len(request_id)} {len(client)} {at_s!r} {request_id}{client}{content}"
    return text.encode("utf-8", "surrogatepass")


def _sealed_as_form_1(row: tuple[str, str, float, object]) -> bytes:
    """Return the bytes of a seal that does not begin with the number of its form, as receipts had before form 2."""
    return json.dumps(["receipt 1", *row], default=repr).encode()


def _hash(begun: hmac.HMAC, text: bytes) -> str:
    """Return the hash of a text by a key. A copy of a hash that has the key takes less than a new one."""
    one = begun.copy()
    one.update(text)
    return one.digest()[:_SEAL_BYTES].hex()


def find_receipts(directory: Path, request_id: str) -> list[dict[str, object]]:
    """Return all receipts with this id, of any client, oldest first. Blocks. Raises StateError.

    It only reads, so it can run while a gateway serves.
    """
    with closing(open_to_read(directory, _NAME)) as database, sqlite_error("receipts.db can't be read"):
        rows = database.execute(
            "SELECT id, client, at_s, content, seal FROM receipt WHERE id = ? ORDER BY number", (request_id,)
        ).fetchall()
    seals = read_seals(directory) if rows else None
    return [_checked(seals, row)[0] for row in rows if seals is not None]


def oldest_receipt_s(directory: Path) -> float | None:
    """Return the Unix time of the oldest stored receipt, or None if there is none. Blocks. Raises StateError."""
    with closing(open_large_to_read(directory, _NAME)) as database, sqlite_error("receipts.db can't be read"):
        found: float | None = database.execute("SELECT MIN(at_s) FROM receipt").fetchone()[0]
    return found


def receipts_between(directory: Path, since_s: float, until_s: float) -> Iterator[tuple[str, dict[str, object] | None]]:
    """Yield id and receipt of each request that ended in this time, oldest first. A receipt that was changed is None.

    It reads a page at a time, so that any number of receipts needs little memory, and a slow reader does not keep
    SQLite from reusing the space of its log. Blocks. Raises StateError.
    """
    with closing(open_large_to_read(directory, _NAME)) as database:
        seals = read_seals(directory)
        page = (
            "SELECT number, id, client, at_s, content, seal FROM receipt "
            "WHERE (at_s, number) > (?, ?) AND at_s < ? ORDER BY at_s, number LIMIT ?"
        )
        after: tuple[float, int] = since_s, -1
        while True:
            with sqlite_error("receipts.db can't be read"):
                rows = database.execute(page, (*after, until_s, _PAGE)).fetchall()
            for _, *row in rows:
                yield row[0], _unchanged(seals, (row[0], row[1], row[2], row[3], row[4]))
            if len(rows) < _PAGE:
                return
            after = rows[-1][3], rows[-1][0]


def _unchanged(seals: ReceiptSeals, row: tuple[str, str, float, object, object]) -> dict[str, object] | None:
    """Return a stored receipt, or None if it is not the one that was stored.

    Its numbers have less than 64 bits, so it is read by the faster parser: a month may have a million receipts.
    """
    try:
        seals.check(row[:4], row[4])
        receipt = loads(row[3]) if isinstance(row[3], str) else None
    except (ReceiptDamaged, JsonError):
        return None
    return receipt if isinstance(receipt, dict) else None


def receipts_of(directory: Path, requests: Iterable[StoredRequest]) -> list[dict[str, object]]:
    """Return the receipts of these requests of their clients, oldest first. Blocks. Raises StateError."""
    if not (directory / f"{_NAME}.db").exists():
        return []
    wanted: dict[tuple[str, str], list[StoredRequest]] = {}
    for one in requests:
        wanted.setdefault((one.request, one.client or _NO_CLIENT), []).append(one)
    ids = json.dumps([request for request, _ in wanted])
    with closing(open_to_read(directory, _NAME)) as database, sqlite_error("receipts.db can't be read"):
        rows = database.execute(
            "SELECT id, client, at_s, content FROM receipt WHERE id IN (SELECT value FROM json_each(?)) "
            "ORDER BY number",
            (ids,),
        ).fetchall()
    return [_parsed(row[3]) for row in rows if any(one.is_of(row[2]) for one in wanted.get(row[:2], ()))]


def read_seals(directory: Path, signing_keys: Sequence[bytes] = ()) -> ReceiptSeals:
    """Return the seals of a state directory. The first call makes the key. Raises StateError."""
    return ReceiptSeals(generated_key(directory, RECEIPT_KEY), signing_keys)


def _checked(seals: ReceiptSeals, row: tuple[str, str, float, object, object]) -> tuple[dict[str, object], bool]:
    """Return a stored receipt, and whether it may be signed. Raises ReceiptDamaged."""
    receipt = _parsed(row[3])
    return receipt, seals.check(row[:4], row[4])


def _parsed(content: object) -> dict[str, object]:
    try:
        receipt = json.loads(content) if isinstance(content, str) else None
    except (ValueError, RecursionError):
        receipt = None
    if not isinstance(receipt, dict):
        raise ReceiptDamaged(f"receipts.db can't be read: {describe_damage('a row is not a receipt')}")
    return receipt


def prepare(directory: Path) -> None:
    """Create the database and the key of its seals before several processes open it. Raises StateError."""
    read_seals(directory)
    with closing(open_database(directory, _NAME, _LAYOUT)) as database, sqlite_error("receipts.db can't be read"):
        if "seal" not in {row[1] for row in database.execute("PRAGMA table_info(receipt)")}:
            raise StateError("receipts.db is of release 0.1: start release 0.2 with it first, or move it away")


class Receipts:
    """Stores and finds receipts of one process. Methods raise StateError.

    `failed` is called with a message if receipts are lost. `signing_keys` are secrets that are derived from the
    versions of the key that signs receipts, the newer one first. `clock` returns Unix time, and `measure` the free
    space: receipts wait while what is left is for usage rows.
    """

    def __init__(
        self,
        directory: Path,
        current: Callable[[], ConfigVersion],
        failed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        signing_keys: Sequence[bytes] = (),
        measure: Measure = free_space_of,
    ) -> None:
        prepare(directory)
        self._is_reserved = partial(is_reserved, directory, measure)
        self._seals = read_seals(directory, signing_keys)
        # Two counters, because two threads count: `take` and the writer.
        self._too_many = 0
        self._unwritten = 0
        self._current = current
        self._failed = failed
        self._clock = clock
        self._waiting: deque[tuple[Record, float]] = deque()
        self._writer = open_database(directory, _NAME, _LAYOUT)
        self._reader = open_database(directory, _NAME, _LAYOUT)
        # Building a receipt reads these facts. Read them now: file descriptors may be short later.
        territory_data()
        self._reading = threading.Lock()
        self._ended = threading.Event()
        self._swept_at = -math.inf
        self._is_failing = False
        self._is_closed = False
        self._reported = 0
        self._is_too_slow = False
        self._thread = threading.Thread(target=self._work, name="receipts", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """The number of receipts that were not stored: they came too fast or after the end, or the disk failed."""
        # `take` does not lock, so receipts that arrive after the writer's last turn are counted in the queue.
        return self._too_many + self._unwritten + (len(self._waiting) if self._is_closed else 0)

    @property
    def waiting(self) -> int:
        """The number of receipts that are not stored yet."""
        return len(self._waiting)

    def take(self, record: Record) -> None:
        """Queue the receipt of this finished request, unless it is a warm-up. Neither raises nor waits."""
        if record.websocket is not None and record.websocket.is_warm_up:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._too_many += 1
            return
        self._waiting.append((record, self._clock()))

    def find(self, request_id: str, client: str | None) -> tuple[dict[str, object], bool] | None:
        """Return the client's latest receipt with this id, and whether it may be signed; None without one. Blocks.

        Raises StateError, and ReceiptDamaged for a receipt that is not the stored one.
        """
        with self._reading, sqlite_error("receipts.db can't be read"):
            row = self._reader.execute(
                "SELECT id, client, at_s, content, seal FROM receipt WHERE id = ? AND client = ? "
                "ORDER BY number DESC LIMIT 1",
                (request_id, client or _NO_CLIENT),
            ).fetchone()
        return _checked(self._seals, row) if row is not None else None

    def close(self) -> None:
        """Write the queued receipts and close the files. Blocks."""
        self._ended.set()
        self._thread.join()
        self._is_closed = True
        with self._reading:
            self._reader.close()
        self._writer.close()

    def _work(self) -> None:
        while not self._ended.wait(_WRITE_S):
            self._write()
            self._report_too_many()
            self._sweep()
        self._write()
        # No later turn follows, so the receipts that wait for one are lost.
        self._unwritten += len(self._waiting)
        self._waiting.clear()
        self._report_too_many()

    def _write(self) -> None:
        """Write the receipts that wait. If that fails, they wait for the next turn, until there are too many."""
        while self._waiting:
            if self._is_reserved():
                self._report(f"receipts.db is not written, and up to {_MOST_WAITING} receipts wait: {RESERVED}")
                return
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
            built, rows = self._built(taken)
            try:
                with transaction(self._writer):
                    self._writer.executemany(_INSERT, rows)
            except sqlite3.Error as error:
                self._waiting.extendleft(reversed(built))
                effect = f"up to {_MOST_WAITING} receipts wait until this is fixed"
                self._report(f"receipts.db can't be written, and {effect}: {describe_error(error)}")
                return
            except Exception as error:  # the thread must not end, or all later receipts would be lost
                self._unwritten += len(built)
                self._report(f"receipts can't be written, and are lost: {_kind_of(error)}")
            else:
                self._is_failing = len(built) < len(taken)

    def _built(self, taken: list[tuple[Record, float]]) -> tuple[list[tuple[Record, float]], list[tuple[object, ...]]]:
        """Return the records whose receipts could be built, and the rows of their receipts."""
        config = self._current()
        built: list[tuple[Record, float]] = []
        rows: list[tuple[object, ...]] = []
        for record, at_s in taken:
            try:
                row = _row(record, at_s, config.cell_territory, config.receipts.sample)
            except Exception as error:  # as above
                self._unwritten += 1
                self._report(f"a receipt can't be built, and is lost: {_kind_of(error)}")
                continue
            built.append((record, at_s))
            if row is not None:
                rows.append((*row, self._seals.seal(row)))
        return built, rows

    def _report(self, problem: str) -> None:
        """Report a problem, unless it follows another one."""
        if not self._is_failing:
            self._failed(problem)
        self._is_failing = True

    def _report_too_many(self) -> None:
        """Report once that receipts are lost, until none is lost any more."""
        more, self._reported = self._too_many - self._reported, self._too_many
        if more and not self._is_too_slow:
            self._failed("receipts arrive faster than they can be written, and some are lost")
        self._is_too_slow = more > 0

    def _sweep(self) -> None:
        """Delete receipts that are older than the config allows, a limited number at a time."""
        if time.monotonic() - self._swept_at < _SWEEP_S:
            return
        oldest_s = self._clock() - self._current().receipts.keep_s
        try:
            dropped = self._writer.execute(
                "DELETE FROM receipt WHERE number IN (SELECT number FROM receipt WHERE at_s < ? LIMIT ?)",
                (oldest_s, _SWEPT_AT_ONCE),
            ).rowcount
        except sqlite3.Error as error:
            self._failed(f"old receipts can't be dropped from receipts.db: {describe_error(error)}")
            dropped = 0
        if dropped < _SWEPT_AT_ONCE:
            self._swept_at = time.monotonic()


def _row(record: Record, at_s: float, cell: str | None, share: float) -> tuple[str, str, float, str] | None:
    receipt = receipt_of(record, at_s, cell, share)
    if receipt is None:
        return None
    content, _ = repair_escapes(dumps_text(receipt), last=True)
    # SQLite stores no half of a surrogate pair, and the other receipts of the transaction would be lost with it.
    return repair_surrogates(record.request_id), repair_surrogates(record.client or _NO_CLIENT), at_s, content


def _kind_of(error: Exception) -> str:
    """Return the kind of an error, without its text, which may quote a request."""
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
