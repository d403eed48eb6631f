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
