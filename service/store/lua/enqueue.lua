-- Queue a session that could not be recorded, and take it off the live ones in case it was after all.
--
-- KEYS: live, queue
-- ARGV: session id, queue entry, its end (s), how long records outlive their session (s)
local others, found = take(read(KEYS[1]), ARGV[1])
if found then write(KEYS[1], others) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local keep = math.max(1, tonumber(ARGV[3]) - tonumber(redis.call('TIME')[1]) + tonumber(ARGV[4]))
if redis.call('TTL', KEYS[2]) < keep then redis.call('EXPIRE', KEYS[2], keep) end
