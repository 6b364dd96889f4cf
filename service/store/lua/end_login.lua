-- End a login that is named without its user: who mints with it from now on sees the mark.
--
-- KEYS: the mark that it ended, the tenant's users, those of the generation before
-- ARGV: login, how long to remember (s)
-- Returns who has minted with it lately: the entry of each generation
local time, remember = redis.call('TIME'), tonumber(ARGV[2])
if redis.call('TTL', KEYS[1]) < remember then
  redis.call('SET', KEYS[1], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), 'EX', remember)
end
return {redis.call('HGET', KEYS[2], ARGV[1]) or '', redis.call('HGET', KEYS[3], ARGV[1]) or ''}
