-- reserve.lua: holds units for a batch of requests, in order.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua; 5 retention in ms; 6 most records of one buyer;
--       7 "1" while holds past their time are being expired elsewhere;
--       8 number of requests; 9 their IDs, 28 bytes each (buyer, claim);
--       10 the quantity they all ask, or 0; 11 earliest deadline in ms or 0;
--       12 earliest birth in ms or 0; 13 "quantity,deadline,born;" of each
-- Returns {"ok", epoch, seq, now, expiry, answers}, answers being one string:
--   h held | e<state><quantity>,<time>; known | q other quantity | o too old |
--   n<ms>; not open | c closed | d deadline passed | l<remaining>; limit |
--   t too many attempts | j journal full | a<ms>; all held | s sold out |
--   m some holds are past their time: sweep, then ask again
-- or a refusal of the whole: {"missing"}, {"fenced", epoch, seq},
--   {"version", v}, {"ledger", flag}.
-- Idempotent by ID.

local refused, m = guard('open')
if refused then return refused end
local jlen = checktypes()
local limit, hold, opens, closes = tonumber(m[9]), tonumber(m[10]), tonumber(m[11]), tonumber(m[12])
local n, blob = tonumber(ARGV[8]), ARGV[9]
local oldest = now - tonumber(ARGV[5])
local expires = now + hold
local answers, due, dn = {}, {}, 0

-- What holds for all new IDs of the batch alike.
local closed
if opens > now then closed = 'n' .. int(opens - now) .. ';'
elseif closes ~= 0 and closes <= now then closed = 'c' end
local jfull = jmax >= 0 and jlen >= jmax
local all, mindeadline, minborn = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local uniform = all ~= 0 and (mindeadline == 0 or mindeadline > now) and (minborn == 0 or minborn > oldest)

local quantity, deadline, born = {}, {}, {}
if not uniform then
  local i = 0
  for q, d, b in string.gmatch(ARGV[13], '(%d+),(%d+),(%d+);') do
    i = i + 1
    quantity[i], deadline[i], born[i] = tonumber(q), tonumber(d), tonumber(b)
  end
end

local bs = {}
for i = 1, n do bs[i] = sub(blob, i * 28 - 27, i * 28 - 16) end
do -- a buyer who stands in the batch twice is read once
  local once, k = {}, 0
  for i = 1, n do
    local b = bs[i]
    if not place[b] then
      place[b] = 0
      k = k + 1
      once[k] = b
    end
  end
  read(once)
end

local soon -- the next live expiry, found once per batch
local function nextexpiry()
  local page = redis.call('ZRANGEBYSCORE', DUE, '(' .. int(now), LATEST, 'WITHSCORES', 'LIMIT', 0, 8)
  for e = 1, #page, 2 do
    local buyers, claims = ids(page[e])
    readall(buyers)
    local best
    for j = 1, #buyers do
      local _, st, _, at = find(value[place[buyers[j]]], claims[j])
      if st == 'h' and at > now and (not best or at < best) then best = at end
    end
    if best then return best - now end
    redis.call('ZREM', DUE, page[e]) -- none of it is held any more
  end
  if #page > 0 then return tonumber(page[#page]) - now end
  return 1000 -- held without an end, or being expired: ask again in a second
end

local pastdue
local function someduenow()
  if pastdue == nil then
    pastdue = #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, 1) > 0
  end
  return pastdue and ARGV[7] ~= '1'
end

local tail, tailof = '', -1
local function take(i, b, claim, p, q)
  if tailof ~= q then tail, tailof = 'h' .. int(q) .. ',' .. int(expires) .. ';', q end
  value[p] = (value[p] or '') .. claim .. tail
  dirty[p] = true
  free, held = free - q, held + q
  due[dn + 1], due[dn + 2] = b, claim
  dn = dn + 2
  event('R', b, claim, q)
  return 'h'
end

local function known(v, claim, q)
  local _, st, rq, at = find(v, claim)
  if not st then return nil end
  if rq ~= q then return 'q' end
  if st == 'h' and at <= now and ARGV[3] == '0' then return 'm' end
  return 'e' .. st .. int(rq) .. ',' .. int(at) .. ';'
end

-- prune forgets a buyer's ended reservations that are older than the
-- retention, and sums up the rest.
local function prune(p)
  local v, kept, taken, count, overdue = value[p], {}, 0, 0, false
  local pos = 1
  while v and pos <= #v do
    local st, q, at, nxt = record(v, pos)
    local ended = st == 'c' or st == 'x' or st == 'r'
    if not (ended and at < oldest) then
      kept[#kept + 1] = sub(v, pos, nxt - 1)
      count = count + 1
      if not ended then taken = taken + q end
      if st == 'h' and at <= now then overdue = true end
    end
    pos = nxt
  end
  if v and count < 1 then value[p] = '' elseif v then value[p] = concat(kept) end
  return taken, count, overdue
end

local function noroom(q)
  if held <= 0 or free + held < q then return 's' end
  soon = soon or nextexpiry()
  return 'a' .. int(soon) .. ';'
end

-- judge gives one request its answer, in the order that stock.Store states.
local function judge(i, b, claim, p, q, d, o)
  local v = value[p]
  if v then
    local k = known(v, claim, q)
    if k then return k end
  end
  if o ~= 0 and o <= oldest then return 'o' end
  if closed then return closed end
  if d ~= 0 and d <= now then return 'd' end
  local taken, count, overdue = prune(p)
  if limit > 0 and taken + q > limit then
    if overdue and ARGV[7] ~= '1' then return 'm' end
    return 'l' .. int(limit - taken > 0 and limit - taken or 0) .. ';'
  end
  if count >= tonumber(ARGV[6]) then return 't' end
  if jfull then return 'j' end
  if free < q then
    if held > 0 and someduenow() then return 'm' end
    return noroom(q)
  end
  return take(i, b, claim, p, q)
end

local plain = uniform and not closed and not jfull and (limit == 0 or all <= limit)
for i = 1, n do
  local b = bs[i]
  local p = place[b]
  local claim = sub(blob, i * 28 - 15, i * 28)
  if plain and free >= all and not value[p] then
    answers[i] = take(i, b, claim, p, all)
  elseif uniform then
    answers[i] = judge(i, b, claim, p, all, 0, 0)
  else
    answers[i] = judge(i, b, claim, p, quantity[i], deadline[i], born[i])
  end
end

local member = dn > 0 and int(first) .. ':' .. join(due)
local text = concat(answers)
flush()
if member then redis.call('ZADD', DUE, int(expires), member) end
return {'ok', int(epoch), int(seq), int(now), int(expires), text}
