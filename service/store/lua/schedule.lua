-- Put a user on the list of those with something to cancel, no later than it stands there already.
--
-- KEYS: due, since
-- ARGV: user, delay (ms), how long the list outlives its last entry (s), how far ahead who will queue lists first (ms)
-- Returns the user's score where nobody had listed it: as long as it is that, nobody else has
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = now + tonumber(ARGV[2])
local standing = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 'inf')
-- A fresh score even where one stands: a sweeper that holds the old one must see that there is more to do.
local score = string.format('%.0f', math.min(at, standing - 1))
redis.call('ZADD', KEYS[1], score, ARGV[1])
-- Whoever is due sooner than that may be claimed, found with nothing to do and taken off before what this listing is for
-- has been queued. So it stands a second time, for then. And who is hurried stands a second time for what it was listed
-- for before: whoever did that may not have queued it yet.
local later
if standing < at and tonumber(ARGV[2]) > 0 then
  later = at
elseif at < standing and standing <= now + tonumber(ARGV[4]) then
  later = standing
end
if later then
  local second = ARGV[1] .. '+'
  -- Here too a score that no claim of it holds.
  later = math.max(later, tonumber(redis.call('ZSCORE', KEYS[1], second) or 0) + 1)
  redis.call('ZADD', KEYS[1], string.format('%.0f', later), second)
end
redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', now), ARGV[1])
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[3]))
redis.call('EXPIRE', KEYS[2], tonumber(ARGV[3]))
return standing == math.huge and score
