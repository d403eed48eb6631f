"""The gate of one machine, and its usage rows that are not in the ledger yet: one file of LMDB that all processes map.

Theory of operation:

- An operation runs immediately if the journal is free, because a wait of its request costs more than a commit.
- It is free until two operations meet in one turn of the event loop. Then operations queue, and the next turn runs all
  of them in one transaction, because at load most of the cost is that of a commit. Each of them is done whole or not at
  all, and is answered after the commit. The journal is free again when a turn had one operation only.
- What is given back for a call that was not sent always queues, so that a hold in the same turn that takes its place is
  in the same transaction.
- A transaction is under the lock of the file (flock), which the kernel releases when its process ends. It takes some
  microseconds for an operation and never waits. If the lock is not free, the event loop tries again: for a second, or
  for as long as it takes to settle a call.
- A transaction is committed by one write of a page that names all others, so `kill -9` leaves it whole or undone. The
  kernel owns the pages, so they survive the end of every process.
- An open call is kept with its row as it would be if its process ended now (`lost`). Its settlement replaces that row
  by the real one in the same transaction. So each call has exactly one row, whatever happens.
- A process that holds has a *run*, with a file that it keeps locked until it ends. While calls are open, it touches the
  file every second as a sign of life. `recover` settles the calls of processes that have ended (`lost_call`).
- After a power failure the pages may not fit together, so the file has the name of one start of the machine (`_boot`).
  The next start makes a new one. Its counters are counted again from the ledger (`rebuild`).

- Counts of duties only grow, so they stay, and the ledger gets their present numbers (`duty_counts`).

Keys: `c` with the digest of a counter or a rate; `d` with the digest of a count of duties; `o` with a run and a call;
`w` with a call whose row waits; `r` with a key that is remembered, for its end; `built`; `last`, the object that wrote
last; `source`, the name of the counts and the number of their changes.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lmdb
import msgspec

from gateway.child_process import child_command, child_environment
from gateway.files import path_exists
from gateway.operator_errors import StateError
from gateway.state.lock import take
from gateway.undo import undone_on_failure
from gateway.usage.duty_counts import SourceCounts
from gateway.usage.gate import (
    LARGEST_AMOUNT,
    Counter,
    CounterState,
    GateUnavailable,
    HoldGranted,
    HoldRefused,
    HoldRequest,
    Measure,
    RatePerMinute,
    RateState,
    present_state,
    refusal_of,
)
from gateway.usage.lost_call import LostUsage, RunningCost, lost_usage
from gateway.usage.usage_row import UsageRow, decode_row
from gateway.usage.windows import MINUTE_NS, AllBounds, WindowBounds

FOLDER = "journal"
WAIT_S = 1.0
"""The time that an operation waits for the lock."""

_SHOWN_S = 5.0
"""How long a failure is shown: perhaps nothing is written after it that would show its end."""

_OPEN_WAIT_S = 10.0
_READ_S = 60.0
"""The time in which a journal of an earlier start is read. A damaged one may have no end."""

_SIGN_S = 1.0
"""The time between two signs of life of a process with open calls."""

_PAUSE_S = 0.0005
_RETRY_S = 0.05
_MAP_BYTES = 2**34
"""The most bytes of the file. It has as many as it needs."""

_AT_ONCE = 500
_MOST_KNOWN = 65_536
_SUFFIX = ".lmdb"
_BUILT, _WRITER, _SOURCE = b"built", b"last", b"source"
_TOKENS = int(Measure.TOKENS)
_LOCKED = "another process has locked the counters for more than a second; it may be stopped"

_CELLS = struct.Struct("<6q")
_pack, _unpack = _CELLS.pack, _CELLS.unpack
_Cells = tuple[int, int, int, int, int, int]
"""Generation, start and end of the window, spent, held and credit. Of a rate: its last change, and when it is full.

The generation changes with each window: a call is settled only in the window in which it was admitted."""

_NUMBER = struct.Struct("<q")
_NAMED_NUMBER = struct.Struct("<q16s")

_NO_CELLS = (0, 0, 0, 0, 0, 0)

# A file is opened once in a process, whatever number of threads use it.
_environments: dict[Path, tuple[lmdb.Environment, int]] = {}
_one_opens = threading.Lock()

_T = TypeVar("_T")

_Entry = tuple[bytes, int, int, int]
"""The hold of an open call: the key of a counter, its generation, the amount and the measure.

Of a rate: its key, 0, the amount, and the negative size of its bucket."""


class _OpenCall(msgspec.Struct, array_like=True, gc=False):
    """An open call: what it holds, its row if it is lost, and what it costs then. It is stored as an array."""

    tokens: int
    amount_nano: int
    entries: list[_Entry]
    row: bytes
    running: RunningCost | None = None

    def lost(self, alive_ns: int | None) -> LostUsage:
        """Return what it is charged if its process gave its last sign of life at this time. None: unknown."""
        return lost_usage(self.row, self.tokens, self.amount_nano, self.running, alive_ns)


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_OpenCall).decode


class _Operation(msgspec.Struct, gc=False):
    """A part of a transaction."""

    run: Callable[[lmdb.Transaction, Any], Any]
    argument: object


class _Queued(_Operation, gc=False):
    """An operation that waits for the next transaction, or for the lock."""

    future: asyncio.Future[Any]
    is_sure: bool
    until_s: float


class Journal:
    """The journal of a state directory, as one thread uses it. Open it with `Journal.open`, and close it with `close`.

    Attributes:
        directory: The directory of its files.
    """

    def __init__(self, directory: Path, path: Path, clock: Callable[[], int], flags: int) -> None:
        self.directory = directory
        self._path = path
        self._clock = clock
        self._writes = flags != os.O_RDONLY
        self._descriptor = os.open(path, flags, 0o600)
        self._take = partial(fcntl.flock, self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._give = partial(fcntl.flock, self._descriptor, fcntl.LOCK_UN)
        with undone_on_failure(partial(os.close, self._descriptor)):
            self._take_now(_OPEN_WAIT_S)
            try:
                self._begin = _opened(path)
            finally:
                self._give()
        self._run = b""
        self._run_file: int | None = None
        self._next_sign: asyncio.TimerHandle | None = None
        self._open: dict[str, tuple[bytes, list[_Entry]]] = {}
        # Cells of the file. They are right as long as no other process has written.
        self._known: dict[bytes, _Cells] = {}
        # The keys of those that the present transaction has changed.
        self._changed: set[bytes] = set()
        self._name = os.urandom(8)
        self._queue: deque[_Queued] = deque()
        # An operation has run in this turn of the event loop; several met in this turn or the last one.
        self._has_run: list[bool] = []
        self._is_busy = False
        self._next_flush: asyncio.Handle | None = None
        self._problem = ""
        self._failed_at, self._failure = -math.inf, ""

    @classmethod
    def open(cls, directory: Path, clock: Callable[[], int] = time.time_ns) -> Journal:
        """Open the journal of a directory, and create its file if there is none. `clock` returns Unix nanoseconds.

        Raises:
            StateError: The file cannot be used.
        """
        path = directory / f"{_boot()}{_SUFFIX}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(directory, path, clock, os.O_RDWR | os.O_CREAT)
        except (OSError, lmdb.Error, GateUnavailable) as error:
            raise StateError(f"{path} can't be used: {_words(error)}") from error

    def close(self) -> None:
        """Finish late settlements if the lock is free, and close the file. Open calls become lost calls."""
        for timer in (self._next_flush, self._next_sign):
            if timer is not None:
                timer.cancel()
        with suppress(GateUnavailable):
            self._take_now()
            try:
                self._run_queued()
            finally:
                self._give()
        if self._run_file is not None:
            if not self._open:
                (self.directory / self._run.hex()).unlink(missing_ok=True)
            os.close(self._run_file)
        os.close(self._descriptor)
        _release(self._path)

    # The gate.

    async def hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
        """Hold the worst cost of a call. See `UsageGate.hold`."""
        request.expect_new(self._open)
        found = await self._do(self._hold, request)
        if isinstance(found, HoldRefused):
            return found
        place, entries, states = found
        self._open[request.call] = place, entries
        if self._next_sign is None:
            self._give_sign()
        return HoldGranted(states)

    async def settle(self, call: str, tokens: int, amount_nano: int, row: bytes = b"") -> bool:
        """Replace the hold of a call by what it used, and keep its row. See `UsageGate.settle`."""
        if call not in self._open:
            return False
        settled = (*self._open.pop(call), (tokens, amount_nano, 0), row)
        await self._do(self._settle, settled, is_sure=True, queues=not row)
        return True

    async def keep_row(self, call: str, row: bytes) -> None:
        """Keep the row of a call that another gate holds."""
        await self._do(_keep, (b"w" + call.encode(), row), is_sure=True)

    async def count(self, keys: Sequence[bytes]) -> None:
        """Add 1 to these counts of duties. See `UsageGate.count`."""
        await self._do(_count, keys, is_sure=True)

    async def remember(self, keys: Sequence[bytes], kept_s: int) -> None:
        """Keep these keys for so long. See `UsageGate.remember`."""
        end = _NUMBER.pack(self._clock() + kept_s * 1_000_000_000)
        await self._do(_put_all, [(b"r" + key, end) for key in keys], is_sure=True)

    async def remembers(self, keys: Sequence[bytes]) -> list[bool]:
        """Return which of these keys are kept. See `UsageGate.remembers`."""
        ends: list[Any] = await self._do(_get_all, [b"r" + key for key in keys])
        now_ns = self._clock()
        return [end is not None and _NUMBER.unpack(end)[0] > now_ns for end in ends]

    @property
    def problem(self) -> str:
        """Why rows can't be written, or could not a moment ago; empty if they can."""
        return self._problem or (self._failure if time.monotonic() - self._failed_at < _SHOWN_S else "")

    def check(self) -> None:
        """Raise GateUnavailable if rows of calls that have ended can't be written."""
        if self._problem:
            raise GateUnavailable(self._problem)

    async def read(self, counters: Iterable[Counter], windows: AllBounds) -> list[CounterState]:
        """Return the numbers of counters in their current windows."""
        found: list[CounterState] = await self._do(self._read, (counters, windows))
        return found

    async def top_up(self, counter: Counter, windows: AllBounds, amount: int) -> CounterState:
        """Add an amount to what the counter's budget admits in its current window."""
        found: CounterState = await self._do(self._change, (counter, windows, amount, None))
        return found

    async def reset(self, counter: Counter, windows: AllBounds, spent: int = 0) -> CounterState:
        """Set what was spent in the current window. Holds stay."""
        found: CounterState = await self._do(self._change, (counter, windows, 0, spent))
        return found

    async def drop(self, counters: Iterable[Counter]) -> int:
        """Delete counters, and return the number of those that existed. Calls that run are not settled in them."""
        count: int = await self._do(self._drop, [one.key for one in counters])
        return count

    # The keeper of the ledger.

    @property
    def is_new(self) -> bool:
        """Whether `rebuild` was never called. Earlier costs of open windows are missing."""
        return self.do_now(lambda txn, _: txn.get(_BUILT) is None)

    def rebuild(self, numbers: Iterable[tuple[Counter, int, int]], windows: AllBounds) -> int:
        """Set what was spent in counters, and their top-ups, unless they have more. Return the number of counters."""

        def build(txn: lmdb.Transaction, _: object) -> int:
            count, now_ns = 0, self._clock()
            for counter, more_spent, more_credit in numbers:
                cells = _present(self._get(txn, counter.key), windows[counter.window], now_ns)
                generation, start, end, spent, held, credit = cells
                spent, credit = _bounded(max(spent, more_spent)), _bounded(max(credit, more_credit))
                self._set(counter.key, (generation, start, end, spent, held, credit))
                count += 1
            txn.put(_BUILT, b"")
            return count

        return self.do_now(build)

    def recover(self) -> int:
        """Settle the open calls of ended processes as lost ones, and keep their rows. Return their number."""
        return sum(self._recover(run) for run in self.do_now(_runs) if run != self._run and self._has_ended(run))

    def waiting(self, most: int) -> list[tuple[bytes, bytes]]:
        """Return rows that wait, with their keys."""
        return self.do_now(lambda txn, _: list(_items(txn, b"w", most)))

    def remove(self, keys: Iterable[bytes]) -> None:
        """Remove rows that are in the ledger."""
        self.do_now(lambda txn, _: [txn.delete(key) for key in keys])

    def duties(self, known: int = 0) -> tuple[int, SourceCounts]:
        """Return the number of changes of the counts of duties, and the counts unless so many changes are `known`."""
        return self.do_now(_duties, known)

    def forget(self) -> None:
        """Remove keys whose time has ended, and counters whose window has and that no running call holds."""
        self.do_now(self._forget)

    # Operations.

    def _hold(
        self, txn: lmdb.Transaction, request: HoldRequest
    ) -> tuple[bytes, list[_Entry], tuple[RateState, ...]] | HoldRefused:
        # This path is not split into functions: it is the largest part of the cost of a request with budgets.
        now_ns, call, windows = self._clock(), request.call, request.windows
        tokens, amount_nano = request.tokens, request.amount_nano
        room_calls, known = request.room_calls, self._known
        amounts = (tokens, amount_nano, 1)
        changes: dict[bytes, _Cells] = {}
        entries, states = [], []
        for limit in request.budgets:
            counter = limit.counter
            key, measure = counter.key, counter.measure
            generation, start, end, spent, held, credit = cells = known[key] if key in known else self._get(txn, key)
            if not start <= now_ns < end:
                generation, start, end, spent, held, credit = _present(cells, windows[counter.window], now_ns)
            amount, room = amounts[measure], limit.limit + credit - spent
            if held + amount > room or room_calls * amount > room:
                return self._refusal(txn, request)
            changes[key] = generation, start, end, spent, held + amount, credit
            entries.append((key, generation, amount, measure))
        for rate in request.rates:
            key, per_minute, amount = rate.key, rate.per_minute, request.rate_amounts[rate.measure]
            left_ns = _missing_ns(self._get(txn, key), now_ns)
            left_ns += amount * MINUTE_NS // per_minute
            if left_ns > MINUTE_NS or amount > per_minute:
                return self._refusal(txn, request)
            changes[key] = 0, now_ns, now_ns + left_ns, 0, 0, 0
            if rate.measure == _TOKENS:  # a request stays counted, so its rate is not settled
                entries.append((key, 0, amount, -per_minute))
            states.append(RateState((MINUTE_NS - left_ns) * per_minute // MINUTE_NS, left_ns))
        self._known.update(changes)
        self._changed.update(changes)
        place = b"o" + (self._run or self._begin_run()) + call.encode()
        txn.put(place, _encode((tokens, amount_nano, entries, request.row, request.running)))
        return place, entries, tuple(states)

    def _refusal(self, txn: lmdb.Transaction, request: HoldRequest) -> HoldRefused:
        now_ns, states = self._clock(), []
        for limit in request.budgets:
            key, bounds = limit.counter.key, request.windows[limit.counter.window]
            cells = _present(self._get(txn, key), bounds, now_ns)
            self._set(key, cells)
            states.append(_state_of(cells))
        missing = [_missing_ns(self._get(txn, rate.key), now_ns) for rate in request.rates]
        return refusal_of(request, tuple(states), tuple(map(RatePerMinute.state, request.rates, missing)), missing)

    def _settle(self, txn: lmdb.Transaction, settled: tuple[bytes, list[_Entry], tuple[int, int, int], bytes]) -> None:
        place, entries, used, row = settled
        self._replace(txn, entries, used)
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
                left_ns = min(max(0, _missing_ns(cells, now_ns) + more_ns), LARGEST_AMOUNT - now_ns)
                known[key] = 0, now_ns, now_ns + left_ns, 0, 0, 0
            elif current == generation:
                spent += used[measure]
                spent = spent if spent < LARGEST_AMOUNT else LARGEST_AMOUNT
                known[key] = current, start, end, spent, held - amount, credit
            else:  # the window in which the call was admitted has ended
                continue
            changed.add(key)

    def _read(self, txn: lmdb.Transaction, asked: tuple[Iterable[Counter], AllBounds]) -> list[CounterState]:
        (counters, windows), now_ns = asked, self._clock()
        cells = [(self._get(txn, one.key), windows[one.window]) for one in counters]
        return [present_state(_state_of(found) if found[2] else None, bounds, now_ns) for found, bounds in cells]

    def _change(self, txn: lmdb.Transaction, change: tuple[Counter, AllBounds, int, int | None]) -> CounterState:
        counter, windows, more, spent = change
        cells = _present(self._get(txn, counter.key), windows[counter.window], self._clock())
        generation, start, end, present, held, credit = cells
        present = present if spent is None else _bounded(spent)
        self._set(counter.key, (generation, start, end, present, held, _bounded(credit + more)))
        return self._read(txn, ([counter], windows))[0]

    def _drop(self, txn: lmdb.Transaction, keys: Iterable[bytes]) -> int:
        self._write_cells(txn)
        self._known.clear()
        return sum(txn.delete(key) for key in keys)

    def _get(self, txn: lmdb.Transaction, key: bytes) -> _Cells:
        cells = self._known.get(key)
        if cells is None:
            stored = txn.get(key)
            cells = self._known[key] = _unpack(stored) if stored is not None else _NO_CELLS
        return cells

    def _set(self, key: bytes, cells: _Cells) -> None:
        self._known[key] = cells
        self._changed.add(key)

    def _write_cells(self, txn: lmdb.Transaction) -> None:
        """Write the cells that were changed in this transaction, each once."""
        if self._changed:
            known = self._known
            txn.cursor().putmulti(
                zip(self._changed, starmap(_pack, map(known.__getitem__, self._changed)), strict=True)
            )
            self._changed.clear()

    def _forget(self, txn: lmdb.Transaction, _: object) -> None:
        ended_ns = self._clock() - MINUTE_NS
        self._write_cells(txn)
        for key, value in list(_items(txn, b"c", sys.maxsize)):
            _, _, end, _, held, _ = _unpack(value)
            if end < ended_ns and not held:
                txn.delete(key)
        for key, value in list(_items(txn, b"r", sys.maxsize)):
            if _NUMBER.unpack(value)[0] < ended_ns:
                txn.delete(key)
        self._known.clear()

    # Runs.

    def _begin_run(self) -> bytes:
        run = os.urandom(8)
        try:
            self._run_file = os.open(self.directory / run.hex(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise GateUnavailable(f"{self.directory} can't be used: {error.strerror}") from error
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
        alive_ns = _last_sign(self.directory, run)

        def settle_some(txn: lmdb.Transaction, _: object) -> int:
            found = list(_items(txn, b"o" + run, _AT_ONCE))
            for place, value in found:
                one = _decode(value)
                lost = one.lost(alive_ns)
                self._replace(txn, one.entries, (*lost.used, 0), is_lost=True)
                txn.delete(place)
                if lost.row:
                    txn.put(b"w" + place[9:], lost.row)
            return len(found)

        count = 0
        while found := self.do_now(settle_some):
            count += found
        (self.directory / run.hex()).unlink(missing_ok=True)
        return count

    # The queue and the lock.

    async def _do(
        self,
        operation: Callable[[lmdb.Transaction, Any], Any],
        argument: object,
        *,
        is_sure: bool = False,
        queues: bool = False,
    ) -> Any:
        """Run an operation: now if the journal is free, unless it `queues`. Raises GateUnavailable.

        An operation that is sure is never given up. If it is not done after a second, it continues in the background.
        """
        if not (queues or self._queue or self._has_run or self._is_busy):
            try:
                self._take()
            except BlockingIOError:
                pass
            else:
                self._has_run.append(True)
                asyncio.get_running_loop().call_soon(self._has_run.clear)
                try:
                    return self._transact((_Operation(operation, argument),))[0]
                except GateUnavailable:
                    if not is_sure:
                        raise
                finally:
                    self._give()
        self._is_busy = self._is_busy or bool(self._has_run)
        future = self._enqueue(operation, argument, is_sure=is_sure)
        try:
            return await future
        except asyncio.CancelledError:
            is_done = not is_sure and not future.cancelled() and future.done() and future.exception() is None
            # A hold that was done a moment before is not used.
            if is_done and operation == self._hold and isinstance(future.result(), tuple):
                _ = self._enqueue(self._settle, (*future.result()[:2], (0, 0, 0), b""), is_sure=True)
            raise

    def _enqueue(
        self, operation: Callable[[lmdb.Transaction, Any], Any], argument: object, *, is_sure: bool
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.append(_Queued(operation, argument, future, is_sure, loop.time() + WAIT_S))
        if self._next_flush is None:
            self._next_flush = loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Run what is queued if the lock is free. Try again later with what is left."""
        self._next_flush = None
        self._is_busy = len(self._queue) > 1
        try:
            self._take()
        except BlockingIOError:
            pass
        else:
            try:
                self._run_queued()
            finally:
                self._give()
        if self._queue:
            loop = asyncio.get_running_loop()
            self._end_waits(loop.time())
            self._next_flush = loop.call_later(_RETRY_S if self._problem else _PAUSE_S, self._flush)

    def _end_waits(self, now_s: float) -> None:
        for one in self._queue:
            if one.until_s < now_s and not one.future.done():
                if one.is_sure:
                    one.future.set_result(None)
                else:
                    one.future.set_exception(GateUnavailable(self._problem or _LOCKED))

    def _run_queued(self) -> None:
        """Run what is queued under the lock, in one transaction, or in one for each operation if one of them fails.

        An operation that fails and is sure stays queued, with all after it.
        """
        queue, is_together = self._queue, True
        while queue:
            batch = [one for one in (queue if is_together else (queue[0],)) if one.is_sure or not one.future.done()]
            try:
                results = self._transact(batch) if batch else []
            except Exception as error:  # the operations after it must not wait for it for ever
                if len(batch) > 1:
                    is_together = False
                    continue
                (failed,) = batch
                if failed.is_sure and isinstance(error, GateUnavailable):
                    self._problem = str(error)
                    return
                if not failed.future.done():
                    failed.future.set_exception(error)
            else:
                self._problem = ""
                for one, result in zip(batch, results, strict=True):
                    if not one.future.done():
                        one.future.set_result(result)
            if is_together:
                queue.clear()
            else:
                queue.popleft()

    def do_now(self, operation: Callable[[lmdb.Transaction, Any], _T], argument: object = None) -> _T:
        """Run an operation where there is no event loop to wait in. Raises GateUnavailable."""
        self._take_now()
        try:
            return self._transact((_Operation(operation, argument),))[0]  # type: ignore[no-any-return]
        finally:
            self._give()

    def _take_now(self, wait_s: float = WAIT_S) -> None:
        until_s = time.monotonic() + wait_s
        while True:
            try:
                return self._take()
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise GateUnavailable(_LOCKED) from None
                time.sleep(_PAUSE_S)

    def _transact(self, operations: Sequence[_Operation]) -> list[Any]:
        known = self._known
        try:
            txn = self._begin(None, None, self._writes)
            try:
                if txn.get(_WRITER) != self._name or len(known) > _MOST_KNOWN:
                    known.clear()
                    if self._writes:
                        txn.put(_WRITER, self._name)
                results = [one.run(txn, one.argument) for one in operations]
                self._write_cells(txn)
            except BaseException:
                known.clear()
                self._changed.clear()
                txn.abort()
                raise
            txn.commit()
        except lmdb.Error as error:
            known.clear()
            self._failed_at, self._failure = time.monotonic(), f"{self._path} can't be written: {_words(error)}"
            raise GateUnavailable(self._failure) from error
        return results


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


def _duties(txn: lmdb.Transaction, known: int) -> tuple[int, SourceCounts]:
    if (value := txn.get(_SOURCE)) is None:
        return 0, SourceCounts("", [])
    changes, source = _NAMED_NUMBER.unpack(value)
    found = _items(txn, b"d", sys.maxsize) if changes != known else ()
    numbers = [(value[_NUMBER.size :], int(_NUMBER.unpack_from(value)[0])) for _, value in found]
    return changes, SourceCounts(source.hex(), numbers)


def _present(cells: _Cells, bounds: WindowBounds, now_ns: int) -> _Cells:
    """Return the cells of a counter in its present window."""
    generation, stored_start, stored_end, spent, held, credit = cells
    start, end = bounds.current(now_ns)
    end = max(end, now_ns)
    if generation and stored_start <= now_ns < stored_end:
        return cells
    if generation and (stored_start > now_ns or stored_start == start):
        # The clock was set back, or the bounds of the caller have ended too. It is still this window.
        return generation, start, end, spent, held, credit
    return max(now_ns, generation + 1), start, end, 0, 0, 0


def _state_of(cells: _Cells) -> CounterState:
    _, start, end, spent, held, credit = cells
    return CounterState(spent, held, credit, start, end)


def _missing_ns(cells: _Cells, now_ns: int) -> int:
    """Return the time until a rate is full. If the clock was set back, as much is missing as at the last change."""
    left_ns = cells[2] - (now_ns if now_ns > cells[1] else cells[1])
    return left_ns if left_ns > 0 else 0


def _bounded(amount: int) -> int:
    return min(max(amount, 0), LARGEST_AMOUNT)


def _items(txn: lmdb.Transaction, prefix: bytes, most: int) -> Iterator[tuple[bytes, bytes]]:
    cursor = txn.cursor()
    if not cursor.set_range(prefix):
        return
    for number, (key, value) in enumerate(cursor):
        if number == most or key[: len(prefix)] != prefix:
            return
        yield bytes(key), bytes(value)


def _runs(txn: lmdb.Transaction, _: object) -> list[bytes]:
    found = []
    cursor = txn.cursor()
    more = cursor.set_range(b"o")
    while more and (key := bytes(cursor.key())).startswith(b"o"):
        found.append(key[1:9])
        more = cursor.set_range(key[:9] + b"\xff")
    return found


def _last_sign(directory: Path, run: bytes) -> int | None:
    """Return when a process gave its last sign of life, in Unix nanoseconds. None: unknown."""
    with suppress(OSError):
        return (directory / run.hex()).stat().st_mtime_ns
    return None


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _boot() -> str:
    """Return the name of this start of the machine. `0` if the system does not state it."""
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
                map_size=_MAP_BYTES,
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


# Reading.


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
    path = directory / FOLDER / f"{_boot()}{_SUFFIX}"
    try:
        journal = Journal(path.parent, path, time.time_ns, os.O_RDONLY)
    except FileNotFoundError:
        return []
    except (OSError, lmdb.Error, GateUnavailable) as error:
        raise StateError(f"{path} can't be read: {_words(error)}") from error
    with closing(journal):
        try:
            return read(journal)
        except (GateUnavailable, ValueError) as error:
            raise StateError(f"{path} can't be read: {error}") from error


# Files of earlier starts of the machine.


def former_files(directory: Path) -> list[Path]:
    """Return the journals of earlier starts of the machine, and of other machines."""
    with suppress(OSError):
        return sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.stem != _boot())
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
        child_command("gateway.usage.journal", str(path)),
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

    Raises:
        StateError: A file is damaged. The next start sets it aside.
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
    with lmdb.open(str(path), map_size=_MAP_BYTES, subdir=False, readonly=True, lock=False).begin() as txn:
        rows = [value for _, value in _items(txn, b"w", sys.maxsize)]
        for place, value in _items(txn, b"o", sys.maxsize):
            if row := _decode(value).lost(_last_sign(path.parent, place[1:9])).row:
                rows.append(row)
        former = FormerJournal(rows, _duties(txn, 0)[1])
    sys.stdout.buffer.write(msgspec.msgpack.encode(former))
    return 0


if __name__ == "__main__":
    sys.exit(main())
