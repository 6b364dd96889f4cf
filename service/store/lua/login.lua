-- Whose login is this, for a logout that names the login alone; and has it been logged out that way?
--
-- KEYS: what is known of the login
-- ARGV: user, how long something of this mint may live (s)
-- Returns 'ok' | 'revoked'
if redis.call('HEXISTS', KEYS[1], '!') == 1 then return 'revoked' end
redis.call('HSET', KEYS[1], ARGV[1], '')
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 'ok'
