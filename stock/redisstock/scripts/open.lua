-- open.lua: creates a pool, or tells how it stands.
--
-- KEYS  1 meta, 2 reservations, 3 due, 4 journal
-- ARGV  1 epoch (0: the server's time in us, for a pool without a ledger);
--       2 "1" to create it where it is missing; 3 "1" where it has a ledger;
--       4 SKU; 5 total; 6 limit; 7 hold in ms; 8 opens; 9 closes, in ms or 0
-- Returns {"created" | "same" | "other", epoch, seq, total, free, held, sold},
--   {"missing"}, {"version", v} or {"fenced", epoch, seq} (it stands in another
--   epoch, or is being rebuilt).
-- Idempotent: what it created is "same" the next time. Where the meta is gone
-- and reservations are left, the pool has lost a part of itself: it counts as
-- missing, since its units are promised already.
--
-- All four keys exist from here on: a script that names a missing key is
-- refused while its slot moves to another node.

local m = redis.call('HMGET', KEYS[1], 'v', 'epoch', 'seq', 'total', 'free', 'held', 'sold', 'state', 'sku', 'limit', 'hold', 'opens', 'closes', 'ledger')
if m[1] then
  if m[1] ~= '1' then return {'version', m[1]} end
  if m[8] ~= 'open' or (ARGV[1] ~= '0' and ARGV[1] ~= m[2]) then return {'fenced', m[2], m[3]} end
  local same = m[9] == ARGV[4] and m[4] == ARGV[5] and m[10] == ARGV[6] and m[11] == ARGV[7]
    and m[12] == ARGV[8] and m[13] == ARGV[9] and m[14] == ARGV[3]
  return {same and 'same' or 'other', m[2], m[3], m[4], m[5], m[6], m[7]}
end
if ARGV[2] ~= '1' or redis.call('HLEN', KEYS[2]) > 0 or redis.call('ZCARD', KEYS[3]) > 0 then return {'missing'} end
redis.call('XLEN', KEYS[4])
local epoch = ARGV[1]
if epoch == '0' then
  local t = redis.call('TIME')
  epoch = string.format('%d', t[1] * 1000000 + t[2])
end
redis.call('HSET', KEYS[2], 'v', '1;')
redis.call('ZADD', KEYS[3], '+inf', '0:')
if redis.call('EXISTS', KEYS[4]) == 0 then
  redis.call('XADD', KEYS[4], '*', 'v', '1')
  redis.call('XTRIM', KEYS[4], 'MAXLEN', 0)
end
redis.call('HSET', KEYS[1], 'v', '1', 'epoch', epoch, 'seq', '0', 'total', ARGV[5], 'free', ARGV[5], 'held', '0', 'sold', '0',
  'state', 'open', 'ledger', ARGV[3], 'sku', ARGV[4], 'limit', ARGV[6], 'hold', ARGV[7], 'opens', ARGV[8], 'closes', ARGV[9])
return {'created', epoch, '0', ARGV[5], ARGV[5], '0', '0'}
