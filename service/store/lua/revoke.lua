-- Move the fence and move the live sessions to the cancel queue: one call, so that no mint fits between.
--
-- KEYS: live, fence, queue
-- ARGV: login ('' for every login of the user), iat (ms) of the token that asks (0: none), how long to remember
--       (s), reason, how long records outlive their session (s)
-- Returns the queued sessions: id, queue entry, id, queue entry…
local time = redis.call('TIME')
local now = tonumber(time[1])
local mark = math.max(now * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2]))
local login, remember, latest = ARGV[1], tonumber(ARGV[3]), 0

local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local expires, issued, rest = string.match(entries[i + 1], '^(%d+)|(%d+)(.*)$')
  local owner = string.match(rest, '^|%d+|([^|]*)|')
  -- An issuer's clock may run ahead of ours: the mark is no earlier than any token we have seen of this user.
  mark = math.max(mark, tonumber(issued))
  if tonumber(expires) <= now then
    redis.call('HDEL', KEYS[1], entries[i])
  elseif owner and (login == '' or owner == login) then
    redis.call('HDEL', KEYS[1], entries[i])
    redis.call('HSET', KEYS[3], entries[i], '0|' .. ARGV[4] .. '|' .. entries[i + 1])
    latest = math.max(latest, tonumber(expires))
  end
end

if login == '' then
  redis.call('HSET', KEYS[2], '*', string.format('%.0f', mark))
else
  redis.call('HSET', KEYS[2], 's' .. login, 1)
end
if redis.call('TTL', KEYS[2]) < remember then redis.call('EXPIRE', KEYS[2], remember) end

local keep = latest - now + tonumber(ARGV[5])
if latest > 0 and redis.call('TTL', KEYS[3]) < keep then redis.call('EXPIRE', KEYS[3], keep) end

local queued, answer = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #queued, 2 do
  local owner = string.match(queued[i + 1], '^%d+|[^|]*|%d+|%d+|%d+|([^|]*)|')
  if login == '' or owner == login then
    answer[#answer + 1] = queued[i]
    answer[#answer + 1] = queued[i + 1]
  end
end
return answer
