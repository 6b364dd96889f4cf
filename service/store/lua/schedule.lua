-- Put a user on the list of those with something to cancel, no later than it stands there already.
--
-- KEYS: due
-- ARGV: user, delay (ms), how long the list outlives its last entry (s)
-- Returns the score
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
local standing = redis.call('ZSCORE', KEYS[1], ARGV[1])
-- A fresh score even where one stands: whoever holds the old claim must see that there is more to do.
if standing and tonumber(standing) < at then at = tonumber(standing) - 1 end
redis.call('ZADD', KEYS[1], string.format('%.0f', at), ARGV[1])
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[3]))
return string.format('%.0f', at)
