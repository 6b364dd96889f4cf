-- Queue a session that never became live.
--
-- KEYS: queue
-- ARGV: session id, queue entry, its end (s), how long records outlive their session (s)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local keep = tonumber(ARGV[3]) - tonumber(redis.call('TIME')[1]) + tonumber(ARGV[4])
if redis.call('TTL', KEYS[1]) < keep then redis.call('EXPIRE', KEYS[1], math.max(keep, 1)) end
