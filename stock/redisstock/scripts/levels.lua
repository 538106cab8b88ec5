-- levels.lua: a pool's terms and counts.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua
-- Returns {"ok", epoch, seq, now, terms, counts} or a refusal as reserve.lua's.
-- Writes nothing.

return {'ok', epoch, seq, now, terms, counts}
