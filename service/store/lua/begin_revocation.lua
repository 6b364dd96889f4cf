-- Begin to revoke a tenant, unless that is under way.
--
-- KEYS: job
-- ARGV: sessions to cancel a second
-- Returns 1 where it began
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'done' then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'fencing', 'rate', ARGV[1], 'started', redis.call('TIME')[1],
  'sessions', 0, 'cancelled', 0, 'failed', 0)
return 1
