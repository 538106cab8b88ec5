-- Gives back one charge, as far as it has not drained by itself. The mark makes
-- a second sending harmless.
-- KEYS[1] bucket  KEYS[2] mark of this refund
-- ARGV    1 charge, us  2 when the bucket would have drained, as the take that
--         charged it said (us since 2024-01-01)
-- returns 1, or 0: drained already, or done before
local t = redis.call('TIME')
local now = (t[1] - 1704067200) * 1000000 + t[2]
local left = math.min(tonumber(ARGV[1]), ARGV[2] - now)
if left <= 0 or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local drained = tonumber(redis.call('GET', KEYS[1]) or now) or now
redis.call('SET', KEYS[2], '', 'PX', string.format('%d', math.ceil((ARGV[2] - now) / 1000)))
drained = drained - left
if drained > now then
  redis.call('SET', KEYS[1], string.format('%.3f', drained), 'PX', string.format('%d', math.ceil((drained - now) / 1000)))
else
  redis.call('DEL', KEYS[1])
end
return 1
