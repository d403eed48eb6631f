"""The Lua scripts of the gate on Valkey. One script call is one atomic operation.

**Numbers.** Lua computes with doubles, which are exact up to 2^53. An amount is two numbers, `high * BASE + low`, so it
is exact up to the largest amount of a budget. Times are microseconds of the server's clock.

**Keys.** All begin with the hash tag of the cell, so a cluster keeps them on one node:

- the epoch: its id, the run of the server, and `building` or `ready`
- for each counter: `{generation, start, end, spent, held, credit}` in MessagePack. The generation changes with each
  window, so that a call settles only in the window in which it was admitted
- for each rate: the nanoseconds until it is full, and when that was computed
- for each owner (process): a hash of its open calls, with the generations of their counters
- the owners, with the time of their last sign of life

**Answers.** MessagePack, or the text `EPOCH` if the caller's epoch has ended.

The arguments and answers are made and read below the scripts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.usage.gate import Counter, CounterState, HoldRequest, Measure
from gateway.usage.lost_call import LostUsage, RunningCost, lost_usage
from gateway.usage.valkey_connection import Script
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, AllBounds

BASE = 1_000_000_000
"""An amount is `high * BASE + low`."""

FOREVER_US = 2**53 - 1
"""The end of the window `total`."""

LARGEST_NS = 2**53 - 1

EPOCH_ENDED = b"EPOCH"

READY, BUILDING = "ready", "building"

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode
_TOKENS = int(Measure.TOKENS)

_COMMON = f"""
local BASE, FOREVER, LARGEST, MINUTE_NS = {BASE}, {FOREVER_US}, {LARGEST_NS}, 60000000000
local KEPT_MS = 3600000

local function is_current(needs_ready)
  local epoch = redis.call('GET', KEYS[1])
  return epoch == ARGV[2] .. '|ready' or (not needs_ready and epoch == ARGV[2] .. '|building')
end

local function server_us(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function carried(high, low)
  local carry = math.floor(low / BASE)
  return high + carry, low - carry * BASE
end

local function save(key, counter)
  local packed = cmsgpack.pack(counter)
  if counter[3] >= FOREVER then
    redis.call('SET', key, packed)
  else
    redis.call('SET', key, packed, 'PXAT', string.format('%.0f', math.floor(counter[3] / 1000) + KEPT_MS))
  end
end

-- generation, start, end, spent (high, low), held (high, low), credit (high, low)
local function opened(key, generations, start, stop, following, now)
  local raw = redis.call('GET', key)
  local counter = raw and cmsgpack.unpack(raw)
  if counter and counter[2] <= now and now < counter[3] then return counter end
  if now >= stop then start, stop = stop, following end
  stop = math.max(stop, now)
  if counter and (counter[2] > now or counter[2] == start) then
    -- The clock was set back, or the bounds of the caller have ended too: it is still this window.
    counter[2], counter[3] = start, stop
  else
    counter = {{redis.call('INCR', generations), start, stop, 0, 0, 0, 0, 0, 0}}
  end
  save(key, counter)
  return counter
end

local function missing_ns(key, now)
  local raw = redis.call('GET', key)
  if not raw then return 0, now end
  local rate = cmsgpack.unpack(raw)
  return math.max(0, rate[1] - math.max(0, now - rate[2]) * 1000)
end

local function save_rate(key, missing, now)
  local kept = string.format('%.0f', math.ceil(missing / 1000000) + 60000)
  redis.call('SET', key, cmsgpack.pack({{missing, now}}), 'PX', kept)
end

local function state_of(counter)
  return {{counter[2], counter[3], counter[4], counter[5], counter[6], counter[7], counter[8], counter[9]}}
end
"""

HOLD = Script(
    _COMMON
    + """
-- KEYS: epoch, generations, owners, open calls, counters, rates. ARGV: time, epoch, request, record of the open call.
local owner, call, forced, needs_ready, counters, rates = unpack(cmsgpack.unpack(ARGV[3]))
if not is_current(needs_ready) then return 'EPOCH' end
local now = server_us(ARGV[1])
if forced and redis.call('HEXISTS', KEYS[4], call) == 1 then return cmsgpack.pack({true, {}, {}}) end
local found, missing, fits = {}, {}, true
for index, one in ipairs(counters) do
  local counter = opened(KEYS[4 + index], KEYS[2], one[3], one[4], one[5], now)
  found[index] = counter
  local high, low = counter[8] - counter[4], counter[9] - counter[5]
  local room = carried(one[6] + high, one[7] + low)
  local free = carried(one[8] + high - counter[6], one[9] + low - counter[7])
  if room < 0 or free < 0 then fits = false end
end
for index, one in ipairs(rates) do
  missing[index] = missing_ns(KEYS[4 + #counters + index], now)
  if one[3] or missing[index] + one[2] > MINUTE_NS then fits = false end
end
if not fits and not forced then
  local states = {}
  for index, counter in ipairs(found) do states[index] = state_of(counter) end
  return cmsgpack.pack({false, states, missing})
end
local generations = {}
for index, one in ipairs(counters) do
  local counter = found[index]
  counter[6], counter[7] = carried(counter[6] + one[1], counter[7] + one[2])
  save(KEYS[4 + index], counter)
  generations[index] = counter[1]
end
for index, one in ipairs(rates) do
  missing[index] = math.min(missing[index] + one[1], LARGEST)
  save_rate(KEYS[4 + #counters + index], missing[index], now)
end
local packed = cmsgpack.pack(generations)
-- A sign of life. The calls of an unknown owner would never be found if it ends now.
redis.call('ZADD', KEYS[3], string.format('%.0f', now), owner)
redis.call('HSET', KEYS[4], call, string.format('%08d', #packed) .. packed .. ARGV[4])
return cmsgpack.pack({true, {}, missing})
"""
)

SETTLE = Script(
    _COMMON
    + """
-- KEYS: epoch, open calls, counters, rates. ARGV: time, epoch, {call, held and used amounts, change of each rate or
-- false}.
if not is_current() then return 'EPOCH' end
local call, counters, rates = unpack(cmsgpack.unpack(ARGV[3]))
local raw = redis.call('HGET', KEYS[2], call)
if not raw then return 0 end
redis.call('HDEL', KEYS[2], call)
local now = server_us(ARGV[1])
local _, generations = cmsgpack.unpack_one(raw, 8)
for index, one in ipairs(counters) do
  local key = KEYS[2 + index]
  local stored = redis.call('GET', key)
  local counter = stored and cmsgpack.unpack(stored)
  if counter and counter[1] == generations[index] then
    counter[6], counter[7] = carried(counter[6] - one[1], counter[7] - one[2])
    counter[4], counter[5] = carried(counter[4] + one[3], counter[5] + one[4])
    redis.call('SET', key, cmsgpack.pack(counter), 'KEEPTTL')
  end
end
for index, more in ipairs(rates) do
  if more then
    local key = KEYS[2 + #counters + index]
    save_rate(key, math.min(math.max(0, missing_ns(key, now) + more), LARGEST), now)
  end
end
return 1
"""
)

CHANGE = Script(
    _COMMON
    + """
-- KEYS: epoch, generations, counter. ARGV: time, epoch, {bounds, credit, spent or -1, whether the
-- credit is set instead of added}. Answer: the state.
if not is_current() then return 'EPOCH' end
local start, stop, following, credit_high, credit_low, spent_high, spent_low, is_set = unpack(cmsgpack.unpack(ARGV[3]))
local counter = opened(KEYS[3], KEYS[2], start, stop, following, server_us(ARGV[1]))
if is_set then counter[8], counter[9] = 0, 0 end
counter[8], counter[9] = carried(counter[8] + credit_high, counter[9] + credit_low)
if spent_high >= 0 then counter[4], counter[5] = spent_high, spent_low end
save(KEYS[3], counter)
return cmsgpack.pack(state_of(counter))
"""
)

READ = Script(
    _COMMON
    + """
-- KEYS: epoch, counters. ARGV: time, epoch. Answer: the time, and the state of each counter or false.
if not is_current() then return 'EPOCH' end
local states = {}
for index = 2, #KEYS do
  local raw = redis.call('GET', KEYS[index])
  states[index - 1] = raw and state_of(cmsgpack.unpack(raw)) or false
end
return cmsgpack.pack({server_us(ARGV[1]), states})
"""
)

BEAT = Script(
    _COMMON
    + """
-- KEYS: epoch, owners, open calls of this owner. ARGV: time, epoch, owner, the silence in microseconds after which an
-- owner has ended. Answer: the number of own open calls, the names of the owners, whether each has ended, and the time
-- of its last sign of life.
if not is_current() then return 'EPOCH' end
local now = server_us(ARGV[1])
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[3])
local names, ended, signs = {}, {}, {}
local all = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for index = 1, #all, 2 do
  names[#names + 1] = all[index]
  signs[#signs + 1] = tonumber(all[index + 1])
  ended[#ended + 1] = signs[#signs] < now - tonumber(ARGV[4])
end
return cmsgpack.pack({redis.call('HLEN', KEYS[3]), names, ended, signs})
"""
)

FORGET = Script(
    """
-- KEYS: owners, open calls of an owner. ARGV: the owner. Removes an owner that has no open calls.
if redis.call('HLEN', KEYS[2]) == 0 then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
"""
)

MOVE_EPOCH = Script(
    """
-- KEYS: epoch. ARGV: the value that is replaced (empty: none), the new value. Answer: the value afterwards.
local current = redis.call('GET', KEYS[1]) or ''
if current == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); return ARGV[2] end
return current
"""
)


# Arguments and answers.


class OpenCall(msgspec.Struct, array_like=True):
    """An open call, as its process and the store keep it.

    Attributes:
        counters: The tag, the measure and the bounds of the windows of each counter.
        rates: The tag, the measure and the size of each rate.
        running: Its cost if it is lost. None: its whole hold.
    """

    call: str
    row: bytes
    tokens: int
    amount_nano: int
    counters: list[tuple[int, int, int, int, int, int]]
    rates: list[tuple[int, int, int, int]]
    usual_tokens: int | None = None
    running: RunningCost | None = None

    @classmethod
    def of(cls, request: HoldRequest) -> OpenCall:
        """Return the call of a hold."""
        windows = request.windows
        return cls(
            request.call,
            request.row,
            request.tokens,
            request.amount_nano,
            [(*one.counter.tag, one.counter.measure, *_bounds_us(one.counter, windows)) for one in request.budgets],
            [(*rate.tag, rate.measure, rate.per_minute) for rate in request.rates],
            request.usual_tokens,
            request.running,
        )

    @classmethod
    def stored(cls, raw: bytes) -> OpenCall:
        """Return a call of the store, where the generations of its counters precede it."""
        return unpack(raw[8 + int(raw[:8]) :], type=cls)

    def lost(self, alive_ns: int | None) -> LostUsage:
        """Return what it is charged if its process gave its last sign of life at this time. None: unknown."""
        return lost_usage(self.row, self.tokens, self.amount_nano, self.running, alive_ns)

    @property
    def amounts(self) -> tuple[int, int, int]:
        """The amounts for budgets, by `Measure`."""
        return self.tokens, self.amount_nano, 1

    @property
    def rate_amounts(self) -> tuple[int, int, int]:
        """The amounts for rates, by `Measure`."""
        return self.tokens if self.usual_tokens is None else self.usual_tokens, self.amount_nano, 1


def hold_arguments(owner: str, one: OpenCall, request: HoldRequest | None, *, needs_ready: bool) -> bytes:
    """Return what `HOLD` is asked for. Without a request, the call is held in any case."""
    amounts = one.amounts
    # The least rest of each limit without its holds, and with them.
    rests = [(0, 0, 0, 0)] * len(one.counters)
    if request is not None:
        rests = [
            (
                *divmod(budget.limit - request.room_calls * amounts[budget.counter.measure], BASE),
                *divmod(budget.limit - amounts[budget.counter.measure], BASE),
            )
            for budget in request.budgets
        ]
    counters = [
        (*divmod(amounts[counter[2]], BASE), *counter[3:], *rest)
        for counter, rest in zip(one.counters, rests, strict=True)
    ]
    amounts = one.rate_amounts
    rates = [
        (
            _bounded(amounts[measure] * MINUTE_NS // size),
            _bounded(amounts[measure] * MINUTE_NS // size),
            amounts[measure] > size,
        )
        for _, _, measure, size in one.rates
    ]
    return pack((owner, one.call, request is None, needs_ready, counters, rates))


def settle_arguments(one: OpenCall, used: tuple[int, int], *, is_lost: bool) -> bytes:
    """Return what `SETTLE` is asked for. `used` has the tokens and the amount of the call."""
    actual = (*used, 0)
    seen: set[tuple[int, int]] = set()
    counters = []
    for high, low, measure, *_ in one.counters:
        is_second = (high, low) in seen
        seen.add((high, low))
        held, spent = (0, 0) if is_second else (one.amounts[measure], actual[measure])
        counters.append((*divmod(held, BASE), *divmod(spent, BASE)))
    # A request stays counted in a rate. A lost call used its hold.
    more = 0 if is_lost else used[0] - one.rate_amounts[_TOKENS]
    rates = [measure == _TOKENS and _bounded(more * MINUTE_NS // size) for _, _, measure, size in one.rates]
    return pack((one.call, counters, rates))


def change_arguments(counter: Counter, windows: AllBounds, credit: int, spent: int, *, is_set: bool) -> bytes:
    """Return what `CHANGE` is asked for: a credit that is added or set, and what was spent, or -1 to leave it."""
    spent_parts = divmod(spent, BASE) if spent >= 0 else (-1, 0)
    return pack((*_bounds_us(counter, windows), *divmod(credit, BASE), *spent_parts, is_set))


def counter_state(numbers: Sequence[int]) -> CounterState:
    """Return the state of a counter in an answer."""
    start_us, end_us, spent, spent_low, held, held_low, credit, credit_low = numbers
    return CounterState(
        spent * BASE + spent_low,
        held * BASE + held_low,
        credit * BASE + credit_low,
        start_us * 1000,
        FOREVER_NS if end_us >= FOREVER_US else end_us * 1000,
    )


def _bounded(duration_ns: int) -> int:
    return max(-LARGEST_NS, min(duration_ns, LARGEST_NS))


def _bounds_us(counter: Counter, windows: AllBounds) -> tuple[int, int, int]:
    start_ns, end_ns, next_end_ns = windows[counter.window]
    return start_ns // 1000, min(end_ns // 1000, FOREVER_US), min(next_end_ns // 1000, FOREVER_US)
