-- pool.lua: what every script of a pool begins with.
--
-- KEYS  1 meta (hash), 2 reservations (hash: buyer -> records), 3 due (sorted
--       set: expiry in ms -> the IDs that fall due then), 4 journal (stream)
-- ARGV  1 epoch the caller knows (0: none yet), 2 highest seq it has seen,
--       3 "1" where the caller has a ledger, 4 journal bound in entries (-1: off)
--
-- A buyer's field holds its records one after the other, each
--   claim (16 bytes) state (1 letter) quantity "," time in ms ";"
-- with the states h held, k held without an end, s sold, c cancelled,
-- x expired, r returned. The time is the expiry of a hold, the end of others.
-- A due member is the seq of its first hold, ":", then buyer (12 bytes) and
-- claim (16 bytes) of each.
--
-- All decisions are made on copies; flush() writes at the end. So an error on
-- the way, or a key of a wrong type, changes nothing.

local sub, match, fmt, concat = string.sub, string.match, string.format, table.concat
local META, RES, DUE, JOURNAL = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, seq, free, held, sold, first
local jmax = tonumber(ARGV[4])
local LATEST = '9007199254740991' -- later than any expiry, earlier than the member that keeps DUE alive
local now

local function int(x) return fmt('%d', x) end

-- guard reads the meta and returns a refusal, or nothing and the meta's rest.
local function guard(state)
  local m = redis.call('HMGET', META, 'v', 'epoch', 'seq', 'free', 'held', 'sold', 'state', 'ledger', 'limit', 'hold', 'opens', 'closes')
  if not m[1] then return {'missing'} end
  if m[1] ~= '1' then return {'version', m[1]} end
  if m[8] ~= ARGV[3] then return {'ledger', m[8]} end
  epoch, seq = tonumber(m[2]), tonumber(m[3])
  local known = tonumber(ARGV[1])
  if m[7] ~= state or (known ~= 0 and known ~= epoch) or seq < tonumber(ARGV[2]) then
    return {'fenced', m[2], m[3]}
  end
  free, held, sold, first = tonumber(m[4]), tonumber(m[5]), tonumber(m[6]), seq + 1
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
  return nil, m
end

-- The buyers' fields that this call has read, by place; a buyer has one place.
local place, name, value, dirty, places = {}, {}, {}, {}, 0

local function read(buyers)
  if #buyers == 0 then return end
  local got = redis.call('HMGET', RES, unpack(buyers))
  for i = 1, #buyers do
    places = places + 1
    place[buyers[i]], name[places], value[places] = places, buyers[i], got[i]
  end
end

-- records walks a buyer's records: start, state, quantity, time, start of the next.
local function record(v, pos)
  local st, q, at, nxt = match(v, '^(%l)(%d+),(%d+);()', pos + 16)
  if not st then error('corrupt record') end
  return st, tonumber(q), tonumber(at), nxt
end

local function find(v, claim)
  local pos = 1
  while v and pos <= #v do
    local st, q, at, nxt = record(v, pos)
    if sub(v, pos, pos + 15) == claim then return pos, st, q, at, nxt end
    pos = nxt
  end
end

local function put(i, pos, st, q, at, nxt)
  local v = value[i]
  value[i] = sub(v, 1, pos + 15) .. st .. int(q) .. ',' .. int(at) .. ';' .. sub(v, nxt)
  dirty[i] = true
end

local events, ev = {}, 0
local function event(kind, buyer, claim, q)
  seq = seq + 1
  if jmax >= 0 then
    events[ev + 1], events[ev + 2], events[ev + 3], events[ev + 4], events[ev + 5] = kind, buyer, claim, int(q), ';'
    ev = ev + 5
  end
end

-- finish ends a hold: to is its new state, kind the event's letter.
local function finish(i, buyer, claim, pos, q, nxt, to, kind)
  put(i, pos, to, q, now, nxt)
  if to == 's' then held, sold = held - q, sold + q else held, free = held - q, free + q end
  event(kind, buyer, claim, q)
end

-- checktypes fails, before the first write, where flush() would fail after it.
local function checktypes()
  redis.call('ZCARD', DUE)
  return redis.call('XLEN', JOURNAL)
end

-- join is concat in pieces: the embedded stand-in's has a small stack.
local function join(t)
  if #t <= 2000 then return concat(t) end
  local parts = {}
  for i = 1, #t, 2000 do parts[#parts + 1] = concat(t, '', i, math.min(i + 1999, #t)) end
  return concat(parts)
end

local function flush()
  local entry = jmax >= 0 and seq >= first and fmt('1,%d,%d,%d;', epoch, first, now) .. join(events)
  local set, n = {}, 0
  for i in pairs(dirty) do
    set[n + 1], set[n + 2] = name[i], value[i]
    n = n + 2
    if n >= 3000 then redis.call('HSET', RES, unpack(set)); set, n = {}, 0 end
  end
  if n > 0 then redis.call('HSET', RES, unpack(set)) end
  if seq >= first then
    redis.call('HSET', META, 'seq', int(seq), 'free', int(free), 'held', int(held), 'sold', int(sold))
    if entry then redis.call('XADD', JOURNAL, '*', 'e', entry) end
  end
end

-- ids reads a due member: its buyers and claims.
local function ids(member)
  local from = match(member, '^%d+:()')
  local buyers, claims, n = {}, {}, 0
  for p = from, #member, 28 do
    n = n + 1
    buyers[n], claims[n] = sub(member, p, p + 11), sub(member, p + 12, p + 27)
  end
  return buyers, claims
end

-- readall reads those buyers that were not read before.
local function readall(buyers)
  local missing, asked = {}, {}
  for i = 1, #buyers do
    local b = buyers[i]
    if not place[b] and not asked[b] then asked[b] = true; missing[#missing + 1] = b end
  end
  read(missing)
end

