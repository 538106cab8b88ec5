-- retire.lua: refuses everything from now on in a pool that is over.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua
-- Returns {"ok", epoch, seq, now, verdict}, verdict: done | open (neither paused
--   nor closed) | held | journal (it is not relayed), or a refusal as
--   reserve.lua's, which is {"retired"} where it was ended before. Idempotent.

local function answer(verdict) return {'ok', epoch, seq, now, verdict} end
if paused ~= '1' and (closes == '0' or tonumber(closes) > now) then return answer('open') end
for i = 1, n do if held[i] > 0 then return answer('held') end end
if jmax >= 0 and redis.call('XLEN', JOURNAL) > 0 then return answer('journal') end
redis.call('HSET', POOL, 'm', (string.gsub(counts, ',o,', ',r,', 1)))
return answer('done')
