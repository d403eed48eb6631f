-- KEYS: epoch, quotas. ARGV: time, epoch, the limit of each bucket or 0. Answer: the time, and the state of each quota or
-- false.
if not is_current() then return 'EPOCH' end
local now, limits, states = server_us(ARGV[1]), cmsgpack.unpack(ARGV[3]), {}
for index, limit in ipairs(limits) do
  local raw = redis.call('GET', KEYS[1 + index])
  if limit > 0 then
    local missing, held = bucket(KEYS[1 + index], limit, now)
    states[index] = {missing, held}
  else
    states[index] = raw and state_of(cmsgpack.unpack(raw)) or false
  end
end
return cmsgpack.pack({now, states})
