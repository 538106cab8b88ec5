-- forget.lua: forgets ended reservations older than the retention, a part of
-- the pool in each call.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 retention in ms; 7 where to go on ("0" begins);
--       8 ms from the beginning of one round to that of the next; 9 buyers to
--       look at
-- Returns {"ok", epoch, seq, now, next, forgotten}: next is where to go on, "0"
--   at the end of the round or where the next has not come yet. Or a refusal as
--   reserve.lua's. Idempotent.

local oldest = now - tonumber(ARGV[6])
if ARGV[7] == '0' then
  local begun = tonumber(redis.call('HGET', POOL, 'f') or 0)
  -- A round that begins later than now was begun by a clock that has been set back.
  if begun <= now and begun + tonumber(ARGV[8]) > now then return {'ok', epoch, seq, now, '0', 0} end
  set[1], set[2], sn = 'f', int(now), 2
end

local forgotten, gone = 0, {}
local function visit(buyer, v)
  local kept, k, pos = {}, 0, 1
  while pos <= #v do
    local st, _, at, nxt = record(v, pos)
    if (st == 'c' or st == 'x' or st == 'l' or st == 'r') and at < oldest then
      forgotten = forgotten + 1
    else
      k = k + 1
      kept[k] = sub(v, pos, nxt - 1)
    end
    pos = nxt
  end
  if k == 0 then
    gone[#gone + 1] = buyer
  elseif #v > 0 and forgotten > 0 then
    local left = join(kept, k)
    if #left < #v then
      set[sn + 1], set[sn + 2] = buyer, left
      sn = sn + 2
    end
  end
end

local page = redis.call('HSCAN', POOL, ARGV[7], 'COUNT', ARGV[9])
local fields = page[2]
for i = 1, #fields, 2 do
  if #fields[i] == 12 then visit(fields[i], fields[i + 1]) end
end
flush()
for i = 1, #gone, 3000 do redis.call('HDEL', POOL, unpack(gone, i, math.min(i + 2999, #gone))) end
return {'ok', epoch, seq, now, page[1], forgotten}
