-- adjust.lua: puts new terms in the place of known ones.
--
-- KEYS  as in head.lua
-- ARGV  1-5 as in head.lua; 6 the terms that are known; 7 those to come; 8 "1"
--       to take out more than is free; 9 units to add to each item, "number;"
--       each
-- Returns {"ok", epoch, seq, now, verdict, terms, counts}, verdict: done | again
--   (they stand so already) | other (it has others) | over (units missing in
--   the place of counts), or a refusal as reserve.lua's.
-- Idempotent: terms have a version.

local function answer(verdict, detail) return {'ok', epoch, seq, now, verdict, terms, detail or counts} end
if terms == ARGV[7] then return answer('again') end
if terms ~= ARGV[6] then return answer('other') end
local i, by, deltas = 0, 0, {}
for d in string.gmatch(ARGV[9], '(%-?%d+);') do
  i = i + 1
  deltas[i] = tonumber(d)
  if deltas[i] < 0 and free[i] + deltas[i] < 0 then by = by - free[i] - deltas[i] end
end
if by > 0 and ARGV[8] ~= '1' then return answer('over', int(by)) end
for k = 1, i do
  local d = deltas[k]
  local at = n == 1 and '' or '@' .. int(k - 1)
  free[k] = free[k] + d
  if d > 0 then note('A', int(d) .. at, string.rep('\0', 28), 1) end
  if d < 0 then note('D', int(-d) .. at, string.rep('\0', 28), 1) end
end
terms = ARGV[7]
set[1], set[2], sn = 't', terms, 2
flush()
counts = newcounts()
return answer('done')
