-- Ends running claims, or the unknown ones that they became, or renews their
-- leases. Sent twice, the second changes nothing.
-- KEYS[i]    record
-- ARGV[5i-4] fingerprint and token, 16 bytes each
-- ARGV[5i-3] what to do: d, k, f or u is the state to end in, x extends; then
--            attempt, 4 digits, and started, ms, 13 digits: for a record that
--            was lost and is written again
-- ARGV[5i-2] time to keep it, ms
-- ARGV[5i-1] time to keep it where a release leaves it unknown, ms (x: lease)
-- ARGV[5i]   result
-- returns for each 1, or 0: another attempt holds it or it is settled
--            otherwise, -1: it can't be read

local function step(key, who, what, ttl, other, result)
  local to = sub(what, 1, 1)
  local raw = load(key)
  if raw == false then return -1 end
  if not raw then
    if to == 'f' then return 1 end -- lost, and nothing to remember
    -- Whether an earlier attempt ended unknown is lost too: as if.
    raw = '1ru' .. sub(what, 2) .. now_text .. who
  elseif sub(raw, 50, 65) ~= sub(who, 17) then
    return 0
  end
  local state = sub(raw, 2, 2)
  if to == 'x' then
    if state ~= 'r' then return 0 end
    redis.call('SET', key, '1r' .. sub(raw, 3, 20) .. lease_end(other) .. who, 'PX', ttl)
    return 1
  end
  if state == to then return 1 end
  if state ~= 'r' and state ~= 'u' then return 0 end
  if to == 'f' and sub(raw, 3, 3) == 'u' then
    to, ttl = 'u', other -- this attempt did nothing, an earlier one may have
  end
  redis.call('SET', key, '1' .. to .. sub(raw, 3, 33) .. who .. result, 'PX', ttl)
  return 1
end

local reply = {}
for i = 1, #KEYS do
  reply[i] = step(KEYS[i], ARGV[5 * i - 4], ARGV[5 * i - 3], ARGV[5 * i - 2], ARGV[5 * i - 1], ARGV[5 * i])
end
return reply
