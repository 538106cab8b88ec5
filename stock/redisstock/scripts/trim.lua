-- trim.lua: deletes entries from the front of a journal that were relayed, as
-- far as they stand there, and stops at the first other one.
--
-- KEYS  1 journal (stream)
-- ARGV  1 the SHA-1 of the text of each, in hex, each with a "," after it and in
--       the order in which they were read; 2 how many, at most 1,000
-- Returns how many it deleted. Idempotent.
--
-- Stream IDs are no proof: a server that lacks the newest entries, or whose clock
-- is behind, gives the same or lower ones to entries that nobody has relayed.
-- The text has epoch, seq, time and every reservation.

local pos, n = 1, 0
for i, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])) do
  local _, last = string.find(ARGV[1], redis.sha1hex(entry[2][2]), pos, true)
  if not last then break end
  pos, n = last + 1, i
end
if n == 0 then return 0 end
return redis.call('XTRIM', KEYS[1], 'MAXLEN', redis.call('XLEN', KEYS[1]) - n)
