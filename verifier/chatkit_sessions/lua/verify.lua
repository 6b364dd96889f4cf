-- Is the session live, and may it make another request? Counts it if so.
-- KEYS: the session, its requests. ARGV: how many requests are asked for (0 looks and counts nothing); then the tenants
-- of one of which it must be, or nothing more.
-- Gives {0}: not live. {1, granted, tenant, session}. {2, milliseconds to wait}: over the limit.
local KEPT = 5000  -- ms: `KEPT` of http.py
local found = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'limit', 'tenant', 'session')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if found[1] ~= 'active' or now >= found[2] * 1000 then return {0} end
local theirs = #ARGV == 1
for at = 2, #ARGV do theirs = theirs or ARGV[at] == found[4] end
if not theirs then return {0} end
local wanted, most = tonumber(ARGV[1]), tonumber(found[3])
if wanted == 0 then return {1, 0, found[4], found[5]} end
-- Exactly so many in any minute: a counter for each calendar minute would let twice as many through around its end.
local oldest = redis.call('LINDEX', KEYS[2], -1)
while oldest and oldest + 60000 <= now do
  redis.call('RPOP', KEYS[2])
  oldest = redis.call('LINDEX', KEYS[2], -1)
end
local room = most - redis.call('LLEN', KEYS[2])
if room < 1 then return {2, oldest + 60000 - now} end
local granted = math.min(wanted, room)
-- One comes now. What is taken ahead may come as long as it is kept, so its minute begins then.
redis.call('LPUSH', KEYS[2], now)
for _ = 2, granted do redis.call('LPUSH', KEYS[2], now + KEPT) end
redis.call('PEXPIRE', KEYS[2], 60000 + KEPT)
return {1, granted, found[4], found[5]}
