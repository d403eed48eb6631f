local KEPT_MS, LOST_KEPT_MS = 3600000, 604800000

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
    counter = {redis.call('INCR', generations), start, stop, 0, 0, 0, 0, 0, 0}
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
  redis.call('SET', key, cmsgpack.pack({missing, now}), 'PX', kept)
end

local function state_of(counter)
  return {counter[2], counter[3], counter[4], counter[5], counter[6], counter[7], counter[8], counter[9]}
end

-- The time until a bucket of a quota is full, and what is held of it. A changed limit keeps what is used. Without a
-- limit, that of the last hold.
local function bucket(key, limit, now)
  local raw = redis.call('GET', key)
  if not raw then return 0, 0, limit end
  local stored = cmsgpack.unpack(raw)
  local missing = math.max(0, stored[1] - math.max(0, now - stored[2]) * 1000)
  limit = limit or stored[3]
  return math.floor(missing * stored[3] / limit), stored[4], limit
end

local function save_bucket(key, missing, now, limit, held)
  local kept = math.ceil(missing / 1000000) + (held > 0 and KEPT_MS or 60000)
  redis.call('SET', key, cmsgpack.pack({missing, now, limit, held}), 'PX', string.format('%.0f', kept))
end
