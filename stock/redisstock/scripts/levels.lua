-- levels.lua: a pool's counts.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua
-- Returns {"ok", epoch, seq, now, total, free, held, sold} or a refusal as
-- reserve.lua's. Writes nothing.

local refused = guard()
if refused then return refused end
return {'ok', epoch, seq, now, redis.call('HGET', META, 'total'), free, held, sold}
