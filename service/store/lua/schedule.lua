-- Put a user on the list of those with something to cancel, no later than it stands there already.
--
-- KEYS: due
-- ARGV: user, delay (ms), how long the list outlives its last entry (s)
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
local standing = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 'inf')
-- A fresh score even where one stands: a sweeper that holds the old one must see that there is more to do.
redis.call('ZADD', KEYS[1], string.format('%.0f', math.min(at, standing - 1)), ARGV[1])
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[3]))
