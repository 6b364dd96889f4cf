-- Nothing of these users' is queued any more: say what became of it, once. What was not cancelled has ended by itself.
--
-- KEYS: job, users
-- ARGV: a user and how many upstream confirmed, in turns
local cancelled, failed = 0, 0
for i = 1, #ARGV, 2 do
  local counted = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or 0)
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
    local confirmed = math.min(tonumber(ARGV[i + 1]), counted)
    cancelled, failed = cancelled + confirmed, failed + counted - confirmed
  end
end
if cancelled > 0 then redis.call('HINCRBY', KEYS[1], 'cancelled', cancelled) end
if failed > 0 then redis.call('HINCRBY', KEYS[1], 'failed', failed) end
