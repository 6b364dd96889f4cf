-- Cancel a tenant's session. KEYS: the session. ARGV: the tenant, the time in seconds.
-- Gives {'unknown'}, {'expired'}, or {'cancelled', session}; to repeat it changes nothing.
local found = redis.call('HMGET', KEYS[1], 'tenant', 'status', 'expires_at', 'session')
if not found[1] or found[1] ~= ARGV[1] then return {'unknown'} end
if found[2] ~= 'cancelled' then
  if tonumber(ARGV[2]) >= tonumber(found[3]) then
    -- Over by the caller's clock. Who verifies goes by Redis's, which may be behind: nobody waits for that.
    redis.call('HSET', KEYS[1], 'status', 'expired')
    return {'expired'}
  end
  redis.call('HSET', KEYS[1], 'status', 'cancelled')
end
return {'cancelled', found[4]}
