-- Take users whose cancels are due, and hide them from the other sweepers for a while.
--
-- KEYS: due
-- ARGV: how long they are hidden (ms), at most how many, how long a backlog is put off (ms), at most how many are looked at
--       for somebody else, then the tenants of which the asking sweeper has enough under way
-- Returns user, score, user, score…: the score proves the claim when it is given back
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hidden = string.format('%.0f', now + tonumber(ARGV[1]))
local most, looks = tonumber(ARGV[2]), tonumber(ARGV[2])
local full = {}
for i = 5, #ARGV do
  full[ARGV[i]], looks = true, tonumber(ARGV[4])
end

local answer, passed = {}, {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, looks)
for _, user in ipairs(due) do
  if full[string.match(user, '^[^:]*')] then
    passed[#passed + 1] = user
  elseif #answer < 2 * most then
    redis.call('ZADD', KEYS[1], hidden, user)
    answer[#answer + 1] = user
    answer[#answer + 1] = hidden
  else
    return answer
  end
end
-- Nothing but a backlog as far as we look: put off, or it would stand before everybody else's at every look.
if #due == looks then
  for i, user in ipairs(passed) do redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3]) + i), user) end
end
return answer
