-- KEYS: the record. ARGV: time.
return {redis.call('GET', KEYS[1]), now_ms()}
