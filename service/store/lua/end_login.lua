-- End a login that is named without its user: who mints with it from now on sees the mark.
--
-- KEYS: what is known of the login
-- ARGV: how long to remember (s)
-- Returns the users who have minted with it lately
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], '!', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
local users = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field ~= '!' then users[#users + 1] = field end
end
return users
