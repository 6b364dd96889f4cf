-- May the session upload another file of that size? Counts it if so.
-- KEYS: the session, its count of uploads. ARGV: the size in bytes; then the tenants of one of
-- which it must be. Gives 1 or 0.
local found = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'uploads', 'size', 'tenant')
local time = redis.call('TIME')
if found[1] ~= 'active' or tonumber(time[1]) >= tonumber(found[2]) then return 0 end
local theirs = false
for at = 2, #ARGV do theirs = theirs or ARGV[at] == found[5] end
if not theirs or tonumber(ARGV[1]) > tonumber(found[4]) then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(found[3]) then return 0 end
redis.call('INCR', KEYS[2])
redis.call('EXPIREAT', KEYS[2], found[2])
return 1
