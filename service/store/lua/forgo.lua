-- Give an unused slot back; and, where the mint was refused for a reason that is not the user's, what it counted for.
--
-- KEYS: live, then one key a rate window
-- ARGV: lease, then count and seconds a window
-- No lease, no refund: a call that is repeated because its answer was lost gives back once.
local others, found = take(read(KEYS[1]), ARGV[1])
if not found then return end
write(KEYS[1], others)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #KEYS do
  local full = tonumber(redis.call('GET', KEYS[i]) or 0) - tonumber(ARGV[2 * i - 1]) * 1000 / tonumber(ARGV[2 * i - 2])
  if full <= now then
    redis.call('DEL', KEYS[i])
  else
    redis.call('SET', KEYS[i], string.format('%.3f', full), 'PX', math.max(1, math.ceil(full - now)))
  end
end
