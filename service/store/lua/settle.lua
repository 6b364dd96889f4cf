-- Forget what is done; count an attempt for what failed, unless somebody else has settled it meanwhile.
--
-- KEYS: queue
-- ARGV: how many are done, their ids…, then id and new entry of each that failed…
local done = tonumber(ARGV[1])
for i = 2, done + 1 do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = done + 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return redis.call('HLEN', KEYS[1])
