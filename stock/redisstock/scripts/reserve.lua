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

local refused, m = guard()
if refused then return refused end
local jlen = journalled()
local limit, opens, closes = tonumber(m[9]), tonumber(m[11]), tonumber(m[12])
local n, blob = tonumber(ARGV[8]), ARGV[9]
local oldest, expires = now - tonumber(ARGV[5]), now + tonumber(m[10])

-- What holds for all new IDs of the batch alike.
local closed
if opens > now then closed = 'n' .. int(opens - now) .. ';'
elseif closes ~= 0 and closes <= now then closed = 'c' end
local jfull = jmax >= 0 and jlen >= jmax
local all, mindeadline, minborn = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local uniform = all ~= 0 and (mindeadline == 0 or mindeadline > now) and (minborn == 0 or minborn > oldest)

local bs, k = {}, 0
for i = 1, n do -- a buyer who stands in the batch twice is read once
  local b = sub(blob, i * 28 - 27, i * 28 - 16)
  bs[i] = b
  if not place[b] then
    k = k + 1
    place[b], name[k] = k, b
  end
end
value = redis.call('HMGET', RES, unpack(name, 1, k))

local answers, an, due, dn = {}, 0, {}, 0

-- hold promises q units to each of the requests i to j.
local function hold(i, j, q)
  local some = sub(blob, i * 28 - 27, j * 28)
  dn = dn + 1
  due[dn] = some
  note('R', q, some, j - i + 1)
end

-- judge gives one request its answer, in the order that stock.Store states;
-- noroom is the answer where fewer than q are free. Both are made by slow()
-- when the first request of the batch needs them.
local judge, noroom
local function slow()
  records()
  local most = tonumber(ARGV[6])
  local quantity, deadline, born = {}, {}, {}
  if not uniform then
    local i = 0
    for q, d, b in string.gmatch(ARGV[13], '(%d+),(%d+),(%d+);') do
      i = i + 1
      quantity[i], deadline[i], born[i] = tonumber(q), tonumber(d), tonumber(b)
    end
  end

  -- lapsed tells a hold that its time has ended; with a ledger none ends by
  -- time alone.
  local function lapsed(st, at) return st == 'h' and at <= now and ARGV[3] == '0' end

  local function known(p, claim, q)
    local pos, st, rq, at, nxt = find(value[p], claim)
    if not st then return nil end
    if rq ~= q then return 'q' end
    if lapsed(st, at) then
      finish(p, claim, pos, rq, nxt, 'x', 'X')
      return 'ex' .. int(rq) .. ',' .. int(now) .. ';'
    end
    return 'e' .. sub(value[p], pos + 16, nxt - 1)
  end

  -- prune forgets a buyer's ended reservations that are older than the
  -- retention, ends what has lapsed, and sums up the rest.
  local ends = 512 -- are ended by one call; a sweep ends the others
  local function prune(p)
    local v, kept, taken, count, overdue, changed = value[p], {}, 0, 0, false, false
    local pos = 1
    while pos <= #v do
      local st, q, at, nxt = record(v, pos)
      local text = sub(v, pos, nxt - 1)
      if ends > 0 and lapsed(st, at) then
        text = sub(v, pos, pos + 15) .. 'x' .. int(q) .. ',' .. int(now) .. ';'
        held, free, ends, changed = held - q, free + q, ends - 1, true
        note('X', q, name[p] .. sub(text, 1, 16), 1)
        st, at = 'x', now
      end
      local ended = st == 'c' or st == 'x' or st == 'r'
      if not (ended and at < oldest) then
        count = count + 1
        kept[count] = text
        if not ended then taken = taken + q end
        overdue = overdue or st == 'h' and at <= now
      end
      pos = nxt
    end
    value[p] = join(kept, count)
    if changed then write(p) end
    return taken, count, overdue
  end

  local function nextexpiry()
    local page = redis.call('ZRANGEBYSCORE', DUE, '(' .. int(now), LATEST, 'WITHSCORES', 'LIMIT', 0, 8)
    for e = 1, #page, 2 do
      local buyers, claims = ids(page[e])
      read(buyers)
      for j = 1, #buyers do
        local _, st = find(value[place[buyers[j]]], claims[j])
        if st == 'h' then return tonumber(page[e + 1]) - now end
      end
      redis.call('ZREM', DUE, page[e]) -- none of it is held any more
    end
    if #page > 0 then return tonumber(page[#page]) - now end
    return 1000 -- held without an end, or being expired: ask again in a second
  end

  local pastdue
  local function somedue()
    if ARGV[7] == '1' then return false end
    if pastdue == nil then
      pastdue = #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, 1) > 0
    end
    return pastdue
  end

  local no, noof -- of one quantity it is the same for the whole batch
  function noroom(q)
    if noof ~= q then
      if free + held < q then no = 's'
      elseif somedue() then no = 'm'
      else no = 'a' .. int(nextexpiry()) .. ';' end
      noof = q
    end
    return no
  end

  function judge(i, p)
    local q, d, o = all, 0, 0
    if not uniform then q, d, o = quantity[i], deadline[i], born[i] end
    if value[p] then
      local answer = known(p, sub(blob, i * 28 - 15, i * 28), q)
      if answer then return answer end
    end
    if o ~= 0 and o <= oldest then return 'o' end
    if closed then return closed end
    if d ~= 0 and d <= now then return 'd' end
    local taken, count, overdue = 0, 0, false
    if value[p] then taken, count, overdue = prune(p) end
    if limit > 0 and taken + q > limit then
      if overdue and somedue() then return 'm' end
      return 'l' .. int(math.max(limit - taken, 0)) .. ';'
    end
    if count >= most then return 't' end
    if jfull then return 'j' end
    if free < q then return noroom(q) end
    value[p] = (value[p] or '') .. sub(blob, i * 28 - 15, i * 28) .. 'h' .. int(q) .. ',' .. int(expires) .. ';'
    write(p)
    free, held = free - q, held + q
    hold(i, i, q)
    return 'h'
  end
end

-- A buyer who was never seen, where everything is allowed, needs no judgement.
local plain = uniform and not closed and not jfull and (limit == 0 or all <= limit)
local tail = plain and 'h' .. int(all) .. ',' .. int(expires) .. ';'
local i = 1
while i <= n do
  local from = i
  while i <= n and plain and free >= all do
    local b = bs[i]
    local p = place[b]
    if value[p] then break end
    local v = sub(blob, i * 28 - 15, i * 28) .. tail
    value[p], set[sn + 1], set[sn + 2] = v, b, v
    sn = sn + 2
    free, held = free - all, held + all
    i = i + 1
  end
  an = an + 1
  if i > from then
    hold(from, i - 1, all)
    answers[an] = string.rep('h', i - from)
  else
    if not judge then slow() end
    local p = place[bs[i]]
    answers[an] = plain and not value[p] and noroom(all) or judge(i, p)
    i = i + 1
  end
end

-- The index first: a key of a wrong type fails here, before anything is written.
if dn > 0 then redis.call('ZADD', DUE, int(expires), int(first) .. ':' .. join(due, dn)) end
flush()
return {'ok', epoch, seq, now, expires, join(answers, an)}
