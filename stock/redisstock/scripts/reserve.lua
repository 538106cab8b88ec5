-- reserve.lua: holds units for a batch of requests, in order.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 retention in ms; 7 most ended records of one
--       buyer; 8 "1" while holds past their time are being expired elsewhere;
--       9 number of requests; 10 their IDs, 28 bytes each (buyer, claim);
--       11 the amount they all ask, where that is one number, or 0; 12 earliest
--       deadline in ms or 0; 13 earliest birth in ms or 0;
--       14 "amount,deadline,born;" of each; 15 "place;" of each whose buyer
--       stands in the batch before it, from 1
-- Returns {"ok", epoch, seq, now, expiry, answers}, answers being one string:
--   h held | e<state><amount>,<time>; known | q other amount | o too old |
--   p paused | n<ms>; not open | c closed | d deadline passed |
--   l<remaining>; limit | t too many attempts | j journal full |
--   a<ms>; all held | s sold out |
--   L<item>,<remaining>; A<item>,<ms>; S<item>; the same of an item |
--   m some holds are past their time: sweep, then ask again |
--   u amount of items that the pool does not have
-- or a refusal of the whole: {"missing"}, {"fenced", epoch, seq}, {"retired"},
--   {"version", v}, {"ledger", flag}.
-- Idempotent by ID.
--
-- This part takes a batch whose buyers were not seen before while everything is
-- allowed, in one line without functions; reserve_rest.lua goes on from the
-- first request that is another. Most batches of a crowd end here.

local asks, blob = tonumber(ARGV[9]), ARGV[10]
local oldest, expires = now - tonumber(ARGV[6]), fmt('%d', now + tonumber(lasting))

-- What holds for all new IDs of the batch alike.
local shut
if paused == '1' then shut = 'p'
elseif opens ~= '0' and tonumber(opens) > now then shut = fmt('n%d;', tonumber(opens) - now)
elseif closes ~= '0' and tonumber(closes) <= now then shut = 'c' end
if jmax >= 0 and room == 0 then room = math.max(jmax - redis.call('XLEN', JOURNAL), 0) end
local jfull = jmax >= 0 and room == 0
local all, mindeadline, minborn = more > #counts and tonumber(ARGV[11]) or 0, tonumber(ARGV[12]), tonumber(ARGV[13])
local uniform = all ~= 0 and (mindeadline == 0 or mindeadline > now) and (minborn == 0 or minborn > oldest)
local plain = uniform and not shut and not jfull and (limit == 0 or all <= limit)

local again = {} -- those places
for i in string.gmatch(ARGV[15], '%d+') do
  i = tonumber(i)
  again[i], value[i + 2] = true, value[i + 2] or ''
end

local i, tail = 1
if plain then
  tail = 'h' .. ARGV[11] .. ',' .. expires .. ';'
  while i <= asks and free1 >= all and not value[i + 2] do
    local v = sub(blob, i * 28 - 15, i * 28) .. tail
    value[i + 2], set[sn + 1], set[sn + 2] = v, name[i + 2], v
    sn, free1, held1, i = sn + 2, free1 - all, held1 + all, i + 1
  end
end

if i > asks then
  -- The index first: it may name what is not held, and never misses what is.
  local member = fmt('%d:', seq + 1) .. blob
  redis.call('ZADD', DUE, expires, member)
  if jmax >= 0 then
    room = room - 1
    local told = redis.pcall('XADD', JOURNAL, '*', 'e', fmt('1,%s,%d,%d;R%s,%d;', epoch, seq + 1, now, ARGV[11], asks) .. blob)
    if type(told) == 'table' and told.err then
      redis.call('ZREM', DUE, member)
      error(told.err)
    end
  end
  seq = seq + asks
  set[sn + 1], set[sn + 2] = 'm', fmt('%s,%d,o,%d;%d,%d,%s;', epoch, seq, room, free1, held1, sold1)
  sn = sn + 2
  for k = 1, sn, 3000 do redis.call('HSET', POOL, unpack(set, k, math.min(k + 2999, sn))) end
  return {'ok', epoch, seq, now, expires, string.rep('h', asks)}
end
