-- Decides for any number of attempts, one after the other; each is charged to
-- every bucket that it names, or to none. A bucket is the moment at which it
-- will have drained, in microseconds since 2024-01-01 (a number this small keeps
-- three decimals exact), and expires then. Sent twice it may charge twice.
-- KEYS[k]   bucket
-- ARGV      for each attempt: how many takes, and for each take
--             number of the bucket in KEYS
--             microseconds in which it drains by one unit
--             units it holds  units to take, 0 to look only
-- returns {now, for each attempt: 1 or 0: charged, and for each take: units that
--         remain, us until it has drained, us until the take fits (0: it does)}
local t = redis.call('TIME')
local now = (t[1] - 1704067200) * 1000000 + t[2]
local drained, changed = {}, {}
for k, stored in ipairs(redis.call('MGET', unpack(KEYS))) do
  local moment = tonumber(stored or now)
  if not moment or not (moment > now) then moment = now end
  drained[k] = moment
end

local reply = {now}
local at = 1
while at <= #ARGV do
  local takes = tonumber(ARGV[at])
  local allowed = 1
  local bucket, step, size, need, wait = {}, {}, {}, {}, {}
  for i = 1, takes do
    local arg = at + 4 * i - 3
    local k = tonumber(ARGV[arg])
    bucket[i], step[i] = k, tonumber(ARGV[arg + 1])
    size[i] = step[i] * ARGV[arg + 2]
    need[i] = step[i] * ARGV[arg + 3]
    if drained[k] > now + size[i] then
      -- At any honest time a bucket drains within its size. One that claims
      -- more was written before the clock went back: it counts as full from
      -- now on, and is written so, lest it stay full until the clock has
      -- caught up.
      drained[k] = now + size[i]
      if need[i] > 0 then changed[k] = true end
    end
    -- Half a microsecond forgives what rounding did to a bucket just drained.
    wait[i] = drained[k] - now + need[i] - size[i] - 0.5
    if wait[i] > 0 then allowed = 0 end
  end
  reply[#reply + 1] = allowed
  for i = 1, takes do
    local k = bucket[i]
    if allowed == 1 and need[i] > 0 then
      drained[k] = drained[k] + need[i]
      changed[k] = true
    end
    local full = drained[k] - now
    reply[#reply + 1] = math.max(math.floor((size[i] - full + 0.5) / step[i]), 0)
    reply[#reply + 1] = math.ceil(full)
    reply[#reply + 1] = wait[i] > 0 and math.ceil(wait[i] + 0.5) or 0
  end
  at = at + 1 + 4 * takes
end

for k in pairs(changed) do
  redis.call('SET', KEYS[k], string.format('%.3f', drained[k]), 'PX', string.format('%d', math.ceil((drained[k] - now) / 1000)))
end
return reply
