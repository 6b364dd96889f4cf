-- May this login mint now? Checks the fence, the rate limits and the live sessions, and takes a slot: one call,
-- so that two mints never both see the last free one.
--
-- KEYS: live, fence, then one key a rate window
-- ARGV: login, token's iat (ms), lease field, lease (s), most live sessions (0: any number), how long records
--       outlive their session (s), then count and seconds a window
-- Returns {'revoked', 0}, or {'ok' | 'rate' | 'live', retry (ms), then left and reset (ms) a window}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local fence = redis.call('HMGET', KEYS[2], '*', 's' .. ARGV[1])
if fence[1] and tonumber(ARGV[2]) <= tonumber(fence[1]) then return {'revoked', 0} end
if fence[2] and (ARGV[1] ~= '' or tonumber(ARGV[2]) <= tonumber(fence[2])) then return {'revoked', 0} end

-- The generic cell rate algorithm: a window's key holds the time when it will be full again.
local windows, verdict, wait = {}, 'ok', 0
for i = 3, #KEYS do
  local count, span = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2]) * 1000
  local full = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  local after = full + span / count
  if after - now > span + 0.5 then  -- rounding must not cost the last of a burst
    verdict, wait = 'rate', math.max(wait, after - now - span)
    after = full
  end
  windows[#windows + 1] = {key = KEYS[i], after = after, left = math.floor((span - (after - now)) * count / span)}
end

local most = tonumber(ARGV[5])
if verdict == 'ok' and most > 0 then
  local live, first = 0, nil
  local entries = redis.call('HGETALL', KEYS[1])
  for i = 1, #entries, 2 do
    local ends = tonumber(string.match(entries[i + 1], '^%d+'))
    if ends and ends * 1000 > now and entries[i] ~= '^' then live, first = live + 1, math.min(first or ends, ends) end
  end
  if live >= most then verdict, wait = 'live', first * 1000 - now end
end

local answer = {verdict, math.ceil(wait)}
for _, window in ipairs(windows) do
  if verdict == 'ok' then
    redis.call('SET', window.key, string.format('%.3f', window.after), 'PX', math.max(1, math.ceil(window.after - now)))
  end
  answer[#answer + 1] = window.left
  answer[#answer + 1] = math.ceil(window.after - now)
end
if verdict == 'ok' then
  local ends = math.ceil(now / 1000) + tonumber(ARGV[4])
  local keep = tonumber(ARGV[4]) + tonumber(ARGV[6])
  redis.call('HSET', KEYS[1], ARGV[3], ends .. '|' .. ARGV[2])
  -- A token from an issuer whose clock runs ahead: a logout before its iat must still know it.
  local ahead = tonumber(string.match(redis.call('HGET', KEYS[1], '^') or '', '|(%d+)$') or 0)
  if tonumber(ARGV[2]) > math.max(now, ahead) then
    redis.call('HSET', KEYS[1], '^', (math.ceil(tonumber(ARGV[2]) / 1000) + 1) .. '|' .. ARGV[2])
  end
  if redis.call('TTL', KEYS[1]) < keep then redis.call('EXPIRE', KEYS[1], keep) end
end
return answer
