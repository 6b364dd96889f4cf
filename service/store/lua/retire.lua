-- Move one live session to the cancel queue.
--
-- KEYS: live, queue
-- ARGV: session id, reason, how long records outlive their session (s)
-- Returns the queue entry; nil where the user has no such session
local others, record = take(read(KEYS[1]), ARGV[1])
if not record then return redis.call('HGET', KEYS[2], ARGV[1]) end
local created = string.match(record, '^%d+|%d+|(%d+)')
local ends = tonumber(string.match(record, '^%d+'))
local keep = ends - tonumber(redis.call('TIME')[1]) + tonumber(ARGV[3])
-- A lease is no session, whatever its name is guessed to be; nor is what ended long ago.
if not created or keep <= 0 then return nil end
local entry = '0|' .. ARGV[2] .. '|' .. now_ms() .. '|' .. record
write(KEYS[1], others)
redis.call('HSET', KEYS[2], ARGV[1], entry)
if redis.call('TTL', KEYS[2]) < keep then redis.call('EXPIRE', KEYS[2], keep) end
return entry
