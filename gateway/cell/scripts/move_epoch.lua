-- KEYS: epoch. ARGV: the value that is replaced (empty: none), the new value. Answer: the value afterwards.
local current = redis.call('GET', KEYS[1]) or ''
if current == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); return ARGV[2] end
return current
