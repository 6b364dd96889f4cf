-- A user's sessions are queued: count them, once however often this is said. Where Redis lost the job, there is nothing
-- to count for.
--
-- KEYS: job, users
-- ARGV: user, how many sessions
-- Returns how many sessions of the tenant are counted
if redis.call('HEXISTS', KEYS[1], 'state') == 0 then return 0 end
local counted = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'sessions', tonumber(ARGV[2]) - counted)
