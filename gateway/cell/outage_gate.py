"""Decide what happens while the shared gate cannot be asked: `usage.on_loss`.

- `deny`: a call to which a budget applies is refused.
- While the counters of an emptied gate are rebuilt, an amount of a quota is as with `deny`.
- An amount: each instance may spend it in an outage, for what calls cost and for what is held for running calls. All
  processes of the instance share it, in the journal.
- A call without a budget goes on. Its rates are divided by the number of instances that were seen last, and so is its
  limit of concurrent requests, which contains those that the shared gate has admitted to this process before.

An outage ends when no process of the instance had a failure for a minute. The amount that was spent in it is
counted in the shared gate as soon as that is possible, so the budgets contain it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from gateway.cell.valkey_gate import ValkeyGate
from gateway.model.budget import Money, Window
from gateway.model.quota import QuotaUnit
from gateway.usage import gate
from gateway.usage.amounts import NANO
from gateway.usage.journal import Journal
from gateway.usage.quotas import NOTHING, RUNNING, Parts, QuotaHold, QuotaLimit, QuotaRefusal, QuotaState
from gateway.usage.windows import AllBounds
from providers.value import replace

_ENDED_S = 60.0
_NOTED_S = 1.0
_AGAIN_NS = NANO
"""A store may answer again at any time: a client asks again as after `gate_unavailable`."""

_SPENT = "on_loss"
_DENIED = "the shared store can't be asked, and `usage.on_loss` is deny"
_REBUILT = "the counters of the shared store are being rebuilt"
_ALONE = "the shared store can't be asked, and the share of this instance is used"


class OutageGate:
    """The shared gate, and what `usage.on_loss` allows without it: an amount, or None for `deny`.

    The journal keeps the rows of this instance, and counts what its processes spend in an outage.
    """

    def __init__(
        self,
        shared: ValkeyGate,
        journal: Journal,
        on_loss: Callable[[], Money | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shared = shared
        self._local = journal
        self._failed_path = journal.directory / "last-failure"
        self._on_loss = on_loss
        self._clock = clock
        self._calls: set[str] = set()
        self._noted_at = self._checked_at = 0.0
        # A process may start after an outage that was not ended.
        self._is_outage = True

    def check(self) -> None:
        self._local.check()

    async def hold(self, request: gate.HoldRequest) -> gate.HoldGranted | gate.HoldRefused:
        try:
            found = await self.shared.hold(request)
        except gate.GateUnavailable:
            self._note_failure()
            return await self._hold_without(request)
        if self._is_outage:
            await self._end_outage(request.windows)
        return found

    async def settle(self, call: str, tokens: int, amount_nano: int, row: bytes = b"", parts: Parts = NOTHING) -> bool:
        if call in self._calls:
            self._calls.discard(call)
            await self._local.settle(call, tokens, amount_nano, row, parts)
        elif row:
            await self._local.keep_row(call, row)
        return await self.shared.settle(call, tokens, amount_nano, parts)

    async def count(self, keys: Sequence[bytes]) -> None:
        await self._local.count(keys)

    async def remember(self, keys: Sequence[bytes], kept_s: int) -> None:
        """Keep these keys: in an outage, for this instance. See `UsageGate.remember`."""
        try:
            await self.shared.remember(keys, kept_s)
        except gate.GateUnavailable:
            await self._local.remember(keys, kept_s)

    async def remembers(self, keys: Sequence[bytes]) -> list[bool]:
        """Return which of these keys are kept. See `UsageGate.remembers`."""
        try:
            return await self.shared.remembers(keys)
        except gate.GateUnavailable:
            return await self._local.remembers(keys)

    async def read(self, counters: Iterable[gate.Counter], windows: AllBounds) -> list[gate.CounterState]:
        return await self.shared.read(counters, windows)

    async def read_quotas(self, limits: Sequence[QuotaLimit]) -> tuple[int, list[QuotaState]]:
        return await self.shared.read_quotas(limits)

    async def recover(self) -> None:
        """Settle the calls of processes of the cell that have ended, and keep their rows."""
        with suppress(gate.GateUnavailable):
            for lost in await self.shared.lost_calls():
                if lost.usage.row:
                    await self._local.keep_row(lost.call.call, lost.usage.row)
                await self.shared.settle_lost(lost)

    async def _hold_without(self, request: gate.HoldRequest) -> gate.HoldGranted | gate.HoldRefused:
        """Decide without the shared gate. Raises GateUnavailable if that is not allowed."""
        budgets = [one for one in request.budgets if one.counter.unit != gate.REQUESTS]
        instances = self.shared.instances
        limits = [
            gate.BudgetLimit(one.counter, max(0, _share(one.limit, instances) - self.shared.open_in(one.counter.tag)))
            for one in request.budgets
            if one.counter.unit == gate.REQUESTS
        ]
        rates = [
            gate.RatePerMinute(it.kind, it.name, it.unit, max(1, it.per_minute // instances)) for it in request.rates
        ]
        allowed = self._on_loss() if budgets else None
        if budgets and allowed is None:
            raise gate.GateUnavailable("the shared gate can't be asked, and `usage.on_loss` is deny")
        if not request.amount_nano and any(one.counter.unit == gate.TOKENS for one in budgets):
            # An amount does not limit calls that cost nothing, or whose price is unknown.
            raise gate.GateUnavailable("the shared gate can't be asked, and the call has no price")
        spent = next((one for one in request.quotas if one.limit.unit == QuotaUnit.AMOUNT), None)
        if spent is not None and not budgets:
            allowed = self._on_loss()
        if spent is not None and (allowed is None or self.shared.is_rebuilt):
            why = _REBUILT if self.shared.is_rebuilt else _DENIED
            return gate.HoldRefused((), (), quota=QuotaRefusal((spent,), _AGAIN_NS, why=why))
        if allowed is not None:
            limits.append(gate.BudgetLimit(_counter(allowed), allowed.nano))
        own = tuple(self._own(one) for one in request.quotas if one.limit.unit != QuotaUnit.AMOUNT)
        changed = replace(request, budgets=tuple(limits), rates=tuple(rates), quotas=own)
        found = await self._local.hold(changed)
        if isinstance(found, gate.HoldGranted):
            self._calls.add(request.call)
            self.shared.adopt(request)
            return found
        if spent is not None and not budgets and found.budget == len(limits) - 1:
            return gate.HoldRefused((), found.rates, quota=QuotaRefusal((spent,), _AGAIN_NS, why=_ALONE))
        return replace(found, instead=changed.budgets)

    def _own(self, hold: QuotaHold) -> QuotaHold:
        """Return what is held of the share of this instance. A call that is larger takes the whole share."""
        share = _share(hold.limit.limit, self.shared.instances)
        if hold.limit.unit == RUNNING:
            limit = replace(hold.limit, limit=max(0, share - self.shared.open_in(hold.limit.tag)))
            return QuotaHold(limit, hold.amount, hold.bounds)
        limit = replace(hold.limit, limit=share)
        return QuotaHold(limit, min(hold.amount, limit.whole), hold.bounds)

    def _note_failure(self) -> None:
        """Store the time of a failure for all processes of this instance, at most once a second."""
        self._is_outage = True
        now_s = self._clock()
        if not 0 <= now_s - self._noted_at < _NOTED_S:
            self._noted_at = now_s
            with suppress(OSError):
                self._failed_path.touch(mode=0o600)
                os.utime(self._failed_path, (now_s, now_s))

    async def _end_outage(self, windows: AllBounds) -> None:
        """End the outage if no process had a failure for a minute. The next one begins with the whole amount."""
        now_s = self._clock()
        if 0 <= now_s - self._checked_at < _NOTED_S:
            return
        self._checked_at = now_s
        try:
            failed_s = self._failed_path.stat().st_mtime
        except OSError:
            failed_s = 0.0
        if now_s - failed_s < _ENDED_S:
            return
        allowed = self._on_loss()
        if allowed is not None:
            with suppress(gate.GateUnavailable):
                await self._local.reset(_counter(allowed), windows)
        self._is_outage = False


def _share(limit: int, instances: int) -> int:
    return min(limit, max(1, limit // instances))


def _counter(allowed: Money) -> gate.Counter:
    return gate.Counter(gate.CounterKind.PROJECT, _SPENT, allowed.currency, Window.TOTAL)
