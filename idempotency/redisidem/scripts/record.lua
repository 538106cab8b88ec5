-- The record, shared by the scripts of this package: one string,
--   1     version, '1'
--   2     state: r running, d done, k done but not kept, f free (released), u unknown
--   3     past: u where an earlier attempt ended unknown, else n
--   4-7   attempt, 4 digits; 0 where none has run, each was withdrawn
--   8-20  started, ms, 13 digits
--   21-33 lease until, ms, 13 digits
--   34-49 fingerprint, 16 bytes
--   50-65 token, 16 bytes; the first 6 are when its attempt began, ms of its
--         process's clock
-- then, in the states d and k, which nobody can take,
--   66-   result (d)
-- and in the others, once another token has ended,
--   66-71 horizon, as the first 6 bytes of a token
--   72-84 until when it holds, ms, 13 digits
--   85-   ended tokens, 16 bytes each, oldest first; 16 of them at most
-- A claim whose token stands there is answered and takes nothing: it is a copy
-- that comes late. Of the tokens there was no room for, the horizon is the
-- latest beginning: a claim that began no later may be one of them.
-- The record is taken apart with string.sub where a part is needed, and never
-- made a table: the time of these scripts is the time of all who wait.

local sub, find = string.sub, string.find
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local shape, digits = '^1[rdkfu][nu]' .. string.rep('%d', 30), '^' .. string.rep('%d', 13)
local none = string.rep('\0', 6) .. string.rep('0', 13) -- no horizon
local full = 19 + 16 * 16

local function ms(n) return string.format('%013d', n) end
local now_text = ms(now)

-- lease_end returns when a lease that starts now ends, as text.
local lease_ends = {}
local function lease_end(lease)
  local text = lease_ends[lease]
  if not text then
    text = ms(now + lease)
    lease_ends[lease] = text
  end
  return text
end

-- load returns the record, nil where there is none, and false where it can't be
-- read: damaged, of another version, or no string. (pcall: one such key must not
-- fail the others of a batch.)
local function load(key)
  local raw = redis.pcall('GET', key)
  if not raw then return nil end
  if type(raw) ~= 'string' or #raw < 65 or not find(raw, shape) then return false end
  if #raw > 65 and find(raw, '^[rfu]', 2) and (#raw % 16 ~= 84 % 16 or not find(raw, digits, 72)) then return false end
  return raw
end

-- begun returns when the attempt of a token began, or what horizon stands for.
local function begun(text)
  local a, b, c, d, e, f = string.byte(text, 1, 6)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

-- with returns the ended tokens and one more. linger is for how long the claims
-- of ended tokens may come, ms.
local function with(ended, token, linger)
  if ended == '' then return none .. token end
  if #ended < full then return ended .. token end
  local horizon = sub(ended, 20, 25)
  if begun(horizon) < begun(ended) then horizon = sub(ended, 1, 6) end
  return horizon .. ms(now + linger) .. sub(ended, 36) .. token
end

-- note writes down that a token has ended which does not hold the record, and
-- keeps that for linger, ms, at least.
local function note(key, raw, token, linger)
  if #raw == 65 then
    redis.call('APPEND', key, none .. token)
  elseif #raw < 65 + full then
    redis.call('APPEND', key, token)
  else
    redis.call('SETRANGE', key, 65, with(sub(raw, 66), token, linger))
  end
  local left = redis.call('PTTL', key)
  if left >= 0 and left < tonumber(linger) then redis.call('PEXPIRE', key, tonumber(linger)) end
end
