-- Is the tenant open to this token? Lists the user as one who may have something alive first, in the same call: either
-- a block is seen here, or the revocation that follows the block finds the user listed.
--
-- KEYS: gate, users
-- ARGV: user, token's iat (ms), how long something of this mint may live (s)
-- Returns 'ok' | 'blocked' | 'revoked'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local marks = redis.call('HMGET', KEYS[1], 'blocked', 'fence')
if marks[1] then return 'blocked' end
if marks[2] and tonumber(ARGV[2]) <= tonumber(marks[2]) then return 'revoked' end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', now + tonumber(ARGV[3]) * 1000), ARGV[1])
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return 'ok'
