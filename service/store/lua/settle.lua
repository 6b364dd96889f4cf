-- Forget what is done; count an attempt for what failed, unless somebody else has settled it meanwhile.
--
-- KEYS: queue, tally, live
-- ARGV: how many upstream confirmed, how many are over without, how long a tally stands (s), the ids of both…, then
--       id and new entry of each that failed…
-- Returns how many are queued, and how many mints are under way
local confirmed, over = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 4, 3 + confirmed + over do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[1], ARGV[i])
  -- A tenant's revocation tells how far it is.
  if entry and string.find(entry, '^%d+|tenant_revoked|') then
    redis.call('HINCRBY', KEYS[2], i <= 3 + confirmed and 'cancelled' or 'failed', 1)
    redis.call('EXPIRE', KEYS[2], ARGV[3])
  end
end
for i = 4 + confirmed + over, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry then
    -- The attempts alone: a tenant's revocation may have made the reason its own meanwhile.
    local rest = string.match(entry, '^%d+(|.*)$') or string.match(ARGV[i + 1], '^%d+(|.*)$')
    redis.call('HSET', KEYS[1], ARGV[i], string.match(ARGV[i + 1], '^%d+') .. rest)
  end
end
-- In one call with the above: a mint that record refuses turns its lease into a queue entry.
local now, leases = tonumber(redis.call('TIME')[1]), 0
for ends in string.gmatch(read(KEYS[3]), '\n~[^|\n]*|(%d+)') do
  if tonumber(ends) > now then leases = leases + 1 end
end
return {redis.call('HLEN', KEYS[1]), leases}
