-- Take users whose cancels are due, and hide them from the other sweepers for a while.
--
-- KEYS: due
-- ARGV: how long they are hidden (ms), at most how many
-- Returns user, score, user, score…: the score proves the claim when it is given back
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hidden = string.format('%.0f', now + tonumber(ARGV[1]))
local answer = {}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], hidden, user)
  answer[#answer + 1] = user
  answer[#answer + 1] = hidden
end
return answer
