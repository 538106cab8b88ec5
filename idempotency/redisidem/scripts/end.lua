-- Ends running claims, or the unknown ones that they became, or renews their
-- leases. Sent twice, the second changes nothing. An attempt that has ended is
-- remembered where it does not hold the record, or there is none: its claim may
-- still be on its way.
-- KEYS[i]    record
-- ARGV[5i-4] fingerprint and token, 16 bytes each
-- ARGV[5i-3] what to do: d, k, f or u is the state to end in, x extends; then
--            attempt, 4 digits, and started, ms, 13 digits: for a record that
--            was lost and is written again; then how long a claim may be on its
--            way, ms, 13 digits. f with attempt 0 withdraws: it never ran
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
    if to == 'f' then
      redis.call('SET', key, '1fn' .. sub(what, 2, 18) .. now_text .. who, 'PX', ttl)
      return 1
    end
    -- Whether an earlier attempt ended unknown is lost too: as if.
    raw = '1ru' .. sub(what, 2, 18) .. now_text .. who
  end
  local state, own = sub(raw, 2, 2), sub(who, 17)
  if sub(raw, 50, 65) ~= own then
    if to ~= 'x' and state ~= 'd' and state ~= 'k' and not (#raw > 84 and find(raw, own, 85, true)) then
      note(key, raw, own, sub(what, 19))
    end
    return 0
  end
  if to == 'x' then
    if state ~= 'r' then return 0 end
    redis.call('SET', key, '1r' .. sub(raw, 3, 20) .. lease_end(other) .. sub(raw, 34), 'PX', ttl)
    return 1
  end
  if state == to then return 1 end
  if state ~= 'r' and state ~= 'u' then return 0 end
  local attempt = sub(raw, 4, 7)
  if to == 'f' then
    if state == 'r' and sub(what, 2, 5) == '0000' then attempt = string.format('%04d', math.max(attempt - 1, 0)) end
    if sub(raw, 3, 3) == 'u' then to, ttl = 'u', other end -- this attempt did nothing, an earlier one may have
  end
  local rest = (to == 'f' or to == 'u') and sub(raw, 66) or result
  redis.call('SET', key, '1' .. to .. sub(raw, 3, 3) .. attempt .. sub(raw, 8, 65) .. rest, 'PX', ttl)
  return 1
end

local reply = {}
for i = 1, #KEYS do
  reply[i] = step(KEYS[i], ARGV[5 * i - 4], ARGV[5 * i - 3], ARGV[5 * i - 2], ARGV[5 * i - 1], ARGV[5 * i])
end
return reply
