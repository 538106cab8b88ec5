-- change.lua: confirms, cancels, extends or returns one reservation, or looks
-- it up.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 the step: confirm, cancel, extend, return or
--       lookup; 7 buyer; 8 claim; 9 the amount to confirm ("": all), or the new
--       expiry in ms
-- Returns {"ok", epoch, seq, now, verdict, state, amount, time}, verdict:
--   done | again (it was so before) | none (no such ID) | no (the state forbids
--   it) | amount (another was confirmed before, or more than there is) |
--   nomore (paid too late, and its units can't be had) | more (perhaps they can,
--   after a sweep: then ask again),
-- or a refusal as reserve.lua's. Idempotent: the state says what was done.

local step, b, claim, arg = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local pos, st, a, at, nxt = find(value[3], claim)

local function answer(verdict)
  flush()
  return {'ok', epoch, seq, now, verdict, st or '', a or '0', at or 0}
end

local function turn(to, kind)
  finish(3, claim, pos, a, nxt, to, kind)
  st, at = to, now
  nxt = pos + 16 + #st + #a + 1 + #int(at) + 1
end

if not st then return answer('none') end
local live = st == 'h' or st == 'k'
-- Without a ledger the time alone decides; with one, whoever asks has sold or
-- cancelled there first, and nobody frees a hold past the ledger.
if st == 'h' and at <= now and ARGV[3] == '0' then
  turn('x', 'X')
  live = false
end

-- remainder is what is left of the amount without a part, or nil where the part is
-- no part of it.
local function remainder(part)
  local have, want, parts = units(a), units(part), {}
  for i in pairs(want) do if want[i] > (have[i] or 0) then return nil end end
  for i = 1, n do
    local q = (have[i] or 0) - (want[i] or 0)
    if q > 0 then parts[#parts + 1] = n == 1 and int(q) or int(q) .. '@' .. int(i - 1) end
  end
  return concat(parts, '+')
end

-- reserved tells the buyer's units that are held or sold, and of each item.
local function reserved()
  local taken, of, p = 0, {}, 1
  while p <= #value[3] do
    local s, amount, _, after = record(value[3], p)
    if s == 'h' or s == 'k' or s == 's' or s == 't' then
      local u, sum = units(amount)
      taken = taken + sum
      for i, q in pairs(u) do of[i] = (of[i] or 0) + q end
    end
    p = after
  end
  return taken, of
end

-- available tells whether an ended hold's units can be had once more.
local function available(amount)
  local u, sum = units(amount)
  local taken, of = reserved()
  if limit > 0 and taken + sum > limit then return false end
  local i = 0
  for l in string.gmatch(sub(terms, rest), '%d+,(%d+);') do
    i = i + 1
    l = tonumber(l)
    if u[i] and (free[i] < u[i] or n > 1 and l > 0 and (of[i] or 0) + u[i] > l) then return false end
  end
  return true
end

-- lateness is the answer to a payment after the hold has ended. It is the same
-- each time, and a refusal is told to the journal once.
local function lateness(back)
  if st == 'l' then return late == '1' and 'nomore' or 'no' end
  local paid = back ~= '' and a .. '-' .. back or a
  if late == '1' and available(paid) then
    a, st, at = paid, 't', now
    put(3, pos, st, a, at, nxt)
    shift(a, free, sold)
    note('T', a, b .. claim, 1)
    return 'done'
  end
  if late == '1' and #redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, 1) > 0 then
    return 'more' -- units whose holds have ended are free, as soon as they are swept
  end
  st = 'l'
  put(3, pos, st, a, at, nxt)
  note('L', a, b .. claim, 1)
  return late == '1' and 'nomore' or 'no'
end

if step == 'lookup' then return answer('done') end

if step == 'confirm' then
  local back = ''
  if arg ~= '' and match(a, '^[^-]+') ~= arg then
    back = remainder(arg)
  end
  if st == 's' or st == 't' then
    local was = match(a, '%-(.*)$') or ''
    if arg ~= '' then -- compare what it was with what is asked for now
      local have, want = units(a), units(arg)
      for i = 1, n do if have[i] ~= want[i] and (have[i] or 0) ~= (want[i] or 0) then return answer('amount') end end
    elseif was ~= '' then
      return answer('amount')
    end
    return answer('again')
  end
  local ended = st == 'x' or st == 'l'
  if not live and not ended or ended and ARGV[3] == '1' then return answer('no') end
  if not back then return answer('amount') end
  if ended then return answer(lateness(back)) end
  if back ~= '' then
    shift(back, held, free)
    a = a .. '-' .. back
  end
  turn('s', 'C')
elseif step == 'cancel' then
  if st == 'c' or st == 'x' or st == 'l' then return answer('again') end
  if not live then return answer('no') end
  turn('c', 'K')
elseif step == 'extend' then
  if not live or st == 'h' and at <= now then return answer('no') end
  if st == 'k' or tonumber(arg) <= at then return answer('again') end
  at = tonumber(arg)
  undo = int(first) .. ':' .. b .. claim
  redis.call('ZADD', DUE, arg, undo)
  put(3, pos, st, a, at, nxt)
  note('E', a, b .. claim, 1)
else
  if st == 'r' then return answer('again') end
  if st ~= 's' and st ~= 't' then return answer('no') end
  put(3, pos, 'r', a, now, nxt)
  shift(a, sold, free)
  note('B', a, b .. claim, 1)
  st, at = 'r', now
end
return answer('done')
