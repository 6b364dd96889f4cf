-- Is the tenant open to this token, and its login not ended by name? Lists who mints first, in the same call: either a
-- block or a mark is seen here, or the revocation or logout that follows it finds the user listed.
--
-- The list has two generations, which lapse whole. Each key stands `SPARE` seconds longer than its last entry matters,
-- so that a large one is unlinked here, and not by expiry, which would hold everybody up.
--
-- KEYS: gate, users, users of the generation before, then, where there is a login, the mark that it ended
-- ARGV: login ('' for none), user, token's iat (ms), how long something of this mint may live (s)
-- Returns 'ok' | 'blocked' | 'revoked'
local SPARE, CROWD = 600, 16

local function holds(users, user)
  for i = 1, #users, #user do
    if string.sub(users, i, i + #user - 1) == user then return true end
  end
end

local marks = redis.call('HMGET', KEYS[1], 'blocked', 'fence')
if marks[1] then return 'blocked' end
if marks[2] and tonumber(ARGV[3]) <= tonumber(marks[2]) then return 'revoked' end
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 then return 'revoked' end

local login, user, alive = ARGV[1], ARGV[2], tonumber(ARGV[4])
local now, stands = tonumber(redis.call('TIME')[1]), alive + SPARE + 1  -- TTL rounds
local entry = login == '' and '|' .. user or login
local found = redis.call('HMGET', KEYS[2], '!', entry)
local began, users = found[1], found[2]
if began and now - tonumber(began) >= alive and redis.call('PTTL', KEYS[3]) <= SPARE * 1000 then
  redis.call('UNLINK', KEYS[3])
  redis.call('RENAME', KEYS[2], KEYS[3])
  began, users = false, false
end
if not began then redis.call('HSET', KEYS[2], '!', now) end

if login == '' or not users then
  redis.call('HSET', KEYS[2], entry, login == '' and '' or user)
elseif users ~= user and not holds(users, user) then
  if #users < CROWD * #user then
    redis.call('HSET', KEYS[2], entry, users .. user)
  else
    -- A login that is many users' is some mistake in a policy. It must not make every mint read them all.
    redis.call('HSET', KEYS[2], entry .. '|' .. user, '')
    if #users % #user == 0 then redis.call('HSET', KEYS[2], entry, users .. '+') end
  end
end
if redis.call('TTL', KEYS[2]) < stands then redis.call('EXPIRE', KEYS[2], stands) end
return 'ok'
