-- Move the fence and move the live sessions to the cancel queue: one call, so that no mint fits between.
--
-- KEYS: live, fence, queue
-- ARGV: login ('' for every login of the user), iat (ms) of the token that asks (0: none), how long to remember
--       (s), reason, how long records outlive their session (s), '1' if what carries no login ends with this login,
--       '1' if no mint under way may be recorded, whatever its token
-- Returns the queued sessions: id, queue entry, id, queue entry…
local time = redis.call('TIME')
local now = tonumber(time[1])
local now_ms = now * 1000 + math.floor(time[2] / 1000)
local login, remember, keep = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[5])
local nameless, leases = ARGV[6] == '1', ARGV[7] == '1'
-- The fence of the whole user only ever moves forward, and is no earlier than any token that we know of: an
-- issuer's clock may run ahead of ours.
local mark = math.max(now_ms, tonumber(ARGV[2]), tonumber(redis.call('HGET', KEYS[2], '*') or 0))
if nameless then mark = math.max(mark, tonumber(redis.call('HGET', KEYS[2], 's') or 0)) end

local latest, lines, kept = 0, read(KEYS[1]), {}
for name, expires, rest in string.gmatch(lines, ENTRY) do
  local owner = string.match(rest, '^|%d+|%d+|([^|]*)|')
  mark = math.max(mark, tonumber(string.match(rest, '^|(%d+)') or 0))
  -- Past its end by our clock, but perhaps not by upstream's: cancelled all the same.
  if tonumber(expires) + keep <= now then
    -- Dropped.
  elseif owner and (login == '' or owner == login or (nameless and owner == '')) then
    redis.call('HSET', KEYS[3], name, '0|' .. ARGV[4] .. '|' .. string.format('%.0f', now_ms) .. '|' .. expires .. rest)
    latest = math.max(latest, tonumber(expires))
  else
    -- A lease stays: record queues what it refuses, and until then the lease keeps the user on the due list.
    local mark_it = leases and string.sub(name, 1, 1) == '~' and string.sub(rest, -2) ~= '|x'
    kept[#kept + 1] = '\n' .. name .. '|' .. expires .. rest .. (mark_it and '|x' or '')
  end
end
local left = table.concat(kept)
if left ~= lines then write(KEYS[1], left) end

local fences = redis.call('HGETALL', KEYS[2])
for i = 1, #fences, 2 do
  if #fences[i] > 1 and tonumber(fences[i + 1]) < now - remember then redis.call('HDEL', KEYS[2], fences[i]) end
end
if login == '' then
  redis.call('HSET', KEYS[2], '*', string.format('%.0f', mark))
else
  redis.call('HSET', KEYS[2], 's' .. login, now)
  if nameless then redis.call('HSET', KEYS[2], 's', string.format('%.0f', mark)) end
end
-- A mark that lies ahead of our clock stands that much longer.
local stands = remember + math.max(0, math.ceil((mark - now_ms) / 1000))
if redis.call('TTL', KEYS[2]) < stands then redis.call('EXPIRE', KEYS[2], stands) end
if latest > 0 and redis.call('TTL', KEYS[3]) < latest - now + keep then
  redis.call('EXPIRE', KEYS[3], latest - now + keep)
end

local queued, answer = redis.call('HGETALL', KEYS[3]), {}
for i = 1, #queued, 2 do
  local owner = string.match(queued[i + 1], '^%d+|[^|]*|%d+|%d+|%d+|%d+|([^|]*)|')
  if login == '' or owner == login or (nameless and owner == '') then
    local entry = queued[i + 1]
    if leases and owner then
      -- A tenant's revocation is not done before what was queued for another reason is.
      entry = string.gsub(entry, '^(%d+)|[^|]*|', '%1|' .. ARGV[4] .. '|')
      redis.call('HSET', KEYS[3], queued[i], entry)
    end
    answer[#answer + 1] = queued[i]
    answer[#answer + 1] = entry
  end
end
return answer
