-- Count one event against windows that are nobody's own: of a client address, of a whole tenant.
--
-- KEYS: one a window
-- ARGV: count and seconds a window
-- Returns {'ok' | 'rate', retry (ms), then left and reset (ms) a window}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before, after, wait = {}, {}, 0
for i = 1, #KEYS do
  local count, span = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) * 1000
  before[i] = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  after[i] = before[i] + span / count
  wait = math.max(wait, after[i] - now - span)
end
local refused = wait > 0.5  -- rounding must not cost the last of a burst
local answer = {refused and 'rate' or 'ok', math.ceil(wait)}
for i = 1, #KEYS do
  local count, span = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) * 1000
  local full = refused and before[i] or after[i]
  if not refused then
    redis.call('SET', KEYS[i], string.format('%.3f', full), 'PX', math.max(1, math.ceil(full - now)))
  end
  answer[#answer + 1] = math.max(0, math.floor((span - (full - now)) * count / span))
  answer[#answer + 1] = math.ceil(full - now)
end
return answer
