-- levels.lua: a pool's counts.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua
-- Returns {"ok", epoch, seq, now, total, free, held, sold} or a refusal as
-- reserve.lua's. Writes nothing.

local refused = guard('open')
if refused then return refused end
return {'ok', int(epoch), int(seq), int(now), redis.call('HGET', META, 'total'), int(free), int(held), int(sold)}
