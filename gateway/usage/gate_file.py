"""The default gate: counters in a memory-mapped file of the state directory, for any number of processes.

Theory of operation:

- One lock covers the file (`gate_lock`). An operation under it takes a few microseconds and never waits.
- A hold that is not done after a second raises GateUnavailable and has no effect. A settlement stays queued.
- Every operation is one commit of the redo record (`gate_memory`), so `kill -9` never leaves a half of one.
- A call that no counter counts needs no lock once its process keeps a slot for it: the store of the owner opens it.
- Each process that holds has a *run*: a number that is never used again, and a lock file (*seat*) that it keeps locked
  until it ends. Open calls of a run whose seat is not locked are lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gateway.operator_errors import StateError
from gateway.state.lock import take
from gateway.undo import undone_on_failure
from gateway.usage.gate import (
    LARGEST_AMOUNT,
    Counter,
    CounterState,
    GateUnavailable,
    HoldGranted,
    HoldRefused,
    HoldRequest,
    LostCall,
    Measure,
    RatePerMinute,
    RateState,
    Tag,
    present_state,
    refusal_of,
)
from gateway.usage.gate_lock import WAIT_S, GateLock
from gateway.usage.gate_memory import (
    CREDIT,
    END,
    GENERATION,
    HELD,
    IS_NEW,
    LAST_RUN,
    ROWS,
    SEAT_RUNS,
    SEATS,
    SLOTS,
    SPENT,
    START,
    GateMemory,
    kept_by,
    open_file,
    row_of,
)
from gateway.usage.windows import MINUTE_NS, AllBounds

SETTLE_WAIT_S = 1.0
"""The time that a settlement waits for the lock before it continues in the background."""

OPEN_WAIT_S = 10.0
"""The time that opening waits for the lock. Nothing is served yet, and a busy machine may stop its holder for long."""

_MOST_KNOWN = 65_536
_MOST_KEPT = SLOTS // SEATS // 2
"""The slots that a process keeps for calls that no counter counts. All processes together keep at most half of them."""
_TOKENS = int(Measure.TOKENS)


class FileGate:
    """The gate of one process. Open it with `FileGate.open`, and close it with `close`.

    Not thread-safe: a second thread opens its own.

    Attributes:
        directory: The directory of the files.
        memory: The mapped file.
        lock: The lock of the file, and the operations that wait for it.
        is_closed: Whether it is closed.
    """

    def __init__(self, memory: GateMemory, descriptor: int, directory: Path, clock: Callable[[], int]) -> None:
        self.memory = memory
        self._cells = memory.cells
        self._descriptor = descriptor
        self.directory = directory
        self._clock = clock
        # The row of each tag, by its second half. A row names the tag that it belongs to now.
        self._places: dict[int, int] = {}
        # The slot of each open call of this process, and its entries as in the slot.
        self._open: dict[str, tuple[int, list[int]]] = {}
        self._kept: list[int] = []
        self._seat: tuple[int, int] | None = None
        self._run = 0
        self.is_closed = False
        self.lock = GateLock(descriptor, memory)

    @classmethod
    def open(
        cls, directory: Path, *, clock: Callable[[], int] = time.time_ns, rows: int = ROWS, slots: int = SLOTS
    ) -> FileGate:
        """Open the gate of a directory, and create its file if there is none.

        Args:
            directory: The directory of the gate's files, such as `gate` in the state directory.
            clock: Returns Unix nanoseconds.
            rows: The number of counters of a new file, a power of two.
            slots: The number of open calls of a new file.

        Raises:
            StateError: The file cannot be used, is damaged, or another version wrote it.
        """
        descriptor, path = open_file(directory, rows, slots)
        with undone_on_failure(partial(os.close, descriptor)):
            try:
                memory = GateMemory(descriptor, path)
            except OSError as error:
                raise StateError(f"{path} can't be used: {error.strerror or error}") from error
        gate = cls(memory, descriptor, directory, clock)
        try:
            gate.lock.run_now(memory.repair_after_power_failure, OPEN_WAIT_S)
        except GateUnavailable as error:
            gate.close()
            raise StateError(str(error)) from error
        return gate

    def close(self) -> None:
        """Finish queued settlements if the lock is free, and close the file. Open calls become lost calls."""
        try:
            self.lock.close()
            self.lock.run_now(self._leave_seat)
        except GateUnavailable:
            pass  # the next process settles what is open
        if self._seat is not None:
            os.close(self._seat[1])
        self.memory.close()
        os.close(self._descriptor)
        self.is_closed = True

    @property
    def is_new(self) -> bool:
        """Whether the file was created, and `rebuild` was never called. Earlier costs of open windows are missing."""
        return bool(self._cells[IS_NEW])

    def rebuild(self, numbers: Iterable[tuple[Counter, int, int]], windows: AllBounds) -> int:
        """Set counters of a new file, before requests are served.

        A higher number in the file stays, because commands may have changed it.

        Args:
            numbers: Counters with what was spent in their window, and the top-ups.
            windows: The bounds of all windows.

        Returns:
            The number of counters.

        Raises:
            GateUnavailable: The lock is not free, or the disk is full.
        """
        return self.lock.run_now(partial(self._rebuild, numbers, windows), OPEN_WAIT_S)

    async def hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
        """Hold the worst cost of a call. See `UsageGate.hold`."""
        if self._kept and not request.budgets and not request.rates:
            return self._hold_uncounted(request)
        if not self.lock.queue and self.lock.take():
            try:
                return self._hold(request)
            finally:
                self.lock.release()
        future = self.lock.enqueue(partial(self._hold, request), WAIT_S)
        try:
            return await future
        except asyncio.CancelledError:
            # The operation may have run before the cancellation arrived. The call is not sent, so it uses nothing.
            if future.done() and not future.cancelled() and future.exception() is None:
                _ = self.lock.enqueue(partial(self._settle, request.call, 0, 0), None)
            raise

    async def settle(self, call: str, tokens: int, amount_nano: int) -> bool:
        """Replace the hold of a call by what it used. See `UsageGate.settle`."""
        opened = self._open.get(call)
        if opened is not None and not opened[1] and len(self._kept) < _MOST_KEPT:
            slot = opened[0]
            self._cells[self.memory.owners + slot] = kept_by(self._run)
            self._kept.append(slot)
            del self._open[call]
            return True
        if not self.lock.queue and self.lock.take():
            try:
                return self._settle(call, tokens, amount_nano)
            finally:
                self.lock.release()
        future = self.lock.enqueue(partial(self._settle, call, tokens, amount_nano), None)
        await asyncio.wait([future], timeout=SETTLE_WAIT_S)
        return future.result() if future.done() else call in self._open

    async def read(self, counters: Iterable[Counter], windows: AllBounds) -> list[CounterState]:
        """Return the numbers of counters, without the lock: another process may be changing one of them."""
        now_ns = self._clock()
        states = []
        for counter in counters:
            place = self.memory.find(counter.tag)
            stored = self._state_at(place) if place is not None else None
            states.append(present_state(stored, windows[counter.window], now_ns))
        return states

    async def top_up(self, counter: Counter, windows: AllBounds, amount: int) -> CounterState:
        """Add an amount to what the counter's budget admits in its current window."""
        return await self.lock.run(partial(self._change, counter, windows, credit=amount))

    async def reset(self, counter: Counter, windows: AllBounds, spent: int = 0) -> CounterState:
        """Set what was spent in the current window. Holds stay."""
        return await self.lock.run(partial(self._change, counter, windows, spent=spent))

    async def lost_calls(self) -> list[LostCall]:
        """Return the open calls of processes that have ended. See `UsageGate.lost_calls`."""
        cells = self._cells
        if not any(cells[SEAT_RUNS : SEAT_RUNS + SEATS].tolist()):
            return []
        return await self.lock.run(self._lost_calls)

    async def settle_lost(self, lost: LostCall) -> bool:
        """Settle a lost call to its full hold. See `UsageGate.settle_lost`."""
        return await self.lock.run(partial(self._settle_lost, lost))

    # Operations, under the lock.

    def _hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
        # This path is not split into functions: it is the largest part of the cost of a request with budgets.
        now_ns = self._clock()
        request.expect_new(self._open)
        call, tokens, amount_nano = request.call, request.tokens, request.amount_nano
        memory, places = self.memory, self._places
        mapped, amounts = memory.map, (tokens, amount_nano, 1)
        room_calls, free_calls = request.room_calls, request.free_calls
        changes: list[int] = []
        entries: list[int] = []
        for budget in request.budgets:
            counter = budget.counter
            high, low = counter.tag
            place = places.get(low, 0)
            row_high, row_low, generation, start_ns, end_ns, spent, held, credit = row_of(mapped, place << 3)
            if row_low != low or row_high != high or now_ns < start_ns or now_ns >= end_ns:
                place = self._open_row(counter, request.windows, now_ns)
                _, _, generation, _, _, spent, held, credit = row_of(mapped, place << 3)
            measure = counter.measure
            amount = amounts[measure]
            room = budget.limit + credit - spent
            if held + free_calls * amount > room or room_calls * amount > room:
                return self._refuse(request, now_ns)
            held += amount
            changes += (place + HELD, held)
            entries += (place, generation, amount, measure)
        states = []
        if request.rates:
            amounts = request.rate_amounts
        for rate in request.rates:
            high, low = rate.tag
            place = places.get(low, 0)
            row_high, row_low, generation, start_ns, full_ns, _, held, _ = row_of(mapped, place << 3)
            if row_low != low or row_high != high:
                place = self._rate_place(rate, now_ns)
                _, _, generation, start_ns, full_ns, _, held, _ = row_of(mapped, place << 3)
            if start_ns > now_ns:
                full_ns -= start_ns - now_ns
            amount, per_minute = amounts[rate.measure], rate.per_minute
            left_ns = full_ns - now_ns if full_ns > now_ns else 0
            if left_ns + free_calls * amount * MINUTE_NS // per_minute > MINUTE_NS or amount > per_minute:
                return self._refuse(request, now_ns)
            left_ns += amount * MINUTE_NS // per_minute
            changes += (place + START, now_ns, place + END, now_ns + left_ns)
            if rate.measure == _TOKENS:  # a request stays counted, so its rate is not settled
                changes += (place + HELD, held + 1)
                entries += (place, generation, amount, -per_minute)
            states.append(RateState((MINUTE_NS - left_ns) * per_minute // MINUTE_NS, left_ns))
        if not self._run:
            self._take_seat()
        slot = memory.take_slot(self._run, changes)
        memory.write_slot(slot, request, entries)
        memory.commit(changes)
        self._open[call] = (slot, entries)
        return HoldGranted(tuple(states))

    def _hold_uncounted(self, request: HoldRequest) -> HoldGranted:
        """Open a call in a slot that this process keeps, without the lock."""
        request.expect_new(self._open)
        slot = self._kept[-1]
        self.memory.write_slot(slot, request, [])
        self._kept.pop()
        self._cells[self.memory.owners + slot] = self._run
        self._open[request.call] = (slot, [])
        return HoldGranted(())

    def _refuse(self, request: HoldRequest, now_ns: int) -> HoldRefused:
        counters = (limit.counter for limit in request.budgets)
        states = tuple(self._state_at(self._place_of(one, request.windows, now_ns)) for one in counters)
        lefts_ns = [self._missing_ns(rate, now_ns) for rate in request.rates]
        return refusal_of(request, states, tuple(map(RatePerMinute.state, request.rates, lefts_ns)), lefts_ns)

    def _settle(self, call: str, tokens: int, amount_nano: int) -> bool:
        opened = self._open.get(call)
        if opened is None:
            return False
        self._free_slot(*opened, (tokens, amount_nano, 0))
        del self._open[call]
        return True

    def _settle_lost(self, lost: LostCall) -> bool:
        slot, run = lost.place
        memory = self.memory
        if self._cells[memory.owners + slot] != run or memory.lost_call(slot).call != lost.call:
            return False
        self._free_slot(slot, memory.entries(slot), (lost.tokens, lost.amount_nano, 0), is_lost=True)
        return True

    def _change(
        self, counter: Counter, windows: AllBounds, *, credit: int = 0, spent: int | None = None
    ) -> CounterState:
        now_ns = self._clock()
        place = self._place_of(counter, windows, now_ns)
        row = self.memory.row(place)
        changes = [place + CREDIT, _bounded(row[CREDIT] + credit)]
        if spent is not None:
            changes += (place + SPENT, _bounded(spent))
        self.memory.commit(changes)
        return self._state_at(place)

    def _rebuild(self, numbers: Iterable[tuple[Counter, int, int]], windows: AllBounds) -> int:
        count, now_ns = 0, self._clock()
        for counter, spent, credit in numbers:
            place = self._place_of(counter, windows, now_ns)
            row = self.memory.row(place)
            spent, credit = _bounded(max(row[SPENT], spent)), _bounded(max(row[CREDIT], credit))
            self.memory.commit([place + SPENT, spent, place + CREDIT, credit])
            count += 1
        self._cells[IS_NEW] = 0
        return count

    def _lost_calls(self) -> list[LostCall]:
        cells, memory = self._cells, self.memory
        ended = {}
        for seat, run in enumerate(cells[SEAT_RUNS : SEAT_RUNS + SEATS].tolist()):
            if run and run != self._run and (descriptor := self._lock_seat(seat)) is not None:
                os.close(descriptor)
                ended[run] = seat
        if not ended:
            return []
        owners = cells[memory.owners : memory.owners + memory.slots].tolist()
        lost = [memory.lost_call(slot) for slot, run in enumerate(owners) if run in ended]
        kept = {kept_by(run) for run in ended}
        self._give_back(slot for slot, owner in enumerate(owners) if owner in kept)
        for run in ended.keys() - {one.place[1] for one in lost}:
            cells[SEAT_RUNS + ended[run]] = 0
        return lost

    # Slots.

    def _free_slot(self, slot: int, entries: list[int], actual: tuple[int, int, int], *, is_lost: bool = False) -> None:
        """Replace what an open call holds by what it used, and free its slot. In rates, a lost call used its hold."""
        memory = self.memory
        mapped = memory.map
        changes: list[int] = []
        cells = iter(entries)
        for place, generation, amount, measure in zip(cells, cells, cells, cells, strict=True):
            _, _, current, start_ns, end_ns, spent, held, _ = row_of(mapped, place << 3)
            if current != generation:
                continue  # the window in which the call was admitted has ended
            if measure >= 0:
                spent += actual[measure]
                changes += (
                    place + SPENT,
                    spent if spent < LARGEST_AMOUNT else LARGEST_AMOUNT,
                    place + HELD,
                    held - amount,
                )
                continue
            now_ns = self._clock()
            full_ns = end_ns - max(0, start_ns - now_ns)
            more_ns = 0 if is_lost else (actual[_TOKENS] - amount) * MINUTE_NS // -measure
            full_ns = max(full_ns, now_ns) + more_ns if more_ns > 0 else full_ns + more_ns
            full_ns = min(max(full_ns, 0), LARGEST_AMOUNT)
            changes += (place + START, now_ns, place + END, full_ns, place + HELD, held - 1)
        changes += memory.freed(slot)
        memory.commit(changes)

    # Seats.

    def _take_seat(self) -> None:
        """Take a run number and a seat of this process."""
        cells = self._cells
        for seat in range(SEATS):
            # A seat with a run belongs to a process that runs, or that ended and has lost calls.
            if cells[SEAT_RUNS + seat] == 0 and (descriptor := self._lock_seat(seat)) is not None:
                run = cells[LAST_RUN] + 1
                self.memory.commit([LAST_RUN, run, SEAT_RUNS + seat, run])
                self._seat, self._run = (seat, descriptor), run
                return
        raise GateUnavailable(f"{self.memory.path} has {SEATS} processes, or their lost calls were not settled")

    def _give_back(self, kept: Iterable[int]) -> None:
        """Make slots that were kept free for every process."""
        for slot in kept:
            self.memory.commit([*self.memory.freed(slot)])

    def _leave_seat(self) -> None:
        self._give_back(self._kept)
        self._kept = []
        if self._seat is not None and not self._open:
            self._cells[SEAT_RUNS + self._seat[0]] = 0

    def _lock_seat(self, seat: int) -> int | None:
        """Return the descriptor of a seat's file if no process has locked it. Closing it releases the lock."""
        try:
            descriptor = os.open(self.directory / f"seat-{seat}", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise GateUnavailable(f"{self.directory} can't be used: {error.strerror}") from error
        if take(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    # Rows.

    def _state_at(self, place: int) -> CounterState:
        row = self.memory.row(place)
        return CounterState(row[SPENT], row[HELD], row[CREDIT], row[START], row[END])

    def _place_of(self, counter: Counter, windows: AllBounds, now_ns: int) -> int:
        """Return the first cell of a counter's row in its current window."""
        place = self.memory.find(counter.tag)
        if place is not None:
            row = self.memory.row(place)
            if row[START] <= now_ns < row[END]:
                return place
        return self._open_row(counter, windows, now_ns)

    def _open_row(self, counter: Counter, windows: AllBounds, now_ns: int) -> int:
        """Return the first cell of a counter's row, after its window was opened if that is necessary."""
        memory = self.memory
        start_ns, end_ns = windows[counter.window].current(now_ns)
        end_ns = max(end_ns, now_ns)
        place = memory.find(counter.tag)
        if place is None:
            place = memory.create(counter.tag, now_ns, start_ns, end_ns)
        else:
            row = memory.row(place)
            if row[START] > now_ns:
                # The clock was set back. The spent amount counts in the window that the clock shows now.
                memory.commit([place + START, start_ns, place + END, end_ns])
            elif row[END] <= now_ns and row[START] == start_ns:
                # The bounds of the caller have ended too.
                memory.commit([place + END, end_ns])
            elif row[END] <= now_ns:
                generation = row[GENERATION] + 1
                changes = [place + GENERATION, generation, place + START, start_ns, place + END, end_ns]
                memory.commit([*changes, place + SPENT, 0, place + HELD, 0, place + CREDIT, 0])
        self._remember(counter.tag, place)
        return place

    def _rate_place(self, rate: RatePerMinute, now_ns: int) -> int:
        """Return the row of a rate: `START` is the time of its last change, `END` when it is full again."""
        place = self.memory.find(rate.tag)
        if place is None:
            place = self.memory.create(rate.tag, now_ns, now_ns, now_ns)
        self._remember(rate.tag, place)
        return place

    def _missing_ns(self, rate: RatePerMinute, now_ns: int) -> int:
        """Return the time until a rate is full. If the clock was set back, as much is missing as at the last change."""
        row = self.memory.row(self._rate_place(rate, now_ns))
        return max(0, row[END] - max(now_ns, row[START]))

    def _remember(self, tag: Tag, place: int) -> None:
        if len(self._places) >= _MOST_KNOWN:
            self._places.clear()
        self._places[tag[1]] = place


def _bounded(amount: int) -> int:
    return min(max(amount, 0), LARGEST_AMOUNT)
