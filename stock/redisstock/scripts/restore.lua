-- restore.lua: writes a pool anew from the ledger, in steps.
--
-- KEYS  1 pool, 2 due, 3 journal
-- ARGV  1 the new epoch; 2 the step, counted from 0; 3 its kind:
--   begin  4 terms, 5 terms as they were opened, 6 "0,0,0;" of each item
--   load   4 entries, each buyer (12) claim (16) state amount "," expiry ";"
--   end    4 total of each item, "number;" each
-- Returns {"ok", steps done}, or {"fenced"} where a newer rebuild has begun or
-- the steps are out of order.
-- Idempotent: a step that was done is not done again.
--
-- While it lasts, m has state b and counts only what is held and sold. The
-- journal stays: what an earlier epoch had not relayed is still to be told.

local POOL, DUE, JOURNAL = KEYS[1], KEYS[2], KEYS[3]
local h = redis.call('HMGET', POOL, 'm', 's')
local m, done = h[1], h[2]
local epoch, step, kind = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local function int(x) return string.format('%d', x) end

local was, state
if m then was, state = string.match(m, '^(%d+),%d+,(%l)') end
if was and tonumber(was) > tonumber(epoch) then return {'fenced'} end
if was == epoch then
  if done and tonumber(done) > step then return {'ok', done} end
  if kind == 'begin' or state ~= 'b' or tonumber(done) ~= step then return {'fenced'} end
elseif kind ~= 'begin' then
  return {'fenced'}
end

if kind == 'begin' then
  redis.call('UNLINK', POOL, DUE)
  redis.call('ZADD', DUE, '+inf', '0:')
  if redis.call('EXISTS', JOURNAL) == 0 then
    redis.call('XADD', JOURNAL, '*', 'v', '1')
    redis.call('XTRIM', JOURNAL, 'MAXLEN', 0)
  end
  redis.call('HSET', POOL, 't', ARGV[4], 'm', epoch .. ',0,b,0;' .. ARGV[6], 'i', ARGV[5], 's', '1')
  return {'ok', '1'}
end

local held, sold, n = {}, {}, 0
for hs, ss in string.gmatch(m, '%-?%d+,(%d+),(%d+);') do
  n = n + 1
  held[n], sold[n] = tonumber(hs), tonumber(ss)
end

-- count adds an amount's units, sign 1, or takes off what was given back.
local function count(to, text, sign)
  if n == 1 then to[1] = to[1] + sign * (tonumber(text) or 0) end
  for q, i in string.gmatch(text, '(%d+)@(%d+)') do to[i + 1] = to[i + 1] + sign * q end
end

local function write(state, free)
  local parts = {epoch .. ',0,' .. state .. ',0;'}
  for i = 1, n do parts[i + 1] = string.format('%d,%d,%d;', free[i] or 0, held[i], sold[i]) end
  redis.call('HSET', POOL, 'm', table.concat(parts), 's', int(step + 1))
  return {'ok', int(step + 1)}
end

if kind == 'load' then
  local pos, blob = 1, ARGV[4]
  while pos <= #blob do
    local st, a, at, nxt = string.match(blob, '^(%l)([%d@+%-]+),(%d+);()', pos + 28)
    local buyer = string.sub(blob, pos, pos + 11)
    local old = redis.call('HGET', POOL, buyer) or ''
    redis.call('HSET', POOL, buyer, old .. string.sub(blob, pos + 12, nxt - 1))
    local to = st == 's' and sold or held
    local asked, back = string.match(a, '^([^-]+)%-?(.*)$')
    count(to, asked, 1)
    count(to, back, -1)
    if st ~= 's' then redis.call('ZADD', DUE, at, int(step) .. ':' .. string.sub(blob, pos, pos + 27)) end
    pos = nxt
  end
  return write('b', {})
end

local free, i = {}, 0
for total in string.gmatch(ARGV[4], '(%d+);') do
  i = i + 1
  free[i] = tonumber(total) - held[i] - sold[i]
end
return write('o', free)
