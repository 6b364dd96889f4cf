-- From fencing to cancelling, and with no user left to done.
--
-- KEYS: job, users
-- ARGV: how long to keep what became of it (s), the round whose users are all fenced (0: of none, as far as is known here)
-- Returns the state
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'fencing' and redis.call('HGET', KEYS[1], 'round') == ARGV[2] then
  state = 'cancelling'
  redis.call('HSET', KEYS[1], 'state', state)
end
if state == 'cancelling' and redis.call('HLEN', KEYS[2]) == 0 then
  state = 'done'
  redis.call('HSET', KEYS[1], 'state', state, 'finished', redis.call('TIME')[1])
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return state
