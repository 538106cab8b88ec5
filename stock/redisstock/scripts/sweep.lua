-- sweep.lua: finds holds past their time, at most some 500 in a call.
--
-- Without a ledger it frees them. With one it frees nothing: it returns their
-- IDs, the driver asks the ledger, and settle.lua applies the verdicts.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 most IDs to look at (the last entry may pass it)
-- Returns {"ok", epoch, seq, now, more, wait, IDs, freed}: more is "1" where
-- further holds are past their time; wait is ms until the next entry falls
-- due, or -1; IDs has 28 bytes each; freed tells how many holds were ended. Or
-- a refusal as reserve.lua's.
-- Idempotent: what was freed is not held any more.

local most = tonumber(ARGV[6])
local found, fn, looked, drop, offset, more, freed = {}, 0, 0, {}, 0, '0', 0

-- visit handles one entry; true where nothing in it waits for the ledger.
local function visit(member)
  local buyers, claims = ids(member)
  read(buyers)
  looked = looked + #buyers
  local clear = true
  for j = 1, #buyers do
    local i = placeof(buyers[j])
    local pos, st, a, at, nxt = find(value[i], claims[j])
    if st == 'h' and at <= now then -- not extended, so that it stands elsewhere too
      if ARGV[3] == '0' then
        finish(i, claims[j], pos, a, nxt, 'x', 'X')
        freed = freed + 1
      else
        clear = false
        fn = fn + 1
        found[fn] = buyers[j] .. claims[j]
      end
    end
  end
  return clear
end

while true do
  local page = redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', offset, 8)
  for e = 1, #page do
    if looked >= most then break end
    if visit(page[e]) then drop[#drop + 1] = page[e] end
    offset = offset + 1
  end
  if looked >= most or #page < 8 then break end
end

flush()
if #drop > 0 then redis.call('ZREM', DUE, unpack(drop)) end
if #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', offset - #drop, 1) > 0 then more = '1' end
local wait = -1
local nxt = redis.call('ZRANGEBYSCORE', DUE, '(' .. int(now), LATEST, 'WITHSCORES', 'LIMIT', 0, 1)
if nxt[2] then wait = tonumber(nxt[2]) - now end
return {'ok', epoch, seq, now, more, wait, join(found, fn), freed}
