-- KEYS: epoch, generations, counter. ARGV: time, epoch, {bounds, credit, spent or -1, whether the
-- credit is set instead of added, and a higher spent stays}. Answer: the state.
if not is_current() then return 'EPOCH' end
local start, stop, following, credit_high, credit_low, spent_high, spent_low, is_set = unpack(cmsgpack.unpack(ARGV[3]))
local counter = opened(KEYS[3], KEYS[2], start, stop, following, server_us(ARGV[1]))
if is_set then counter[8], counter[9] = 0, 0 end
counter[8], counter[9] = carried(counter[8] + credit_high, counter[9] + credit_low)
-- Calls of quotas go on while a counter is rebuilt.
local is_higher = counter[4] > spent_high or (counter[4] == spent_high and counter[5] > spent_low)
if spent_high >= 0 and not (is_set and is_higher) then counter[4], counter[5] = spent_high, spent_low end
save(KEYS[3], counter)
return cmsgpack.pack(state_of(counter))
