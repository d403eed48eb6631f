-- KEYS: owners, open calls of an owner. ARGV: the owner. Removes an owner that has no open calls.
if redis.call('HLEN', KEYS[2]) == 0 then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0
