-- change.lua: confirms, cancels or returns one reservation, or looks it up.
--
-- KEYS  as in pool.lua
-- ARGV  1-4 as in pool.lua; 5 the step: confirm, cancel, return or lookup;
--       6 buyer; 7 claim
-- Returns {"ok", epoch, seq, now, verdict, state, quantity, time}, verdict:
--   done | again (it was so before) | none (no such ID) | no (the state forbids
--   it), or a refusal as reserve.lua's. Idempotent: the state says what was done.

local refused = guard()
if refused then return refused end
journalled()
records()
local step, b, claim = ARGV[5], ARGV[6], ARGV[7]
read({b})
local pos, st, q, at, nxt = find(value[1], claim)

local function answer(verdict)
  flush()
  return {'ok', epoch, seq, now, verdict, st or '', q or 0, at or 0}
end

local function turn(to, kind)
  finish(1, claim, pos, q, nxt, to, kind)
  st, at = to, now
end

if not st then return answer('none') end
local live = st == 'h' or st == 'k'
-- Without a ledger the time alone decides; with one, whoever asks has sold or
-- cancelled there first, and nobody frees a hold past the ledger.
if st == 'h' and at <= now and ARGV[3] == '0' then
  turn('x', 'X')
  live = false
end
if step == 'lookup' then return answer('done') end

if step == 'confirm' then
  if st == 's' then return answer('again') end
  if not live then return answer('no') end
  turn('s', 'C')
elseif step == 'cancel' then
  if st == 'c' or st == 'x' then return answer('again') end
  if not live then return answer('no') end
  turn('c', 'K')
else
  if st == 'r' then return answer('again') end
  if st ~= 's' then return answer('no') end
  put(1, pos, 'r', q, now, nxt)
  sold, free = sold - q, free + q
  note('B', q, b .. claim, 1)
  st, at = 'r', now
end
return answer('done')
