-- lease.lua: takes, renews or gives back the lease of a journal's relay.
--
-- KEYS  1 lease (string: the relay that has it)
-- ARGV  1 relay; 2 ms, or 0 to give it back
-- Returns 1 where the relay has the lease now, else 0. Idempotent.

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
