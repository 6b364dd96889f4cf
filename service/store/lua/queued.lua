-- What is to be cancelled for a user.
--
-- KEYS: queue
-- Returns id, entry, id, entry…
return redis.call('HGETALL', KEYS[1])
