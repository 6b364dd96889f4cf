-- The lease becomes a live session, unless a logout came between: the compare half of the fence.
--
-- KEYS: live, fence, queue
-- ARGV: login, token's iat (ms), lease field, session id, session's record, its end (s), most live sessions
--       (0: any number, or full is refused at admit), how long records outlive their session (s)
-- Returns {'ok', ids of the oldest sessions, now queued to be cancelled…} | {'revoked'} | {'lost'}
local fence = redis.call('HMGET', KEYS[2], '*', 's' .. ARGV[1])
if (fence[1] and tonumber(ARGV[2]) <= tonumber(fence[1])) or (ARGV[1] ~= '' and fence[2]) then
  redis.call('HDEL', KEYS[1], ARGV[3])
  return {'revoked'}
end
-- A retry of a call whose answer was lost finds its work done.
if redis.call('HEXISTS', KEYS[1], ARGV[4]) == 1 then return {'ok'} end
-- No lease: this Redis is not the one that admitted (it restarted empty, or failed over), and may have lost a
-- fence too.
if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then return {'lost'} end

local now = tonumber(redis.call('TIME')[1])
local ends, keep, most = tonumber(ARGV[6]), tonumber(ARGV[8]), tonumber(ARGV[7])
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
if redis.call('TTL', KEYS[1]) < ends - now + keep then redis.call('EXPIRE', KEYS[1], ends - now + keep) end

local answer = {'ok'}
if most > 0 then
  local live, entries = {}, redis.call('HGETALL', KEYS[1])
  for i = 1, #entries, 2 do
    local expires, created = string.match(entries[i + 1], '^(%d+)|%d+|(%d+)')
    if created and tonumber(expires) > now and entries[i] ~= ARGV[4] then
      live[#live + 1] = {id = entries[i], created = tonumber(created), record = entries[i + 1]}
    end
  end
  table.sort(live, function(a, b) return a.created < b.created end)
  for i = 1, #live - most + 1 do
    redis.call('HDEL', KEYS[1], live[i].id)
    redis.call('HSET', KEYS[3], live[i].id, '0|session_limit|' .. live[i].record)
    answer[#answer + 1] = live[i].id
  end
  if #answer > 1 and redis.call('TTL', KEYS[3]) < ends - now + keep then
    redis.call('EXPIRE', KEYS[3], ends - now + keep)
  end
end
return answer
