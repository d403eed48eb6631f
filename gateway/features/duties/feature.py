"""Export and erase the time of a user, for requests of a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.features.duties.model import UsedDay, UseKey
from gateway.features.duties.time_of_use import LocalTimes, MemoryStore, TimeOfUse, UseTimes
from gateway.features.feature import Feature, KeptOfUsers, Process
from gateway.installation import cell_name
from gateway.model.budget import StoreServer
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError

if TYPE_CHECKING:
    from gateway.features.duties.shared_times import SharedTimes

_DEADLINE_S = 2.0
_T = TypeVar("_T")


def _export(
    config: ConfigVersion, directory: Path, pseudonyms: Sequence[str], client: str | None, of_rows: frozenset[str]
) -> list[object]:
    from gateway.features.duties.state import use_records_of

    # In a cell, these are of the time before it had shared stores.
    found = use_records_of(directory, pseudonyms, client)
    if (server := _valkey_of(config)) is not None:
        keys = _keys(config, pseudonyms, client, of_rows)
        found += _ask(server, config, lambda times: times.records_of(keys))
    return [_data(key, day) for key, day in found]


def _erase(
    config: ConfigVersion, directory: Path, pseudonyms: Sequence[str], client: str | None, of_rows: frozenset[str]
) -> int:
    from gateway.features.duties.state import remove_use_records

    removed = remove_use_records(directory, pseudonyms, client)
    if (server := _valkey_of(config)) is not None:
        keys = _keys(config, pseudonyms, client, of_rows)
        removed += _ask(server, config, lambda times: times.remove(keys))
    return removed


def _keys(config: ConfigVersion, aliases: Sequence[str], client: str | None, of_rows: frozenset[str]) -> list[UseKey]:
    """Return the keys of a person. Valkey has digests of them, so the names of clients have to be known."""
    names = {"", *of_rows, *(one.name for one in config.clients.values())} if client is None else {client}
    return [UseKey(pseudonym, name) for pseudonym in aliases for name in sorted(names)]


def _valkey_of(config: ConfigVersion) -> StoreServer | None:
    stores = config.stores
    return stores.valkey if stores is not None and stores.database is not None else None


def _ask(server: StoreServer, config: ConfigVersion, question: Callable[[SharedTimes], Awaitable[_T]]) -> _T:
    """Ask the Valkey of the cell. Raises StateError."""
    from gateway.cell.valkey_connection import ValkeyConnection, ValkeyUnavailable
    from gateway.features.duties.shared_times import SharedTimes

    async def asked() -> _T:
        connection = ValkeyConnection(server, deadline_s=_DEADLINE_S)
        await connection.start()
        try:
            return await question(SharedTimes(connection, cell_name(config)))
        except ValkeyUnavailable as error:
            raise StateError(f"the time of users in Valkey can't be read or changed: {error}") from error
        finally:
            await connection.close()

    return asyncio.run(asked())


def _data(key: UseKey, day: UsedDay) -> dict[str, object]:
    noticed = _time(day.noticed_ms) if day.noticed_ms else None
    times = {"date": day.date, "began": _time(day.began_ms), "seen": _time(day.seen_ms)}
    return {"client": key.client or None, **times, "day_s": day.day_ms // 1000, "noticed": noticed}


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_of_use(process: Process) -> TimeOfUse:
    """Return what counts the time of users in a process: in Valkey for a cell, else in the state directory."""
    if process.state_dir is None:
        # A gateway with clients would not start. This is a demo, or one inside another program.
        return TimeOfUse(LocalTimes(MemoryStore()), process.user_key)
    from gateway.features.duties.state import UseStore

    times: UseTimes
    if process.gate is not None and _valkey_of(process.current()) is not None:
        from gateway.features.duties.shared_times import cell_times

        times = cell_times(process.gate, cell_name(process.current()), UseStore(process.state_dir))
    else:
        times = LocalTimes(UseStore(process.state_dir))
    return TimeOfUse(times, process.user_key)


DUTIES = Feature(
    "duties", kept=None, of_users=KeptOfUsers("use", _export, _erase), gate=_time_of_use, watcher=None, paths=()
)
