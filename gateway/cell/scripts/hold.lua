-- KEYS: epoch, generations, owners, open calls, counters, rates, quotas; for a call that is held in any case, its charge
-- if it is lost. ARGV: time, epoch, request, record of the open call.
local owner, call, forced, needs_ready, counters, rates, quotas = unpack(cmsgpack.unpack(ARGV[3]))
if not is_current(needs_ready) then return 'EPOCH' end
local now = server_us(ARGV[1])
if forced and (redis.call('HEXISTS', KEYS[4], call) == 1 or redis.call('EXISTS', KEYS[#KEYS]) == 1) then
  return cmsgpack.pack({true, {}, {}, {}, now})
end
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
  if one[2] or missing[index] + one[1] > MINUTE_NS then fits = false end
end
local numbers, first = {}, 4 + #counters + #rates
for index, one in ipairs(quotas) do
  if one[1] then
    local left, held = bucket(KEYS[first + index], one[3], now)
    numbers[index] = {left, held}
    if one[6] or numbers[index][1] + one[2] > one[4] then fits = false end
  else
    local counter = opened(KEYS[first + index], KEYS[2], one[2], one[3], one[4], now)
    numbers[index] = counter
    local high, low = counter[4] + counter[6] + one[5], counter[5] + counter[7] + one[6]
    local used, kept = high * BASE + low, one[9]
    if one[12] or carried(one[7] - high, one[8] - low) < 0 then fits = false end
    local even = one[11] * (100 - kept) * (now - counter[2])
    if kept > 0 and used > one[10] and used * 100 * (counter[3] - counter[2]) > even then fits = false end
  end
end
if not fits and not forced then
  local states, of_quotas = {}, {}
  for index, counter in ipairs(found) do states[index] = state_of(counter) end
  for index, one in ipairs(quotas) do of_quotas[index] = one[1] and numbers[index] or state_of(numbers[index]) end
  return cmsgpack.pack({false, states, missing, of_quotas, now})
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
for index, one in ipairs(quotas) do
  local key, state = KEYS[first + index], numbers[index]
  if not one[1] then
    state[6], state[7] = carried(state[6] + one[5], state[7] + one[6])
    save(key, state)
    generations[#generations + 1] = state[1]
  elseif forced then
    generations[#generations + 1] = 0
  else
    save_bucket(key, state[1] + one[2], now, one[3], state[2] + one[5])
    generations[#generations + 1] = 1
  end
end
local packed = cmsgpack.pack(generations)
-- The calls of an unknown owner would never be found if it ends now.
redis.call('ZADD', KEYS[3], 'NX', string.format('%.0f', now), owner)
redis.call('HSET', KEYS[4], call, string.format('%08d', #packed) .. packed .. ARGV[4])
return cmsgpack.pack({true, {}, missing, {}, now})
