-- lib.lua: what the scripts of a pool do with records and counts. It stands
-- after head.lua.

local first = seq + 1
local n, free, held, sold = 1, {free1}, {held1}, {tonumber(sold1)} -- items, and the units of each
if more <= #counts then
  for f, h, s in string.gmatch(sub(counts, more), '(%-?%d+),(%d+),(%d+);') do
    n = n + 1
    free[n], held[n], sold[n] = tonumber(f), tonumber(h), tonumber(s)
  end
end

local function int(x) return fmt('%d', x) end

-- note tells the journal of changes of one kind and amount. Those that follow each
-- other are one run, whose head is written when the next begins.
local runs, rn, runhead, kind, amount, many = {}, 0
local function seal()
  if runhead then runs[runhead] = kind .. amount .. ',' .. int(many) .. ';' end
end
local function note(k, a, some, count)
  seq = seq + count
  if jmax < 0 then return end
  if k ~= kind or a ~= amount then
    seal()
    rn = rn + 1
    runhead, kind, amount, many = rn, k, a, 0
  end
  rn, many = rn + 1, many + count
  runs[rn] = some
end

-- join is concat in pieces: the embedded stand-in's has a small stack.
local function join(t, k)
  if k <= 2000 then return concat(t, '', 1, k) end
  local parts = {}
  for i = 1, k, 2000 do parts[#parts + 1] = concat(t, '', i, math.min(i + 1999, k)) end
  return concat(parts)
end

local function newcounts()
  local head = fmt('%s,%d,o,%d;%d,%d,%d;', epoch, seq, room, free[1], held[1], sold[1])
  if n == 1 then return head end
  local parts = {head}
  for i = 2, n do parts[i] = fmt('%d,%d,%d;', free[i], held[i], sold[i]) end
  return concat(parts)
end

-- flush writes. The journal goes first: a key of a wrong type fails there,
-- before anything is changed but what undo takes back.
local undo
local function flush()
  if seq >= first then
    if jmax >= 0 then
      seal()
      room = math.max(room - 1, 0)
      local told = redis.pcall('XADD', JOURNAL, '*', 'e', fmt('1,%s,%d,%d;', epoch, first, now) .. join(runs, rn))
      if type(told) == 'table' and told.err then
        if undo then redis.call('ZREM', DUE, undo) end
        error(told.err)
      end
    end
    set[sn + 1], set[sn + 2] = 'm', newcounts()
    sn = sn + 2
  elseif ARGV[5] == '1' then
    set[sn + 1], set[sn + 2] = 'm', counts
    sn = sn + 2
  end
  for i = 1, sn, 3000 do redis.call('HSET', POOL, unpack(set, i, math.min(i + 2999, sn))) end
end

-- placeof is where a field that was read stands, at first: a buyer has one place.
-- The table is made when it is first asked for.
local place
local function placeof(field)
  if not place then
    place = {}
    for i = #name, 3, -1 do place[name[i]] = i end
  end
  return place[field]
end

-- record reads one: state, amount, time, start of the next.
local function record(v, pos)
  local st, a, at, nxt = match(v, '^(%l)([%d@+%-]+),(%d+);()', pos + 16)
  if not st then error('corrupt record') end
  return st, a, tonumber(at), nxt
end

local function find(v, claim)
  local pos = 1
  while v and pos <= #v do
    local st, a, at, nxt = record(v, pos)
    if sub(v, pos, pos + 15) == claim then return pos, st, a, at, nxt end
    pos = nxt
  end
end

-- units reads an amount: of each item what it stands for now, and the sum.
local function units(a)
  local q = tonumber(a)
  if q then return {q}, q end
  local u, sum = {}, 0
  local asked, back = match(a, '^([^-]+)%-?(.*)$')
  if n == 1 then
    u[1] = asked - back
    return u, u[1]
  end
  for q, i in string.gmatch(asked, '(%d+)@(%d+)') do u[i + 1], sum = (u[i + 1] or 0) + q, sum + q end
  for q, i in string.gmatch(back, '(%d+)@(%d+)') do u[i + 1], sum = u[i + 1] - q, sum - q end
  return u, sum
end

-- shift moves an amount's units from one count to another.
local function shift(a, from, to)
  local q = tonumber(a)
  if q then
    from[1], to[1] = from[1] - q, to[1] + q
    return
  end
  for i, q in pairs(units(a)) do from[i], to[i] = from[i] - q, to[i] + q end
end

local at = {}
local function write(i)
  if not at[i] then
    sn = sn + 2
    at[i], set[sn - 1] = sn, name[i]
  end
  set[at[i]] = value[i]
end

local function put(i, pos, st, a, at, nxt)
  local v = value[i]
  value[i] = sub(v, 1, pos + 15) .. st .. a .. ',' .. int(at) .. ';' .. sub(v, nxt)
  write(i)
end

-- finish ends a hold: to is its new state, kind the event's letter.
local function finish(i, claim, pos, a, nxt, to, kind)
  put(i, pos, to, a, now, nxt)
  shift(a, held, to == 's' and sold or free)
  note(kind, a, name[i] .. claim, 1)
end

-- ids reads a due member, or of one the IDs between two places: buyers and
-- claims.
local function ids(member, from, till)
  from = from or match(member, '^%d+:()')
  local buyers, claims, k = {}, {}, 0
  for p = from, till or #member, 28 do
    k = k + 1
    buyers[k], claims[k] = sub(member, p, p + 11), sub(member, p + 12, p + 27)
  end
  return buyers, claims
end

-- read reads those buyers that were not read before.
local function read(buyers)
  local missing, k, places = {}, 0, #name
  for i = 1, #buyers do
    local b = buyers[i]
    if not placeof(b) then
      k = k + 1
      missing[k], name[places + k], place[b] = b, b, places + k
    end
  end
  if k == 0 then return end
  local got = redis.call('HMGET', POOL, unpack(missing))
  for i = 1, k do value[places + i] = got[i] end
end
