-- head.lua: what every script of a pool begins with. Before it stands
-- "local name = {'t', 'm', ...}", the fields that the script reads first.
--
-- KEYS  1 pool (hash), 2 due (sorted set: expiry in ms -> the IDs that fall due
--       then), 3 journal (stream)
-- ARGV  1 epoch the caller knows (0: none yet), 2 highest seq it has seen,
--       3 "1" where the caller has a ledger, 4 journal bound in entries (-1:
--       off), 5 "1" where something must be written, so that WAIT after it
--       tells who has all that came before
--
-- Fields of the pool: t its terms, m its counts, i its terms as they were
-- opened, f and s for forget.lua and restore.lua; and a field for each buyer,
-- named by 12 bytes.
--   t  "1,ledger,version,paused,late,limit,hold,opens,closes;", then of each
--      item "total,limit;", then the ID of the last adjustment, and "~ms" while units are held back
--      for one that is to come; times in ms
--   m  "epoch,seq,state,room;", then of each item "free,held,sold;". state is o
--      open, b being rebuilt, r retired. room is how many journal entries fit
--      before its length is asked for again. free is below zero where a total
--      was lowered below what is held and sold.
-- A buyer's field holds its records one after the other, each
--   claim (16 bytes) state (1 letter) amount "," time in ms ";"
-- with the states h held, k held without an end, s sold, t sold late,
-- c cancelled, x expired, l expired and a late confirmation refused, r returned.
-- The time is the expiry of a hold, the end of others.
-- An amount is a number; in a pool of several items, of each in it
-- number "@" place from 0, joined by "+". What a part confirmation gave back
-- follows after a "-".
-- A due member is the seq of its first hold, ":", then buyer (12 bytes) and
-- claim (16 bytes) of each; it may outlive its holds, and a hold may stand in
-- more than one.
-- A journal entry is "1,epoch,first seq,ms;" and then runs of changes of one
-- kind, each: letter, amount ",", how many ";", and 28 bytes for each.
--
-- It reads terms and counts, and refuses. All decisions are made on copies and
-- written at the end, so an error on the way, or a key of a wrong type, changes
-- nothing. There is no function in here: each one that captures a local costs a
-- lone reservation its time. Those are in lib.lua.

local sub, match, fmt, concat = string.sub, string.match, string.format, table.concat
local POOL, DUE, JOURNAL = KEYS[1], KEYS[2], KEYS[3]
local LATEST = '9007199254740991' -- later than any expiry, earlier than the member that keeps DUE alive
local value = redis.call('HMGET', POOL, unpack(name))
local terms, counts = value[1], value[2]
if not terms or not counts then return {'missing'} end

-- rest is where the items begin in the terms, more the second in the counts.
local v, ledger, paused, late, limit, lasting, opens, closes, rest =
  match(terms, '^(%d+),(%d),%d+,(%d),(%d),(%d+),(%d+),(%d+),(%d+);()')
if v ~= '1' then return {'version', match(terms, '^%d*')} end
if ledger ~= ARGV[3] then return {'ledger', ledger} end
local epoch, seq, state, room, free1, held1, sold1, more =
  match(counts, '^(%d+),(%d+),(%l),(%d+);(%-?%d+),(%d+),(%d+);()')
if not epoch then error('corrupt counts') end
if state == 'r' then return {'retired'} end
if state ~= 'o' or (ARGV[1] ~= '0' and ARGV[1] ~= epoch) or tonumber(seq) < tonumber(ARGV[2]) then
  return {'fenced', epoch, seq}
end
seq, room, limit, free1, held1 = tonumber(seq), tonumber(room), tonumber(limit), tonumber(free1), tonumber(held1)
local jmax = tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local set, sn = {}, 0 -- what is to be written: field, value, field, value, ... The last word counts
