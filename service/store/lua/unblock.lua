-- Open one shard of a tenant's gate; logins from before the block stay ended.
--
-- KEYS: gate
-- ARGV: how long to remember (s)
-- Returns 1 where it was closed
local closed = redis.call('HDEL', KEYS[1], 'blocked')
redis.call('EXPIRE', KEYS[1], ARGV[1])
return closed
