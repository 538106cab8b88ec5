-- Takes keys for one attempt each, or says why not. Sent twice, it answers
-- twice the same.
-- KEYS[i]    record
-- ARGV[4i-3] fingerprint and token, 16 bytes each
-- ARGV[4i-2] lease, ms  ARGV[4i-1] lease and retention, ms: how long to keep it
-- ARGV[4i]   '1' if an unknown outcome may be run again, else '0'; '1' if a key
--            that was never seen is not to be claimed, else '0'; then the token
--            of an unknown attempt that surely had no effect, or nothing
-- returns for each {status, attempt, started ms, lease left ms, text}; text is
--            the result (done) or the token of the attempt (unknown). status is
--            idempotency.Status, or {-1}: the record can't be read.

-- again decides about a key that was claimed before.
local function again(key, raw, who, lease, ttl, mode)
  local state, past = sub(raw, 2, 2), sub(raw, 3, 3)
  local attempt, started, until_ms = tonumber(sub(raw, 4, 7)), tonumber(sub(raw, 8, 20)), tonumber(sub(raw, 21, 33))
  local token = sub(raw, 50, 65)
  if state == 'r' and token == sub(who, 17) then
    return {1, attempt, started, until_ms - now, ''}
  end
  if state ~= 'f' and sub(raw, 34, 49) ~= sub(who, 1, 16) then return {5, attempt, started, 0, ''} end
  if state == 'd' then return {3, attempt, started, 0, sub(raw, 66)} end
  if state == 'k' then return {4, attempt, started, 0, ''} end
  if state == 'r' and now < until_ms then return {2, attempt, started, until_ms - now, ''} end
  if state ~= 'f' then -- unknown, or a lease that ended without a word
    if token == sub(mode, 3) then
      past = 'n'
    elseif sub(mode, 1, 1) == '1' then
      past = 'u'
    else
      return {6, attempt, started, 0, token}
    end
  end
  attempt = math.min(attempt + 1, 9999)
  redis.call('SET', key, '1r' .. past .. string.format('%04d', attempt) .. sub(raw, 8, 20) .. lease_end(lease) .. who, 'PX', ttl)
  return {1, attempt, started, tonumber(lease), ''}
end

local reply = {}
for i = 1, #KEYS do
  local key, who, lease, ttl = KEYS[i], ARGV[4 * i - 3], ARGV[4 * i - 2], ARGV[4 * i - 1]
  local raw = load(key)
  if raw then
    reply[i] = again(key, raw, who, lease, ttl, ARGV[4 * i])
  elseif raw == false then
    reply[i] = {-1}
  elseif sub(ARGV[4 * i], 2, 2) == '1' then
    reply[i] = {7, 0, now, 0, ''}
  else
    redis.call('SET', key, '1rn0001' .. now_text .. lease_end(lease) .. who, 'PX', ttl)
    reply[i] = {1, 1, now, tonumber(lease), ''}
  end
end
return reply
