"""The shared stores of a cell: the gate of a process, and the ledger of an instance."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.model.budget import Stores, StoreServer, UsageRules
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import DatabaseUnreachable, StateError
from gateway.undo import undone_on_failure
from gateway.usage.installation import MISSING_PACKAGES, cell_name, instance_name

if TYPE_CHECKING:
    from gateway.usage.journal import Journal
    from gateway.usage.ledger import Ledger

_RECOVERED_S = 5.0
_READY_S = 3.0


class SharedStores:
    """The gate of one process on the shared Valkey. Call `start` in the event loop that uses it.

    Args:
        database: The shared database.
        valkey: The shared Valkey.
        config: Returns the present config.
        state_dir: The state directory of this instance.
        journal: The journal of this instance. Its owner closes it.
        failed: Called with a message about a problem.

    Raises:
        StateError: The state directory cannot be used.
    """

    def __init__(
        self,
        database: StoreServer,
        valkey: StoreServer,
        config: Callable[[], ConfigVersion],
        state_dir: Path,
        journal: Journal,
        failed: Callable[[str], None],
    ) -> None:
        try:
            from gateway.usage.gate_epoch import EpochKeeper
            from gateway.usage.gate_on_loss import OutageGate
            from gateway.usage.gate_valkey import ValkeyGate
        except ImportError:
            raise StateError(MISSING_PACKAGES) from None
        from gateway.usage.journal import waiting_rows

        instance = instance_name(state_dir)
        owner = f"{instance}/{secrets.token_hex(8)}"
        self._valkey = ValkeyGate(valkey, cell_name(config()), owner, failed=failed)
        self._keeper = EpochKeeper(
            self._valkey,
            database,
            instance,
            lambda: bool(waiting_rows(state_dir, 1)),
            lambda: ZoneInfo(config().usage.timezone),
            failed,
        )
        self.gate = OutageGate(self._valkey, journal, lambda: config().usage.on_loss)
        self._recovering: asyncio.Task[None] | None = None

    def problems(self) -> dict[str, str]:
        """Return why a store cannot be used now, by the kind of the store."""
        found = {"valkey": self._valkey.problem, "database": self._keeper.problem}
        return {kind: problem for kind, problem in found.items() if problem is not None}

    async def start(self) -> None:
        """Connect, and begin the work in the background."""
        await self._valkey.start()
        self._keeper.start()
        # Without the counters, requests with a budget would be refused. The gateway starts in any case.
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                await self._keeper.is_ready.wait()
        self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def aclose(self) -> None:
        """Finish what is pending if the stores answer."""
        if self._recovering is not None:
            self._recovering.cancel()
            with suppress(asyncio.CancelledError):
                await self._recovering
        await self._valkey.close()
        await self._keeper.close()

    async def _recover(self) -> None:
        """Settle the calls of processes that have ended. All processes do, so they begin at different times."""
        while True:
            await asyncio.sleep(_RECOVERED_S * random.uniform(0.5, 1.5))  # noqa: S311
            await self.gate.recover()


def shared_stores(
    config: Callable[[], ConfigVersion], state_dir: Path, journal: Journal, failed: Callable[[str], None]
) -> SharedStores | None:
    """Return the shared gate of this process if the config has one. Raises StateError."""
    stores = config().stores
    if stores is None or stores.valkey is None or stores.database is None:
        return None
    return SharedStores(stores.database, stores.valkey, config, state_dir, journal, failed)


def shared_ledger(
    stores: Stores | None, state_dir: Path, rules: Callable[[], UsageRules], failed: Callable[[str], None]
) -> Ledger | None:
    """Return the shared ledger, or None if there is none.

    A database that cannot be reached is reported, and rows wait in the journal.

    Raises:
        StateError: The database refuses the password, or its schema does not fit this release.
    """
    if stores is None or stores.database is None:
        return None
    try:
        from gateway.usage.ledger import Ledger
        from gateway.usage.postgres import Postgres
    except ImportError:
        raise StateError(MISSING_PACKAGES) from None
    instance = instance_name(state_dir)
    ledger = Ledger(Postgres(stores.database), lambda: ZoneInfo(rules().timezone), instance)
    with undone_on_failure(ledger.close):
        try:
            ledger.connect()
        except DatabaseUnreachable as error:
            failed(f"usage rows stay in the journal until this is fixed: {error}")
    return ledger
