-- Takes keys for one attempt each, or says why not. Sent twice, it answers
-- twice the same, or that the attempt has ended. A look takes and writes nothing.
-- KEYS[i]    record
-- ARGV[4i-3] fingerprint and token, 16 bytes each
-- ARGV[4i-2] lease, ms  ARGV[4i-1] lease and retention, ms: how long to keep it
-- ARGV[4i]   '1' if an unknown outcome may be run again, else '0'; '1' for a
--            look, else '0'; how long a claim may be on its way, ms, 13 digits;
--            then the token of an unknown attempt that surely had no effect, or
--            nothing
-- returns for each {status, attempt, started ms, lease left ms, text}; text is
--            the result (done) or the token of the attempt (unknown). status is
--            idempotency.Status, or {-1}: the record can't be read.

-- refusal tells why a record that is neither done nor this attempt's own can't
-- be taken; nothing where it can.
local function refusal(raw, state, who, mode)
  if state == 'f' then return nil end
  if sub(raw, 34, 49) ~= sub(who, 1, 16) then return 5 end
  if state == 'r' and now < tonumber(sub(raw, 21, 33)) then return 2 end
  -- unknown, or a lease that ended without a word
  if sub(mode, 1, 1) ~= '1' and sub(raw, 50, 65) ~= sub(mode, 16) then return 6 end
end

-- again decides about a key that was claimed before.
local function again(key, raw, who, lease, ttl, mode)
  local state, token, own = sub(raw, 2, 2), sub(raw, 50, 65), sub(who, 17)
  local attempt, started, left = tonumber(sub(raw, 4, 7)), tonumber(sub(raw, 8, 20)), tonumber(sub(raw, 21, 33)) - now
  if state == 'r' and token == own then return {1, attempt, started, left, ''} end
  if state == 'd' or state == 'k' then
    if sub(raw, 34, 49) ~= sub(who, 1, 16) then return {5, attempt, started, 0, ''} end
    if state == 'd' then return {3, attempt, started, 0, sub(raw, 66)} end
    return {4, attempt, started, 0, ''}
  end
  local look = sub(mode, 2, 2) == '1'
  if look and state == 'f' and attempt == 0 then return {7, 0, now, 0, ''} end
  local ended = sub(raw, 66)
  local over = token == own or #ended > 19 and find(ended, own, 20, true)
  local no = refusal(raw, state, who, mode)
  if no then
    -- Its copies may land when the key is free.
    if not over and not look then note(key, raw, own, sub(mode, 3, 15)) end
    return {no, attempt, started, no == 2 and left or 0, no == 6 and token or ''}
  end
  if over then return {8, attempt, started, 0, ''} end
  if look then return {9, attempt, started, 0, ''} end
  local holds = ended == '' and 0 or tonumber(sub(ended, 7, 19)) - now
  if holds > 0 and begun(own) <= begun(ended) then
    return {2, attempt, started, math.min(holds, begun(ended) - begun(own) + 1), ''}
  end
  local past, first = sub(raw, 3, 3), sub(raw, 8, 20)
  if state ~= 'f' then past = token == sub(mode, 16) and 'n' or 'u' end
  if attempt == 0 then first, started = now_text, now end
  attempt = math.min(attempt + 1, 9999)
  redis.call('SET', key, '1r' .. past .. string.format('%04d', attempt) .. first .. lease_end(lease) .. who
    .. with(ended, token, sub(mode, 3, 15)), 'PX', ttl)
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
