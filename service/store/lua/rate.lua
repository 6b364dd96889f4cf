-- Count one event against windows that are nobody's own: of a client address, of a whole tenant.
--
-- KEYS: one a window
-- ARGV: count and seconds a window
-- Returns {'ok' | 'rate', retry (ms)}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local full, wait = {}, 0
for i = 1, #KEYS do
  local count, span = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) * 1000
  full[i] = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + span / count
  wait = math.max(wait, full[i] - now - span)
end
if wait > 0.5 then return {'rate', math.ceil(wait)} end  -- rounding must not cost the last of a burst
for i = 1, #KEYS do
  redis.call('SET', KEYS[i], string.format('%.3f', full[i]), 'PX', math.max(1, math.ceil(full[i] - now)))
end
return {'ok', 0}
