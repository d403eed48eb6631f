"""Admit each request of a client under the limits that all instances share: requests per minute, and concurrency.

Both are checked and counted by one operation of the shared gate. A concurrent request is an open call of the gate, so
the requests of an instance that has ended are free again after 30 seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from functools import lru_cache

from gateway.model.budget import Window
from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.record import Allowance, Record
from gateway.usage.client_limits import LimitReached
from gateway.usage.gate import (
    REQUESTS,
    BudgetLimit,
    Counter,
    CounterKind,
    GateUnavailable,
    HoldGranted,
    HoldRequest,
    RatePerMinute,
    UsageGate,
)
from gateway.usage.windows import FOREVER_NS, WindowBounds

_NS = 1_000_000_000
_WINDOWS = {Window.TOTAL: WindowBounds(0, FOREVER_NS, FOREVER_NS)}


class SharedAdmission:
    """A request that runs until `release`."""

    __slots__ = ("_call", "_limits")

    def __init__(self, limits: SharedClientLimits, call: str) -> None:
        self._limits = limits
        self._call = call

    def release(self) -> None:
        """Record that the request has ended."""
        self._limits.release(self._call)


class SharedClientLimits:
    """Admits requests under the limits of their clients, in the shared gate."""

    def __init__(self, gate: UsageGate) -> None:
        self._gate = gate
        self._prefix = f"r{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._releasing: set[asyncio.Task[bool]] = set()

    async def take(self, client: Client, limits: ClientLimitRule, record: Record) -> SharedAdmission | None:
        """Count one request and return its admission, or None if no such limit applies.

        Raises LimitReached, also if the limits cannot be checked.
        """
        name, rpm, concurrent = client.name, limits.rpm, limits.concurrent
        if rpm is None and concurrent is None:
            return None
        budgets, rates = _counted(name, rpm, concurrent)
        call = f"{self._prefix}-{next(self._numbers)}"
        try:
            found = await self._gate.hold(HoldRequest(call, 0, 0, budgets, rates, _WINDOWS))
        except GateUnavailable as error:
            raise LimitReached(f"the limits of this client can't be checked: {error}", 1) from error
        if rpm is not None:
            state = found.rates[0]
            record.shown.allowance = Allowance(rpm, state.remaining, state.full_in_ns / _NS)
        if isinstance(found, HoldGranted):
            return SharedAdmission(self, call)
        raise LimitReached.of(limits, found.wait_ns)

    def release(self, call: str) -> None:
        """Settle a request that has ended. The caller does not wait for it."""
        task = asyncio.get_running_loop().create_task(self._gate.settle(call, 0, 0))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)


# Each request of a client has the same ones, and their tags are digests.
@lru_cache(maxsize=10_000)
def _counted(
    name: str, rpm: int | None, concurrent: int | None
) -> tuple[tuple[BudgetLimit, ...], tuple[RatePerMinute, ...]]:
    """Return the counter and the rate of a client's requests, as far as it has these limits."""
    running = Counter(CounterKind.CLIENT, name, REQUESTS, Window.TOTAL)
    budgets = (BudgetLimit(running, concurrent),) if concurrent is not None else ()
    return budgets, (RatePerMinute(CounterKind.CLIENT, name, REQUESTS, rpm),) if rpm is not None else ()
