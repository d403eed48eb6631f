"""Keep the time of users in Valkey, which all instances of a cell share. Its `TIME` is the clock.

A record is `{date, began, seen, day, noticed}` in MessagePack. The times are milliseconds after `began`, but `began`
itself. It is below the hash tag of the cell, as the keys of the gate, but not in its epoch: an emptied server begins
anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.features.duties.model import KEPT_MS, UseKey, UseRecord, UseRules
from gateway.features.duties.policy import Arrival, arrival, day_at
from gateway.features.duties.time_of_use import MemoryStore, UseUnavailable
from gateway.operator_errors import StateError
from gateway.usage.valkey_connection import Script, ValkeyConnection, ValkeyUnavailable

if TYPE_CHECKING:
    from gateway.features.duties.state import UseStore

_DAY_MS = 86_400_000
_DIGEST_BYTES = 12
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode

_NOW = """
local function now_ms()
  if ARGV[1] ~= '0' then return tonumber(ARGV[1]) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
READ = Script(_NOW + "return {redis.call('GET', KEYS[1]), now_ms()}")
EXTEND = Script(
    _NOW
    + """
-- KEYS: the record. ARGV: time, and the arrival, the gap, whether a notice was shown, and three days with their bounds.
local at, gap, is_noticed, days, kept = unpack(cmsgpack.unpack(ARGV[2]))
local now = now_ms()
local function day_at(instant)
  local found = days[1]
  for _, day in ipairs(days) do if day[2] <= instant then found = day end end
  return found
end
local function part(day, began, ended)
  return math.max(0, math.min(ended, day[3]) - math.max(began, day[2]))
end
local raw = redis.call('GET', KEYS[1])
local began, seen, before, noticed = at, math.max(at, now), 0, 0
local date, old_began, old_seen, old_day, old_noticed
if raw then
  date, old_began, old_seen, old_day, old_noticed = unpack(cmsgpack.unpack(raw))
  old_seen = old_began + old_seen
  if at - old_seen < gap then
    began, seen = math.min(old_began, at), math.max(old_seen, seen)
    if old_noticed >= 0 then noticed = old_began + old_noticed end
  else
    old_began = nil
  end
end
local day = day_at(seen)
if raw and date == day[1] then
  before = old_day
  if old_began then before = math.max(0, before - part(day, old_began, old_seen)) end
end
if is_noticed then noticed = math.max(noticed, at, now) end
local record = {day[1], began, seen - began, before + part(day, began, seen), noticed == 0 and -1 or noticed - began}
redis.call('SET', KEYS[1], cmsgpack.pack(record), 'PX', string.format('%.0f', math.max(1, kept + seen - now)))
return 1
"""
)


class SharedTimes:
    """The time of users in Valkey.

    Args:
        connection: The connection of this process.
        cell: The name of the cell, which all keys contain.
        now_ms: Returns the time instead of the server, for tests.
    """

    def __init__(self, connection: ValkeyConnection, cell: str, now_ms: Callable[[], int] | None = None) -> None:
        self.now_ms = now_ms
        self._connection = connection
        self._prefix = f"{{gateway:{cell}}}:use:".encode()

    @property
    def _now(self) -> str:
        return "0" if self.now_ms is None else str(self.now_ms())

    async def read(self, key: UseKey) -> tuple[UseRecord | None, int]:
        """Return the record of a user, or None, and the time. Raises ValkeyUnavailable."""
        found: Any = await self._connection.run(READ, (self._key(key),), self._now)
        raw, now_ms = found
        return (record_of(raw) if raw is not None else None), int(now_ms)

    async def extend(self, key: UseKey, at_ms: int, rules: UseRules, *, is_noticed: bool, about_ms: int) -> None:
        """Extend the time of a user to now. See `extended`. Raises ValkeyUnavailable.

        Args:
            key: The user.
            at_ms: When the chat arrived.
            rules: The rules of its region.
            is_noticed: Its answer has shown the label with `repeat`.
            about_ms: The time, less than a day wrong.
        """
        days = [day_at(about_ms + shift * _DAY_MS, rules.timezone) for shift in (-1, 0, 1)]
        bounds = [(_number_of(day.date), day.start_ms, day.end_ms) for day in days]
        packed = _pack((at_ms, rules.gap_ms, is_noticed, bounds, KEPT_MS))
        await self._connection.run(EXTEND, (self._key(key),), self._now, packed)

    async def records_of(self, keys: Iterable[UseKey]) -> list[tuple[UseKey, UseRecord]]:
        """Return the records of these users. Raises ValkeyUnavailable."""
        listed = [*keys]
        answers = await asyncio.gather(*map(self.read, listed))
        return [(key, record) for key, (record, _) in zip(listed, answers, strict=True) if record is not None]

    async def remove(self, keys: Iterable[UseKey]) -> int:
        """Delete the records of these users, and return their number. Raises ValkeyUnavailable."""
        names = [self._key(key) for key in keys]
        removed: Any = await self._connection.call("DEL", *names) if names else 0
        return int(removed)

    def _key(self, key: UseKey) -> bytes:
        digest = hashlib.blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return self._prefix + digest


def record_of(raw: bytes) -> UseRecord:
    """Return a stored record."""
    number, began_ms, seen, day_ms, noticed = _unpack(raw, type=tuple[int, int, int, int, int])
    noticed_ms = 0 if noticed < 0 else began_ms + noticed
    return UseRecord(_date_of(number), began_ms, began_ms + seen, day_ms, noticed_ms)


def _number_of(day: str) -> int:
    return date.fromisoformat(day).toordinal()


def _date_of(number: int) -> str:
    return date.fromordinal(number).isoformat()


class CellTimes:
    """The time of users in the Valkey of a cell, whose clock decides.

    Args:
        shared: The store.
        former: The records of the time before the cell had shared stores.
        clock: Returns Unix time in seconds, about which days are computed.
    """

    def __init__(
        self, shared: SharedTimes, former: UseStore | MemoryStore, clock: Callable[[], float] = time.time
    ) -> None:
        self.shared = shared
        self.clock = clock
        self._former = former

    @property
    def has_records_here(self) -> bool:
        """See `UseTimes`."""
        return self._former.exists

    async def open(self) -> None:
        """See `UseTimes`: the connection opens itself."""

    async def write(self) -> None:
        """See `UseTimes`: all is in the server."""

    async def arrive(self, key: UseKey, rules: UseRules, elapsed_s: float) -> Arrival:
        """See `UseTimes`."""
        try:
            record, now_ms = await self.shared.read(key)
        except ValkeyUnavailable as error:
            raise UseUnavailable(str(error)) from error
        return arrival(record, now_ms - round(elapsed_s * 1000), rules)

    async def extend(self, key: UseKey, now: Arrival, rules: UseRules, *, is_noticed: bool) -> None:
        """See `UseTimes`."""
        about_ms = max(now.at_ms, round(self.clock() * 1000))
        try:
            await self.shared.extend(key, now.at_ms, rules, is_noticed=is_noticed, about_ms=about_ms)
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
