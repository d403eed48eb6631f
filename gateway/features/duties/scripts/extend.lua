-- KEYS: the record. ARGV: time, and the arrival, the gap, whether a notice was shown, the time zone, the time kept, and
-- how long ago it ended.
local at, gap, is_noticed, timezone, kept, ago = unpack(cmsgpack.unpack(ARGV[2]))
local now = now_ms() - ago
local pieces, seen, noticed = {}, math.max(at, now), 0
local shown = is_noticed and seen or 0
local raw = redis.call('GET', KEYS[1])
if raw then
  local _, old_gap, old_noticed
  _, old_gap, old_noticed, pieces = unpack(cmsgpack.unpack(raw))
  local longest = math.max(gap, old_gap)
  if at - pieces[#pieces] < longest then
    gap, noticed = longest, old_noticed
    seen = math.max(seen, table.remove(pieces))
    at = math.min(at, table.remove(pieces))
  end
end
noticed = math.max(noticed, shown)
while #pieces > 0 and pieces[#pieces] > at do
  table.remove(pieces)
  at = math.min(at, table.remove(pieces))
end
while #pieces > 0 and pieces[2] <= seen - kept do
  table.remove(pieces, 1)
  table.remove(pieces, 1)
end
table.insert(pieces, at)
table.insert(pieces, seen)
local packed = cmsgpack.pack({timezone, gap, noticed, pieces})
redis.call('SET', KEYS[1], packed, 'PX', string.format('%.0f', math.max(1, kept + seen - now_ms())))
return 1
