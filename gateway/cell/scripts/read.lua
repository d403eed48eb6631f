-- KEYS: epoch, counters. ARGV: time, epoch. Answer: the time, and the state of each counter or false.
if not is_current() then return 'EPOCH' end
local states = {}
for index = 2, #KEYS do
  local raw = redis.call('GET', KEYS[index])
  states[index - 1] = raw and state_of(cmsgpack.unpack(raw)) or false
end
return cmsgpack.pack({server_us(ARGV[1]), states})
