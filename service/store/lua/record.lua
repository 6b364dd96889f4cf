-- The lease becomes a live session, unless a logout came between: the compare half of the fence.
--
-- KEYS: live, fence, queue
-- ARGV: login, token's iat (ms), lease, session id, session's record, its end (s), how long records outlive
--       their session (s), most live sessions (0: any number, or full is refused at admit), '1' if the user stands
--       on the list of those with something to cancel
-- Returns {'ok', id and queue entry of each of the oldest sessions, now to be cancelled…} | {'revoked'} | {'lost'}
--       | {'crowded'}: recorded, but older ones must give way: list the user first, then ask again
local fence = redis.call('HMGET', KEYS[2], '*', 's' .. ARGV[1])
local issued, lines = tonumber(ARGV[2]), read(KEYS[1])
local others, lease = take(lines, ARGV[3])
if (lease and string.sub(lease, -2) == '|x') or (fence[1] and issued <= tonumber(fence[1]))
  or (fence[2] and (ARGV[1] ~= '' or issued <= tonumber(fence[2]))) then
  -- Queued in the same call: if this process is killed before it has cancelled the session, nobody else knows of it.
  -- The user is listed: whoever moved the fence did that, and no sweeper takes off the list who has a lease.
  if lease then write(KEYS[1], others) end
  local stands = math.max(1, tonumber(ARGV[6]) - tonumber(redis.call('TIME')[1]) + tonumber(ARGV[7]))
  redis.call('HSET', KEYS[3], ARGV[4], '0|not_recorded|' .. now_ms() .. '|' .. ARGV[5])
  if redis.call('TTL', KEYS[3]) < stands then redis.call('EXPIRE', KEYS[3], stands) end
  return {'revoked'}
end
local known
others, known = take(others, ARGV[4])
if not lease and not known then
  -- A call that is repeated: meanwhile the session gave way to a later one, as it might a moment after its answer.
  if redis.call('HEXISTS', KEYS[3], ARGV[4]) == 1 then return {'ok'} end
  -- No lease: this Redis is not the one that admitted (it restarted empty, or failed over), and may have lost a
  -- fence too.
  return {'lost'}
end

local now = tonumber(redis.call('TIME')[1])
local ends, keep, most = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
-- Who was recorded by an earlier call gives way to nobody now: it is not among these.
local live, kept = {}, {}
for name, expires, rest in string.gmatch(others, ENTRY) do
  if tonumber(expires) + keep > now then
    kept[#kept + 1] = {name = name, record = expires .. rest}
    local created = string.match(rest, '^|%d+|(%d+)|')
    if created and tonumber(expires) > now then
      live[#live + 1] = kept[#kept]
      kept[#kept].created = tonumber(created)
    end
  end
end

local crowded = most > 0 and #live >= most
local answer = {'ok'}
if crowded and ARGV[9] == '1' then
  table.sort(live, function(a, b) return a.created < b.created end)
  for i = 1, #live - most + 1 do
    local entry = '0|session_limit|' .. now_ms() .. '|' .. live[i].record
    redis.call('HSET', KEYS[3], live[i].name, entry)
    live[i].gone = true
    answer[#answer + 1] = live[i].name
    answer[#answer + 1] = entry
  end
  if redis.call('TTL', KEYS[3]) < ends - now + keep then redis.call('EXPIRE', KEYS[3], ends - now + keep) end
end

local written = {}
for _, each in ipairs(kept) do
  if not each.gone then written[#written + 1] = '\n' .. each.name .. '|' .. each.record end
end
written[#written + 1] = '\n' .. ARGV[4] .. '|' .. ARGV[5]
write(KEYS[1], table.concat(written), ends - now + keep)
-- Recorded first, one too many for a moment: a process that is killed in between leaves nothing that can't be revoked.
if crowded and ARGV[9] ~= '1' then return {'crowded'} end
return answer
