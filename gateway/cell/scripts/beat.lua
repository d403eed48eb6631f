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
