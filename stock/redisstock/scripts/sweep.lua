-- sweep.lua: finds holds past their time, at most some 500 in a call.
--
-- Without a ledger it frees them. With one it frees nothing: it returns their
-- IDs, the driver asks the ledger, and settle.lua applies the verdicts.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua; 5 most IDs to look at (the last entry may pass it)
-- Returns {"ok", epoch, seq, now, more, wait, IDs}: more is "1" where further
-- holds are past their time; wait is ms until the next entry falls due, or -1;
-- IDs has 28 bytes each. Or a refusal as reserve.lua's.
-- Idempotent: what was freed is not held any more.

local refused = guard()
if refused then return refused end
journalled()
records()
local most = tonumber(ARGV[5])
local found, fn, looked, drop, offset, more = {}, 0, 0, {}, 0, '0'

-- visit handles one entry; true where nothing in it waits for the ledger.
local function visit(member)
  local buyers, claims = ids(member)
  read(buyers)
  looked = looked + #buyers
  local clear = true
  for j = 1, #buyers do
    local i = place[buyers[j]]
    local pos, st, q, at, nxt = find(value[i], claims[j])
    if st == 'h' and ARGV[3] == '0' then
      finish(i, claims[j], pos, q, nxt, 'x', 'X')
    elseif st == 'h' then
      clear = false
      fn = fn + 1
      found[fn] = buyers[j] .. claims[j]
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

if #drop > 0 then redis.call('ZREM', DUE, unpack(drop)) end
flush()
if #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', offset - #drop, 1) > 0 then more = '1' end
local wait = -1
local nxt = redis.call('ZRANGEBYSCORE', DUE, '(' .. int(now), LATEST, 'WITHSCORES', 'LIMIT', 0, 1)
if nxt[2] then wait = tonumber(nxt[2]) - now end
return {'ok', epoch, seq, now, more, wait, join(found, fn)}
