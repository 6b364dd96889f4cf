-- Move the fence and move the live sessions to the cancel queue: one call, so that no mint fits between.
--
-- KEYS: live, fence, queue
-- ARGV: login ('' for every login of the user), iat (ms) of the token that asks (0: none), how long to remember
--       (s), reason, how long records outlive their session (s), '1' if what carries no login ends with this login,
--       '1' if no mint under way may be recorded,
--       whatever its token
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

local latest, entries = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local expires, issued, rest = string.match(entries[i + 1], '^(%d+)|(%d+)(.*)$')
  if expires then
    local owner = string.match(rest, '^|%d+|([^|]*)|')
    mark = math.max(mark, tonumber(issued))
    -- Past its end by our clock, but perhaps not by upstream's: cancelled all the same.
    if tonumber(expires) + keep <= now then
      redis.call('HDEL', KEYS[1], entries[i])
    elseif leases and string.sub(entries[i], 1, 1) == '~' then
      -- Not deleted: record queues what it refuses, and until then the lease keeps the user on the due list.
      if string.sub(rest, -2) ~= '|x' then redis.call('HSET', KEYS[1], entries[i], entries[i + 1] .. '|x') end
    elseif owner and (login == '' or owner == login or (nameless and owner == '')) then
      redis.call('HDEL', KEYS[1], entries[i])
      redis.call('HSET', KEYS[3], entries[i], '0|' .. ARGV[4] .. '|' .. entries[i + 1])
      latest = math.max(latest, tonumber(expires))
    end
  end
end

local oldest = now_ms - remember * 1000
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if field ~= '*' and tonumber(redis.call('HGET', KEYS[2], field)) < oldest then redis.call('HDEL', KEYS[2], field) end
end
if login == '' then
  redis.call('HSET', KEYS[2], '*', string.format('%.0f', mark))
else
  redis.call('HSET', KEYS[2], 's' .. login, string.format('%.0f', now_ms))
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
  local owner = string.match(queued[i + 1], '^%d+|[^|]*|%d+|%d+|%d+|([^|]*)|')
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
