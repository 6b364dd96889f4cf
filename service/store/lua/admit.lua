-- May this login mint now? Checks the fence, the rate limits and the live sessions, and takes a slot: one call,
-- so that two mints never both see the last free one.
--
-- KEYS: live, fence, then one key a rate window
-- ARGV: login, token's iat (ms), lease, lease (s), most live sessions (0: any number), how long records
--       outlive their session (s), then count and seconds a window
-- Returns {'revoked', 0}, or {'ok' | 'rate' | 'live', retry (ms), then left and reset (ms) a window}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local issued = tonumber(ARGV[2])
local fence = redis.call('HMGET', KEYS[2], '*', 's' .. ARGV[1])
if fence[1] and issued <= tonumber(fence[1]) then return {'revoked', 0} end
if fence[2] and (ARGV[1] ~= '' or issued <= tonumber(fence[2])) then return {'revoked', 0} end

local lines = read(KEYS[1])
-- A call that is repeated because its answer was lost: it counts once, and takes one slot.
local again = string.find(lines, '\n' .. ARGV[3] .. '|', 1, true)

-- The generic cell rate algorithm: a window's key holds the time when it will be full again.
local full_at, answer, verdict, wait = {}, {0, 0}, 'ok', 0
for i = 3, #KEYS do
  local count, span = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2]) * 1000
  local full = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  local after = again and full or full + span / count
  if after - now > span + 0.5 then  -- rounding must not cost the last of a burst
    verdict, wait = 'rate', math.max(wait, after - now - span)
    after = full
  end
  full_at[i] = after
  answer[#answer + 1] = math.floor((span - (after - now)) * count / span)
  answer[#answer + 1] = math.ceil(after - now)
end

local most = tonumber(ARGV[5])
if verdict == 'ok' and most > 0 and not again then
  local live, first = 0, nil
  for name, ends in string.gmatch(lines, ENTRY) do
    ends = tonumber(ends)
    if ends * 1000 > now and name ~= '^' then live, first = live + 1, math.min(first or ends, ends) end
  end
  if live >= most then verdict, wait = 'live', first * 1000 - now end
end

answer[1], answer[2] = verdict, math.ceil(wait)
if verdict == 'ok' and not again then
  for i = 3, #KEYS do
    local stands = math.max(1, math.ceil(full_at[i] - now))
    redis.call('SET', KEYS[i], string.format('%.3f', full_at[i]), 'PX', stands)
  end
  -- A token from an issuer whose clock runs ahead: a logout before its iat must still know it.
  if issued > now then
    local others, ahead = take(lines, '^')
    if not ahead or issued > tonumber(string.match(ahead, '|(%d+)$') or 0) then
      lines = others .. '\n^|' .. (math.ceil(issued / 1000) + 1) .. '|' .. ARGV[2]
    end
  end
  lines = lines .. '\n' .. ARGV[3] .. '|' .. (math.ceil(now / 1000) + tonumber(ARGV[4])) .. '|' .. ARGV[2]
  write(KEYS[1], lines, tonumber(ARGV[4]) + tonumber(ARGV[6]))
end
return answer
