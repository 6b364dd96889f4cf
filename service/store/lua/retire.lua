-- Move one live session to the cancel queue.
--
-- KEYS: live, queue
-- ARGV: session id, reason, how long records outlive their session (s)
-- Returns the queue entry; nil where the user has no such session
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return redis.call('HGET', KEYS[2], ARGV[1]) end
local now = tonumber(redis.call('TIME')[1])
local ends = tonumber(string.match(record, '^%d+'))
redis.call('HDEL', KEYS[1], ARGV[1])
if ends <= now then return nil end
local entry = '0|' .. ARGV[2] .. '|' .. record
redis.call('HSET', KEYS[2], ARGV[1], entry)
local keep = ends - now + tonumber(ARGV[3])
if redis.call('TTL', KEYS[2]) < keep then redis.call('EXPIRE', KEYS[2], keep) end
return entry
