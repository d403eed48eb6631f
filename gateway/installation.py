"""Open the parts of an installation, in its state directory or in the shared stores: clients, budgets and the ledger.

This is the door to `gateway.cell`, the shared stores.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.model.budget import Stores
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.state.generated_key import USER_KEY, generated_key

if TYPE_CHECKING:
    from gateway.cell.serving import SharedStores
    from gateway.state.client_store import ClientStore
    from gateway.state.database import Database
    from gateway.usage.duty_counts import DutyKey
    from gateway.usage.gate import OperatorGate
    from gateway.usage.journal import Journal
    from gateway.usage.ledger import Ledger
    from gateway.usage.reports import UsageReader

MISSING_PACKAGES = "`stores` needs more packages: pip install asyncpg libvalkey"
_NAMED_USERS = "named-users"
_CLIENTS_S = 3.0
_REPORT_S = 120.0
_STATEMENT_S = 15.0


@contextmanager
def needs_packages() -> Iterator[None]:
    """Import what needs the packages of shared stores. Raises StateError without them."""
    try:
        yield
    except ImportError:
        raise StateError(MISSING_PACKAGES) from None


def client_store(config: ConfigVersion, state_dir: Path) -> ClientStore:
    """Open the database of the clients of an installation, and of the blocks of its keys. Raises StateError."""
    from gateway.state.client_store import ClientStore

    shared = shared_database(config.stores, _CLIENTS_S)
    if shared is None:
        return ClientStore(state_dir)
    return ClientStore(state_dir, shared, instance_name(state_dir), shares_clients=config.has_shared_clients)


def shared_database(stores: Stores | None, command_s: float = _STATEMENT_S) -> Database | None:
    """Return the shared database, which is connected when it is first used, or None. Raises StateError."""
    if stores is None or stores.database is None:
        return None
    with needs_packages():
        from gateway.cell.postgres import Postgres
    return Postgres(stores.database, command_s=command_s)


def pseudonym_key(config: ConfigVersion, state_dir: Path) -> bytes:
    """Return the key of the pseudonyms of end users: with stores, all instances share one key. Raises StateError."""
    # The oldest one, so that pseudonyms stay the same while the pepper is replaced.
    return pseudonym_keys(config, state_dir)[0]


def pseudonym_keys(config: ConfigVersion, state_dir: Path) -> list[bytes]:
    """Return each key that may have made pseudonyms, the one in use first. Raises StateError."""
    peppers = config.secrets.pepper[::-1] if config.stores is not None else ()
    shared = [hmac.digest(one.reveal().encode(), b"pseudonyms of end users", "sha256") for one in peppers]
    return [*shared, generated_key(state_dir, USER_KEY)]


def note_named_users(state_dir: Path) -> None:
    """Note at the first start with this directory that users were always named with their issuers. Raises StateError.

    A directory that release 1.0 took over from 0.2 has the time of that in its place: until then, the subject of a
    claim had no issuer in its name. Rows of that time are still in its ledger.
    """
    path = state_dir / _NAMED_USERS
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
            file.write("0\n")
    except OSError as error:
        raise StateError(f"{path} can't be used: {error.strerror}") from error


def users_renamed_ns(state_dir: Path) -> int:
    """Return when this installation began to name users with their issuers, or 0 if it always did."""
    with suppress(FileNotFoundError, ValueError):
        return int((state_dir / _NAMED_USERS).read_text("ascii"))
    return 0


def instance_name(state_dir: Path) -> str:
    """Return the name of the instance with this state directory. Raises StateError."""
    return hashlib.sha256(b"instance\0" + generated_key(state_dir, USER_KEY)).hexdigest()[:16]


@asynccontextmanager
async def operator_gate(config: Callable[[], ConfigVersion], state_dir: Path) -> AsyncIterator[OperatorGate]:
    """Open the gate of an installation to read and change budgets. It holds no calls. Raises StateError."""
    stores = config().stores
    if stores is None or stores.valkey is None:
        from gateway.usage.gate import GateUnavailable
        from gateway.usage.journal import FOLDER, Journal

        # In a mounted backup, what is spent can be shown, and not changed.
        flags = os.O_RDWR | os.O_CREAT if os.access(state_dir, os.W_OK) else os.O_RDONLY
        with closing(Journal.open(state_dir / FOLDER, flags=flags)) as journal:
            if stores is None or stores.database is None:
                with suppress(GateUnavailable):  # a gateway uses it
                    if journal.is_new:
                        _rebuild_at_rest(config(), state_dir)
            yield journal
        return
    with needs_packages():
        from gateway.cell.serving import gate_for_operators
    async with gate_for_operators(stores.valkey, cell_name(config()), instance_name(state_dir)) as gate:
        yield gate


def serving_stores(config: Callable[[], ConfigVersion], state_dir: Path, journal: Journal) -> SharedStores | None:
    """Return the shared stores of a process that serves requests, or None without any. Raises StateError.

    The owner of the journal closes it.
    """
    stores = config().stores
    if stores is None or stores.valkey is None or stores.database is None:
        return None
    with needs_packages():
        from gateway.cell.serving import SharedStores
    instance = instance_name(state_dir), cell_name(config())
    return SharedStores(stores.database, stores.valkey, config, state_dir, journal, *instance)


def _rebuild_at_rest(config: ConfigVersion, state_dir: Path) -> None:
    """Count budgets again as the next start would: after a restore or a start of the machine, the journal is new."""
    from gateway.state.lock import InUse, Lock
    from gateway.usage.ledger_writer import LedgerWriter, ledger_rules

    try:
        lock = Lock(state_dir)
    except InUse:  # a gateway starts and does this itself
        return
    try:
        with closing(LedgerWriter(state_dir, lambda: ledger_rules(config), lambda _: None)) as writer:
            writer.rebuild_new_counters(config)
    finally:
        lock.release()


def ledger_of(config: ConfigVersion, state_dir: Path) -> Ledger:
    """Open the ledger of an installation for a change by an operator. Raises StateError."""
    from gateway.usage.ledger import Ledger, ledger_file

    database = shared_database(config.stores, _REPORT_S) or ledger_file(state_dir)
    return Ledger(database, lambda: ZoneInfo(config.usage.timezone), instance_name(state_dir))


def usage_reader(stores: Stores | None, state_dir: Path) -> UsageReader:
    """Open the ledger of an installation for reports. Raises StateError."""
    from gateway.usage.reports import UsageReader

    database = shared_database(stores, _REPORT_S)
    return UsageReader(state_dir if database is None else None, database)


def duty_sums(stores: Stores | None, state_dir: Path, months: tuple[str, str]) -> Mapping[DutyKey, int]:
    """Return the counts of duties of an installation in these months, both included. Raises StateError."""
    from gateway.usage.duty_counts import add_up
    from gateway.usage.journal_reading import waiting_duties
    from gateway.usage.ledger import ledger_to_read

    database = shared_database(stores, _REPORT_S)
    # Before the ledger is read: a number that is moved in the meantime is in both, and counts once.
    waiting = waiting_duties(state_dir) if database is None else []
    with closing(database or ledger_to_read(state_dir)) as opened, opened.transaction(reads_only=True) as statements:
        return add_up(statements, waiting, months)


def counted_regions(stores: Stores | None, state_dir: Path) -> set[str]:
    """Return the regions for which a duty was counted in any month. Raises StateError."""
    return {key.region for key in duty_sums(stores, state_dir, ("0000-01", "9999-12"))}


def cell_name(config: ConfigVersion) -> str:
    """Return the name of the cell in the keys of the shared store."""
    return config.cell.key_name if config.cell is not None else "local"
