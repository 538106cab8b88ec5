-- settle.lua: applies the ledger's verdicts on holds past their time.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua; 5 IDs, 28 bytes each; 6 their verdicts, a letter
--       each: f free, k keep, s sold, u undecided; 7 ms until an undecided one
--       is asked about again
-- Returns {"ok", epoch, seq, now, how many were freed} or a refusal as
-- reserve.lua's. Idempotent: only what is still held is touched.

local refused = guard('open')
if refused then return refused end
checktypes()
local blob, verdicts, again = ARGV[5], ARGV[6], now + tonumber(ARGV[7])
local verdict, buyers, freed = {}, {}, 0
for i = 1, #verdicts do
  local id = sub(blob, i * 28 - 27, i * 28)
  verdict[id] = sub(verdicts, i, i)
  buyers[i] = sub(id, 1, 12)
end
readall(buyers)

for i = 1, #verdicts do
  local id = sub(blob, i * 28 - 27, i * 28)
  local b, claim = buyers[i], sub(id, 13, 28)
  local p = place[b]
  local pos, st, q, at, nxt = find(value[p], claim)
  if st == 'h' then
    local v = verdict[id]
    if v == 'f' then
      finish(p, b, claim, pos, q, nxt, 'x', 'X')
      freed = freed + q
    elseif v == 's' then
      finish(p, b, claim, pos, q, nxt, 's', 'C')
    elseif v == 'k' then
      put(p, pos, 'k', q, at, nxt)
    end
  end
end

-- Entries lose the IDs that were settled; an undecided one gets an entry of
-- its own, later, so that it holds up none of the others.
local drop, add = {}, {}
local page = redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'WITHSCORES', 'LIMIT', 0, 64)
for e = 1, #page, 2 do
  local bs, cs = ids(page[e])
  local kept, k, touched = {}, 0, false
  for j = 1, #bs do
    local id = bs[j] .. cs[j]
    local v = verdict[id]
    if v then
      touched = true
      if v == 'u' then add[#add + 1] = int(again); add[#add + 1] = int(first) .. ':' .. id end
    else
      kept[k + 1] = id
      k = k + 1
    end
  end
  if touched then
    drop[#drop + 1] = page[e]
    if k > 0 then
      add[#add + 1] = page[e + 1]
      add[#add + 1] = match(page[e], '^%d+:') .. concat(kept)
    end
  end
end
if #drop > 0 then redis.call('ZREM', DUE, unpack(drop)) end
if #add > 0 then redis.call('ZADD', DUE, unpack(add)) end
flush()
return {'ok', int(epoch), int(seq), int(now), int(freed)}
