-- A sweeper gives a claimed user back: with a delay, or for good when nothing is left. If somebody listed the user
-- again meanwhile, the score has changed and theirs stands. Only a sweeper takes users off the list.
--
-- KEYS: due, since
-- ARGV: user, the claim's score, delay (ms; negative: nothing is left), '1' if nothing is queued: whatever the user is
--       still listed for has not waited until now
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local user = string.gsub(ARGV[1], '%+$', '')
if ARGV[4] == '1' then redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', now), user) end
if tonumber(ARGV[3]) < 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  if not (redis.call('ZSCORE', KEYS[1], user) or redis.call('ZSCORE', KEYS[1], user .. '+')) then
    redis.call('ZREM', KEYS[2], user)
  end
  return 1
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
return 1
