-- reserve_rest.lua: judges what reserve.lua has left, one by one. It stands
-- after lib.lua.

expires = tonumber(expires)
local answers, an = {}, 0

-- hold promises an amount to each of the requests from to till.
local due, dn = {}, 0 -- their IDs
local function hold(from, till, a)
  dn = dn + 1
  due[dn] = sub(blob, from * 28 - 27, till * 28)
  note('R', a, due[dn], till - from + 1)
end

local most = tonumber(ARGV[7])
local amount, deadline, born = {}, {}, {}
if not uniform then
  local i = 0
  for a, d, b in string.gmatch(ARGV[14], '([%d@+]+),(%d+),(%d+);') do
    i = i + 1
    amount[i], deadline[i], born[i] = a, tonumber(d), tonumber(b)
  end
end
local limits = {} -- of the items, where there are several
if n > 1 then
  for l in string.gmatch(sub(terms, rest), '%d+,(%d+);') do limits[#limits + 1] = tonumber(l) end
end

-- lapsed tells a hold that its time has ended; with a ledger none ends by
-- time alone.
local function lapsed(st, at) return st == 'h' and at <= now and ARGV[3] == '0' end

local function known(p, claim, a)
  local pos, st, ra, at, nxt = find(value[p], claim)
  if not st then return nil end
  if ra ~= a and match(ra, '^[^-]+') ~= a then return 'q' end
  if lapsed(st, at) then
    finish(p, claim, pos, ra, nxt, 'x', 'X')
    return 'ex' .. ra .. ',' .. int(now) .. ';'
  end
  return 'e' .. sub(value[p], pos + 16, nxt - 1)
end

-- prune forgets a buyer's ended reservations that are older than the
-- retention, ends what has lapsed, and sums up the rest: units that are taken,
-- of each item, records that are kept, and those of them that have ended.
local ends = 512 -- are ended by one call; a sweep ends the others
local function prune(p)
  local v, taken, of, count, past, overdue, ending = value[p], 0, {}, 0, 0, false, false
  local kept, k, from, pos = {}, 0, 1, 1 -- what stands before from, once something has changed
  while pos <= #v do
    local st, a, at, nxt = record(v, pos)
    if ends > 0 and lapsed(st, at) then
      shift(a, held, free)
      note('X', a, name[p] .. sub(v, pos, pos + 15), 1)
      kept[k + 1], kept[k + 2] = sub(v, from, pos + 15), 'x' .. a .. ',' .. int(now) .. ';'
      k, from = k + 2, nxt
      ends, ending, st, at = ends - 1, true, 'x', now
    end
    local ended = st == 'c' or st == 'x' or st == 'l' or st == 'r'
    if ended and at < oldest then
      k = k + 1
      kept[k], from = sub(v, from, pos - 1), nxt
    else
      count = count + 1
      if ended then
        past = past + 1
      else
        local sum, u = tonumber(a)
        if not sum then u, sum = units(a) end
        taken = taken + sum
        if n > 1 then for i, q in pairs(u) do of[i] = (of[i] or 0) + q end end
      end
      overdue = overdue or st == 'h' and at <= now
    end
    pos = nxt
  end
  if k > 0 then
    kept[k + 1] = sub(v, from)
    value[p] = join(kept, k + 1)
  end
  if ending then write(p) end
  return taken, of, count, past, overdue
end

-- alive tells whether an entry of the index holds some of an item till its
-- time, and whether it holds anything. Most often one of its first does.
local function alive(member, score, item)
  local from, any = match(member, '^%d+:()'), false
  for _, till in ipairs({math.min(#member, from + 28 * 4 - 1), #member}) do
    local buyers, claims = ids(member, from, till)
    read(buyers)
    for j = 1, #buyers do
      local _, st, a, at = find(value[placeof(buyers[j])], claims[j])
      if st == 'h' and at <= score then
        if n == 1 or units(a)[item] then return true, true end
        any = true
      end
    end
    from = till + 1
  end
  return false, any
end

-- nextexpiry is the time until the earliest live hold (of an item) may end.
local function nextexpiry(item)
  local offset, last = 0
  for _ = 1, 8 do
    local e = redis.call('ZRANGEBYSCORE', DUE, '(' .. int(now), LATEST, 'WITHSCORES', 'LIMIT', offset, 1)
    if not e[1] then break end
    last = tonumber(e[2])
    local here, any = alive(e[1], last, item)
    if here then return last - now end
    if any then offset = offset + 1 else redis.call('ZREM', DUE, e[1]) end -- none of it is held till then
  end
  if last then return last - now end
  return 1000 -- held without an end, or being expired: ask again in a second
end

local pastdue
local function somedue()
  if ARGV[8] == '1' then return false end
  if pastdue == nil then
    pastdue = #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, 1) > 0
  end
  return pastdue
end

-- noroom is the answer where too few units of the only item are free.
local no, noof -- of one number it is the same for the whole batch
local function noroom(q)
  if noof ~= q then
    if free[1] + held[1] < q then no = 's'
    elseif somedue() then no = 'm'
    else no = 'a' .. int(nextexpiry(1)) .. ';' end
    noof = q
  end
  return no
end

-- short is noroom for a basket: sold out is said first.
local function short(u)
  local lacking
  for i = 1, n do
    if u[i] and free[i] < u[i] then
      if free[i] + held[i] < u[i] then return 'S' .. int(i - 1) .. ';' end
      lacking = lacking or i
    end
  end
  if not lacking then return nil end
  if somedue() then return 'm' end
  return 'A' .. int(lacking - 1) .. ',' .. int(nextexpiry(lacking)) .. ';'
end

-- over is the answer where a limit would be passed.
local function over(u, sum, taken, of)
  if limit > 0 and taken + sum > limit then return 'l' .. int(math.max(limit - taken, 0)) .. ';' end
  for i = 1, #limits do
    local t = of[i] or 0
    if u[i] and limits[i] > 0 and t + u[i] > limits[i] then
      return 'L' .. int(i - 1) .. ',' .. int(math.max(limits[i] - t, 0)) .. ';'
    end
  end
end

-- judge gives one request its answer, in the order that stock.Store states.
local function judge(i, p)
  local a, d, o = ARGV[11], 0, 0
  if not uniform then a, d, o = amount[i], deadline[i], born[i] end
  if value[p] then
    local answer = known(p, sub(blob, i * 28 - 15, i * 28), a)
    if answer then return answer end
  end
  if o ~= 0 and o <= oldest then return 'o' end
  if shut then return shut end
  if d ~= 0 and d <= now then return 'd' end
  local sum, u = tonumber(a)
  if not sum then
    if n == 1 then return 'u' end
    u, sum = units(a)
    for k in pairs(u) do if k > n then return 'u' end end
  end
  local taken, of, count, ended, overdue = 0, {}, 0, 0, false
  if value[p] then taken, of, count, ended, overdue = prune(p) end
  local no = over(u, sum, taken, of)
  if no then return overdue and somedue() and 'm' or no end
  if ended >= most or count >= 16 * most then return 't' end
  if jfull then return 'j' end
  if n > 1 then
    no = short(u)
    if no then return no end
  elseif free[1] < sum then
    return noroom(sum)
  end
  value[p] = (value[p] or '') .. sub(blob, i * 28 - 15, i * 28) .. 'h' .. a .. ',' .. int(expires) .. ';'
  write(p)
  if u then shift(a, free, held) else free[1], held[1] = free[1] - sum, held[1] + sum end
  hold(i, i, a)
  return 'h'
end

if i > 1 then
  hold(1, i - 1, ARGV[11])
  an, answers[1] = 1, string.rep('h', i - 1)
end
while i <= asks do
  local from, left = i, free[1]
  while plain and i <= asks and left >= all and not value[i + 2] do -- as in reserve.lua
    local v = sub(blob, i * 28 - 15, i * 28) .. tail
    value[i + 2], set[sn + 1], set[sn + 2] = v, name[i + 2], v
    sn, left, i = sn + 2, left - all, i + 1
  end
  an = an + 1
  if i > from then
    held[1], free[1] = held[1] + free[1] - left, left
    hold(from, i - 1, ARGV[11])
    answers[an] = string.rep('h', i - from)
  elseif plain and not value[i + 2] then -- who comes too late, one after the other
    repeat i = i + 1 until i > asks or value[i + 2]
    answers[an] = string.rep(noroom(all), i - from)
  else
    answers[an] = judge(i, again[i] and placeof(name[i + 2]) or i + 2)
    i = i + 1
  end
end

if dn > 0 then
  undo = int(first) .. ':' .. join(due, dn)
  redis.call('ZADD', DUE, int(expires), undo)
end
flush()
return {'ok', epoch, seq, now, expires, join(answers, an)}
