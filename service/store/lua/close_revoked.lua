-- Nothing of a user's is queued any more: say what became of it, once. What was not cancelled has ended by itself.
--
-- KEYS: job, users
-- ARGV: user, how many upstream confirmed
local counted = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if redis.call('HDEL', KEYS[2], ARGV[1]) == 0 then return end
local cancelled = math.min(tonumber(ARGV[2]), counted)
redis.call('HINCRBY', KEYS[1], 'cancelled', cancelled)
redis.call('HINCRBY', KEYS[1], 'failed', counted - cancelled)
