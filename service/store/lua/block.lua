-- Close one shard of a tenant's gate, to every login of until now also after it is opened again.
--
-- KEYS: gate
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSETNX', KEYS[1], 'blocked', now)
redis.call('HSET', KEYS[1], 'fence', now)
redis.call('PERSIST', KEYS[1])
