"""Open the gate on the shared Valkey: of a process that serves requests, and of a command of an operator."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.cell.epoch import EpochKeeper
from gateway.cell.outage_gate import OutageGate
from gateway.cell.shared_limits import SharedClientLimits
from gateway.cell.valkey_gate import ValkeyGate
from gateway.model.budget import StoreServer
from gateway.model.config_version import ConfigVersion
from gateway.tasks import stopped
from gateway.usage.gate import GateUnavailable
from gateway.usage.journal import Journal
from gateway.usage.journal_reading import waiting_rows

_RECOVERED_S = 5.0
_READY_S = 3.0
_FOLLOWED_S = 1.0
_DEADLINE_S = 2.0


class SharedStores:
    """The gate of one process on the shared Valkey. Call `start` in the event loop that uses it. Raises StateError.

    The owner of the journal closes it.
    """

    def __init__(
        self,
        database: StoreServer,
        valkey: StoreServer,
        config: Callable[[], ConfigVersion],
        state_dir: Path,
        journal: Journal,
        instance: str,
        cell: str,
    ) -> None:
        owner = f"{instance}/{secrets.token_hex(8)}"
        self._valkey = ValkeyGate(valkey, cell, owner)
        self._keeper = EpochKeeper(
            self._valkey,
            database,
            instance,
            lambda: bool(waiting_rows(state_dir, 1)),
            lambda: ZoneInfo(config().usage.timezone),
            config,
        )
        self.gate = OutageGate(self._valkey, journal, lambda: config().usage.on_loss)
        self.limits = SharedClientLimits(self.gate)
        self._recovering: asyncio.Task[None] | None = None

    def problems(self) -> dict[str, str]:
        """Return why a store cannot be used now, by the kind of the store."""
        found = {"valkey": self._valkey.problem, "database": self._keeper.problem}
        return {kind: problem for kind, problem in found.items() if problem is not None}

    async def start(self) -> None:
        """Connect, and begin the work in the background."""
        await self._valkey.start()
        self._keeper.start()
        # Without the counters, requests with a budget would be refused. If the others have not counted this instance,
        # its share would be added to theirs. The gateway starts in any case.
        try:
            async with asyncio.timeout(_READY_S):
                await self._keeper.is_ready.wait()
                await self._valkey.meet()
        except (TimeoutError, GateUnavailable):
            await self._keeper.count_instances()
        self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def aclose(self) -> None:
        """Finish what is pending if the stores answer."""
        await stopped(self._recovering)
        await self._valkey.close()
        await self._keeper.close()

    async def _recover(self) -> None:
        """Settle the calls of processes that have ended. All processes do, so they begin at different times."""
        while True:
            await asyncio.sleep(_RECOVERED_S * random.uniform(0.5, 1.5))  # noqa: S311
            await self.gate.recover()


@asynccontextmanager
async def gate_for_operators(valkey: StoreServer, cell: str, instance: str) -> AsyncIterator[ValkeyGate]:
    """Open a gate that follows the epoch, and holds no calls."""
    gate = ValkeyGate(valkey, cell, f"{instance}/operator", deadline_s=_DEADLINE_S)
    await gate.connection.start()
    await gate.follow_epoch()
    following = asyncio.get_running_loop().create_task(_follow(gate))
    try:
        yield gate
    finally:
        await stopped(following)
        await gate.connection.close()


async def _follow(gate: ValkeyGate) -> None:
    while True:
        await asyncio.sleep(_FOLLOWED_S)
        await gate.follow_epoch()
