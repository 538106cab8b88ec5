-- Removes a consumer from its group if it holds nothing. Removing one that
-- holds entries would drop them from the group's list: lost, for the group.
-- Sent twice, the second time finds nothing to do.
-- KEYS[1] stream
-- ARGV    1 group  2 consumer
-- returns 1 if removed, 0 if it holds entries
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
