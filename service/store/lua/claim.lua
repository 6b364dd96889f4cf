-- Take users whose cancels are due, and hide them from the other sweepers for a while.
--
-- KEYS: due
-- ARGV: how long they are hidden (ms), at most how many, how long a full tenant's users are put off (ms), at most how many
--       are looked at, then the tenants of which the asking sweeper has enough under way
-- Returns user, score, user, score…: the score proves the claim when it is given back
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hidden = string.format('%.0f', now + tonumber(ARGV[1]))
local full = {}
for i = 5, #ARGV do full[ARGV[i]] = true end

local answer, looked = {}, 0
while #answer < 2 * ARGV[2] and looked < tonumber(ARGV[4]) do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])
  if #due == 0 then break end
  for _, user in ipairs(due) do
    looked = looked + 1
    if full[string.match(user, '^[^:]*')] then
      -- Put off, one after the other: left in place, they would stand before everybody else's at every look.
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3]) + looked), user)
    else
      redis.call('ZADD', KEYS[1], hidden, user)
      answer[#answer + 1] = user
      answer[#answer + 1] = hidden
    end
  end
end
return answer
