"""The gate of one machine, and its usage rows that are not in the ledger yet: one file of LMDB that all processes map.

Theory of operation:

- Operations that meet share a transaction (`journal_queue`). Each of them is done whole or not at all, and is answered
  after the commit.
- A transaction is under the lock of the file (flock), which the kernel releases when its process ends. It takes some
  microseconds for an operation and never waits. If the lock is not free, the event loop tries again: for a second, or
  for as long as it takes to settle a call.
- A transaction is committed by one write of a page that names all others, so `kill -9` leaves it whole or undone. The
  kernel owns the pages, so they survive the end of every process.
- An open call is kept with its row as it would be if its process ended now (`lost`). Its settlement replaces that row
  by the real one in the same transaction. So each call has exactly one row, whatever happens.
- A process that holds has a *run*, with a file that it keeps locked until it ends. While calls are open, it touches the
  file every second as a sign of life. `recover` settles the calls of processes that have ended (`lost_call`).
- After a power failure the pages may not fit together, so the file has the name of one start of the machine
  (`current_file`). The next start makes a new one. Its counters are counted again from the ledger (`rebuild`).

- Counts of duties only grow, so they stay, and the ledger gets their present numbers (`duty_counts`).

Keys: `c` with the digest of a counter or a rate; `d` with the digest of a count of duties; `o` with a run and a call;
`w` with a call whose row waits; `r` with a key that is remembered, for its end; `built`; `last`, the object that wrote
last; `source`, the name of the counts and the number of their changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from gateway.operator_errors import StateError
from gateway.state.lock import take
from gateway.usage import gate
from gateway.usage.duty_counts import SourceCounts
from gateway.usage.journal_file import Cells, JournalFile, current_file, items, unpack_cells, words_of
from gateway.usage.journal_queue import JournalQueue
from gateway.usage.lost_call import LostUsage, RunningCost, lost_usage
from gateway.usage.quotas import NOTHING, Parts, QuotaLimit, QuotaState, weighed
from gateway.usage.windows import MINUTE_NS, AllBounds, WindowBounds

FOLDER = "journal"
_SIGN_S = 1.0
"""The time between two signs of life of a process with open calls."""

_AT_ONCE = 500
_BUILT, _SOURCE = b"built", b"source"
_TOKENS = int(gate.Measure.TOKENS)

_NUMBER = struct.Struct("<q")
_NAMED_NUMBER = struct.Struct("<q16s")

_Entry = tuple[bytes, int, int, int]
"""The hold of an open call: the key of a counter, its generation, the amount and the measure.

Of a rate: its key, 0, the amount, and the negative size of its bucket."""


_QuotaEntry = tuple[bytes, int, int, Parts, int]
"""The hold of an open call in a limit of a quota: its key, its generation, the amount, the weights of its use, and
the limit of a bucket in a minute, or 0."""


class _OpenCall(msgspec.Struct, array_like=True, gc=False):
    """An open call: what it holds, its row if it is lost, and what it costs then. It is stored as an array."""

    tokens: int
    amount_nano: int
    entries: list[_Entry]
    row: bytes
    running: RunningCost | None = None
    quotas: tuple[_QuotaEntry, ...] = ()

    def lost(self, alive_ns: int | None) -> LostUsage:
        """Return what it is charged if its process gave its last sign of life then, or at an unknown time."""
        return lost_usage(self.row, self.tokens, self.amount_nano, self.running, alive_ns)


_encode, decode_call = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_OpenCall).decode


_Settled = tuple[bytes, list[_Entry], tuple[_QuotaEntry, ...], tuple[int, int, int], bytes, Parts]
"""The holds that a settlement replaces, the use of the call, and its row."""


class Journal:
    """The journal of a state directory, as one thread uses it. Opened with `Journal.open`, and closed with `close`."""

    def __init__(self, directory: Path, path: Path, clock: Callable[[], int], flags: int) -> None:
        self.directory = directory
        self._clock = clock
        self._file = JournalFile(path, flags)
        self._queue = JournalQueue(self._file)
        self._do, self.do_now = self._queue.do, self._file.do_now
        # A hold reads them many times.
        self._known, self._changed, self._get = self._file.known, self._file.changed, self._file.get
        self._run = b""
        self._run_file: int | None = None
        self._next_sign: asyncio.TimerHandle | None = None
        self._open: dict[str, tuple[bytes, list[_Entry], tuple[_QuotaEntry, ...]]] = {}

    @classmethod
    def open(
        cls, directory: Path, clock: Callable[[], int] = time.time_ns, flags: int = os.O_RDWR | os.O_CREAT
    ) -> Journal:
        """Open the journal of a directory, and create its file if there is none. `clock` returns Unix nanoseconds.

        Raises StateError if the file cannot be used.
        """
        path = current_file(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(directory, path, clock, flags)
        except (OSError, lmdb.Error, gate.GateUnavailable) as error:
            raise StateError(f"{path} can't be used: {words_of(error)}") from error

    def close(self) -> None:
        """Finish late settlements if the lock is free, and close the file. Open calls become lost calls."""
        if self._next_sign is not None:
            self._next_sign.cancel()
        self._queue.close()
        if self._run_file is not None:
            if not self._open:
                (self.directory / self._run.hex()).unlink(missing_ok=True)
            os.close(self._run_file)
        self._file.close()

    # The gate.

    async def hold(self, request: gate.HoldRequest) -> gate.HoldGranted | gate.HoldRefused:
        request.expect_new(self._open)
        found = await self._do(self._hold, request, undo=self._give_back)
        if isinstance(found, gate.HoldRefused):
            return found
        self._open[request.call] = found[:3]
        if self._next_sign is None:
            self._give_sign()
        return gate.HoldGranted(found[3])

    def _give_back(self, found: Any) -> None:
        """Settle a hold that was done a moment before its task was cancelled, so that it is not used."""
        if isinstance(found, tuple):
            _ = self._queue.enqueue(self._settle, (*found[:3], (0, 0, 0), b"", NOTHING), is_sure=True)

    async def settle(self, call: str, tokens: int, amount_nano: int, row: bytes = b"", parts: Parts = NOTHING) -> bool:
        if call not in self._open:
            return False
        settled = (*self._open.pop(call), (tokens, amount_nano, 0), row, parts)
        await self._do(self._settle, settled, is_sure=True, queues=not row)
        return True

    async def keep_row(self, call: str, row: bytes) -> None:
        """Keep the row of a call that another gate holds."""
        await self._do(_keep, (b"w" + call.encode(), row), is_sure=True)

    async def count(self, keys: Sequence[bytes]) -> None:
        await self._do(_count, keys, is_sure=True)

    async def remember(self, keys: Sequence[bytes], kept_s: int) -> None:
        end = _NUMBER.pack(self._clock() + kept_s * 1_000_000_000)
        await self._do(_put_all, [(b"r" + key, end) for key in keys], is_sure=True)

    async def remembers(self, keys: Sequence[bytes]) -> list[bool]:
        ends: list[Any] = await self._do(_get_all, [b"r" + key for key in keys])
        now_ns = self._clock()
        return [end is not None and _NUMBER.unpack(end)[0] > now_ns for end in ends]

    @property
    def problem(self) -> str:
        """Why rows can't be written, or could not a moment ago; empty if they can."""
        return self._queue.problem or self._file.failure

    def check(self) -> None:
        """Raise GateUnavailable if rows of calls that have ended can't be written."""
        if self._queue.problem:
            raise gate.GateUnavailable(self._queue.problem)

    async def read(self, counters: Iterable[gate.Counter], windows: AllBounds) -> list[gate.CounterState]:
        return await self._do(self._read, (counters, windows))

    async def read_quotas(self, limits: Sequence[QuotaLimit]) -> tuple[int, list[QuotaState]]:
        return await self._do(self._read_quotas, limits)

    async def top_up(self, counter: gate.Counter, windows: AllBounds, amount: int) -> gate.CounterState:
        return await self._do(self._change, (counter, windows, amount, None))

    async def reset(self, counter: gate.Counter, windows: AllBounds, spent: int = 0) -> gate.CounterState:
        return await self._do(self._change, (counter, windows, 0, spent))

    async def drop(self, counters: Iterable[gate.Counter]) -> int:
        return await self._do(self._drop, [one.key for one in counters])

    is_shared = False

    async def round_trip(self) -> None:
        """See `OperatorGate`: a file has no time of its own."""

    async def claim(self, name: str, kept_s: int) -> bool:
        """See `OperatorGate`: there is no other instance."""
        return True

    # The keeper of the ledger.

    @property
    def is_new(self) -> bool:
        """Whether `rebuild` was never called. Earlier costs of open windows are missing."""
        return self.do_now(lambda txn, _: txn.get(_BUILT) is None)

    def rebuild(self, numbers: Iterable[tuple[gate.Counter | QuotaLimit, int, int]], windows: AllBounds) -> int:
        """Set what was spent in counters, and their top-ups, unless they have more. Return the number of counters.

        `windows` are those of budgets.
        """

        def build(txn: lmdb.Transaction, _: object) -> int:
            count, now_ns = 0, self._clock()
            for counter, more_spent, more_credit in numbers:
                own = counter.calendar.at(now_ns) if isinstance(counter, QuotaLimit) else windows
                cells = _present(self._get(txn, counter.key), own[counter.window], now_ns)
                generation, start, end, spent, held, credit = cells
                spent, credit = _bounded(max(spent, more_spent)), _bounded(max(credit, more_credit))
                self._file.set(counter.key, (generation, start, end, spent, held, credit))
                count += 1
            txn.put(_BUILT, b"")
            return count

        return self.do_now(build)

    def recover(self) -> int:
        """Settle the open calls of ended processes as lost ones, and keep their rows. Return their number."""
        return sum(self._recover(run) for run in self.do_now(_runs) if run != self._run and self._has_ended(run))

    def waiting(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return rows that wait, with their keys."""
        return self.do_now(lambda txn, _: list(items(txn, b"w", most)))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove rows that are in the ledger."""
        self.do_now(lambda txn, _: [txn.delete(key) for key in keys])

    def duties(self, known: int = 0) -> tuple[int, SourceCounts]:
        """Return the number of changes of the counts of duties, and the counts unless so many changes are `known`."""
        return self.do_now(duties_of, known)

    def forget(self) -> None:
        """Remove keys whose time has ended, and counters whose window has and that no running call holds."""
        self.do_now(self._forget)

    # Operations.

    def _hold(
        self, txn: lmdb.Transaction, request: gate.HoldRequest
    ) -> tuple[bytes, list[_Entry], tuple[_QuotaEntry, ...], tuple[gate.RateState, ...]] | gate.HoldRefused:
        # This path is not split into functions: it is the largest part of the cost of a request with budgets.
        now_ns, call, windows = self._clock(), request.call, request.windows
        tokens, amount_nano = request.tokens, request.amount_nano
        room_calls, known = request.room_calls, self._known
        amounts, usual_tokens = (tokens, amount_nano, 1), request.usual_tokens
        rate_amounts = amounts if usual_tokens is None else (usual_tokens, amount_nano, 1)
        changes: dict[bytes, Cells] = {}
        entries, states = [], []
        for limit in request.budgets:
            counter = limit.counter
            key, measure = counter.key, counter.measure
            generation, start, end, spent, held, credit = cells = known[key] if key in known else self._get(txn, key)
            if not start <= now_ns < end:
                generation, start, end, spent, held, credit = _present(cells, windows[counter.window], now_ns)
            amount, room = amounts[measure], limit.limit + credit - spent
            if held + amount > room or room_calls * amount > room:
                return self._refusal(txn, request, now_ns)
            changes[key] = generation, start, end, spent, held + amount, credit
            entries.append((key, generation, amount, measure))
        for rate in request.rates:
            key, per_minute, amount = rate.key, rate.per_minute, rate_amounts[rate.measure]
            left_ns = _missing_ns(self._get(txn, key), now_ns)
            left_ns += amount * MINUTE_NS // per_minute
            if left_ns > MINUTE_NS or amount > per_minute:
                return self._refusal(txn, request, now_ns)
            changes[key] = 0, now_ns, now_ns + left_ns, 0, 0, 0
            if rate.measure == _TOKENS:  # a request stays counted, so its rate is not settled
                entries.append((key, 0, amount, -per_minute))
            states.append(gate.RateState((MINUTE_NS - left_ns) * per_minute // MINUTE_NS, left_ns))
        quotas = self._hold_quotas(txn, request, now_ns, changes) if request.quotas else ()
        if quotas is None:
            return self._refusal(txn, request, now_ns)
        self._known.update(changes)
        self._changed.update(changes)
        place = b"o" + (self._run or self._begin_run()) + call.encode()
        txn.put(place, _encode((tokens, amount_nano, entries, request.row, request.running, quotas)))
        return place, entries, quotas, tuple(states)

    def _hold_quotas(
        self, txn: lmdb.Transaction, request: gate.HoldRequest, now_ns: int, changes: dict[bytes, Cells]
    ) -> tuple[_QuotaEntry, ...] | None:
        """Add what a call changes in quotas, and return what it holds; None if one of them has no room."""
        known = self._known
        quotas: tuple[_QuotaEntry, ...] = ()
        for hold in request.quotas:
            one, amount, bounds = hold.limit, hold.amount, hold.bounds
            key = one.key
            generation, start, end, spent, held, _ = cells = known[key] if key in known else self._get(txn, key)
            if bounds is None:
                left_ns = end - (now_ns if now_ns > start else start)
                left_ns = left_ns if left_ns > 0 else 0
                if spent and spent != one.limit:  # a changed limit keeps what is used
                    left_ns = left_ns * spent // one.limit
                left_ns += amount * MINUTE_NS // one.limit
                if left_ns > one.most_ns or amount > one.whole:
                    return None
                held = held if one.counts_calls else held + amount
                changes[key] = 0, now_ns, now_ns + left_ns, one.limit, held, 0
                quotas = (*quotas, (key, 0, amount, one.uses, one.limit))
                continue
            if not start <= now_ns < end:
                generation, start, end, spent, held, _ = _present(cells, bounds, now_ns)
            used = spent + held + amount
            is_full = amount > one.whole or used > one.most
            if is_full or (one.kept and one.wait_ns(amount, QuotaState(spent, held, start, end), now_ns) != 0):
                return None
            spent, held = (spent + amount, held) if one.counts_calls else (spent, held + amount)
            changes[key] = generation, start, end, spent, held, 0
            quotas = (*quotas, (key, generation, amount, one.uses, 0))
        return quotas

    def _refusal(self, txn: lmdb.Transaction, request: gate.HoldRequest, now_ns: int) -> gate.HoldRefused:
        states = []
        for limit in request.budgets:
            key, bounds = limit.counter.key, request.windows[limit.counter.window]
            cells = _present(self._get(txn, key), bounds, now_ns)
            self._file.set(key, cells)
            states.append(_state_of(cells))
        missing = [_missing_ns(self._get(txn, rate.key), now_ns) for rate in request.rates]
        rates = tuple(map(gate.RatePerMinute.state, request.rates, missing))
        quotas = [self._quota_state(txn, one.limit, now_ns) for one in request.quotas]
        return gate.refusal_of(request, tuple(states), rates, missing, quotas, now_ns)

    def _settle(self, txn: lmdb.Transaction, settled: _Settled) -> None:
        place, entries, quotas, used, row, parts = settled
        self._replace(txn, entries, used)
        if quotas:
            self._settle_quotas(txn, quotas, parts)
        txn.delete(place)
        if row:
            txn.put(b"w" + place[9:], row)

    def _replace(
        self, txn: lmdb.Transaction, entries: list[_Entry], used: tuple[int, int, int], *, is_lost: bool = False
    ) -> None:
        """Replace what an open call holds by what it used. In rates, a lost call used its hold."""
        known, changed = self._known, self._changed
        for key, generation, amount, measure in entries:
            current, start, end, spent, held, credit = cells = known[key] if key in known else self._get(txn, key)
            if measure < 0:
                now_ns = self._clock()
                more_ns = 0 if is_lost else (used[_TOKENS] - amount) * MINUTE_NS // -measure
                left_ns = min(max(0, _missing_ns(cells, now_ns) + more_ns), gate.LARGEST_AMOUNT - now_ns)
                known[key] = 0, now_ns, now_ns + left_ns, 0, 0, 0
            elif current == generation:
                spent += used[measure]
                spent = spent if spent < gate.LARGEST_AMOUNT else gate.LARGEST_AMOUNT
                known[key] = current, start, end, spent, held - amount, credit
            else:  # the window in which the call was admitted has ended
                continue
            changed.add(key)

    def _settle_quotas(self, txn: lmdb.Transaction, quotas: tuple[_QuotaEntry, ...], parts: Parts) -> None:
        """Replace what an open call holds of quotas by what it used."""
        known, changed, now_ns = self._known, self._changed, 0
        for key, generation, amount, uses, per_minute in quotas:
            is_call = uses[0]
            if is_call and parts[0]:  # it was used when it was admitted
                continue
            used = 0 if parts is NOTHING else weighed(uses, parts)
            current, start, end, spent, held, _ = known[key] if key in known else self._get(txn, key)
            held = held if is_call or held < amount else held - amount
            if per_minute:
                now_ns = now_ns or self._clock()
                left_ns = end - (now_ns if now_ns > start else start)
                left_ns = (left_ns if left_ns > 0 else 0) + (used - amount) * MINUTE_NS // (spent or per_minute)
                left_ns = left_ns if left_ns > 0 else 0
                left_ns = left_ns if left_ns < gate.LARGEST_AMOUNT - now_ns else gate.LARGEST_AMOUNT - now_ns
                known[key] = 0, now_ns, now_ns + left_ns, spent or per_minute, held, 0
            elif current == generation:
                more = used - amount if is_call else used
                known[key] = current, start, end, _bounded(spent + more), held, 0
            else:
                continue
            changed.add(key)

    def _quota_state(self, txn: lmdb.Transaction, limit: QuotaLimit, now_ns: int) -> QuotaState:
        cells = self._get(txn, limit.key)
        if limit.is_bucket:
            return QuotaState(*_bucket(cells, limit.limit, now_ns))
        _, start, end, spent, held, _ = _present(cells, limit.calendar.at(now_ns)[limit.window], now_ns)
        return QuotaState(spent, held, start, end)

    def _read_quotas(self, txn: lmdb.Transaction, limits: Sequence[QuotaLimit]) -> tuple[int, list[QuotaState]]:
        now_ns = self._clock()
        return now_ns, [self._quota_state(txn, one, now_ns) for one in limits]

    def _read(self, txn: lmdb.Transaction, asked: tuple[Iterable[gate.Counter], AllBounds]) -> list[gate.CounterState]:
        (counters, windows), now_ns = asked, self._clock()
        cells = [(self._get(txn, one.key), windows[one.window]) for one in counters]
        return [gate.present_state(_state_of(found) if found[2] else None, bounds, now_ns) for found, bounds in cells]

    def _change(
        self, txn: lmdb.Transaction, change: tuple[gate.Counter, AllBounds, int, int | None]
    ) -> gate.CounterState:
        counter, windows, more, spent = change
        cells = _present(self._get(txn, counter.key), windows[counter.window], self._clock())
        generation, start, end, present, held, credit = cells
        present = present if spent is None else _bounded(spent)
        self._file.set(counter.key, (generation, start, end, present, held, _bounded(credit + more)))
        return self._read(txn, ([counter], windows))[0]

    def _drop(self, txn: lmdb.Transaction, keys: Iterable[bytes]) -> int:
        self._file.write_cells(txn)
        self._known.clear()
        return sum(txn.delete(key) for key in keys)

    def _forget(self, txn: lmdb.Transaction, _: object) -> None:
        ended_ns = self._clock() - MINUTE_NS
        self._file.write_cells(txn)
        for key, value in list(items(txn, b"c", sys.maxsize)):
            _, _, end, _, held, _ = unpack_cells(value)
            if end < ended_ns and not held:
                txn.delete(key)
        for key, value in list(items(txn, b"r", sys.maxsize)):
            if _NUMBER.unpack(value)[0] < ended_ns:
                txn.delete(key)
        self._known.clear()

    # Runs.

    def _begin_run(self) -> bytes:
        run = os.urandom(8)
        try:
            self._run_file = os.open(self.directory / run.hex(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise gate.GateUnavailable(f"{self.directory} can't be used: {error.strerror}") from error
        take(self._run_file)
        self._run = run
        return run

    def _give_sign(self) -> None:
        """Touch the file of the run now, and every second while calls are open."""
        if self._run_file is not None:
            now_ns = self._clock()
            with suppress(OSError):
                os.utime(self._run_file, ns=(now_ns, now_ns))
        is_needed = bool(self._open)
        self._next_sign = asyncio.get_running_loop().call_later(_SIGN_S, self._give_sign) if is_needed else None

    def _has_ended(self, run: bytes) -> bool:
        try:
            descriptor = os.open(self.directory / run.hex(), os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            return take(descriptor)
        finally:
            os.close(descriptor)

    def _recover(self, run: bytes) -> int:
        """Settle the open calls of an ended process."""
        alive_ns = last_sign(self.directory, run)

        def settle_some(txn: lmdb.Transaction, _: object) -> int:
            found = list(items(txn, b"o" + run, _AT_ONCE))
            for place, value in found:
                one = decode_call(value)
                lost = one.lost(alive_ns)
                self._replace(txn, one.entries, (*lost.used, 0), is_lost=True)
                if one.quotas:
                    self._settle_quotas(txn, one.quotas, lost.parts)
                txn.delete(place)
                if lost.row:
                    txn.put(b"w" + place[9:], lost.row)
            return len(found)

        count = 0
        while found := self.do_now(settle_some):
            count += found
        (self.directory / run.hex()).unlink(missing_ok=True)
        return count


def _keep(txn: lmdb.Transaction, item: tuple[bytes, bytes]) -> None:
    txn.put(*item)


def _put_all(txn: lmdb.Transaction, items: Sequence[tuple[bytes, bytes]]) -> None:
    txn.cursor().putmulti(items)


def _get_all(txn: lmdb.Transaction, keys: Sequence[bytes]) -> list[Any]:
    return [txn.get(key) for key in keys]


def _count(txn: lmdb.Transaction, keys: Sequence[bytes]) -> None:
    changes, source = _NAMED_NUMBER.unpack(txn.get(_SOURCE) or _NAMED_NUMBER.pack(0, os.urandom(16)))
    txn.put(_SOURCE, _NAMED_NUMBER.pack(changes + 1, source))
    for key in keys:
        place = b"d" + hashlib.blake2b(key, digest_size=16).digest()
        value = txn.get(place)
        number = _NUMBER.unpack_from(value)[0] if value is not None else 0
        txn.put(place, _NUMBER.pack(number + 1) + key)


def duties_of(txn: lmdb.Transaction, known: int) -> tuple[int, SourceCounts]:
    """Return the number of changes of the counts of duties, and the counts unless so many changes are `known`."""
    if (value := txn.get(_SOURCE)) is None:
        return 0, SourceCounts("", [])
    changes, source = _NAMED_NUMBER.unpack(value)
    found = items(txn, b"d", sys.maxsize) if changes != known else ()
    numbers = [(value[_NUMBER.size :], int(_NUMBER.unpack_from(value)[0])) for _, value in found]
    return changes, SourceCounts(source.hex(), numbers)


def _present(cells: Cells, bounds: WindowBounds, now_ns: int) -> Cells:
    generation, stored_start, stored_end, spent, held, credit = cells
    start, end = bounds.current(now_ns)
    end = max(end, now_ns)
    if generation and stored_start <= now_ns < stored_end:
        return cells
    if generation and (stored_start > now_ns or stored_start == start):
        # The clock was set back, or the bounds of the caller have ended too. It is still this window.
        return generation, start, end, spent, held, credit
    return max(now_ns, generation + 1), start, end, 0, 0, 0


def _state_of(cells: Cells) -> gate.CounterState:
    _, start, end, spent, held, credit = cells
    return gate.CounterState(spent, held, credit, start, end)


def _missing_ns(cells: Cells, now_ns: int) -> int:
    """Return the time until a rate is full. If the clock was set back, as much is missing as at the last change."""
    left_ns = cells[2] - (now_ns if now_ns > cells[1] else cells[1])
    return left_ns if left_ns > 0 else 0


def _bucket(cells: Cells, limit: int, now_ns: int) -> tuple[int, int]:
    """Return the time until a bucket is full, and what is held of it. A changed limit keeps what is used."""
    return _missing_ns(cells, now_ns) * (cells[3] or limit) // limit, cells[4]


def _bounded(amount: int) -> int:
    return min(max(amount, 0), gate.LARGEST_AMOUNT)


def _runs(txn: lmdb.Transaction, _: object) -> list[bytes]:
    found = []
    cursor = txn.cursor()
    more = cursor.set_range(b"o")
    while more and (key := bytes(cursor.key())).startswith(b"o"):
        found.append(key[1:9])
        more = cursor.set_range(key[:9] + b"\xff")
    return found


def last_sign(directory: Path, run: bytes) -> int | None:
    """Return when a process gave its last sign of life, in Unix nanoseconds, or None if that is unknown."""
    with suppress(OSError):
        return (directory / run.hex()).stat().st_mtime_ns
    return None
