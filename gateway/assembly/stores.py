"""The shared stores of a cell: the gate of a process, and the ledger of an instance."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.model.budget import Stores, StoreServer, UsageRules
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.state.generated_key import USER_KEY, generated_key

if TYPE_CHECKING:
    from gateway.usage.gate_file import FileGate
    from gateway.usage.gate_valkey import ValkeyGate
    from gateway.usage.ledger_writer import LedgerStore
    from gateway.usage.postgres_reader import PostgresUsageReader
    from gateway.usage.reports import UsageReader

GATE_FOLDER = "gate"
OUTAGE_FOLDER = "outage"
_RECOVERED_S = 5.0
_READY_S = 3.0
_FOLLOWED_S = 1.0
_MISSING = "`stores` needs more packages: pip install 'assistant-gateway[stores]'"


class SharedStores:
    """The gate of one process on the shared Valkey. Call `start` in the event loop that uses it.

    Args:
        database: The shared database.
        valkey: The shared Valkey.
        config: Returns the present config.
        state_dir: The state directory of this instance.
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
        failed: Callable[[str], None],
    ) -> None:
        try:
            from gateway.usage.gate_epoch import EpochKeeper
            from gateway.usage.gate_on_loss import OutageGate
            from gateway.usage.gate_valkey import ValkeyGate
        except ImportError:
            raise StateError(_MISSING) from None
        from gateway.usage.lost_calls import LostCallRecovery

        instance = instance_name(state_dir)
        owner = f"{instance}/{secrets.token_hex(8)}"
        self._valkey = ValkeyGate(valkey, _cell_name(config()), owner, failed=failed)
        self._keeper = EpochKeeper(
            self._valkey,
            database,
            instance,
            lambda positions: has_unshipped_rows(state_dir, positions),
            lambda: ZoneInfo(config().usage.timezone),
            failed,
        )
        self.gate = OutageGate(self._valkey, state_dir / OUTAGE_FOLDER, lambda: config().usage.on_loss)
        self._recovery = LostCallRecovery(self.gate, state_dir, failed)
        self._recovering: asyncio.Task[None] | None = None

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
        self._recovery.close()
        self.gate.close()

    async def _recover(self) -> None:
        """Settle the calls of processes that have ended. All processes do, so they begin at different times."""
        while True:
            await asyncio.sleep(_RECOVERED_S * random.uniform(0.5, 1.5))  # noqa: S311
            await self._recovery.recover()


def shared_stores(
    config: Callable[[], ConfigVersion], state_dir: Path, failed: Callable[[str], None]
) -> SharedStores | None:
    """Return the shared gate of this process if the config has one. Raises StateError."""
    stores = config().stores
    if stores is None or stores.valkey is None or stores.database is None:
        return None
    return SharedStores(stores.database, stores.valkey, config, state_dir, failed)


def shared_ledger(
    stores: Stores | None, state_dir: Path, rules: Callable[[], UsageRules], failed: Callable[[str], None]
) -> LedgerStore | None:
    """Return the shared ledger, or None if there is none.

    A database that cannot be reached is reported, and rows wait in the spools.

    Raises:
        StateError: The database refuses the password, or its schema does not fit this release.
    """
    if stores is None or stores.database is None:
        return None
    try:
        from gateway.usage.postgres import DatabaseUnreachable
        from gateway.usage.postgres_ledger import PostgresLedger
    except ImportError:
        raise StateError(_MISSING) from None
    instance = instance_name(state_dir)
    ledger = PostgresLedger(stores.database, instance, lambda: ZoneInfo(rules().timezone))
    try:
        ledger.positions()
    except DatabaseUnreachable as error:
        failed(f"usage rows stay in the spools until this is fixed: {error}")
    except BaseException:
        ledger.close()
        raise
    return ledger


def shared_user_key(config: ConfigVersion) -> bytes | None:
    """Return the key of the pseudonyms of end users that all instances share, or None without stores."""
    pepper = config.secrets.pepper
    if config.stores is None or not pepper:
        return None
    # The older one, so that pseudonyms stay the same while the pepper is replaced.
    return hmac.digest(pepper[-1].reveal().encode(), b"pseudonyms of end users", "sha256")


def user_key(state_dir: Path) -> bytes:
    """Return the key that makes the pseudonyms of end users, if the configuration has no `secrets.identity`.

    The first call makes it, readable by this user only.

    Raises:
        StateError: The file can't be used, or was changed.
    """
    return generated_key(state_dir, USER_KEY)


def instance_name(state_dir: Path) -> str:
    """Return the name of the instance with this state directory. Raises StateError."""
    return hashlib.sha256(b"instance\0" + user_key(state_dir)).hexdigest()[:16]


def has_unshipped_rows(state_dir: Path, positions: Mapping[str, int]) -> bool:
    """Return whether the spools of a state directory have rows after these positions. Raises OSError, StateError."""
    from gateway.usage.spool import batches, spool_files

    for recovered in (False, True):
        for file in spool_files(state_dir, {}, recovered=recovered):
            try:
                if any(batch.rows for batch in batches(file, positions.get(file.name, 0))):
                    return True
            finally:
                file.close()
    return False


@asynccontextmanager
async def operator_gate(config: Callable[[], ConfigVersion], state_dir: Path) -> AsyncIterator[FileGate | ValkeyGate]:
    """Open the gate of an installation to read and change budgets. It holds no calls. Raises StateError."""
    stores = config().stores
    if stores is None or stores.valkey is None:
        from gateway.usage.gate_file import FileGate

        file_gate = FileGate.open(state_dir / GATE_FOLDER)
        try:
            yield file_gate
        finally:
            file_gate.close()
        return
    try:
        from gateway.usage.gate_valkey import ValkeyGate
    except ImportError:
        raise StateError(_MISSING) from None
    gate = ValkeyGate(stores.valkey, _cell_name(config()), f"{instance_name(state_dir)}/operator")
    await gate.connection.start()
    await gate.follow_epoch()
    following = asyncio.get_running_loop().create_task(_follow(gate))
    try:
        yield gate
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await gate.connection.close()


async def _follow(gate: ValkeyGate) -> None:
    while True:
        await asyncio.sleep(_FOLLOWED_S)
        await gate.follow_epoch()


def usage_reader(stores: Stores | None, state_dir: Path) -> UsageReader | PostgresUsageReader:
    """Open the ledger of an installation for reports. Raises StateError."""
    from gateway.usage.reports import UsageReader

    if stores is None or stores.database is None:
        return UsageReader(state_dir)
    try:
        from gateway.usage.postgres_reader import PostgresUsageReader
    except ImportError:
        raise StateError(_MISSING) from None
    return PostgresUsageReader(stores.database)


def _cell_name(config: ConfigVersion) -> str:
    return config.cell.key_name if config.cell is not None else "local"
