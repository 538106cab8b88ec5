-- The record, shared by the scripts of this package: one string,
--   1     version, '1'
--   2     state: r running, d done, k done but not kept, f free (released), u unknown
--   3     past: u where an earlier attempt ended unknown, else n
--   4-7   attempt, 4 digits
--   8-20  started, ms, 13 digits
--   21-33 lease until, ms, 13 digits
--   34-49 fingerprint, 16 bytes
--   50-65 token, 16 bytes
--   66-   result (state d)
-- It is taken apart with string.sub where a part is needed, and never made a
-- table: the time of these scripts is the time of all who wait.

local sub = string.sub
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local shape = '^1[rdkfu][nu]' .. string.rep('%d', 30)

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
  if type(raw) ~= 'string' or #raw < 65 or not string.find(raw, shape) then return false end
  return raw
end

