-- restore.lua: writes a pool anew from the ledger, in steps.
--
-- KEYS  1 meta, 2 reservations, 3 due, 4 journal
-- ARGV  1 the new epoch; 2 the step, counted from 0; 3 its kind:
--   begin  4 SKU, 5 total, 6 limit, 7 hold in ms, 8 opens, 9 closes
--   load   4 entries, each buyer (12) claim (16) state quantity "," expiry ";"
--   end
-- Returns {"ok", steps done, free, held, sold}, or {"fenced", epoch, seq}
-- where a newer rebuild has begun or the steps are out of order.
-- Idempotent: a step that was done is not done again.
--
-- The journal stays: what an earlier epoch had not relayed is still to be told.

local META, RES, DUE, JOURNAL = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local m = redis.call('HMGET', META, 'epoch', 'step', 'total', 'held', 'sold', 'state', 'seq', 'free')
local epoch, step, kind = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local function int(x) return string.format('%d', x) end

if m[1] and tonumber(m[1]) > tonumber(epoch) then return {'fenced', m[1], m[7]} end
if m[1] == epoch then
  if m[2] and tonumber(m[2]) > step then return {'ok', m[2], m[8] or '0', m[4], m[5]} end
  if kind == 'begin' or m[6] ~= 'rebuilding' or tonumber(m[2]) ~= step then return {'fenced', m[1], m[7]} end
elseif kind ~= 'begin' then
  return {'fenced', m[1] or '0', m[7] or '0'}
end

if kind == 'begin' then
  redis.call('DEL', META)
  redis.call('UNLINK', RES, DUE)
  redis.call('HSET', RES, 'v', '1;')
  redis.call('ZADD', DUE, '+inf', '0:')
  if redis.call('EXISTS', JOURNAL) == 0 then
    redis.call('XADD', JOURNAL, '*', 'v', '1')
    redis.call('XTRIM', JOURNAL, 'MAXLEN', 0)
  end
  redis.call('HSET', META, 'v', '1', 'epoch', epoch, 'seq', '0', 'step', '1', 'total', ARGV[5], 'free', '0', 'held', '0', 'sold', '0',
    'state', 'rebuilding', 'ledger', '1', 'sku', ARGV[4], 'limit', ARGV[6], 'hold', ARGV[7], 'opens', ARGV[8], 'closes', ARGV[9])
  return {'ok', '1', '0', '0', '0'}
end

local held, sold = tonumber(m[4]), tonumber(m[5])
if kind == 'load' then
  local pos, blob = 1, ARGV[4]
  while pos <= #blob do
    local st, q, at, nxt = string.match(blob, '^(%l)(%d+),(%d+);()', pos + 28)
    local buyer = string.sub(blob, pos, pos + 11)
    local old = redis.call('HGET', RES, buyer) or ''
    redis.call('HSET', RES, buyer, old .. string.sub(blob, pos + 12, nxt - 1))
    if st == 's' then
      sold = sold + tonumber(q)
    else
      held = held + tonumber(q)
      redis.call('ZADD', DUE, at, int(step) .. ':' .. string.sub(blob, pos, pos + 27))
    end
    pos = nxt
  end
  redis.call('HSET', META, 'step', int(step + 1), 'held', int(held), 'sold', int(sold))
  return {'ok', int(step + 1), '0', int(held), int(sold)}
end

local free = tonumber(m[3]) - held - sold
redis.call('HSET', META, 'step', int(step + 1), 'free', int(free), 'state', 'open')
return {'ok', int(step + 1), int(free), int(held), int(sold)}
