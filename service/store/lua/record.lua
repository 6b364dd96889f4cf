-- The lease becomes a live session, unless a logout came between: the compare half of the fence.
--
-- KEYS: live, fence, queue
-- ARGV: login, token's iat (ms), lease field, session id, session's record, its end (s), how long records outlive
--       their session (s), most live sessions (0: any number, or full is refused at admit), '1' if the user stands
--       on the list of those with something to cancel
-- Returns {'ok', id and queue entry of each of the oldest sessions, now to be cancelled…} | {'revoked'} | {'lost'}
--       | {'crowded'}: recorded, but older ones must give way: list the user first, then ask again
local fence = redis.call('HMGET', KEYS[2], '*', 's' .. ARGV[1])
local lease = redis.call('HGET', KEYS[1], ARGV[3])
if (lease and string.sub(lease, -2) == '|x') or (fence[1] and tonumber(ARGV[2]) <= tonumber(fence[1]))
  or (fence[2] and (ARGV[1] ~= '' or tonumber(ARGV[2]) <= tonumber(fence[2]))) then
  -- Queued in the same call: if this process is killed before it has cancelled the session, nobody else knows of it.
  -- The user is listed: whoever moved the fence did that, and no sweeper takes off the list who has a lease.
  redis.call('HDEL', KEYS[1], ARGV[3])
  local stands = math.max(1, tonumber(ARGV[6]) - tonumber(redis.call('TIME')[1]) + tonumber(ARGV[7]))
  redis.call('HSET', KEYS[3], ARGV[4], '0|not_recorded|' .. ARGV[5])
  if redis.call('TTL', KEYS[3]) < stands then redis.call('EXPIRE', KEYS[3], stands) end
  return {'revoked'}
end
if not lease and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then
  -- A call that is repeated: meanwhile the session gave way to a later one, as it might a moment after its answer.
  if redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then return {'ok'} end
  -- No lease: this Redis is not the one that admitted (it restarted empty, or failed over), and may have lost a
  -- fence too.
  return {'lost'}
end

local now = tonumber(redis.call('TIME')[1])
local ends, keep, most = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local live, entries = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local expires, created = string.match(entries[i + 1], '^(%d+)|%d+|(%d+)')
  if entries[i] == ARGV[4] then
    -- Recorded by an earlier call: it gives way to nobody now.
  elseif created and tonumber(expires) > now then
    live[#live + 1] = {id = entries[i], created = tonumber(created), record = entries[i + 1]}
  elseif tonumber(expires or string.match(entries[i + 1], '^%d+') or 0) + keep <= now then
    redis.call('HDEL', KEYS[1], entries[i])
  end
end
redis.call('HDEL', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
if redis.call('TTL', KEYS[1]) < ends - now + keep then redis.call('EXPIRE', KEYS[1], ends - now + keep) end

-- Recorded first, one too many for a moment: a process that is killed in between leaves nothing that can't be revoked.
if most > 0 and #live >= most and ARGV[9] ~= '1' then return {'crowded'} end

local answer = {'ok'}
if most > 0 then
  table.sort(live, function(a, b) return a.created < b.created end)
  for i = 1, #live - most + 1 do
    redis.call('HDEL', KEYS[1], live[i].id)
    local entry = '0|session_limit|' .. live[i].record
    redis.call('HSET', KEYS[3], live[i].id, entry)
    answer[#answer + 1] = live[i].id
    answer[#answer + 1] = entry
  end
  if #answer > 1 and redis.call('TTL', KEYS[3]) < ends - now + keep then
    redis.call('EXPIRE', KEYS[3], ends - now + keep)
  end
end
return answer
