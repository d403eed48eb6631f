"""Keep the time of users in Valkey, which all instances of a cell share. Its `TIME` is the clock.

A record is a `UseRecord` in MessagePack. It is below the hash tag of the cell, as the keys of the gate, but not in its
epoch: an emptied server begins anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.cell.outage_gate import OutageGate
from gateway.cell.valkey_connection import Script, ValkeyConnection, ValkeyUnavailable
from gateway.features.duties.model import KEPT_MS, UsedDay, UseKey, UseRecord, UseRules
from gateway.features.duties.policy import Arrival, arrival, used_day
from gateway.features.duties.time_of_use import MemoryStore, UseUnavailable
from gateway.operator_errors import StateError

if TYPE_CHECKING:
    from gateway.features.duties.state import UseStore
    from gateway.usage.gate import UsageGate

_DIGEST_BYTES = 12
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode

_FOLDER = Path(__file__).with_name("scripts")
READ, EXTEND = (
    Script((_FOLDER / "now.lua").read_text("utf-8") + (_FOLDER / f"{name}.lua").read_text("utf-8"))
    for name in ("read", "extend")
)


class SharedTimes:
    """The time of users in Valkey. All keys contain the name of the cell. Tests give the time instead of the server."""

    def __init__(self, connection: ValkeyConnection, cell: str, now_ms: Callable[[], int] | None = None) -> None:
        self.now_ms = now_ms
        self._connection = connection
        self._prefix = f"{{gateway:{cell}}}:".encode()

    @property
    def _now(self) -> str:
        return "0" if self.now_ms is None else str(self.now_ms())

    async def read(self, key: UseKey) -> tuple[UseRecord | None, int]:
        """Return the record of a user, or None, and the time. Raises ValkeyUnavailable."""
        raw, now_ms = cast(Any, await self._connection.run(READ, (self._name_of(key),), self._now))
        return _unpack(raw, type=UseRecord) if raw is not None else None, int(now_ms)

    async def extend(self, key: UseKey, at_ms: int, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0) -> None:
        """Extend the time of a user to a moment so long ago. See `extended`. Raises ValkeyUnavailable."""
        packed = _pack((at_ms, rules.gap_ms, is_noticed, rules.timezone, KEPT_MS, round(ago_s * 1000)))
        await self._connection.run(EXTEND, (self._name_of(key),), self._now, packed)

    async def records_of(self, keys: Iterable[UseKey]) -> list[tuple[UseKey, UsedDay]]:
        """Return the records of these users. Raises ValkeyUnavailable."""
        listed = [*keys]
        found = await asyncio.gather(*map(self.read, listed))
        return [(key, used_day(it)) for key, (it, _) in zip(listed, found, strict=True) if it is not None]

    async def remove(self, keys: Iterable[UseKey]) -> int:
        """Delete the records of these users, and return their number. Raises ValkeyUnavailable."""
        names = [self._name_of(key) for key in keys]
        removed: Any = await self._connection.call("DEL", *names) if names else 0
        return int(removed)

    def _name_of(self, key: UseKey) -> bytes:
        """Return the key of the record in the server."""
        digest = hashlib.blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return self._prefix + b"used:" + digest


class CellTimes:
    """The `UseTimes` in the Valkey of a cell, whose clock decides.

    `former` has the records of the time before the cell had shared stores.
    """

    def __init__(
        self, shared: SharedTimes, former: UseStore | MemoryStore, clock: Callable[[], float] = time.time
    ) -> None:
        self.shared = shared
        self.clock = clock
        self._former = former

    @property
    def has_records_here(self) -> bool:
        return self._former.exists

    async def open(self) -> None:
        """See `UseTimes`: the connection opens itself."""

    async def write(self) -> None:
        """See `UseTimes`: all is in the server."""

    async def arrive(self, key: UseKey, rules: UseRules, elapsed_s: float) -> Arrival:
        try:
            record, now_ms = await self.shared.read(key)
        except ValkeyUnavailable as error:
            raise UseUnavailable(str(error)) from error
        return arrival(record, now_ms - round(elapsed_s * 1000), rules)

    async def extend(self, key: UseKey, now: Arrival, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0) -> None:
        try:
            await self.shared.extend(key, now.at_ms, rules, is_noticed=is_noticed, ago_s=ago_s)
        except ValkeyUnavailable as error:
            raise UseUnavailable(str(error)) from error

    def extend_now(self, key: UseKey, now: Arrival, rules: UseRules, *, is_noticed: bool) -> None:
        """See `UseTimes`: the server has to be waited for."""

    async def tidy(self) -> None:
        """See `UseTimes`: the server deletes a record when its time is over, but not those of before."""
        if self._former.exists:
            try:
                await asyncio.to_thread(self._former.tidy, round(self.clock() * 1000) - KEPT_MS)
            except StateError as error:
                raise UseUnavailable(str(error)) from error


def cell_times(gate: UsageGate, cell: str, former: UseStore) -> CellTimes:
    """Return the times in the Valkey of the shared gate of a process."""
    return CellTimes(SharedTimes(cast(OutageGate, gate).shared.connection, cell), former)
