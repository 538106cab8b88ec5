-- The record, shared by the scripts of this package: one string,
--   1     version, '1'
--   2     state: r running, d done, k done but not kept, f free (released), u unknown
--   3     past: u where an earlier attempt ended unknown, else n
--   4-7   attempt, 4 digits; 0 where none has run, each was withdrawn
--   8-20  started, ms, 13 digits
--   21-33 lease until, ms, 13 digits
--   34-49 fingerprint, 16 bytes
--   50-65 token, 16 bytes
-- then, in the states d and k, which nobody can take,
--   66-   result (d)
-- and in the others
--   66-78 when the attempt of this token began, ms of its own clock, 13 digits
--   79-   the ended tokens: horizon, ms, 13 digits, and until when it holds, ms,
--         13 digits; then of each token, oldest first, its 16 bytes and when
--         its attempt began, 13 digits; 16 tokens at most
-- A claim whose token stands there is answered and takes nothing: it is a copy
-- that comes late. Of the tokens there was no room for, the horizon is the
-- latest beginning: a claim that began before it may be one of them.
-- The record is taken apart with string.sub where a part is needed, and never
-- made a table: the time of these scripts is the time of all who wait.

local sub, find = string.sub, string.find
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local head, body = '^1[rdkfu][nu]' .. string.rep('%d', 30), '^' .. string.rep('%d', 39)
local nobody = string.rep('0', 26) -- no ended tokens
local full = 26 + 16 * 29

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
  if type(raw) ~= 'string' or #raw < 65 or not find(raw, head) then return false end
  local state = sub(raw, 2, 2)
  if state ~= 'd' and state ~= 'k' and ((#raw - 104) % 29 ~= 0 or not find(raw, body, 66)) then return false end
  return raw
end

-- with returns the ended tokens and one more. token is followed by when its
-- attempt began; linger is for how long the claims of ended tokens may come, ms.
local function with(ended, token, linger)
  if #ended < full then return ended .. token end
  local horizon = sub(ended, 43, 55)
  if horizon < sub(ended, 1, 13) then horizon = sub(ended, 1, 13) end
  return horizon .. ms(now + linger) .. sub(ended, 56) .. token
end

-- note writes down that a token has ended which does not hold the record.
local function note(key, raw, token, linger)
  if #raw < 78 + full then
    redis.call('APPEND', key, token)
  else
    redis.call('SETRANGE', key, 78, with(sub(raw, 79), token, linger))
  end
end
