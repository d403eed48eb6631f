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
