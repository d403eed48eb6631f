"""The gate of a cell with many instances: counters in Valkey. Each operation is one script call, on the server's clock.

Theory of operation:

- A process is an *owner*. Its open calls are in a hash of its own, and it gives a sign of life every second. The
  open calls of an owner that was silent for 30 seconds are lost: any other process settles them (`lost_call`). If the
  owner only stood still, its own settlement replaces that charge, also after another epoch began.
- A hold whose answer did not arrive may have been counted. It is cancelled in the background, and so is every open call
  in the store that this process does not know.
- A settlement that cannot be done now is kept, and done in the background.
- A sign of life also counts the instances: their share is all that an instance has without the server. A process that
  starts serves after the others have counted it, and the greatest number of the last minutes holds.
- Counters belong to an *epoch*. If the server has lost data or may have (it is empty, it was restarted, or another
  server took its place), the epoch has ended: holds with a budget are refused until the counters are rebuilt
  (`epoch`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import msgspec

from gateway.cell import valkey_scripts as scripts
from gateway.cell.valkey_connection import OutcomeUnknown, Script, ValkeyConnection, ValkeyUnavailable, Word
from gateway.model.budget import StoreServer
from gateway.model.quota import QuotaUnit
from gateway.tasks import stopped
from gateway.usage import gate
from gateway.usage.counter_tags import Tag
from gateway.usage.lost_call import LostUsage, Used
from gateway.usage.quotas import NOTHING, Parts, QuotaLimit, QuotaState
from gateway.usage.windows import AllBounds

BEAT_S = 1.0
"""The time between two signs of life."""

SILENT_S = 30.0
"""The silence after which the open calls of a process are lost."""

_RETRY_S = 0.1
_SEEN_MINUTES = 5
_SLOW_S = 2.0
"""The deadline of operations for which no request waits."""

_NOT_REBUILT = "the counters of Valkey are empty: a running instance rebuilds them from the ledger"
_EVICTS = "it may evict counters: set its `maxmemory-policy` to noeviction"


class _Pending(msgspec.Struct):
    """The work for an open call that is still to be done in the background: its hold in the store, and its use."""

    is_adopted: bool = False
    used: Used | None = None


_HoldAnswer = tuple[bool, list[list[int]], list[int], list[list[int]], int]
"""Whether a call is held; the states of counters, rates and quotas if not; and the time of the server."""


class _Sign(NamedTuple):
    """The last sign of life of a process, by the clock of the server, and whether it was silent for 30 seconds."""

    alive_us: int
    has_ended: bool


class LostCall(NamedTuple):
    """An open call of a process that was silent: the name of the process, the call, and what it is charged."""

    owner: str
    call: scripts.OpenCall
    usage: LostUsage


class ValkeyGate:
    """The gate of one process. Call `start`, and `close` at the end.

    Args:
        server: The address of Valkey.
        cell: The name of the cell, which all keys contain.
        owner: A name of this process that is never used again: its instance, a slash, and a random part.
        now_us: Returns the time instead of the server, for tests.
        deadline_s: The deadline of each operation, if it is not the usual one of requests.

    Attributes:
        connection: The connection.
        epoch: The id of the epoch, or None while it must be found or rebuilt.
        is_ready: Whether the counters of budgets are complete.
        has_adopted: Whether the open calls of this process are counted in the epoch.
        epoch_ended: Set when another epoch must be found.
        instances: The greatest number of instances that were seen at once in the last minutes.
        run: The run of the server, which changes when it starts again.
    """

    is_shared = True

    def __init__(
        self,
        server: StoreServer,
        cell: str,
        owner: str,
        *,
        now_us: Callable[[], int] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.connection = ValkeyConnection(server, self._prepare)
        self.owner = owner
        self.epoch: str | None = None
        self.is_ready = False
        self.has_adopted = True
        self.epoch_ended = asyncio.Event()
        self.instances = 1
        self._seen: dict[int, int] = {}
        self.run = ""
        self._prefix = f"{{gateway:{cell}}}:"
        self._generations_key = f"{self._prefix}generations"
        self._epoch_prefix = f"{self._prefix}{self.epoch}:"
        self._now_us = now_us
        self._deadline_s = deadline_s
        self._open: dict[str, scripts.OpenCall] = {}
        self._pending: dict[str, _Pending] = {}
        self._settling: set[str] = set()
        self._asking = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def epoch_key(self) -> str:
        """The key of the epoch."""
        return f"{self._prefix}epoch"

    @property
    def open_calls(self) -> tuple[str, ...]:
        """The ids of the open calls of this process, also of those that have ended and are not settled."""
        return tuple(self._open)

    @property
    def is_rebuilt(self) -> bool:
        """Whether the server answers, and its counters are being rebuilt."""
        return self.connection.is_connected and (self.epoch_ended.is_set() or not self.is_ready)

    @property
    def problem(self) -> str | None:
        """Why budgets cannot be decided now, or None."""
        if not self.connection.is_connected:
            return self._unreachable()
        return None if self.epoch is not None and self.is_ready else _NOT_REBUILT

    async def round_trip(self) -> gate.RoundTrip | None:
        began_s = time.perf_counter()  # the clock of an event loop has milliseconds
        try:
            skew_s = await self.connection.skew_s()
        except ValkeyUnavailable:
            return None
        return gate.RoundTrip(time.perf_counter() - began_s, skew_s)

    def open_in(self, tag: Tag) -> int:
        """Return how many open calls of this process the store has counted in the counter with this tag."""
        return sum(
            any(one[:2] == tag for one in call.counters) or any((it.high, it.low) == tag for it in call.quotas)
            for name, call in self._open.items()
            if name not in self._pending
        )

    async def start(self) -> None:
        """Connect, and begin the work in the background."""
        await self.connection.start()
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Finish what is pending if Valkey answers, and close the connection. Open calls become lost calls."""
        await stopped(self._task)
        with suppress(gate.GateUnavailable, TimeoutError):
            async with asyncio.timeout(_SLOW_S):
                await self._finish_pending()
                if not self._open and self.epoch is not None:
                    keys = (self._owners_key, self._open_key(self.owner))
                    await self._run(scripts.FORGET, keys, self.owner, deadline_s=_SLOW_S)
        await self.connection.close()

    def enter(self, epoch: str | None, *, is_ready: bool) -> None:
        """Use the counters of an epoch from now on, or no counters if it is None."""
        if epoch != self.epoch:
            # A settlement would not find its hold before the open calls are counted in the new epoch.
            self.has_adopted = not self._open
        self.epoch, self.is_ready = epoch, is_ready
        self._epoch_prefix = f"{self._prefix}{epoch}:"
        if epoch is None:
            self.epoch_ended.set()
        else:
            self.epoch_ended.clear()
            self._wake.set()

    async def meet(self) -> None:
        """Return when the processes of all other instances have counted this one. Raises GateUnavailable."""
        began_us, own = None, self.owner.partition("/")[0]
        while True:
            signs = await self._beat()
            began_us = signs[self.owner].alive_us if began_us is None else began_us
            others = (sign for name, sign in signs.items() if name.partition("/")[0] != own and not sign.has_ended)
            if all(sign.alive_us > began_us for sign in others):
                return
            await asyncio.sleep(_RETRY_S)

    def saw(self, instances: int) -> None:
        """Note that so many instances live now."""
        minute = int(asyncio.get_running_loop().time() // 60)
        self._seen = {at: number for at, number in self._seen.items() if at > minute - _SEEN_MINUTES}
        self._seen[minute] = max(instances, self._seen.get(minute, 1))
        self.instances = max(self._seen.values())

    async def hold(self, request: gate.HoldRequest) -> gate.HoldGranted | gate.HoldRefused:
        request.expect_new(self._open)
        one = scripts.OpenCall.of(request)
        needs_ready = any(budget.counter.unit != gate.REQUESTS for budget in request.budgets)
        needs_ready = needs_ready or any(one.limit.unit == QuotaUnit.AMOUNT for one in request.quotas)
        self._asking += 1
        try:
            granted, states, missing_ns, of_quotas, now_us = await self._hold(one, request, needs_ready=needs_ready)
        except (gate.MayBeDone, asyncio.CancelledError):
            # The call is not sent, so it uses nothing.
            self._open[request.call] = one
            self._pending[request.call] = _Pending(used=(0, 0, NOTHING))
            self._wake.set()
            raise
        finally:
            self._asking -= 1
        rates = tuple(map(gate.RatePerMinute.state, request.rates, missing_ns))
        if granted:
            self._open[request.call] = one
            return gate.HoldGranted(rates)
        now_ns = now_us * 1000
        quotas = [
            scripts.quota_state(it, hold.limit, now_ns) for it, hold in zip(of_quotas, request.quotas, strict=True)
        ]
        return gate.refusal_of(request, tuple(map(scripts.counter_state, states)), rates, missing_ns, quotas, now_ns)

    def adopt(self, request: gate.HoldRequest) -> None:
        """Count the hold of a call that was sent without asking, as soon as that is possible."""
        self._open[request.call] = scripts.OpenCall.of(request)
        self._pending[request.call] = _Pending(is_adopted=True)
        self._wake.set()

    async def settle(self, call: str, tokens: int, amount_nano: int, parts: Parts = NOTHING) -> bool:
        pending = self._pending.get(call)
        if call not in self._open or call in self._settling or (pending is not None and pending.used is not None):
            return False
        used = (tokens, amount_nano, parts)
        if pending is not None or not self.has_adopted:  # the store does not have its hold yet
            self._pending[call] = _Pending(is_adopted=pending is not None and pending.is_adopted, used=used)
            return True
        self._settling.add(call)
        try:
            return await self._settle_own(call, used)
        except (gate.GateUnavailable, asyncio.CancelledError) as error:
            self._pending[call] = _Pending(used=used)
            self._wake.set()
            if isinstance(error, asyncio.CancelledError):
                raise
            return True
        finally:
            self._settling.discard(call)

    async def read(self, counters: Iterable[gate.Counter], windows: AllBounds) -> list[gate.CounterState]:
        asked = list(counters)
        now_us, states = await self._ask(scripts.READ, (self.epoch_key, *(self._counter_key(one.tag) for one in asked)))
        return [
            gate.present_state(scripts.counter_state(state) if state else None, windows[counter.window], now_us * 1000)
            for counter, state in zip(asked, states, strict=True)
        ]

    async def read_quotas(self, limits: Sequence[QuotaLimit]) -> tuple[int, list[QuotaState]]:
        keys = (self.epoch_key, *(self._quota_key(one.tag, is_bucket=one.is_bucket) for one in limits))
        asked = scripts.pack([one.limit if one.is_bucket else 0 for one in limits])
        now_us, states = await self._ask(scripts.READ_QUOTAS, keys, asked)
        now_ns = now_us * 1000
        return now_ns, [
            scripts.quota_state(state or (), one, now_ns) for one, state in zip(limits, states, strict=True)
        ]

    async def top_up(self, counter: gate.Counter, windows: AllBounds, amount: int) -> gate.CounterState:
        return await self._change(counter, windows, amount, -1)

    async def reset(self, counter: gate.Counter, windows: AllBounds, spent: int = 0) -> gate.CounterState:
        return await self._change(counter, windows, 0, spent)

    async def drop(self, counters: Iterable[gate.Counter]) -> int:
        if self.epoch is None:
            raise gate.GateUnavailable(_NOT_REBUILT if self.connection.is_connected else self._unreachable())
        found = await self._call("DEL", *(self._counter_key(one.tag) for one in counters), deadline_s=_SLOW_S)
        return found if isinstance(found, int) else 0

    async def remember(self, keys: Sequence[bytes], kept_s: int) -> None:
        """Keep these keys, whatever the epoch. See `UsageGate.remember`."""
        for key in self._remembered_keys(keys):
            await self._call("SET", key, "", "EX", kept_s)

    async def remembers(self, keys: Sequence[bytes]) -> list[bool]:
        found = await self._call("MGET", *self._remembered_keys(keys))
        return [one is not None for one in found] if isinstance(found, list) else []

    async def lost_calls(self) -> list[LostCall]:
        """Return open calls of processes that were silent for 30 seconds. If there are many, it is a part of them."""
        lost = []
        for owner, (alive_us, has_ended) in (await self._beat()).items():
            if not has_ended or owner == self.owner:
                continue
            page = await self._call("HSCAN", self._open_key(owner), "0", "COUNT", "200", deadline_s=_SLOW_S)
            assert isinstance(page, list)  # noqa: S101
            found = map(scripts.OpenCall.stored, page[1][1::2])
            lost += [LostCall(owner, one, one.lost(alive_us * 1000)) for one in found]
            if not page[1]:
                await self._run(scripts.FORGET, (self._owners_key, self._open_key(owner)), owner, deadline_s=_SLOW_S)
        return lost

    async def settle_lost(self, lost: LostCall) -> bool:
        """Settle a lost call. Returns whether it was still open."""
        parts = lost.usage.parts if lost.call.quotas else NOTHING
        return await self._settle(lost.owner, lost.call, (*lost.usage.used, parts), by="lost")

    async def follow_epoch(self) -> None:
        """Enter the present epoch, for a process that holds no calls. Without a connection, nothing changes."""
        with suppress(ValkeyUnavailable):
            stored = await self.connection.call("GET", self.epoch_key, deadline_s=_SLOW_S)
            epoch, _, state = _text(stored).rpartition("|")
            is_current = epoch.endswith(f"|{self.run}")
            self.enter(epoch if is_current else None, is_ready=is_current and state == scripts.READY)

    async def claim(self, name: str, kept_s: int) -> bool:
        return await self._call("SET", f"{self._prefix}claim:{name}", "1", "NX", "EX", kept_s) is not None

    async def set_numbers(
        self, counter: gate.Counter | QuotaLimit, windows: AllBounds, spent: int, credit: int
    ) -> None:
        """Set the numbers of a counter of a new epoch."""
        await self._change(counter, windows, credit, spent, is_set=True)

    async def adopt_open_calls(self, counted: Mapping[str, Used | None]) -> None:
        """Count all open calls of this process in a new epoch, except those whose cost is counted already.

        `counted` has the charge of those that are counted as lost ones. Their own settlement replaces it.
        """
        for one in list(self._open.values()):
            if one.call in counted and counted[one.call] is None:
                self._open.pop(one.call, None)
                self._pending.pop(one.call, None)
                continue
            await self._adopt(one)
            if (charged := counted.get(one.call)) is not None:
                await self._settle(self.owner, one, charged, by="counted")
        self.has_adopted = True
        self._wake.set()

    # Operations.

    async def _hold(self, one: scripts.OpenCall, request: gate.HoldRequest | None, *, needs_ready: bool) -> _HoldAnswer:
        """Hold a call. Without a request, it is held in any case."""
        own = (self.epoch_key, self._generations_key, self._owners_key, self._open_key(self.owner))
        keys = (*own, *self._keys_of(one)) if request is not None else (*own, *self._keys_of(one), self._lost_key(one))
        packed = scripts.hold_arguments(self.owner, one, request, needs_ready=needs_ready)
        answer: _HoldAnswer = await self._ask(scripts.HOLD, keys, packed, scripts.pack(one))
        return answer

    async def _adopt(self, one: scripts.OpenCall) -> None:
        await self._hold(one, None, needs_ready=False)
        if (pending := self._pending.get(one.call)) is not None:
            pending.is_adopted = False

    async def _settle(
        self, owner: str, one: scripts.OpenCall, used: Used, *, by: Literal["own", "lost", "counted"] = "own"
    ) -> bool:
        keys = (self.epoch_key, self._open_key(owner), self._lost_key(one), *self._keys_of(one))
        return bool(await self._ask(scripts.SETTLE, keys, scripts.settle_arguments(one, used, is_lost=by != "own"), by))

    async def _settle_own(self, call: str, used: Used) -> bool:
        one, pending = self._open[call], self._pending.get(call)
        was_open = await self._settle(self.owner, one, used)
        # In the meantime, the call may have been sent without the gate, and adopted.
        if self._open.get(call) is one:
            del self._open[call]
        if pending is not None and self._pending.get(call) is pending:
            del self._pending[call]
        return was_open

    async def _change(
        self, counter: gate.Counter | QuotaLimit, windows: AllBounds, credit: int, spent: int, *, is_set: bool = False
    ) -> gate.CounterState:
        packed = scripts.change_arguments(counter, windows, credit, spent, is_set=is_set)
        keys = (self.epoch_key, self._generations_key, self._counter_key(counter.tag))
        state: list[int] = await self._ask(scripts.CHANGE, keys, packed, deadline_s=_SLOW_S if is_set else None)
        return scripts.counter_state(state)

    async def _beat(self) -> dict[str, _Sign]:
        """Give a sign of life. Return the last one of each process."""
        keys = (self.epoch_key, self._owners_key, self._open_key(self.owner))
        silent_us = str(int(SILENT_S * 1_000_000))
        in_store, names, ended, signs_us = await self._ask(
            scripts.BEAT, keys, self.owner, silent_us, deadline_s=_SLOW_S
        )
        signs = {name: _Sign(int(at), is_over) for name, at, is_over in zip(names, signs_us, ended, strict=True)}
        self.saw(len({name.partition("/")[0] for name, sign in signs.items() if not sign.has_ended}))
        if in_store > len(self._open) and not self._asking:
            await self._cancel_unknown()
        return signs

    async def _cancel_unknown(self) -> None:
        """Cancel open calls of this process in the store that it does not know: their answers did not arrive."""
        stored = await self._call("HGETALL", self._open_key(self.owner), deadline_s=_SLOW_S)
        assert isinstance(stored, list)  # noqa: S101
        for raw in stored[1::2]:
            one = scripts.OpenCall.stored(raw)
            if one.call not in self._open:
                self._open[one.call], self._pending[one.call] = one, _Pending(used=(0, 0, NOTHING))
                self._wake.set()

    # Work in the background.

    async def _work(self) -> None:
        beat_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            wait_s = _RETRY_S if self._pending else max(0.0, beat_at - loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self.epoch is None or not self.connection.is_connected:
                    await asyncio.sleep(_RETRY_S)
                    continue
                if loop.time() >= beat_at:
                    await self._beat()
                    beat_at = loop.time() + BEAT_S
                await self._finish_pending()
            except gate.GateUnavailable:
                await asyncio.sleep(_RETRY_S)

    async def _finish_pending(self) -> None:
        if not self.has_adopted:
            return
        for call, pending in list(self._pending.items()):
            one = self._open.get(call)
            if one is None:
                self._pending.pop(call, None)
                continue
            if pending.is_adopted:
                await self._adopt(one)
            if pending.used is not None:
                await self._settle_own(call, pending.used)
            elif self._pending.get(call) is pending:
                del self._pending[call]

    # The connection.

    async def _prepare(self, connection: ValkeyConnection) -> None:
        """Check a new connection, and whether the server may have lost data since the last one."""
        lines = _text(await connection.call("INFO", "server", "memory", deadline_s=_SLOW_S)).splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        if info.get("maxmemory", "0") != "0" and info.get("maxmemory_policy") != "noeviction":
            raise ValkeyUnavailable(_EVICTS)
        self.run = info.get("run_id", "")
        epoch, _, state = _text(await connection.call("GET", self.epoch_key, deadline_s=_SLOW_S)).rpartition("|")
        is_same = epoch.endswith(f"|{self.run}") and epoch == self.epoch
        self.enter(self.epoch if is_same else None, is_ready=is_same and state == scripts.READY)

    async def _ask(self, script: Script, keys: tuple[str, ...], *values: Word, deadline_s: float | None = None) -> Any:
        """Run a script of the current epoch, and return its decoded answer. Raises GateUnavailable."""
        if self.epoch is None:
            raise gate.GateUnavailable(_NOT_REBUILT if self.connection.is_connected else self._unreachable())
        now = "0" if self._now_us is None else str(self._now_us())
        answer = await self._run(script, keys, now, self.epoch, *values, deadline_s=deadline_s or self._deadline_s)
        if answer == scripts.EPOCH_ENDED:
            self.epoch_ended.set()
            raise gate.GateUnavailable(_NOT_REBUILT)
        return scripts.unpack(answer) if isinstance(answer, bytes) else answer

    async def _run(
        self, script: Script, keys: tuple[str, ...], *values: Word, deadline_s: float | None = None
    ) -> object:
        try:
            return await self.connection.run(script, keys, *values, deadline_s=deadline_s)
        except OutcomeUnknown as error:
            raise gate.MayBeDone(str(error)) from None
        except ValkeyUnavailable as error:
            raise gate.GateUnavailable(str(error)) from None

    async def _call(self, *words: Word, deadline_s: float | None = None) -> object:
        try:
            return await self.connection.call(*words, deadline_s=deadline_s)
        except ValkeyUnavailable as error:
            raise gate.GateUnavailable(str(error)) from None

    def _unreachable(self) -> str:
        return f"Valkey can't be reached: {self.connection.problem}"

    # Keys. Those with counters contain the epoch.

    @property
    def _owners_key(self) -> str:
        return f"{self._epoch_prefix}owners"

    def _open_key(self, owner: str) -> str:
        return f"{self._epoch_prefix}open:{owner}"

    def _lost_key(self, one: scripts.OpenCall) -> str:
        return f"{self._epoch_prefix}lost:{one.call}"

    def _counter_key(self, tag: Sequence[int]) -> str:
        return f"{self._epoch_prefix}c:{tag[0]:x}.{tag[1]:x}"

    def _remembered_keys(self, keys: Iterable[bytes]) -> list[str]:
        return [f"{self._prefix}remembered:{key.hex()}" for key in keys]

    def _keys_of(self, one: scripts.OpenCall) -> list[str]:
        # Written out, because each call has it twice: a method for each counter costs more than its key.
        prefix = self._epoch_prefix
        keys = [f"{prefix}c:{high:x}.{low:x}" for high, low, *_ in one.counters]
        keys += [f"{prefix}r:{high:x}.{low:x}" for high, low, *_ in one.rates]
        if one.quotas:
            keys += [self._quota_key((it.high, it.low), is_bucket=it.bounds is None) for it in one.quotas]
        return keys

    def _quota_key(self, tag: Tag, *, is_bucket: bool) -> str:
        return f"{self._epoch_prefix}q:{tag[0]:x}.{tag[1]:x}" if is_bucket else self._counter_key(tag)


def _text(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else ""
