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
-- claim (16 bytes) of each; it may outlive its holds.
-- A journal entry is "1,epoch,first seq,ms;" and then runs of changes of one
-- kind, each: letter, quantity ",", how many ";", and 28 bytes for each.
--
-- All decisions are made on copies; flush() writes at the end. So an error on
-- the way, or a key of a wrong type, changes nothing. What a lone reservation
-- does not need is made by records(): each function costs it time.

local sub, match, fmt, concat = string.sub, string.match, string.format, table.concat
local META, RES, DUE, JOURNAL = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LATEST = '9007199254740991' -- later than any expiry, earlier than the member that keeps DUE alive
local jmax = tonumber(ARGV[4])
local epoch, seq, free, held, sold, first, now

local function int(x) return fmt('%d', x) end

-- guard reads the meta and returns a refusal, or nothing and the meta's rest.
local function guard()
  local m = redis.call('HMGET', META, 'v', 'epoch', 'seq', 'free', 'held', 'sold', 'state', 'ledger', 'limit', 'hold', 'opens', 'closes')
  if not m[1] then return {'missing'} end
  if m[1] ~= '1' then return {'version', m[1]} end
  if m[8] ~= ARGV[3] then return {'ledger', m[8]} end
  epoch, seq = tonumber(m[2]), tonumber(m[3])
  local known = tonumber(ARGV[1])
  if m[7] ~= 'open' or (known ~= 0 and known ~= epoch) or seq < tonumber(ARGV[2]) then
    return {'fenced', m[2], m[3]}
  end
  free, held, sold, first = tonumber(m[4]), tonumber(m[5]), tonumber(m[6]), seq + 1
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
  return nil, m
end

-- journalled is the journal's length. It fails, before the first write, where
-- flush() would fail after it.
local function journalled() return redis.call('XLEN', JOURNAL) end

-- note tells the journal of n changes of one kind and quantity.
local runs, rn = {}, 0
local function note(kind, q, ids, n)
  seq = seq + n
  if jmax < 0 then return end
  runs[rn + 1], runs[rn + 2] = kind .. int(q) .. ',' .. int(n) .. ';', ids
  rn = rn + 2
end

-- join is concat in pieces: the embedded stand-in's has a small stack.
local function join(t, n)
  if n <= 2000 then return concat(t, '', 1, n) end
  local parts = {}
  for i = 1, n, 2000 do parts[#parts + 1] = concat(t, '', i, math.min(i + 1999, n)) end
  return concat(parts)
end

-- What is to be written: buyer, records, buyer, records, ... The last word on
-- a buyer counts.
local set, sn = {}, 0

local function flush()
  if sn <= 3000 then
    if sn > 0 then redis.call('HSET', RES, unpack(set, 1, sn)) end
  else
    for i = 1, sn, 3000 do redis.call('HSET', RES, unpack(set, i, math.min(i + 2999, sn))) end
  end
  if seq >= first then
    redis.call('HSET', META, 'seq', int(seq), 'free', int(free), 'held', int(held), 'sold', int(sold))
    if jmax >= 0 then
      redis.call('XADD', JOURNAL, '*', 'e', fmt('1,%d,%d,%d;', epoch, first, now) .. join(runs, rn))
    end
  end
end

-- The buyers' fields that this call has read, by place; a buyer has one place.
local place, name, value = {}, {}, {}

local record, find, write, put, finish, ids, read
local function records()
  -- record reads one: state, quantity, time, start of the next.
  function record(v, pos)
    local st, q, at, nxt = match(v, '^(%l)(%d+),(%d+);()', pos + 16)
    if not st then error('corrupt record') end
    return st, tonumber(q), tonumber(at), nxt
  end

  function find(v, claim)
    local pos = 1
    while v and pos <= #v do
      local st, q, at, nxt = record(v, pos)
      if sub(v, pos, pos + 15) == claim then return pos, st, q, at, nxt end
      pos = nxt
    end
  end

  local at = {}
  function write(i)
    if not at[i] then
      sn = sn + 2
      at[i], set[sn - 1] = sn, name[i]
    end
    set[at[i]] = value[i]
  end

  function put(i, pos, st, q, at, nxt)
    local v = value[i]
    value[i] = sub(v, 1, pos + 15) .. st .. int(q) .. ',' .. int(at) .. ';' .. sub(v, nxt)
    write(i)
  end

  -- finish ends a hold: to is its new state, kind the event's letter.
  function finish(i, claim, pos, q, nxt, to, kind)
    put(i, pos, to, q, now, nxt)
    if to == 's' then held, sold = held - q, sold + q else held, free = held - q, free + q end
    note(kind, q, name[i] .. claim, 1)
  end

  -- ids reads a due member: its buyers and claims.
  function ids(member)
    local from = match(member, '^%d+:()')
    local buyers, claims, n = {}, {}, 0
    for p = from, #member, 28 do
      n = n + 1
      buyers[n], claims[n] = sub(member, p, p + 11), sub(member, p + 12, p + 27)
    end
    return buyers, claims
  end

  -- read reads those buyers that were not read before.
  function read(buyers)
    local missing, k, places = {}, 0, #name
    for i = 1, #buyers do
      local b = buyers[i]
      if not place[b] then
        k = k + 1
        missing[k], name[places + k], place[b] = b, b, places + k
      end
    end
    if k == 0 then return end
    local got = redis.call('HMGET', RES, unpack(missing))
    for i = 1, k do value[places + i] = got[i] end
  end
end

