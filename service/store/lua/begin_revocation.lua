-- Begin to revoke a tenant, unless its users are being fenced. While the cancels of an earlier time are still under way,
-- its users are gone through once more: it may have been let in again meanwhile.
--
-- KEYS: job
-- ARGV: sessions to cancel a second
-- Returns 1 where it began
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'fencing' then return 0 end
if state == 'cancelling' then
  redis.call('HSET', KEYS[1], 'state', 'fencing')
  redis.call('HINCRBY', KEYS[1], 'round', 1)
  return 1
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'fencing', 'round', 1, 'rate', ARGV[1], 'started', redis.call('TIME')[1],
  'sessions', 0, 'cancelled', 0, 'failed', 0)
return 1
