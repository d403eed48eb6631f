-- KEYS: epoch, open calls, counters, rates, quotas. ARGV: time, epoch, {call, held and used amounts, change of each rate
-- or false, held and used amounts of each quota}.
if not is_current() then return 'EPOCH' end
local call, counters, rates, quotas = unpack(cmsgpack.unpack(ARGV[3]))
local raw = redis.call('HGET', KEYS[2], call)
if not raw then return 0 end
redis.call('HDEL', KEYS[2], call)
local now = server_us(ARGV[1])
local _, generations = cmsgpack.unpack_one(raw, 8)
local function settle(key, one, generation)
  local stored = redis.call('GET', key)
  local counter = stored and cmsgpack.unpack(stored)
  if counter and counter[1] == generation then
    counter[6], counter[7] = carried(counter[6] - one[1], counter[7] - one[2])
    counter[4], counter[5] = carried(counter[4] + one[3], counter[5] + one[4])
    redis.call('SET', key, cmsgpack.pack(counter), 'KEEPTTL')
  end
end
for index, one in ipairs(counters) do settle(KEYS[2 + index], one, generations[index]) end
for index, more in ipairs(rates) do
  if more then
    local key = KEYS[2 + #counters + index]
    save_rate(key, math.min(math.max(0, missing_ns(key, now) + more), LARGEST), now)
  end
end
for index, one in ipairs(quotas) do
  local key, generation = KEYS[2 + #counters + #rates + index], generations[#counters + index]
  if not one[5] then
    settle(key, one, generation)
  elseif generation == 1 then
    local missing, held, limit = bucket(key, nil, now)
    limit = limit or one[5]
    local more = math.floor((one[3] - one[1]) * MINUTE_NS / limit)
    missing = math.min(math.max(0, missing + more), LARGEST)
    save_bucket(key, missing, now, limit, math.max(0, held - one[1]))
  end
end
return 1
