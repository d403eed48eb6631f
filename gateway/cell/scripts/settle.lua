-- KEYS: epoch, open calls, the charge of this call if it is lost, counters, rates, quotas. ARGV: time, epoch, {call, held
-- and used amounts, change of each rate or false, held and used amounts of each quota}, who settles. Answer: whether the
-- call was open.
--
-- Its process settles it ('own'), or another one that takes it for lost ('lost'), or its process does because it is lost
-- and the counters contain that already ('counted'). The charge of a lost call is kept, and when its process settles it
-- after all, the rest corrects the counters.
if not is_current() then return 'EPOCH' end
local call, counters, rates, quotas = unpack(cmsgpack.unpack(ARGV[3]))
local raw = redis.call('HGET', KEYS[2], call)
local was_open, is_own, charged = raw and 1 or 0, ARGV[4] == 'own', nil
if not raw and is_own then raw = redis.call('GET', KEYS[3]) end
if not raw then return 0 end
local now = server_us(ARGV[1])
local record, generations = cmsgpack.unpack_one(raw, 8)
redis.call('HDEL', KEYS[2], call)
if was_open == 0 then
  charged = cmsgpack.unpack(string.sub(raw, record + 1))
  redis.call('DEL', KEYS[3])
elseif not is_own then
  redis.call('SET', KEYS[3], string.sub(raw, 1, record) .. ARGV[3], 'PX', LOST_KEPT_MS)
end
local function settle(key, one, before, generation)
  if before then
    one = {0, 0, one[3] - before[3], one[4] - before[4]}
  elseif ARGV[4] == 'counted' then
    one = {one[1], one[2], 0, 0}
  end
  local stored = redis.call('GET', key)
  local counter = stored and cmsgpack.unpack(stored)
  if counter and counter[1] == generation then
    counter[6], counter[7] = carried(counter[6] - one[1], counter[7] - one[2])
    counter[4], counter[5] = carried(counter[4] + one[3], counter[5] + one[4])
    if counter[4] < 0 then counter[4], counter[5] = 0, 0 end
    redis.call('SET', key, cmsgpack.pack(counter), 'KEEPTTL')
  end
end
for index, one in ipairs(counters) do
  settle(KEYS[3 + index], one, charged and charged[2][index], generations[index])
end
for index, more in ipairs(rates) do
  if more then
    local key = KEYS[3 + #counters + index]
    save_rate(key, math.min(math.max(0, missing_ns(key, now) + more), LARGEST), now)
  end
end
for index, one in ipairs(quotas) do
  local key, generation = KEYS[3 + #counters + #rates + index], generations[#counters + index]
  local before = charged and charged[4][index]
  if not one[5] then
    settle(key, one, before, generation)
  elseif generation == 1 then
    local missing, held, limit = bucket(key, nil, now)
    limit = limit or one[5]
    local more = math.floor((one[3] - (before and before[3] or one[1])) * MINUTE_NS / limit)
    missing = math.min(math.max(0, missing + more), LARGEST)
    save_bucket(key, missing, now, limit, math.max(0, held - (before and 0 or one[1])))
  end
end
return was_open
