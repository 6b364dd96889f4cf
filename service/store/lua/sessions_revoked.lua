-- How many sessions of a user a tenant's revocation is about: queued for it, and settled already.
--
-- KEYS: queue, tally
-- ARGV: its reason
local sessions = 0
for _, entry in ipairs(redis.call('HVALS', KEYS[1])) do
  if string.match(entry, '^%d+|([^|]*)|') == ARGV[1] then sessions = sessions + 1 end
end
for _, settled in ipairs(redis.call('HVALS', KEYS[2])) do sessions = sessions + tonumber(settled) end
return sessions
