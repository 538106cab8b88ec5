-- open.lua: creates a pool, or tells how it stands.
--
-- KEYS  1 pool, 2 due, 3 journal
-- ARGV  1 epoch (0: the server's time in us, for a pool without a ledger);
--       2 "1" to create it where it is missing; 3 its terms, 4 its counts after
--       the epoch, 5 its terms as they are opened, all as in head.lua
-- Returns {"created" | "same" | "other", terms, counts}, {"missing"},
--   {"retired"}, {"version", v} or {"fenced"} (it stands in another epoch, or is
--   being rebuilt).
-- Idempotent: what it created is "same" the next time. Where terms or counts
-- are gone and reservations are left, the pool has lost a part of itself: it
-- counts as missing, since its units are promised already.
--
-- All keys exist from here on: a script that names a missing key is refused
-- while its slot moves to another node.

local h = redis.call('HMGET', KEYS[1], 't', 'm', 'i')
local t, m = h[1], h[2]
if t and m then
  local v = string.match(t, '^%d*')
  if v ~= '1' then return {'version', v} end
  local epoch, state = string.match(m, '^(%d+),%d+,(%l)')
  if state == 'r' then return {'retired'} end
  if state ~= 'o' or (ARGV[1] ~= '0' and ARGV[1] ~= epoch) then return {'fenced'} end
  return {h[3] == ARGV[5] and 'same' or 'other', t, m}
end
if ARGV[2] ~= '1' or redis.call('HLEN', KEYS[1]) > 0 or redis.call('ZCARD', KEYS[2]) > 0 then return {'missing'} end
redis.call('XLEN', KEYS[3])
local epoch = ARGV[1]
if epoch == '0' then
  local now = redis.call('TIME')
  epoch = string.format('%d', now[1] * 1000000 + now[2])
end
m = epoch .. ARGV[4]
redis.call('ZADD', KEYS[2], '+inf', '0:')
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('XADD', KEYS[3], '*', 'v', '1')
  redis.call('XTRIM', KEYS[3], 'MAXLEN', 0)
end
redis.call('HSET', KEYS[1], 't', ARGV[3], 'm', m, 'i', ARGV[5])
return {'created', ARGV[3], m}
