-- settle.lua: applies the ledger's verdicts on holds past their time.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 IDs, 28 bytes each; 7 their verdicts, a letter
--       each: f free, k keep, s sold, u undecided; 8 ms until an undecided one
--       is asked about again
-- Returns {"ok", epoch, seq, now, holds freed} or a refusal as reserve.lua's.
-- Idempotent: only what is still held is touched.

local blob, verdicts, again = ARGV[6], ARGV[7], now + tonumber(ARGV[8])
local verdict, buyers, freed, left = {}, {}, 0, #verdicts
for i = 1, #verdicts do
  local id = sub(blob, i * 28 - 27, i * 28)
  verdict[id] = sub(verdicts, i, i)
  buyers[i] = sub(id, 1, 12)
end
read(buyers)

for i = 1, #verdicts do
  local claim = sub(blob, i * 28 - 15, i * 28)
  local p = placeof(buyers[i])
  local pos, st, a, at, nxt = find(value[p], claim)
  local v = verdict[buyers[i] .. claim]
  if st ~= 'h' or at > now then
    verdict[buyers[i] .. claim] = 'f' -- it was settled or extended meanwhile
  elseif v == 'f' then
    finish(p, claim, pos, a, nxt, 'x', 'X')
    freed = freed + 1
  elseif v == 's' then
    finish(p, claim, pos, a, nxt, 's', 'C')
  elseif v == 'k' then
    put(p, pos, 'k', a, at, nxt)
  end
end

-- Entries lose the IDs that have a verdict; an undecided one gets an entry of
-- its own, later, so that it holds up none of the others.
local drop, add, kept = {}, {}, {}

local function visit(member, score)
  local bs, cs = ids(member)
  local k, n = 0, 0
  for j = 1, #bs do
    local id = bs[j] .. cs[j]
    local v = verdict[id]
    if v then
      n = n + 1
      if v == 'u' then add[#add + 1] = int(again); add[#add + 1] = int(first) .. ':' .. id end
    else
      k = k + 1
      kept[k] = id
    end
  end
  if n == 0 then return end
  left = left - n
  drop[#drop + 1] = member
  if k > 0 then
    add[#add + 1] = score
    add[#add + 1] = match(member, '^%d+:') .. join(kept, k)
  end
end

local offset = 0
while left > 0 do
  local page = redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'WITHSCORES', 'LIMIT', offset, 8)
  for e = 1, #page, 2 do visit(page[e], page[e + 1]) end
  offset = offset + 8
  if #page < 16 or offset >= 1024 then break end
end
flush()
for i = 1, #add, 3000 do redis.call('ZADD', DUE, unpack(add, i, math.min(i + 2999, #add))) end
if #drop > 0 then redis.call('ZREM', DUE, unpack(drop)) end
return {'ok', epoch, seq, now, freed}
