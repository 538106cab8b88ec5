-- repair.lua: mends one reservation, or the counts, where they still stand as
-- they were read.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 "record" or "counts"
--   record  7 buyer; 8 claim; 9 "state amount,time;" as it was read ("" for
--           none); 10 the same as it is to be
--   counts  7 counts as they were read; 8 "free,held,sold;" of each item as
--           they are to be
-- Returns {"ok", epoch, seq, now, verdict}, verdict: done | other (it has changed
--   since), or a refusal as reserve.lua's. Idempotent.

local function answer(verdict)
  flush()
  return {'ok', epoch, seq, now, verdict}
end

if ARGV[6] == 'counts' then
  if counts ~= ARGV[7] then return answer('other') end
  local i = 0
  for f, h, s in string.gmatch(ARGV[8], '(%-?%d+),(%d+),(%d+);') do
    i = i + 1
    free[i], held[i], sold[i] = tonumber(f), tonumber(h), tonumber(s)
  end
  counts = newcounts() -- and no event: nothing has happened to a reservation
  set[1], set[2], sn = 'm', counts, 2
  return answer('done')
end

local claim, old, new = ARGV[8], ARGV[9], ARGV[10]
local pos, st, a, at, nxt = find(value[3], claim)
if (st and sub(value[3], pos + 16, nxt - 1) or '') ~= old then return answer('other') end

-- where tells which count a state's units are in.
local function where(s)
  if s == 'h' or s == 'k' then return held end
  if s == 's' or s == 't' then return sold end
  return free
end
local function kind(s)
  if s == 's' then return 'C' elseif s == 'c' then return 'K' elseif s == 'x' then return 'X' elseif s == 'r' then return 'B' end
  return 'R'
end

if st then shift(a, where(st), free) end
local tost, toa, toat = match(new, '^(%l)([%d@+%-]+),(%d+);$')
if not tost then error('corrupt record') end
shift(toa, free, where(tost))
if tost == 'h' then
  undo = int(first) .. ':' .. ARGV[7] .. claim
  redis.call('ZADD', DUE, toat, undo)
end
local v = value[3] or ''
if st then
  value[3] = sub(v, 1, pos + 15) .. new .. sub(v, nxt)
else
  value[3] = v .. claim .. new
end
write(3)
if tost ~= st then note(kind(tost), toa, ARGV[7] .. claim, 1) end
return answer('done')
