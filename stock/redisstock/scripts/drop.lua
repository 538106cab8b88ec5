-- drop.lua: deletes a retired pool but for its name.
--
-- KEYS  1 pool, 2 due, 3 journal
-- ARGV  1 ms for which "retired" is answered after that
-- Returns 1, or 0 where the pool is not retired. Idempotent.

local h = redis.call('HMGET', KEYS[1], 't', 'm', 'i')
if not h[2] or not string.find(h[2], '^%d+,%d+,r') then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 't', h[1], 'm', h[2], 'i', h[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
